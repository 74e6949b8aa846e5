"""What was delivered: the state of every contact, gathered from the changelog of all partitions into a scratch store.

Answers for one state for each contact, and for which of them have been seen in the list: a bit each, so that memory
does not grow with what is compared. Touches the scratch store and, through its port, the changelog.
"""

import struct
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from consumer.command_ports import History
from consumer.core import fingerprints, state_bytes
from consumer.model import State, TopicPartition
from consumer.pipeline.settle import IMPORT_KEY
from consumer.ports import Store

_PLACE = TopicPartition("delivered", 0)
_SLOT = struct.Struct(">II")
_SLICE = 5_000

Entries = Sequence[tuple[bytes, bytes | None]]


class Slot(Struct, frozen=True, gc=False):
    """The state of a contact.

    Attributes:
        number: Of the contact, from 0 on.
        source: Of the source partition, from 0 on.
        raw: The state as the changelog has it.
    """

    number: int
    source: int
    raw: bytes

    @property
    def state(self) -> State:
        return state_bytes.decode(self.raw)

    def packed(self) -> bytes:
        """As it stands in the scratch store."""
        return _SLOT.pack(self.number, self.source) + self.raw


def _unpacked(value: bytes | None) -> Slot | None:
    if value is None:
        return None
    number, source = _SLOT.unpack_from(value)
    return Slot(number, source, value[_SLOT.size :])


class Delivered:
    """The states, and marks of those that were seen.

    Args:
        store: A scratch store.

    Attributes:
        sources: Partitions from which something was delivered.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: set[TopicPartition] = set()
        self._numbers = 0
        self._seen = bytearray()
        self._import_marks: dict[TopicPartition, bool] = {}

    @property
    def is_importing(self) -> bool:
        """Whether a load left its mark: a file may be on its way into the list, and nothing of it is settled."""
        return any(self._import_marks.values())

    async def load(self, history: History, sources: Sequence[TopicPartition]) -> int:
        """Gather the states of all source partitions; how many contacts there are."""
        await self._store.open(_PLACE)
        for source, partition in enumerate(sources):
            async for chunk in history.changelog(partition):
                if await self._take(source, chunk.entries):
                    self.sources.add(partition)
                self._note_mark(partition, chunk.entries)
        return self._numbers

    def _note_mark(self, partition: TopicPartition, entries: Entries) -> None:
        for key, mark in entries:
            if key == IMPORT_KEY:
                self._import_marks[partition] = mark is not None

    async def _take(self, source: int, entries: Entries) -> bool:
        """Take over the last word on each contact, among partitions that which settled last; whether there was any."""
        last = {key: raw for key, raw in entries if len(key) == fingerprints.IDENTITY_BYTES}
        held = self.find(list(last))
        writes: list[tuple[bytes, bytes | None]] = []
        for (identity, raw), before in zip(last.items(), held, strict=True):
            if before is not None and before.source != source and (raw is None or _is_older(raw, before.raw)):
                continue
            slot = None if raw is None else Slot(self._number(before), source, raw)
            writes.append((identity, None if slot is None else slot.packed()))
        await self._store.write((_PLACE, writes, 0))
        return bool(writes)

    def _number(self, before: Slot | None) -> int:
        if before is not None:
            return before.number
        self._numbers += 1
        return self._numbers - 1

    def forget_marks(self) -> None:
        """Nothing has been seen."""
        self._seen = bytearray(self._numbers // 8 + 1)

    def find(self, identities: Sequence[bytes]) -> list[Slot | None]:
        """What was delivered for these, in their order."""
        return list(map(_unpacked, self._store.read(_PLACE, identities))) if identities else []

    def mark(self, slot: Slot) -> None:
        """The contact has been seen."""
        self._seen[slot.number >> 3] |= 1 << (slot.number & 7)

    def _is_marked(self, slot: Slot) -> bool:
        return bool(self._seen[slot.number >> 3] & 1 << (slot.number & 7))

    async def unmarked(self) -> AsyncIterator[list[tuple[bytes, Slot]]]:
        """Identities and states of those that have not been seen, some at a time."""
        after = b""
        while entries := await self._store.scan(_PLACE, after, _SLICE):
            after = entries[-1][0]
            slots = [(identity, slot) for identity, raw in entries if (slot := _unpacked(raw)) is not None]
            yield [(identity, slot) for identity, slot in slots if not self._is_marked(slot)]


def _is_older(raw: bytes, before: bytes) -> bool:
    return state_bytes.settled_ms(raw) < state_bytes.settled_ms(before)
