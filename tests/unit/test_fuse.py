"""What trips a fuse, at which record, and what a release lets through."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from consumer.core.fuse import TIMELESS_MS, WINDOW, Fuse, Trip, release
from consumer.errors import DecodeError, ManyChanged
from consumer.model import ChangeEvent, ChangeType, Events, FuseCause, Reason, Record
from consumer.settings import load

TIME_MS = 1_700_000_000_000
TRUNCATE = ManyChanged(FuseCause.TRUNCATE, "truncated")
UNREADABLE = DecodeError((Reason.NOT_DECODABLE,))

Told = tuple[Record, Events | DecodeError]


def event(change_type: ChangeType = ChangeType.UPDATE, *, consent: bool = True) -> ChangeEvent:
    """A change event of somebody."""
    return ChangeEvent(change_type, "c-1", TIME_MS, None, "+15550100", None, consent, False, {})


DELETE = event(ChangeType.DELETE)


def told(
    result: Events | DecodeError, *, key: bytes | None = b"k", tombstone: bool = False, at: int = 0, partition: int = 0
) -> Told:
    """A record with what it tells."""
    if tombstone and isinstance(result, ChangeEvent):
        result = replace(result, tombstone=True)
    return Record("topic", partition, at, TIME_MS + at, key, None if tombstone else b"v"), result


def passing(fuse: Fuse, *all_told: Told, chunk: int = 200) -> int:
    """How many of these a fuse lets in, some at a time."""
    passed = 0
    for start in range(0, len(all_told), chunk):
        part = all_told[start : start + chunk]
        records: Sequence[Record] = [record for record, _ in part]
        passed += fuse.passing(records, [result for _, result in part])
        if fuse.trip:
            break
    return passed


@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_more_than_half_of_the_last_thousand_trips(chunk: int) -> None:
    """Every second one may delete, for ever; one more in a thousand is a mass, of which less than half gets in."""
    half = [told(DELETE if n % 2 else event(), at=n) for n in range(4 * WINDOW)]
    assert passing(Fuse(500), *half, chunk=chunk) == 4 * WINDOW
    fuse = Fuse(500)
    mass = [told(event(), at=n) for n in range(2000)] + [told(DELETE, at=n) for n in range(2000, 3000)]
    let_in = passing(fuse, *mass, chunk=chunk)
    assert 2400 <= let_in <= 2500
    assert fuse.trip == Trip(FuseCause.DELETES, 0, let_in, TIME_MS + let_in)


def test_it_trips_at_the_first_delete_of_the_chunk_that_makes_the_mass() -> None:
    """What stands before it is let in; so is every delete of an earlier chunk."""
    fuse = Fuse(2)
    assert passing(fuse, told(DELETE, at=0), told(event(), at=1)) == 2
    assert passing(fuse, told(event(), at=2), told(DELETE, at=3), told(DELETE, at=4)) == 1
    assert fuse.trip is not None
    assert fuse.trip.offset == 3


def test_what_was_deleted_long_ago_does_not_count() -> None:
    """Of a thousand newer change events none deletes; then as many may as before."""
    fuse = Fuse(500)
    deletes, updates = [told(DELETE)] * 500, [told(event())] * 1000
    assert passing(fuse, *deletes, *updates, *deletes, *updates, *deletes) == 3500
    assert passing(fuse, told(DELETE)) == 0


def test_deletes_of_all_partitions_are_a_mass_together() -> None:
    """A mass is spread over the partitions by its keys: none has many of it."""
    fuse = Fuse(50)
    for partition in range(50):
        assert passing(fuse, told(DELETE, partition=partition)) == 1
    assert passing(fuse, told(DELETE, partition=50)) == 0
    assert fuse.trip is not None
    assert fuse.trip.partition == 50


def test_what_is_read_again_is_not_counted_again() -> None:
    """The partition was lost, and comes back with the same records."""
    fuse = Fuse(50)
    others, deletes = [told(DELETE, partition=1)] * 10, [told(DELETE)] * 40
    assert passing(fuse, *others) + passing(fuse, *deletes) == 50
    fuse.forget(0)
    assert passing(fuse, *deletes) == 40
    assert passing(fuse, told(DELETE)) == 0


def test_what_is_forgotten_of_one_partition_leaves_the_others_as_they_were_counted() -> None:
    """Once each: what is counted twice leaves twice, and then hides a mass."""
    fuse = Fuse(50)
    passing(fuse, *[told(DELETE, partition=1)] * 40, *[told(event(), partition=1)] * 860)
    passing(fuse, *[told(event())] * 100)
    fuse.forget(0)
    passing(fuse, *[told(event(), partition=1)] * 2000)
    assert passing(fuse, *[told(DELETE, partition=1, at=n) for n in range(200)], chunk=1) == 50


@pytest.mark.parametrize("chunk", [1, 2, 3, 200])
def test_the_tombstone_after_a_delete_is_no_second_one(chunk: int) -> None:
    """Debezium sends both, together or in two polls: a pair is one change event that deletes."""
    keys = [bytes([n]) for n in range(51)]
    pairs = [each for key in keys for each in (told(DELETE, key=key), told(DELETE, key=key, tombstone=True))]
    assert passing(Fuse(50), *pairs[:100], chunk=chunk) == 100
    fuse = Fuse(50)
    passing(fuse, *pairs, chunk=chunk)
    assert fuse.trip is not None


@pytest.mark.parametrize("chunk", [1, 200])
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(told(event()), id="an update"),
        pytest.param(told(DELETE, key=b"other"), id="a delete of somebody else"),
        pytest.param(told(UNREADABLE), id="something unreadable"),
    ],
)
def test_a_tombstone_by_itself_deletes(before: Told, chunk: int) -> None:
    """Whatever stands before it that did not delete the same contact."""
    fuse = Fuse(2)
    tombstone = told(DELETE, tombstone=True)
    assert passing(fuse, *[before, tombstone] * 3, chunk=chunk) < 6
    assert fuse.trip is not None


def test_a_delete_and_a_tombstone_without_keys_are_two() -> None:
    """Nothing says that they are about the same contact."""
    pair = told(DELETE, key=None), told(DELETE, key=None, tombstone=True)
    assert passing(Fuse(1), *pair) == 0


def test_withdrawals_are_never_a_mass() -> None:
    """However many there are."""
    assert passing(Fuse(1), *[told(event(consent=False))] * 3000) == 3000


def test_what_is_no_change_event_neither_counts_nor_hides_a_mass() -> None:
    """Records that cannot be read, or are about nobody."""
    rest = [told(UNREADABLE), told(())] * 1000
    fuse = Fuse(500)
    assert passing(fuse, *[told(DELETE)] * 400, *rest) == 2400
    passing(fuse, *[told(DELETE)] * 400)
    assert fuse.trip is not None


def test_a_record_of_many_contacts_counts_as_many() -> None:
    """Also where it alone has more than the thousand among which deletes are counted: then by its share."""
    assert passing(Fuse(500), told((DELETE,) * 501)) == 0
    assert passing(Fuse(500), told((DELETE,) * 501 + (event(),) * 9499)) == 1
    assert passing(Fuse(500), told((DELETE,) * 5001 + (event(),) * 4999)) == 0


def test_a_changed_id_is_no_mass() -> None:
    """Each record deletes one contact and makes another."""
    assert passing(Fuse(500), *[told((DELETE, event()))] * 3000) == 3000


def test_a_truncate_trips_by_itself() -> None:
    """What stands before it is let in, also where any number of deletes is."""
    fuse = Fuse(0)
    deletes = [told(DELETE, at=n) for n in range(199)]
    assert passing(fuse, *deletes, told(TRUNCATE, at=199), told(event(), at=200), chunk=300) == 199
    assert fuse.trip == Trip(FuseCause.TRUNCATE, 0, 199, TIME_MS + 199)


def test_a_truncate_that_was_given_up_before_trips_nothing() -> None:
    """It was released then. Deletes that are put back are counted as any."""
    fuse = Fuse(2, (), lambda record: record.timestamp_ms == TIME_MS + 1)
    assert passing(fuse, told(TRUNCATE, at=1), told(TRUNCATE, at=2)) == 1
    fuse = Fuse(2, (), lambda _: True)
    assert passing(fuse, *[told(DELETE)] * 3) == 0


def test_a_mass_before_a_truncate_trips_first() -> None:
    """Though both are in one chunk."""
    fuse = Fuse(2)
    assert passing(fuse, told(event()), *[told(DELETE)] * 3, told(TRUNCATE)) == 1
    assert fuse.trip is not None
    assert fuse.trip.cause is FuseCause.DELETES


def test_a_release_lets_through_what_is_not_later() -> None:
    """Truncates and deletes up to the time, and no other; the rest of a mass trips again."""
    fuse = Fuse(2, [TIME_MS + 10])
    let_through = [told(TRUNCATE, at=9), *[told(DELETE, at=10)] * 5]
    assert passing(fuse, *let_through) == 6
    assert passing(fuse, told(event()), told(TRUNCATE, at=11)) == 1
    fuse = Fuse(2, [TIME_MS + 10])
    assert passing(fuse, *let_through, *[told(DELETE, at=11)] * 3) == 6


@pytest.mark.parametrize("at", [0, 1, 999, 1000, 2**62 - TIME_MS, -TIME_MS - 1])
def test_the_release_that_is_told_is_one_of_that_record(at: int) -> None:
    """Up to the second that ends not before it, also where a producer gave it a time that no calendar has."""
    time_ms = told(TRUNCATE, at=at)[0].timestamp_ms
    required = {"KAFKA_BOOTSTRAP_SERVERS": "kafka", "GENESYS_CONTACT_LIST": "list", "KAFKA_SOURCE_TOPICS": "topic"}
    settings = load({**required, "FUSE_RELEASES": release("topic", time_ms)}, unneeded=("GENESYS_",))
    assert passing(Fuse(0, settings.fuse_releases["topic"]), told(TRUNCATE, at=at)) == 1


@pytest.mark.parametrize("tells", [TRUNCATE, DELETE])
def test_a_record_without_a_time_passes_its_own_release_alone(tells: Events | DecodeError) -> None:
    """A release of an incident long ago still stands in the settings; and one of no time is none of any."""
    timeless = told(tells, at=-TIME_MS - 1)
    assert passing(Fuse(2, [TIME_MS]), *[timeless] * 3) == 0
    assert passing(Fuse(2, []), *[timeless] * 3) == 0
    assert passing(Fuse(2, [TIMELESS_MS]), *[timeless] * 3) == 3
    assert passing(Fuse(2, [TIMELESS_MS]), *[told(tells)] * 3) == 0


def test_a_mass_of_records_with_and_without_a_time_passes_both_releases() -> None:
    """Each of them lets through its own alone."""
    mass = [told(DELETE, at=n if n % 2 else -TIME_MS - 1) for n in range(6)]
    both = [TIME_MS + 5, TIMELESS_MS]
    assert [passing(Fuse(2, released), *mass) for released in (both[:1], both[1:], both)] == [0, 1, 6]
    assert passing(Fuse(2, both), told(TRUNCATE, at=6)) == 0


def test_a_release_is_told_to_the_second() -> None:
    """Rounded up."""
    assert release("crm.contacts", 1_764_396_000_001) == "crm.contacts@2025-11-29T06:00:01Z"
    assert release("crm.contacts", 1_764_396_000_000) == "crm.contacts@2025-11-29T06:00:00Z"
