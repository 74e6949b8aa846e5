"""What the library hands over, and what it cannot."""

from typing import Any, cast

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from consumer.adapters.kafka.messages import headers_of
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
