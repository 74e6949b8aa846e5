"""Records that repeat, byte for byte, what their contact was accepted with: duplicates before they are decoded."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from consumer.core.decode import Decoded, decode
from consumer.errors import FatalError
from consumer.model import Record, TopicPartition
from tests.checker import check
from tests.lives import live, world_of
from tests.memory_ports import SCHEMA, MemorySchemas, World
from tests.stories import TOPIC, Event, Story

P0 = TopicPartition(TOPIC, 0)


@pytest.fixture(name="decoded")
def _decoded(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Every record that was decoded."""
    given: list[Record] = []

    def watched(records: Sequence[Record], *more: Any) -> Decoded:
        decoded = decode(records, *more)
        given.extend(records[: len(decoded.results)])
        return decoded

    monkeypatch.setattr("consumer.pipeline.quarantine.decode", watched)
    return given


def _again(world: World, *events: Event, **changed: object) -> None:
    """Put events at the end of the partition."""
    first = len(world.log.get(P0, ()))
    world.append(
        [
            replace(Record(*P0, offset, event.occurred_at, event.external_id.encode(), event.value()), **changed)
            for offset, event in enumerate(events, first)
        ]
    )


def _outcomes(world: World) -> list[object]:
    return [event["outcome"] for event in world.events()]


CONTACTS = [Event(f"contact-{number}", 1) for number in range(20)]
GONE = Event("contact-20", 1, delete=True)


def test_a_replayed_topic_is_not_decoded_again(decoded: list[Record]) -> None:
    """Each record has its audit event with its contact, and nothing is sent.

    A repeated delete is decoded: it has to be remembered where it stands now.
    """
    story = Story().tell(0, *CONTACTS, GONE)
    world = world_of(story)
    live(world)
    decoded.clear()
    _again(world, *CONTACTS, GONE)
    story.tell(0, *CONTACTS, GONE)
    requests = len(world.sent)
    live(world)
    check(world, story, set())
    assert [record.offset for record in decoded] == [41]
    assert _outcomes(world)[21:] == ["duplicate"] * 21
    assert len(world.sent) == requests
    contacts = [event["contactRef"] for event in world.events()]
    assert contacts[21:] == contacts[:21]


def test_what_differs_is_decoded(decoded: list[Record]) -> None:
    """Between repeats stand new contacts, other content and bytes that nobody can read: all in their order."""
    story = Story().tell(0, *CONTACTS)
    world = world_of(story)
    live(world)
    decoded.clear()
    others = (Event("contact-3", 2, phone="+15550177"), Event("contact-99", 1), Event("contact-4", 2, garbage=b"junk"))
    told = (CONTACTS[0], others[0], CONTACTS[1], others[1], CONTACTS[2], others[2], CONTACTS[5])
    _again(world, *told)
    live(world)
    assert [record.offset for record in decoded] == [21, 23, 25]
    expected = ["duplicate", "delivered", "duplicate", "delivered", "duplicate", "rejected", "duplicate"]
    assert _outcomes(world)[20:] == expected


