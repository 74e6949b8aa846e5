"""Rows of an Avro container file.

Touches nothing but the stream. The container is read here, not by the Avro library, which trusts it: sizes are
bounded before anything is read or unpacked, and the schema goes through the same hardening as those of records. A file
that is damaged ends the whole: where the next record begins cannot be told.
"""

import zlib
from collections.abc import Iterator
from typing import IO

import orjson

from consumer.core.avro import WriterSchema
from consumer.core.rows import Rows
from consumer.errors import DecodeError, FatalError
from consumer.model import FileRow

MAGIC = b"Obj\x01"
MAX_BLOCK_BYTES = 16 << 20
MAX_META_BYTES = 4 << 20
MAX_META_ENTRIES = 1_000
_SYNC_BYTES = 16
_VARINT_BYTES = 10
_MORE_FOLLOWS = 0x80


def avro_rows(stream: IO[bytes], rows: Rows) -> Iterator[FileRow]:
    """The rows of a file.

    Raises:
        FatalError: It is damaged, too large in its parts, packed in another way, or has no schema of contacts.
    """
    schema, packed, sync = _head(_Bytes(stream), rows)
    number = 0
    container = _Bytes(stream)
    while (count := container.long_or_end()) is not None:
        block = container.block(MAX_BLOCK_BYTES)
        if container.take(_SYNC_BYTES) != sync:
            raise _damaged("a block does not end where it should")
        for fields in _records(schema, _unpacked(block) if packed else block, count):
            number += 1
            yield FileRow(number, orjson.dumps(fields, default=_text), fields)


def _records(schema: WriterSchema, block: bytes, count: int) -> list[dict[str, object]]:
    try:
        return schema.read_each(block, count)
    except DecodeError as error:
        raise _damaged(str(error)) from None


def _unpacked(block: bytes) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = inflate.decompress(block, MAX_BLOCK_BYTES)
    except zlib.error:
        raise _damaged("a block cannot be unpacked") from None
    if inflate.unconsumed_tail or not inflate.eof:
        raise _damaged(f"a block is cut off, or larger than {MAX_BLOCK_BYTES:,} bytes when unpacked")
    return unpacked


def _head(head: "_Bytes", rows: Rows) -> tuple[WriterSchema, bool, bytes]:
    """The schema, whether blocks are packed, and what ends each of them."""
    if head.take(len(MAGIC)) != MAGIC:
        raise _damaged("it does not begin as one")
    meta = head.meta()
    codec = meta.get("avro.codec", b"null")
    if codec not in {b"null", b"deflate"}:
        raise FatalError(f"the Avro file is packed by {codec[:20]!r}: only null and deflate can be read")
    try:
        schema = WriterSchema(meta.get("avro.schema", b"").decode())
    except (DecodeError, UnicodeDecodeError) as error:
        raise FatalError(f"the Avro file has no schema that can be read: {type(error).__name__}") from None
    _check(schema, rows)
    return schema, codec == b"deflate", head.take(_SYNC_BYTES)


def _check(schema: WriterSchema, rows: Rows) -> None:
    fields = schema.definition["fields"]
    names = [field["name"] for field in fields] if isinstance(fields, list) else []
    if doubled := rows.doubled(names):
        raise FatalError(f"the schema of the Avro file has more than one field for {', '.join(doubled)}")
    if misspelt := rows.misspelt(names):
        raise FatalError(f"the schema of the Avro file has fields with other names: {', '.join(misspelt)}")
    if missing := rows.missing(names):
        raise FatalError(f"the schema of the Avro file lacks {', '.join(missing)}")


def _text(value: object) -> str:
    """Bytes as they go into JSON; nothing else that Avro has lacks a form there."""
    return value.hex() if isinstance(value, bytes) else str(value)


class _Bytes:
    """Reads the parts of a container."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def take(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._stream.read(size)
        if len(taken) < size:
            raise _damaged("it is cut off")
        return taken

    def block(self, most: int) -> bytes:
        """Bytes that follow their size."""
        size = self._long()
        if not 0 <= size <= most:
            raise _damaged(f"a part has more than {most:,} bytes")
        return self.take(size)

    def meta(self) -> dict[str, bytes]:
        """The map at the beginning."""
        meta: dict[str, bytes] = {}
        while count := self._long():
            if count < 0:  # then its size in bytes follows
                count, _ = -count, self._long()
            if len(meta) + count > MAX_META_ENTRIES:
                raise _damaged("its head is too large")
            for _ in range(count):
                name = self.block(MAX_META_BYTES).decode(errors="replace")
                meta[name] = self.block(MAX_META_BYTES)
        return meta

    def long_or_end(self) -> int | None:
        """A number; None at the end of the file."""
        first = self._stream.read(1)
        return self._long(first) if first else None

    def _long(self, first: bytes = b"") -> int:
        number = 0
        byte = (first or self.take(1))[0]
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            number |= (byte & ~_MORE_FOLLOWS) << shift
            if byte < _MORE_FOLLOWS:
                return (number >> 1) ^ -(number & 1)
            byte = self.take(1)[0]
        raise _damaged("a number is too long")


def _damaged(how: str) -> FatalError:
    return FatalError(f"the Avro file is damaged: {how}")
