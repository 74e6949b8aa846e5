"""The delete with which a partition ended: by it a tombstone right behind is told from one that deletes by itself.

A connector sends both; what stands between the two in time is a settlement, and perhaps another process. Touches
nothing else.
"""

import hashlib
from typing import Self

import msgspec
from msgspec import Struct

from consumer.model import ChangeEvent, LogPlace, Record


class Deleted(Struct, frozen=True, array_like=True):
    """A delete, as much of it as its tombstone repeats. No contact data: it stands in the changelog.

    Attributes:
        offset: Of its record.
        name: SHA-256 of the record's key and of the external id.
        version: Source order.
        occurred_at: Milliseconds since the epoch, UTC.
        log: Its place in the log of its source.
    """

    offset: int
    name: bytes
    version: int | None
    occurred_at: int
    log: LogPlace | None

    @classmethod
    def of(cls, record: Record, event: ChangeEvent) -> Self:
        """What is to be remembered of a delete."""
        return cls(record.offset, _name(record, event), event.version, event.occurred_at, event.log)

    def is_right_before(self, record: Record, event: ChangeEvent) -> bool:
        """Whether a tombstone stands right behind it, and is of the same contact."""
        return record.key is not None and (self.offset + 1, self.name) == (record.offset, _name(record, event))


def _name(record: Record, event: ChangeEvent) -> bytes:
    told = (record.key or b"", str(event.external_id).encode(errors="surrogatepass"))
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in told)).digest()


def encode(deleted: Deleted | None) -> bytes | None:
    """As it stands in the store and in the changelog; None: it does not."""
    return None if deleted is None else msgspec.msgpack.encode(deleted)


def decode(raw: bytes | None) -> Deleted | None:
    """Read what `encode` wrote."""
    return None if raw is None else msgspec.msgpack.decode(raw, type=Deleted)