@pytest.mark.parametrize("version", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_grant_revoke_grant_with_the_same_bytes_are_three_deliveries(*, version: bool, together: bool) -> None:
    """The last grant repeats what was accepted first, but a withdrawal has come between, settled or not."""
    grant, revoke = (Event("contact-0", None, consent=consent) for consent in (True, False))
    if version:
        revoke = Event("contact-0", 1, consent=False, occurred_at=grant.occurred_at + 1)
    world = world_of(Story().tell(0, grant))
    live(world)
    for events in [(revoke, grant)] if together else [(revoke,), (grant,)]:
        _again(world, *events)
        live(world)
    if version:
        assert world.list["contact-0"]["callable"] is False, "a grant without version or later time proves nothing"
    else:
        assert world.list["contact-0"]["callable"] is True
        assert _outcomes(world)[0] == "delivered"
        assert _outcomes(world)[-1] == "delivered"


def test_a_repeat_of_what_stands_behind_is_judged(decoded: list[Record]) -> None:
    """The offsets of the group were set back: what is older than the accepted one is stale, as ever."""
    first, second = Event("contact-0", None), Event("contact-0", None, phone="+15550177")
    world = world_of(Story().tell(0, first, second, first))
    live(world)
    world.committed[P0] = 0
    decoded.clear()
    live(world)
    assert _outcomes(world)[3:] == ["stale", "stale", "duplicate"]
    assert [record.offset for record in decoded] == [0, 1, 2], "of whom the chunk told before, nobody is sure"


@pytest.mark.parametrize("changed", [{"genesys_attribute_columns": "segment"}, {"schema": True}, {"release": True}])
def test_read_in_another_way_it_is_no_repeat(
    changed: dict[str, Any], decoded: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other columns, another schema behind the id, or another release may make something else of the same bytes."""
    world = world_of(Story().tell(0, CONTACTS[0]))
    live(world)
    decoded.clear()
    _again(world, CONTACTS[0])
    schemas = None
    if changed.pop("schema", False):
        schemas = MemorySchemas({1: [SCHEMA.replace('"type": "record"', '"doc": "anew", "type": "record"', 1)]})
    if changed.pop("release", False):
        monkeypatch.setattr("consumer.pipeline.readers.RELEASE", "another")
    live(world, schemas, **changed)
    assert len(decoded) == 1


def test_keys_that_are_no_external_ids_tell_nothing(decoded: list[Record]) -> None:
    """Records with the same key are of two contacts: each is decoded, also in the chunk in which that shows."""
    one, other = Event("contact-1", 1), Event("contact-2", 1)
    world = World()
    _again(world, one)
    live(world)
    withdrawn = Event("contact-1", 2, consent=False)
    world.append(
        [
            Record(*P0, 1, 0, b"contact-9", withdrawn.value()),
            Record(*P0, 2, 0, b"contact-1", one.value()),
            Record(*P0, 3, 0, None, other.value()),
        ]
    )
    decoded.clear()
    live(world)
    assert _outcomes(world) == ["delivered", "delivered", "stale", "delivered"]
    assert world.list["contact-1"]["callable"] is False
    assert {record.offset for record in decoded} == {1, 2, 3}


def test_after_a_precaution_the_same_bytes_are_sent() -> None:
    """A record that nobody could read made the contact not callable: what is readable ends that."""
    world = world_of(Story().tell(0, Event("contact-0", None)))
    live(world, suppress_undecodable=True)
    _again(world, Event("contact-0", None, garbage=b"junk"))
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is False
    _again(world, Event("contact-0", None))
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is True


def test_a_withdrawal_that_became_a_delete_is_tried_again() -> None:
    """Genesys refused its data; whoever sends it once more may have mended what was refused."""
    world = world_of(Story().tell(0, Event("contact-0", 1), Event("contact-0", 2, consent=False)))
    world.poison = {"contact-0"}
    live(world)
    world.poison = set()
    _again(world, Event("contact-0", 2, consent=False))
    live(world)
    assert _outcomes(world)[-1] == "delivered"
    assert world.list["contact-0"]["callable"] is False


def test_a_duplicate_with_a_newer_version_is_what_repeats_are_told_by(decoded: list[Record]) -> None:
    """The accepted content came again with version 5: that record's repeats are known."""
    world = world_of(Story().tell(0, Event("contact-0", 1)))
    live(world)
    _again(world, Event("contact-0", 5))
    live(world)
    decoded.clear()
    _again(world, Event("contact-0", 5), Event("contact-0", 1))
    live(world)
    assert _outcomes(world)[-2:] == ["duplicate", "stale"]
    assert [record.offset for record in decoded] == [3]


def test_while_a_withdrawal_is_on_its_way_nobody_is_sure() -> None:
    """What repeats the grant before it, which is not settled yet, waits for the answer, and is sent."""
    grant, revoke = (Event("contact-0", None, consent=consent) for consent in (True, False))
    others = [Event(f"other-{number}", 1) for number in range(20)]
    world = world_of(Story().tell(0, grant, *others, revoke, grant))
    world.poll_records = 1
    live(world, batch_linger_ms=1, settle_interval_ms=60_000, genesys_requests_per_minute=60_000)
    assert world.list["contact-0"]["callable"] is True
    assert sum("contact-0" in names for _, names in world.sent) == 3


def test_where_nobody_knows_what_genesys_has_the_same_bytes_are_sent() -> None:
    """Of two changes that were refused in one place, one may have been applied before."""
    first = Event("contact-0", None)
    world = world_of(Story().tell(0, first))
    live(world)
    world.poison = {"contact-0"}
    _again(world, *(Event("contact-0", None, phone=f"+1555017{number}") for number in range(2)))
    live(world)
    world.poison = set()
    _again(world, first)
    live(world)
    assert _outcomes(world) == ["delivered", "superseded", "undeliverable", "delivered"]


def test_a_tripped_fuse_holds_back_repeats_too(decoded: list[Record]) -> None:
    """What repeats stands before the mass of deletes is told, what stands behind it waits with them."""
    world = world_of(Story().tell(0, *CONTACTS))
    live(world)
    deletes = [Event(f"contact-{number}", 2, delete=True) for number in range(10, 14)]
    _again(world, CONTACTS[0], CONTACTS[1], *deletes, CONTACTS[2])
    decoded.clear()
    with pytest.raises(FatalError, match="stands still at 0/22"):
        live(world, fuse_deletes=3)
    assert _outcomes(world)[20:] == ["duplicate", "duplicate"]
    assert world.committed[P0] == 22
    live(world, fuse_deletes=0)
    assert _outcomes(world)[22:] == ["delivered"] * 4 + ["duplicate"]
