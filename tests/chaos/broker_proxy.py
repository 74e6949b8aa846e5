"""A proxy before a broker, which can show its clients a cluster without brokers.

So answer brokers that the controller has counted out: with the topics that they know, and no broker. A client may
forget all that it knew then (librdkafka #5301). Touches loopback ports.
"""

import struct

from tests.chaos.proxy import Change, Proxy

METADATA = 3
"""API key of the requests that ask for the cluster."""

FLEXIBLE_FROM = 9
"""Version from which strings and arrays of these have a length of one byte or more."""

_SIZE_BYTES = 4


class BrokerProxy(Proxy):
    """Passes one broker's port on.

    Attributes:
        counted_out: Answers about the cluster name no broker.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.counted_out = False

    def heal(self) -> None:
        super().heal()
        self.counted_out = False

    def _changes(self) -> tuple[Change, Change]:
        conversation = _Conversation(self)
        return conversation.request, conversation.answer


class _Conversation:
    """One connection: which of its answers are about the cluster."""

    def __init__(self, proxy: BrokerProxy) -> None:
        self._proxy = proxy
        self._asked: set[int] = set()
        self._requests = b""
        self._answers = b""
        self._passed = 0

    def request(self, piece: bytes) -> bytes:
        """Take note of what is asked."""
        self._requests += piece
        while (frame := _first(self._requests)) is not None:
            self._requests = self._requests[len(frame) :]
            key, version, correlation = struct.unpack_from(">hhi", frame, _SIZE_BYTES)
            if key == METADATA and version >= FLEXIBLE_FROM:
                self._asked.add(correlation)
        return piece

    def answer(self, piece: bytes) -> bytes:
        """What is passed on: as it comes, but whole answers while they may have to be changed."""
        self._answers += piece
        passed_on = b""
        while (frame := _first(self._answers)) is not None:
            self._answers = self._answers[len(frame) :]
            passed_on += self._shown(frame)[self._passed :]
            self._passed = 0
        if not self._proxy.counted_out:
            passed_on += self._answers[self._passed :]
            self._passed = len(self._answers)
        return passed_on

    def _shown(self, frame: bytes) -> bytes:
        (correlation,) = struct.unpack_from(">i", frame, _SIZE_BYTES)
        is_of_the_cluster = correlation in self._asked
        self._asked.discard(correlation)
        hidden = is_of_the_cluster and self._proxy.counted_out and not self._passed
        return without_brokers(frame) if hidden else frame


def _first(buffer: bytes) -> bytes | None:
    """The first whole request or answer in a buffer, with its size."""
    if len(buffer) < _SIZE_BYTES:
        return None
    size = _SIZE_BYTES + int.from_bytes(buffer[:_SIZE_BYTES], "big")
    return buffer[:size] if len(buffer) >= size else None


def without_brokers(frame: bytes) -> bytes:
    """An answer about the cluster, of a flexible version, with an empty list of brokers (KIP-482)."""
    at = _SIZE_BYTES + 4  # correlation id
    tags, at = _varint(frame, at)
    assert not tags
    start = at + 4  # throttle time
    count, at = _varint(frame, start)
    for _ in range(count - 1):
        length, at = _varint(frame, at + 4)  # node id, host
        length, at = _varint(frame, at + length - 1 + 4)  # port, rack
        tags, at = _varint(frame, at + max(0, length - 1))
        assert not tags
    body = frame[_SIZE_BYTES:start] + b"\x01" + frame[at:]
    return len(body).to_bytes(_SIZE_BYTES, "big") + body


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        byte = frame[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
