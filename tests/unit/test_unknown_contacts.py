"""Contacts that the store of a partition does not know, and whom Genesys may have all the same.

Partitions were added, and the key leads elsewhere now; the group has another name; the changelog is lost; or records of
two topics tell of one contact.
"""

from typing import Any

import pytest

from consumer.model import Record, TopicPartition
from tests.lives import live
from tests.memory_ports import World
from tests.stories import TOPIC, Event, Story

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
BAD: dict[str, Any] = {"phone": "bad", "reasons": ("phone_not_e164",)}
WITHDRAWS = pytest.mark.parametrize("withdrawal", [{"consent": False}, {"do_not_call": True}], ids=["consent", "dnc"])


def told(world: World, key: TopicPartition, *events: Event, **settings: Any) -> World:
    """Each event comes at the end of a partition, and is settled before the next one."""
    for event in events:
        world.append([_next(world, key, event)])
        live(world, **settings)
    return world


def _next(world: World, key: TopicPartition, event: Event) -> Record:
    offset = len(world.log.get(key, ()))
    return Story().tell(key.partition, *[event] * (offset + 1)).records()[offset]


def last(world: World) -> tuple[str, str | None]:
    """Outcome and operation of the last record."""
    return world.events()[-1]["outcome"], world.events()[-1]["operation"]


@WITHDRAWS
def test_a_rejected_withdrawal_suppresses_who_was_delivered_from_another_partition(withdrawal: dict[str, Any]) -> None:
    """The key leads elsewhere since partitions were added: nobody knows the contact there, and he is not called."""
    world = told(World(), P0, Event("c", 1))
    told(world, P1, Event("c", 2, **withdrawal, **BAD))
    assert world.list["c"]["callable"] is False
    assert last(world) == ("rejected", "suppress")


def test_a_rejected_withdrawal_suppresses_who_was_delivered_by_another_group() -> None:
    """So it is with a changelog that is lost."""
    world = told(World(), P0, Event("c", 1))
    world.changelog.clear()
    world.stores.clear()
    told(world, P0, Event("c", 2, consent=False, **BAD))
    assert world.list["c"]["callable"] is False


def test_a_rejected_withdrawal_of_who_is_not_in_genesys_is_asked_for_once_and_noted() -> None:
    """No contact is made, nothing was done, and no older grant comes after it."""
    world = told(World(), P0, Event("c", 2, consent=False, **BAD))
    assert (world.requested, world.list, last(world)) == ([("c",)], {}, ("rejected", None))
    told(world, P0, Event("c", 1))
    assert (world.requested, world.list, last(world)) == ([("c",)], {}, ("stale", None))


def test_rejected_withdrawals_of_many_who_are_unknown_take_a_read_for_fifty_of_them() -> None:
    """As when a migration goes wrong."""
    world = World()
    world.poll_records = 500
    world.append(Story().tell(0, *(Event(f"c{n}", 1, consent=False, **BAD) for n in range(500))).records())
    live(world)
    assert [len(names) for names in world.requested] == [50] * 10
