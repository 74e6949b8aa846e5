"""Whether a round broke a rule: what is on the topics, in the list and in the journal of requests against the story.

Knows the rules and nothing of the program. Times are seconds since the epoch, by the clock of this machine; those of
settlements are the brokers' own, since a consumer's clock may have been stepped.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
from confluent_kafka import Message

from consumer.core.contact_id import contact_id
from consumer.simulator.journal import Entry, Journal
from consumer.simulator.operations import Operation
from tests.checker import check
from tests.memory_ports import World
from tests.stories import Story

WRITES = {Operation.ADD_CONTACTS, Operation.DELETE_CONTACTS}


@dataclass(frozen=True)
class Reckoning:
    """What a round came to, when no rule is broken.

    Attributes:
        events: Record audit events, one for each source record.
        outcomes: How many ended how.
        applied_again: Writes of contacts beyond those that settled: applied, and repeated before their settlement.
    """

    events: int
    outcomes: Mapping[str, int]
    applied_again: int


def reckon(world: World, story: Story, poison: set[str], journal: Journal, audit: Iterable[Message]) -> Reckoning:
    """Check every rule.

    Raises:
        AssertionError: One is broken; the text says which, and where.
    """
    check(world, story, poison)
    overlapping = journal.overlapping_contacts()
    assert not overlapping, f"contacts in two requests at once: {sorted(overlapping)[:5]}"
    settled = settled_writes(audit, story)
    written = writes(journal)
    check_explained(written, settled)
    outcomes = Counter(event["outcome"] for event in world.events())
    again = sum(max(0, len(times) - len(settled.get(contact, ()))) for contact, times in written.items())
    return Reckoning(sum(outcomes.values()), outcomes, again)


def settled_writes(audit: Iterable[Message], story: Story) -> dict[str, list[float]]:
    """When writes of each contact, by its id in Genesys, were settled."""
    settled: dict[str, list[float]] = defaultdict(list)
    for message in audit:
        event = orjson.loads(message.value() or b"")
        if event["type"] == "record" and event["operation"] is not None:
            position = tuple(event["source"].values())
            settled[contact_id(story.event(position).external_id)].append(message.timestamp()[1] / 1000)
    return settled


def writes(journal: Iterable[Entry]) -> dict[str, list[float]]:
    """When each contact was written, deletes included: the times at which the requests that did it had arrived."""
    written: dict[str, list[float]] = defaultdict(list)
    for entry in journal:
        if entry.applied and entry.operation in WRITES:
            for contact in set(entry.contact_ids):
                written[contact].append(entry.started)
    return written


def check_explained(written: Mapping[str, list[float]], settled: Mapping[str, list[float]]) -> None:
    """A write that no settlement follows came from nobody who still owned the contact's partition."""
    for contact, times in written.items():
        last = max(settled.get(contact, ()), default=-math.inf)
        assert max(times) <= last, f"contact {contact} was written {max(times) - last:.3f} s after its last settlement"
