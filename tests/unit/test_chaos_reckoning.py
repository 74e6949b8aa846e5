"""The checker of the chaos campaign must catch what it is there for: each breach is planted in a sound round."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Message
from msgspec.structs import replace

from consumer.core.contact_id import contact_id
from consumer.simulator.journal import Entry, Journal
from consumer.simulator.operations import Operation
from tests.chaos.reckoning import Reckoning, reckon
from tests.lives import live, world_of
from tests.memory_ports import MemorySink, World
from tests.stories import Story, random_story

SETTLED_AT = 1_000.0


class Appended:
    """An event as a reader of the audit topic has it."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return (2, int(SETTLED_AT * 1000))


@dataclass
class Round:
    """What is left of a sound round, to be tampered with."""

    world: World
    story: Story
    poison: set[str]
    journal: Journal = field(default_factory=lambda: Journal(10_000))

    def request(self, operation: str, names: tuple[str, ...], started: float, ended: float) -> Entry:
        """A request in the journal that was applied."""
        kind = Operation.DELETE_CONTACTS if operation == "delete" else Operation.ADD_CONTACTS
        entry = self.journal.begin(kind, started)
        entry.ended, entry.applied = ended, True
        entry.contact_ids = tuple(map(contact_id, names))
        return entry

    def reckon(self) -> Reckoning:
        """Check it."""
        audit = [cast("Message", Appended(value)) for _, value in self.world.audit]
        return reckon(self.world, self.story, self.poison, self.journal, audit)


class _WritesAlone(MemorySink):
    """Of an amendment, only who was written counts as sent: Genesys is asked also for whom it does not have."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._sent = world.sent

    async def amend(self, *arguments: Any, **named: Any) -> Any:
        """As the sink does."""
        amended = await super().amend(*arguments, **named)
        self._sent[-1] = ("amend", tuple(name for name, each in amended.items() if each.sent))
        return amended


@pytest.fixture
def sound() -> Round:
    """A round of the program in memory, with the journal of its requests, one a second."""
    story, poison = random_story(3)
    world = world_of(story)
    world.poison = poison
    live(world, sink=_WritesAlone(world))
    world.audit.sort(key=lambda event: _place(orjson.loads(event[1])))
    played = Round(world, story, poison)
    for second, (operation, names) in enumerate(world.sent):
        played.request(operation, names, second, second + 0.5)
    return played


def _place(event: dict[str, Any]) -> tuple[int, int]:
    return (event["source"]["partition"], event["seq"]) if event["type"] == "record" else (-1, 0)


def record_events(played: Round) -> list[int]:
    """Where the record events stand among all."""
    return [n for n, (_, value) in enumerate(played.world.audit) if orjson.loads(value)["type"] == "record"]


def lose(played: Round) -> None:
    """A record without its audit event."""
    del played.world.audit[record_events(played)[40]]


def repeat(played: Round) -> None:
    """A record with two audit events."""
    place = record_events(played)[40]
    played.world.audit.insert(place, played.world.audit[place])


def reorder(played: Round) -> None:
    """Two audit events in the wrong order."""
    place = record_events(played)[40]
    audit = played.world.audit
    audit[place], audit[place + 1] = audit[place + 1], audit[place]


def forge(played: Round) -> None:
    """An audit event that was changed afterwards."""
    place = record_events(played)[40]
    key, value = played.world.audit[place]
    played.world.audit[place] = (key, value.replace(b'"latencyMs":', b'"latencyMs":1'))


def lose_a_change(played: Round) -> None:
    """A contact that never reached the list."""
    del played.world.list[next(iter(played.world.list))]


def let_a_stale_write_win(played: Round) -> None:
    """A contact with what the CRM said before."""
    next(iter(played.world.list.values()))["phone"] = "+15550000000"


def call_who_withdrew(played: Round) -> None:
    """A contact that may be called although it withdrew."""
    next(body for body in played.world.list.values() if not body["callable"])["callable"] = True


def lose_a_dead_letter(played: Round) -> None:
    """A refused record that is nowhere."""
    played.world.dead_letters.pop()


def lose_a_dead_letters_headers(played: Round) -> None:
    """A refused record whose headers are gone."""
    record, reason = played.world.dead_letters[0]
    played.world.dead_letters[0] = (replace(record, headers=()), reason)


def give_another_reason(played: Round) -> None:
    """A dead letter that does not say why."""
    record, _ = played.world.dead_letters[0]
    played.world.dead_letters[0] = (record, "email_invalid")


def forget_in_a_store(played: Round) -> None:
    """A store that lost what it was given."""
    entries, _ = next(iter(played.world.stores.values()))
    del entries[next(iter(entries))]


def commit_too_little(played: Round) -> None:
    """A record that would come again."""
    played.world.committed[next(iter(played.world.committed))] -= 1


def send_a_contact_twice_at_once(played: Round) -> None:
    """A second request with a contact while the first is under way."""
    _, names = played.world.sent[-1]
    played.request("upsert", names[:1], len(played.world.sent) - 0.7, len(played.world.sent))


def write_after_the_end(played: Round) -> None:
    """A request of somebody who owns nothing any more."""
    _, names = played.world.sent[-1]
    played.request("upsert", names[:1], SETTLED_AT + 1, SETTLED_AT + 1.1)


BREACHES: dict[Callable[[Round], None], str] = {
    lose: "missing",
    repeat: "repeated",
    reorder: "chain",
    forge: "not that of its bytes",
    lose_a_change: "contacts differ",
    let_a_stale_write_win: "contacts differ",
    call_who_withdrew: "contacts differ",
    lose_a_dead_letter: "dead letters",
    lose_a_dead_letters_headers: "not what came",
    give_another_reason: "says email_invalid",
    forget_in_a_store: "not its changelog",
    commit_too_little: "committed offsets",
    send_a_contact_twice_at_once: "two requests at once",
    write_after_the_end: "after its last settlement",
}


def test_a_sound_round_passes(sound: Round) -> None:
    """What is counted must be what there is: one event for each record, and no write beyond those that settled."""
    assert sound.reckon().events == len(sound.story.positions())
    assert sound.reckon().applied_again == 0


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.__name__)
def test_a_planted_breach_is_caught(sound: Round, breach: Callable[[Round], None]) -> None:
    """Each kind of breach makes the round fail, with words that say which."""
    breach(sound)
    with pytest.raises(AssertionError, match=BREACHES[breach]):
        sound.reckon()


def test_a_repeat_before_the_settlement_is_counted(sound: Round) -> None:
    """A contact that was applied again because its answer was lost is no breach, and shows in the figures."""
    _, names = sound.world.sent[0]
    sound.request("upsert", names, 500.0, 500.5)
    assert sound.reckon().applied_again == len(names)
