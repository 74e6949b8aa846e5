"""The file as the first fill sees it: rows in chunks of the same size each time, and the certainty that it is the same.

Touches the file, and only reads it. It is read several times; a file that changes in between ends the whole, since
what was decided of its rows holds no more.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import IO

from consumer.adapters.contact_file.avro_rows import MAGIC, avro_rows
from consumer.adapters.contact_file.csv_rows import csv_rows
from consumer.adapters.contact_file.ndjson_rows import ndjson_rows
from consumer.adapters.contact_file.text import BOM
from consumer.core.rows import Rows, deletes
from consumer.errors import FatalError
from consumer.model import FileRow

CHUNK_ROWS = 500
_READ_BYTES = 1 << 18

_NOT_READ = {
    b"\x1f\x8b": "packed with gzip: unpack it",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: save it as CSV, UTF-8",
    b"\xff\xfe": "UTF-16, not UTF-8: convert it, for example with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16, not UTF-8: convert it, for example with `iconv -f UTF-16 -t UTF-8`",
}
"""How files begin that are often taken for one that can be read."""

_ARRAY = re.compile(rb"\s*\[\s*(\{|\]|$)")


class _Hashing(io.RawIOBase):
    """Takes the hash of what is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def readable(self) -> bool:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[explicit-override, override]  # as RawIOBase calls it
        data = self._file.read(len(buffer))
        self.hash.update(data)
        buffer[: len(data)] = data
        return len(data)


class ContactFile:
    """A file of contacts: CSV, JSON objects one a line, or an Avro container.

    Args:
        path: Of the file.
        columns: Source name and column name of each configured attribute.

    Attributes:
        modified_ms: When it was last changed, milliseconds since the epoch.
        rows: Read its rows as change events.
        left_out: Names in its first rows that nothing is made of.
        emptied: Fields and attributes that its first rows do not name: contacts lose what they have there.

    Raises:
        FatalError: It cannot be read.
    """

    def __init__(self, path: Path, columns: Sequence[tuple[str, str]]) -> None:
        self._path = path
        try:
            self._stat = path.stat()
            self._refuse_others(is_file=S_ISREG(self._stat.st_mode))
            with path.open("rb") as file:
                self._begins = file.read(4)
                file.seek(0)
                self._hash = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise self._unreadable(error) from None
        self.modified_ms = self._stat.st_mtime_ns // 1_000_000
        self.rows = Rows(columns, self.modified_ms)
        self._refuse_unreadable()
        first = next(self.chunks(), [])  # a header that no row could fit is to be told before anything is done
        contacts = [row.fields for row in first if row.fields and not deletes(row.fields)]
        self._refuse_without_numbers(contacts)
        self.left_out = self.rows.left_out(dict.fromkeys(name for row in first for name in row.fields))
        self.emptied = self.rows.emptied({name for fields in contacts for name in fields}) if contacts else []

    @property
    def sha256(self) -> bytes:
        """Of the whole file."""
        return self._hash

    def chunks(self) -> Iterator[list[FileRow]]:
        """All rows, some at a time: each time the same ones together.

        Raises:
            FatalError: The file is not what it was, cannot be read any more, or its rows cannot be told apart.
        """
        try:
            yield from self._read()
        except OSError as error:
            raise self._unreadable(error) from None

    def _read(self) -> Iterator[list[FileRow]]:
        self._check(self._path.stat())
        with self._path.open("rb", buffering=0) as file:
            hashing = _Hashing(file)
            rows = self._rows(io.BufferedReader(hashing, _READ_BYTES))
            last = list(islice(rows, CHUNK_ROWS))
            while following := list(islice(rows, CHUNK_ROWS)):
                yield last
                last = following
            if hashing.hash.digest() != self._hash:
                raise self._changed()
        if last:
            yield last

    def _rows(self, stream: io.BufferedReader) -> Iterator[FileRow]:
        if self._begins == MAGIC:
            return avro_rows(stream, self.rows)
        chunks = iter(lambda: stream.read(_READ_BYTES), b"")
        is_json = self._begins.removeprefix(BOM).lstrip()[:1] == b"{"
        return ndjson_rows(chunks) if is_json else csv_rows(chunks, self.rows)

    def _refuse_others(self, *, is_file: bool) -> None:
        if not is_file:
            raise FatalError(f"{self._path} is no file: it is read several times, so it cannot be a pipe")

    def _refuse_unreadable(self) -> None:
        if not self._stat.st_size:
            raise FatalError(f"{self._path} is empty")
        for beginning, what in _NOT_READ.items():
            if self._begins.startswith(beginning):
                raise FatalError(f"{self._path} is {what}")
        if _ARRAY.match(self._begins.removeprefix(BOM)):
            raise FatalError(
                f"{self._path} is an array in JSON: put each object on a line of its own, as `jq -c .[]` does"
            )

    def _refuse_without_numbers(self, contacts: Sequence[Mapping[str, object]]) -> None:
        """JSON objects may leave out what is null; a file whose objects all do has another name for it."""
        if contacts and "phone" in self.rows.missing({name for fields in contacts for name in fields}):
            raise FatalError(
                f"none of the first rows of {self._path} has a phone: contacts would lose their numbers; if they have "
                'none, say so once with "phone": null'
            )

    def _check(self, now: os.stat_result) -> None:
        before = self._stat
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise self._changed()

    def _unreadable(self, error: OSError) -> FatalError:
        return FatalError(f"{self._path} cannot be read: {error.strerror}")

    def _changed(self) -> FatalError:
        return FatalError(f"{self._path} was changed meanwhile: load it again when nobody writes to it any more")
