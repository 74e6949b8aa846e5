"""What the library hands over, and what it cannot."""

from typing import Any, cast

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from consumer.adapters.kafka.messages import headers_of, polled
from consumer.model import Headers


class _Message:
    """A message as the binding makes it: headers, nothing, or what it raises instead."""

    def __init__(self, headers: Headers | Exception | None) -> None:
        self._headers = headers

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def topic(self) -> str:
        return "changes"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 42


def read(headers: Headers | Exception | None) -> Headers:
    """What is read of the headers of such a message."""
    return headers_of(cast("Message", _Message(headers)))


def test_headers_are_read_as_they_came() -> None:
    """A record without any has none."""
    assert read([("trace", b"1"), ("trace", None)]) == [("trace", b"1"), ("trace", None)]
    assert read(None) == ()


@pytest.mark.parametrize(
    "raised",
    [
        SystemError("<method 'headers' of 'Message' objects> returned a result with an exception set"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_a_name_that_is_not_utf_8_costs_the_headers_and_not_the_record(raised: Exception) -> None:
    """A record that stopped the thread would stop its partition for ever; the log tells which one it was."""
    with capture_logs() as logs:
        assert read(raised) == ()
    place = {"topic": "changes", "partition": 3, "offset": 42}
    assert logs == [{"event": "headers_unreadable", "log_level": "warning"} | place]


class _Consumer:
    """One that has some messages; consuming more than are there takes the time that it is given."""

    def __init__(self, come: list[str]) -> None:
        self._come = come
        self.waited_s = 0.0

    def poll(self, wait_s: float) -> str | None:
        if self._come:
            return self._come.pop(0)
        self.waited_s += wait_s
        return None

    def consume(self, most: int, wait_s: float) -> list[str]:
        taken, self._come = self._come[:most], self._come[most:]
        self.waited_s += wait_s if len(taken) < most else 0.0
        return taken


def poll(consumer: _Consumer, *told: float) -> list[Any]:
    """A poll of three messages at most, with a second of patience for the first one."""
    return polled(cast("Any", consumer), 1.0, 3, *told)


def test_a_poll_takes_what_is_there_and_waits_for_nothing_more() -> None:
    """Unless nothing is there at all."""
    some, none = _Consumer(["a", "b"]), _Consumer([])
    assert (poll(some), some.waited_s) == (["a", "b"], 0.0)
    assert (poll(none), none.waited_s) == ([], 1.0)


def test_the_first_message_waits_for_others_if_told_so() -> None:
    """No longer than told, and not at all where there are as many as may be; nor does nothing wait twice."""
    few, many, none = _Consumer(["a", "b"]), _Consumer(["a", "b", "c", "d"]), _Consumer([])
    assert (poll(few, 0.25), few.waited_s) == (["a", "b"], 0.25)
    assert (poll(many, 0.25), many.waited_s) == (["a", "b", "c"], 0.0)
    assert (poll(none, 0.25), none.waited_s) == ([], 1.0)
