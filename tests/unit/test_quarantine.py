"""Which records are decoded together, alone, or not at all."""

import pytest

from consumer.errors import DecodeError, ReaderFailed
from consumer.model import ChangeEvent, ChangeType, Reason, Record
from consumer.pipeline.quarantine import Quarantine
from consumer.ports import Breadcrumb
from tests.envelopes import CONFLUENT
from tests.memory_ports import MemoryBreadcrumbs

TOPIC = "crm.contacts.changes"
TIME = 1_700_000_000_000


def records(first, last, identifier=7):
    """Records that follow on; the body of each is its offset."""
    frame = b"\0\0\0\0" + bytes([identifier])
    return [
        Record(TOPIC, 0, offset, TIME + offset, b"", frame + str(offset).encode()) for offset in range(first, last + 1)
    ]


def crumb(first, last, *, alone=False, topic=TOPIC, partition=0, timestamp_ms=None):
    """What would be laid for these."""
    return Breadcrumb(topic, partition, first, last, TIME + first if timestamp_ms is None else timestamp_ms, alone)


class Watched:
    """A reader that notes what was laid when it was called."""

    def __init__(self, *found):
        self.breadcrumbs = MemoryBreadcrumbs(*found)
        self.quarantine = Quarantine(self.breadcrumbs)
        self.laid = []
        self.bodies = []

    def _read(self, body, record):
        self.laid.append(self.breadcrumbs.laid)
        self.bodies.append(int(body))
        return ChangeEvent(ChangeType.UPDATE, "c", record.timestamp_ms, None, None, None, None, None, {})

    def decode(self, polled):
        """What became of records."""
        return self.quarantine.decode(polled, {7: self._read}, CONFLUENT)


def test_records_are_noted_together_while_they_are_decoded():
    """One note for all, and none afterwards."""
    watched = Watched()
    assert len(watched.decode(records(10, 12)).results) == 3
    assert watched.laid == [crumb(10, 12)] * 3
    assert watched.breadcrumbs.laid is None


def test_records_of_a_process_that_died_are_decoded_alone():
    """All of the call that has any of them: the next crash names the record."""
    watched = Watched(crumb(11, 12))
    assert len(watched.decode(records(10, 12)).results) == 3
    assert watched.laid == [crumb(offset, offset, alone=True) for offset in (10, 11, 12)]
    assert watched.breadcrumbs.laid is None


@pytest.mark.parametrize(
    "found",
    [crumb(13, 20), crumb(1, 9), crumb(10, 12, topic="other"), crumb(10, 12, partition=1)],
    ids=["later", "earlier", "other topic", "other partition"],
)
def test_others_are_above_suspicion(found):
    """A crash costs the speed of few records."""
    watched = Watched(found)
    watched.decode(records(10, 12))
    assert watched.laid == [crumb(10, 12)] * 3


def test_a_record_that_crashed_a_process_alone_is_rejected_undecoded():
    """The others of its call are decoded as before."""
    watched = Watched(crumb(10, 12), crumb(11, 11, alone=True))
    good, bad, other = watched.decode(records(10, 12)).results
    assert isinstance(bad, DecodeError)
    assert (bad.reasons, bad.detail) == ((Reason.NOT_DECODABLE,), "the decoder crashed on it")
    assert isinstance(good, ChangeEvent)
    assert isinstance(other, ChangeEvent)
    assert watched.bodies == [10, 12]


def test_it_is_rejected_also_when_nothing_says_that_a_process_died_before():
    """A note of one record alone is enough."""
    watched = Watched(crumb(11, 11, alone=True))
    watched.decode(records(10, 12))
    assert watched.bodies == [10, 12]


def test_one_crash_of_a_single_record_is_no_proof():
    """The process may have been killed from outside while it was decoded."""
    watched = Watched(crumb(11, 11))
    watched.decode(records(10, 12))
    assert watched.bodies == [10, 11, 12]


def test_another_record_with_the_same_offset_is_decoded():
    """As in a topic that was made anew."""
    watched = Watched(crumb(11, 11, alone=True, timestamp_ms=5))
    watched.decode(records(10, 12))
    assert watched.bodies == [10, 11, 12]


def test_an_exception_leaves_the_note():
    """One that leaves the decoder ends the process, as a crash does."""
    watched = Watched()
    with pytest.raises(MemoryError):
        watched.quarantine.decode(records(10, 10), {7: _exhausted}, CONFLUENT)
    assert watched.breadcrumbs.laid == crumb(10, 10)


def test_a_mistake_of_the_program_needs_no_second_process():
    """The record is rejected at once, and the others of its call are decoded: nothing is suspected afterwards."""
    watched = Watched()
    polled = [*records(10, 10), *records(11, 11, identifier=8)]
    good, bad = watched.quarantine.decode(polled, {7: watched._read, 8: _mistaken}, CONFLUENT).results
    assert isinstance(good, ChangeEvent)
    assert isinstance(bad, ReaderFailed)
    assert watched.breadcrumbs.laid is None


def _mistaken(_body, _record):
    raise KeyError


def _exhausted(_body, _record):
    raise MemoryError


def test_a_missing_schema_ends_it_also_where_each_is_alone():
    """The results before it stand."""
    watched = Watched(crumb(10, 12))
    decoded = watched.decode([*records(10, 11), *records(12, 12, identifier=8)])
    assert (len(decoded.results), decoded.missing) == (2, 8)


def test_nothing_is_noted_of_nothing():
    """An empty poll has no results."""
    assert Watched().decode([]) == ([], None)
