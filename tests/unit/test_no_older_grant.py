"""What is older than what is known grants nothing: beside a withdrawal, out of a file, sent again by its source."""

from collections.abc import Sequence
from dataclasses import replace as varied
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core import dead_letters
from consumer.model import DeadLetter, Record, TopicPartition
from tests.fills import WRITTEN_MS, MemoryRows, Row, empty_world, fill, row
from tests.lives import live
from tests.memory_ports import World
from tests.stories import TOPIC, Event, partly

pytestmark = pytest.mark.usefixtures("partial_events")

P0 = TopicPartition(TOPIC, 0)
GARBAGE = b"\1x"


def _at(event: Event, seconds: int, *, version: bool = True) -> Event:
    """An event at a time, which is its version too if it has one."""
    return varied(event, version=seconds if version else None, occurred_at=WRITTEN_MS + 1000 * seconds)


GRANT = Event("c", None)
DENIED = Event("c", None, consent=False)
NOT_TO_BE_CALLED = partly("c", None, do_not_call=True)
AGREED = partly("c", None, consent=True)
GONE = Event("c", None, tombstone=True)


def _comes(world: World, *events: Event) -> World:
    """Events at the end of the partition, each settled before the next one comes."""
    for event in events:
        world.append([Record(*P0, len(world.log[P0]), event.occurred_at, b"c", event.value())])
        live(world)
    return world


def _loads(world: World, seconds: int, *rows: Row) -> None:
    """A file that was written at a time."""
    fill(world, MemoryRows(rows, modified_ms=WRITTEN_MS + 1000 * seconds))


def _shown(world: World) -> Sequence[object]:
    """Consent, do-not-call, callable."""
    return [world.list["c"][name] for name in ("consent", "do_not_call", "callable")]


@pytest.mark.parametrize("rejected", [True, False])
def test_a_withdrawal_that_is_sent_again_grants_nothing_beside(*, rejected: bool) -> None:
    """It has no version, and one by the other flag that came behind it has: that is stale when it is sent again."""
    bad: dict[str, Any] = {"phone": "bad", "reasons": ("phone_not_e164",)} if rejected else {}
    told = [_at(DENIED, 1, version=False), _at(varied(NOT_TO_BE_CALLED, **bad), 2), _at(AGREED, 3)]
    assert _shown(_comes(empty_world(1), *told, *told)) == [True, True, False]


def test_nor_does_one_out_of_an_older_file() -> None:
    """Do-not-call was set since, and only consent is granted then."""
    world = _comes(empty_world(1), _at(DENIED, 1), _at(NOT_TO_BE_CALLED, 3))
    _loads(world, 2, row("c", consent=False, phone="+15550177"))
    assert _shown(_comes(world, _at(AGREED, 4))) == [True, True, False]


@pytest.mark.parametrize("there", [True, False])
def test_nor_does_one_of_a_stream_that_is_behind_a_file(*, there: bool) -> None:
    """Also where the file's row was rejected, and Genesys has no such contact."""
    world = empty_world(1)
    bad: dict[str, Any] = {} if there else {"phone": "bad"}
    _loads(world, 2, row("c", consent=False, doNotCall=True, **bad))
    _comes(world, _at(DENIED, 1, version=False), _at(AGREED, 3, version=False))
    assert not world.list.get("c", {}).get("callable")


def test_what_is_known_as_granted_is_granted_beside_by_an_older_withdrawal_too() -> None:
    """The whole contact is sent then, with the number that it brings."""
    grant, denied = _at(GRANT, 2), _at(varied(DENIED, phone="+15550199"), 1, version=False)
    world = _comes(empty_world(1), grant, denied)
    assert (_shown(world), world.list["c"]["phone"]) == ([False, False, False], "+15550199")


def test_who_grants_nothing_beside_is_sent_as_he_is() -> None:
    """His number may be on no do-not-call list yet."""
    both = varied(DENIED, do_not_call=True, phone="+15550199")
    world = _comes(empty_world(1), _at(GRANT, 1), _at(NOT_TO_BE_CALLED, 3), _at(both, 2, version=False))
    assert (_shown(world), world.list["c"]["phone"]) == ([False, True, False], "+15550199")


def test_a_later_withdrawal_says_what_it_grants_beside() -> None:
    """It is newer than what withdrew that flag."""
    world = _comes(empty_world(1), _at(NOT_TO_BE_CALLED, 1), _at(GRANT, 2), _at(NOT_TO_BE_CALLED, 3))
    _comes(world, _at(DENIED, 4, version=False))
    assert _shown(_comes(world, _at(AGREED, 5))) == [True, False, True]


def test_a_withdrawal_that_is_sent_again_twice_keeps_the_order_of_the_grant_behind_it() -> None:
    """As once: that follows again with its version, and was told last."""
    told = [_at(DENIED, 1, version=False), _at(DENIED, 2, version=False), _at(GRANT, 3)]
    assert _shown(_comes(empty_world(1), *told, *told)) == [True, False, True]


def test_a_grant_that_is_sent_again_beside_versions_needs_the_later_time() -> None:
    """A withdrawal between it and the last change has a lower version than another one, and would be stale then."""
    told = [
        _at(GRANT, 1, version=False),
        _at(NOT_TO_BE_CALLED, 2),
        _at(partly("c", None, phone="+15550177"), 3),
        _at(AGREED, 4, version=False),
    ]
    assert _shown(_comes(empty_world(1), *told, *told)) == [True, True, False]


@pytest.mark.parametrize(("exported", "there"), [(2, False), (4, True)])
def test_a_file_from_before_a_tombstone_brings_nobody_back(exported: int, *, there: bool) -> None:
    """A tombstone tells no version; its time is Kafka's, and holds for files. Who was made anew since comes by one."""
    world = _comes(empty_world(1), _at(GRANT, 1), _at(GONE, 3))
    _loads(world, exported, row("c"))
    assert (("c" in world.list), "c" in world.list and world.list["c"]["callable"]) == (there, there)


def test_so_it_is_from_before_a_second_tombstone() -> None:
    """Its time counts, also where it finds nobody."""
    world = _comes(empty_world(1), _at(GRANT, 1), _at(GONE, 2))
    world.append([Record(*P0, 2, 0, b"d", Event("d", 1).value())])  # between the two, or the second would be the first
    _comes(world, _at(GONE, 4))
    _loads(world, 3, row("c"))
    assert "c" not in world.list


def test_a_withdrawal_out_of_an_older_file_sets_no_time_back() -> None:
    """A dead letter that comes back then and is later than the file is older than the last withdrawal all the same."""
    grant, world = _at(GRANT, 3, version=False), empty_world(1)
    letter = Record(*P0, 0, grant.occurred_at, b"c", grant.value())
    world.append([replace(letter, value=GARBAGE)])
    _comes(world, _at(varied(DENIED, phone="+15550199"), 4, version=False))
    _loads(world, 2, row("c", consent=False, doNotCall=True))
    read = dead_letters.read(dead_letters.headers(DeadLetter(letter, "not_decodable", "", 0)))
    assert read is not None
    world.append([replace(letter, offset=2, headers=tuple(dead_letters.replayed((), read)))])
    live(world)
    assert world.events()[-1]["outcome"] == "stale"
    assert _shown(world)[2] is False
