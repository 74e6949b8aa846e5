"""Compares a world after the fact with the story that was told in it. Knows the rules, not the pipeline."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from consumer.model import TopicPartition
from tests.memory_ports import World
from tests.stories import Event, Model, Story


def check(world: World, story: Story, poison: set[str]) -> None:
    """Every rule, on everything that is durable."""
    outcomes = check_without_outcomes(world, story, poison)
    ends = defaultdict(list)
    for position, audit in outcomes.items():
        event = story.event(position)
        ends[event.external_id].append((event, position, audit["outcome"]))
    for position, audit in outcomes.items():
        _check_outcome(story.event(position), position, audit, ends, poison)


def check_without_outcomes(
    world: World, story: Story, poison: set[str], *, chained: bool = True
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Every rule but what kind of outcome each record has; the record events by position.

    Args:
        world: After the fact.
        story: What was told in it.
        poison: Contacts whose data Genesys refused.
        chained: Whether all events were told once, so that they form chains.
    """
    outcomes = _outcomes(world, story)
    if chained:
        _check_chain(world)
    _check_batches(world)
    assert world.committed == {key: len(told) for key, told in story.events.items()}, "committed offsets"
    _check_dead_letters(world, outcomes)
    _check_list(world, story, poison)
    _check_stores(world)
    return outcomes


def _outcomes(world: World, story: Story) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Rule 1: one record event for each source offset, no more and no fewer."""
    events = world.events()
    counted = Counter(event["eventId"] for event in events)
    expected = {f"{t}/{p}/{o}" for t, p, o in story.positions()}
    assert counted.keys() == expected, f"missing: {sorted(expected - counted.keys())[:5]}"
    repeated = [name for name, times in counted.items() if times > 1]
    assert not repeated, f"repeated: {repeated[:5]}"
    return {tuple(event["source"].values()): event for event in events}


def _check_chain(world: World) -> None:
    """The record events of a partition form an unbroken chain."""
    heads: dict[tuple[str, int], tuple[int, str]] = defaultdict(lambda: (0, "0" * 64))
    for _, value in world.audit:
        event = orjson.loads(value)
        if event["type"] != "record":
            continue
        source = (event["source"]["topic"], event["source"]["partition"])
        seq, prev = heads[source]
        assert (event["seq"], event["prev"]) == (seq, prev), f"the chain of {source} breaks at {event['eventId']}"
        body, _, _ = value.rpartition(b',"hash":"')
        computed = hashlib.sha256(body + b"}").hexdigest()
        assert computed == event["hash"], f"the hash of {event['eventId']} is not that of its bytes"
        heads[source] = (seq + 1, event["hash"])


def _check_batches(world: World) -> None:
    """No process tells of a batch twice; the next one may, which makes it again after a crash, in the same bytes."""
    told = Counter(value for _, value in world.audit if orjson.loads(value)["type"] == "batch")
    repeated = [value for value, times in told.items() if times > max(1, world.lives)]
    assert not repeated, f"batches told more than once: {repeated[:5]}"


Position = tuple[str, int, int]


def _check_outcome(
    event: Event,
    position: Position,
    audit: dict[str, Any],
    ends: dict[str, list[tuple[Event, Position, str]]],
    poison: set[str],
) -> None:
    outcome = audit["outcome"]
    others = [end for end in ends[event.external_id] if end[1] != position]
    assert (outcome == "rejected") == bool(event.reasons), (position, outcome)
    match outcome:
        case "rejected":
            assert tuple(audit["reasons"]) == event.reasons
        case "undeliverable":
            assert event.external_id in poison
            assert audit["reasons"] == ["genesys:contact.datum.length.limit.exceeded"]
        case "superseded":
            assert any(other[:2] == position[:2] and other[2] > position[2] for _, other, _ in others), position
        case "stale":
            assert any(_newer(other, event) for other, _, _ in others), position
        case "duplicate":
            assert any(end == "delivered" and other.value() == event.value() for other, _, end in others) or (
                event.removes and any(end == "delivered" and other.removes for other, _, end in others)
            ), position
        case _:
            assert outcome == "delivered"


def _newer(one: Event, other: Event) -> bool:
    return one.version is not None and other.version is not None and one.version > other.version


def _check_dead_letters(world: World, outcomes: dict[tuple[str, int, int], dict[str, Any]]) -> None:
    """Dead letters are the rejected and the undeliverable records as they came, with the first reason."""
    expected = {where for where, event in outcomes.items() if event["outcome"] in {"rejected", "undeliverable"}}
    letters = [(record.topic, record.partition, record.offset) for record, _ in world.dead_letters]
    assert sorted(letters) == sorted(expected), "dead letters are not those of the refused records"
    for record, reason in world.dead_letters:
        where = (record.topic, record.partition, record.offset)
        told = world.log[TopicPartition(record.topic, record.partition)][record.offset]
        assert record == told, f"the dead letter of {where} is not what came"
        said = outcomes[where]["reasons"][0]
        assert reason == said, f"the dead letter of {where} says {reason}, the audit event {said}"


def _check_list(world: World, story: Story, poison: set[str]) -> None:
    """The contact list is what the naive model says."""
    held = {name: (body["phone"], body["callable"]) for name, body in world.list.items()}
    expected = Model(poison).replay(story).list
    differ = [name for name in held.keys() | expected.keys() if held.get(name) != expected.get(name)]
    assert not differ, f"{len(differ)} contacts differ: {[(n, held.get(n), expected.get(n)) for n in differ[:3]]}"


def _check_stores(world: World) -> None:
    """Stores are as far as their changelogs are."""
    for key, (entries, position) in world.stores.items():
        check_store(key, entries, world.changelog[key][:position])
        assert position == len(world.changelog[key]), f"the store of {key} stands at {position}"


def check_store(
    key: TopicPartition, entries: Mapping[bytes, bytes], changelog: Iterable[tuple[bytes, bytes | None]]
) -> None:
    """A store is its changelog, replayed up to its position."""
    replayed: dict[bytes, bytes] = {}
    for name, value in changelog:
        if value is None:
            replayed.pop(name, None)
        else:
            replayed[name] = value
    assert entries == replayed, f"the store of {key} is not its changelog"
