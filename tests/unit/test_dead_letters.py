"""The form of dead letters, which of them were replayed, and the place of a replayed record in the order."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from consumer.core import dead_letters
from consumer.core.replayed import PIECE_OFFSETS, Replayed
from consumer.model import DeadLetter, Headers, Position, Record
from consumer.operate.dead_letters import Query

TIME_MS = 1_700_000_000_123
GIVEN_UP_MS = TIME_MS + 5000
TIME = b"2023-11-14T22:13:20.123Z"
SOURCE = Position("crm.contacts", 3, 41)


def _record(headers: Headers = (), *, offset: int = 41, time_ms: int = TIME_MS) -> Record:
    return Record("crm.contacts", 3, offset, time_ms, b"key", b"value", headers)


def _headers(record: Record) -> Headers:
    return dead_letters.headers(DeadLetter(record, "phone_not_e164", "phone: text of 3 characters", GIVEN_UP_MS))


def test_a_letter_says_why_where_and_when() -> None:
    """What is written is read back; the headers of the record come first, as they came."""
    headers = _headers(_record([("traceparent", b"00-1"), ("empty", None)]))
    assert headers[:2] == [("traceparent", b"00-1"), ("empty", None)]
    letter = dead_letters.read(headers)
    assert letter is not None
    assert (letter.reason, letter.detail) == ("phone_not_e164", "phone: text of 3 characters")
    assert (letter.source, letter.origin, letter.attempt) == (SOURCE, SOURCE, 0)
    assert (letter.time_ms, letter.got_ms) == (GIVEN_UP_MS, TIME_MS)


def test_a_replayed_record_keeps_its_headers_and_counts_the_attempts() -> None:
    """Only what we added is taken off; number of attempts and first place are added, and grow over the replays."""
    record, attempts = _record([("traceparent", b"00-1")]), []
    for offset in (90, 95):
        letter = dead_letters.read(_headers(record))
        assert letter is not None
        headers = dead_letters.replayed(_headers(record), letter)
        record = _record(headers, offset=offset, time_ms=TIME_MS + 1000 * offset)
        attempts.append(dict(record.headers))
    first = {"dead-letter.origin": b"crm.contacts/3/41", "dead-letter.timestamp": TIME}
    assert attempts == [{"traceparent": b"00-1", "dead-letter.attempt": n, **first} for n in (b"1", b"2")]


def test_a_letter_says_once_when_kafka_got_its_record() -> None:
    """Also that of a record which was replayed; a header of somebody else goes on as it came."""
    letter = dead_letters.read(_headers(_record()))
    assert letter is not None
    again = _headers(_record(dead_letters.replayed((), letter), offset=90, time_ms=TIME_MS + 90_000))
    assert [value for name, value in again if name == "dead-letter.timestamp"] == [TIME]
    foreign = _headers(_record([("dead-letter.timestamp", b"mine")]))
    assert [value for name, value in foreign if name == "dead-letter.timestamp"] == [b"mine", TIME]


def test_a_replayed_record_counts_where_it_stood_first() -> None:
    """Its own offset counts only when it never moved."""
    letter = dead_letters.read(_headers(_record()))
    assert letter is not None
    assert dead_letters.place_in_order(_record(dead_letters.replayed((), letter), offset=90)) == 41
    assert dead_letters.place_in_order(_record([("traceparent", b"00-1")], offset=90)) == 90


def test_a_replayed_record_was_told_when_kafka_got_it_first() -> None:
    """Of one that an earlier release wrote, when it was given up is known; any other record keeps its time."""
    for left_out, told_ms in (("", TIME_MS), ("dead-letter.timestamp", GIVEN_UP_MS)):
        headers = [header for header in _headers(_record()) if header[0] != left_out]
        letter = dead_letters.read(headers)
        assert letter is not None
        record = _record(dead_letters.replayed(headers, letter), offset=90, time_ms=TIME_MS + 90_000)
        assert dead_letters.as_told_first(record) == replace(record, timestamp_ms=told_ms)
    other = _record([("dead-letter.timestamp", b"2020-01-01T00:00:00Z")])
    assert dead_letters.as_told_first(other) is other


def test_a_time_that_nobody_can_have_meant_is_the_first_or_last_there_is() -> None:
    """Whoever wrote the letter: it can be put back."""
    for told in (b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-14:00"):
        headers = [*_headers(_record()), ("dead-letter.timestamp", told)]
        letter = dead_letters.read(headers)
        assert letter is not None
        assert dead_letters.replayed(headers, letter)


@pytest.mark.parametrize("told", [b"2023-11-14T22:13:21.000Z", b"yesterday", b"\xff", b"", None])
def test_a_header_makes_no_record_newer_than_it_is(told: bytes | None) -> None:
    """Nor does one that is no time say anything."""
    record = _record([("dead-letter.origin", b"crm.contacts/3/7"), ("dead-letter.timestamp", told)])
    assert dead_letters.as_told_first(record).timestamp_ms == TIME_MS


@pytest.mark.parametrize(
    "origin", [b"crm.contacts/3/91", b"crm.contacts/2/41", b"other/3/41", b"crm.contacts/3", b"\xff", None]
)
def test_an_origin_that_cannot_be_is_no_place_in_the_order(origin: bytes | None) -> None:
    """A header may not make a record count as newer than it is, nor take its order from another partition."""
    assert dead_letters.place_in_order(_record([("dead-letter.origin", origin)], offset=90)) == 90


@pytest.mark.parametrize(
    "changed",
    [
        {"dead-letter.reason": b""},
        {"dead-letter.reason": b"+15550100"},
        {"dead-letter.reason": None},
        {"dead-letter.source": b"crm.contacts/3"},
        {"dead-letter.source": b"con tacts/3/4"},
        {"dead-letter.source": b"\xff/3/4"},
        {"dead-letter.time": b"yesterday"},
        {"dead-letter.time": b"\xff"},
        {"dead-letter.attempt": b"-1"},
        {"dead-letter.attempt": b"9" * 5000},
        {"dead-letter.origin": b"nowhere"},
    ],
    ids=str,
)
def test_headers_that_nobody_of_us_wrote_are_no_letter(changed: dict[str, bytes | None]) -> None:
    """Whatever stands in them, nothing of it is passed on."""
    assert dead_letters.read([*{**dict(_headers(_record())), **changed}.items()]) is None


def test_a_detail_cannot_play_tricks_on_a_terminal() -> None:
    """Control characters are left out."""
    headers = [*_headers(_record()), ("dead-letter.detail", b"phone\x1b[2J: \xfftext")]
    letter = dead_letters.read(headers)
    assert letter is not None
    assert letter.detail == "phone[2J: \N{REPLACEMENT CHARACTER}text"


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3 * PIECE_OFFSETS)), max_size=50))
def test_replayed_letters_are_remembered_over_lives(letters: set[tuple[int, int]]) -> None:
    """What one replay tells to keep, the next one knows: those letters, and no other."""
    first, second = Replayed("id"), Replayed("id")
    for letter in sorted(letters):
        first.add(*letter)
    for key, value in first.take_changes():
        second.restore(key, value)
    asked = {(partition, offset + near) for partition, offset in letters for near in (-1, 0, 1) if offset + near >= 0}
    assert {letter for letter in asked if letter in second} == letters
    assert first.take_changes() == second.take_changes() == []


def test_marks_of_a_topic_that_was_made_anew_are_removed() -> None:
    """Its offsets mean other letters now."""
    old, new = Replayed("old"), Replayed("new")
    old.add(0, 7)
    ((key, value),) = old.take_changes()
    new.restore(key, value)
    assert (0, 7) not in new
    assert new.take_changes() == [(key, None)]
    new.restore(key, value)
    new.restore(key, None)
    assert new.take_changes() == []


def test_marks_of_another_size_are_removed() -> None:
    """As another release may have written them: what cannot be read tells of no letter, and ends nothing."""
    replayed = Replayed("id")
    replayed.add(0, PIECE_OFFSETS - 1)
    ((key, value),) = replayed.take_changes()
    again = Replayed("id")
    again.restore(key, value and value[:-1])
    assert (0, PIECE_OFFSETS - 1) not in again
    assert again.take_changes() == [(key, None)]


def test_marks_of_letters_that_are_gone_are_removed() -> None:
    """A piece goes when retention has removed the last of its letters, not before."""
    replayed = Replayed("id")
    replayed.add(0, PIECE_OFFSETS - 1)
    ((key, _),) = replayed.take_changes()
    replayed.forget_before({0: PIECE_OFFSETS - 1})
    assert (0, PIECE_OFFSETS - 1) in replayed
    replayed.forget_before({0: PIECE_OFFSETS, 1: 10})
    assert (0, PIECE_OFFSETS - 1) not in replayed
    assert replayed.take_changes() == [(key, None)]


@pytest.mark.parametrize(
    ("query", "means"),
    [
        (Query(), True),
        (Query(reason="phone_not_e164", topic="crm.contacts", since_ms=GIVEN_UP_MS, until_ms=GIVEN_UP_MS + 1), True),
        (Query(reason="email_invalid"), False),
        (Query(topic="other"), False),
        (Query(since_ms=GIVEN_UP_MS + 1), False),
        (Query(until_ms=GIVEN_UP_MS), False),
    ],
)
def test_a_query_means_what_it_says(query: Query, means: object) -> None:
    """Reason, topic, and a span of time that holds its first moment and not its last."""
    letter = dead_letters.read(_headers(_record()))
    assert letter is not None
    assert query.means(letter) is means
