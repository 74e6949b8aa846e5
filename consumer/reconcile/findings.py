"""What was found to differ, on disk, so that a list that was emptied takes no more memory than one that is in step.

Answers for finding a difference by contact, by place in the list, and by the record that its contact came from. Holds
hashes of contact data, never the data. Touches the scratch store.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from consumer.core.contact_id import contact_id
from consumer.core.reconcile import Standing
from consumer.model import Record, TopicPartition
from consumer.ports import Store

_CONTACT, _FOREIGN, _RECORD = b"c", b"f", b"r"
_SLICE = 1_000


class Finding(Struct, array_like=True, frozen=True, gc=False):
    """A contact that differs.

    Attributes:
        standing: How.
        name: External id as the list has it, or Genesys' id of a row that is nobody's; "" for one that is missing.
        callable: Whether Genesys has it as callable; True for one that is missing.
        deleted: What was delivered last is that it is not there.
        fingerprint: Of what was delivered; empty where nothing was.
        digests: Of the values in the list; empty where there are none.
        source: Number of the source partition from which it was delivered.
        offset: Of the record from which it was delivered.
        drifted: A managed column has another value, whatever else is wrong with it.
        found: That record is there, and says what was delivered.
        withdrawal: It is one that withdraws.
    """

    standing: Standing
    name: str
    callable: bool = True
    deleted: bool = False
    fingerprint: bytes = b""
    digests: bytes = b""
    source: int = 0
    offset: int = -1
    drifted: bool = False
    found: bool = False
    withdrawal: bool = False

    @property
    def contact_id(self) -> str:
        """Genesys' id of the contact in the list."""
        return self.name if self.standing is Standing.FOREIGN else contact_id(self.name)

    @property
    def is_open(self) -> bool:
        """Whether its record is still to be found."""
        return self._record_tells and not self.found

    @property
    def has_record(self) -> bool:
        """Whether a record is to be looked up for it; a contact that was loaded from a file came from none."""
        return self._record_tells and self.offset >= 0

    @property
    def _record_tells(self) -> bool:
        """Whether it is mended with what its record says."""
        return self.standing is Standing.MISSING or self.drifted or self.found


Found = tuple[bytes, Finding]
"""The key of a finding, and the finding."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Finding).decode


def of_contact(identity: bytes) -> bytes:
    """The key under which a contact is found."""
    return _CONTACT + identity


def of_row(contact_id: str) -> bytes:
    """The key of a row that is nobody's."""
    return _FOREIGN + contact_id.encode()


def _of_record(source: int, offset: int) -> bytes:
    return _RECORD + source.to_bytes(4) + offset.to_bytes(8)


class Findings:
    """All findings of one comparison.

    Args:
        store: A scratch store.
        attempt: Number of the comparison: each has a place of its own.
    """

    def __init__(self, store: Store, attempt: int) -> None:
        self._store = store
        self._place = TopicPartition("findings", attempt)
        self._first: dict[int, int] = {}

    async def open(self) -> None:
        """Make the place."""
        await self._store.open(self._place)

    async def put(self, found: Sequence[Found]) -> None:
        """Add or replace findings."""
        entries = [(key, _encode(finding)) for key, finding in found]
        places = [(_of_record(finding.source, finding.offset), key) for key, finding in found if finding.has_record]
        for _, finding in found:
            if finding.has_record:
                self._first[finding.source] = min(finding.offset, self._first.get(finding.source, finding.offset))
        await self._store.write((self._place, entries + places, 0))

    async def drop(self, keys: Sequence[bytes]) -> int:
        """Forget findings; how many of the keys had one."""
        known = [key for key, value in zip(keys, self._values(keys), strict=True) if value is not None]
        await self._store.write((self._place, [(key, None) for key in known], 0))
        return len(known)

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Finding]:
        """The findings under these keys."""
        pairs = zip(keys, self._values(keys), strict=True)
        return {key: _decode(value) for key, value in pairs if value is not None}

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._store.read(self._place, keys) if keys else []

    def concerned(self, source: int, records: Sequence[Record], keyed: Sequence[bytes]) -> list[Record]:
        """The records from which a finding may have been delivered: by their place, or by their key.

        The place alone is not enough: in a compacted topic a repeat may have taken it.

        Args:
            source: Number of the source partition.
            records: Of it.
            keyed: The identity that the key of each gives.
        """
        places = self._values([_of_record(source, record.offset) for record in records])
        names = self._values(list(map(of_contact, keyed)))
        return [
            record for record, place, name in zip(records, places, names, strict=True) if (place or name) is not None
        ]

    @property
    def first_offsets(self) -> Mapping[int, int]:
        """By number of the source partition, the first offset from which something was delivered that differs."""
        return self._first

    async def some(self) -> bool:
        """Whether there is any."""
        return bool(await self._store.scan(self._place, b"", 1))

    async def all(self) -> AsyncIterator[list[Found]]:
        """Every finding, some at a time."""
        after = b""
        while entries := await self._store.scan(self._place, after, _SLICE):
            after = entries[-1][0]
            yield [(key, _decode(value)) for key, value in entries if key < _RECORD]
            if after >= _RECORD:
                return
