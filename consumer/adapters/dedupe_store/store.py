"""The local index of what was delivered: one RocksDB for each source partition, under the state directory.

It answers for noticing a store that cannot be trusted, and for what becomes of that. It touches nothing but the stores
of the state directory::

    <state_dir>/<topic>/<partition>/store.json          marker: format, uuid, identity
    <state_dir>/<topic>/<partition>/db/                 RocksDB; the same uuid and the changelog position inside
    <state_dir>/<topic>/<partition>.set-aside-<n>/      the last one that could not be trusted

The changelog is the truth, so a store is trusted only when marker, database and identity agree; otherwise it is set
aside and begins empty, at position 0. A store is never partly right: the position is written in one batch with its
entries, and only one write-ahead log holds records at a time (see `Handle.commit`).

What a failure becomes:

- No space left: `TransientError`. The same handle works again a few seconds after there is room (16 MB).
- Another failed write or fsync: RocksDB then refuses all writes, so the database is reopened and the write repeated,
  once; `FatalError` when that fails too. Repeating is harmless: an entry is a whole value.
- A failed read, or corruption met in a write: `FatalError`, and the marker is removed, so that the restart rebuilds.
- The store is open in another process: `FatalError`; nothing is set aside.
- The volume hangs: who closes a store waits no longer than `CLOSE_WITHIN_S`, so that the member can leave the group.
"""

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from rocksdict import Cache, Rdict

from consumer.adapters.dedupe_store.database import (
    CACHE_BYTES,
    MARKER,
    POSITION_KEY,
    Entries,
    Handle,
    Untrusted,
    mapped,
    rocks_options,
)
from consumer.adapters.dedupe_store.files import file_errors, write_durably
from consumer.adapters.worker import Worker
from consumer.errors import FatalError, TransientError
from consumer.model import TopicPartition
from consumer.ports import StoreWrite

FORMAT = 2
"""Changes with every change in how entries or the position are laid down; another one is set aside."""

CLOSE_WITHIN_S = 5.0

_UNFLUSHED_BYTES = 64 << 20
_UNFLUSHED_BYTES_OF_ONE = 2 << 20

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class RocksStore:
    """`consumer.ports.Store` on RocksDB.

    `open` of an open store is fine and changes nothing. Everything but `read` and `size` happens in one thread of the
    store's own; those two belong to the event loop's thread.
    """

    def __init__(self, state_dir: Path, identity: str) -> None:
        """Prepare; nothing is touched before `open`.

        Args:
            state_dir: Directory of all stores.
            identity: What the stores belong to (group, changelog, topic id); one of another identity is set aside.
        """
        self._state_dir = state_dir
        self._identity = identity
        self._cache = Cache(CACHE_BYTES)
        self._handles: dict[TopicPartition, Handle] = {}
        self._worker = Worker("store")

    async def open(self, partition: TopicPartition) -> int:
        return await self._run(lambda: self._open(partition))

    async def reset(self, partition: TopicPartition) -> None:
        await self._run(lambda: self._reset(partition))

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> list[bytes | None]:
        handle = self._handles[partition]
        with handle.lock:  # the event loop waits while the database is reopened: rare, and over in a moment
            try:
                return list(handle.db.get(list(keys)) or ())
            except Exception as error:
                raise handle.distrust(error) from error

    async def scan(self, partition: TopicPartition, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return await self._run(lambda: self._scan(partition, after, limit))

    async def write(self, *writes: StoreWrite) -> None:
        await self._run(lambda: self._write_in_turn(writes))

    async def close(self, *partitions: TopicPartition) -> None:
        if not partitions:
            return
        closing = self._begun(lambda: self._close_in_turn(partitions))
        await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
        if closing.done():
            await closing
        else:
            remedy = "see whether the volume of STATE_DIR answers; nothing is lost, the changelog has all of it"
            log.error("store_not_closed", partitions=len(partitions), seconds=CLOSE_WITHIN_S, remedy=remedy)

    async def close_all(self) -> None:
        """Close every store, for no longer than one, and end the thread; nothing can be opened afterwards."""
        await self.close(*self._handles)
        self._worker.stop()

    def size(self) -> tuple[int, int]:
        """Number of keys and bytes on disk of the open stores.

        The keys are an estimate: what was overwritten counts again until RocksDB compacts it away.
        """
        keys = size = 0
        for handle in list(self._handles.values()):
            with contextlib.suppress(Exception), handle.lock:  # closed just now
                keys += max((handle.db.property_int_value("rocksdb.estimate-num-keys") or 0) - 1, 0)
                size += handle.bytes_on_disk()
        return keys, size

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await self._begun(work)

    def _begun(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        return asyncio.wrap_future(self._worker.submit(file_errors()(work)))

    def _directory(self, partition: TopicPartition) -> Path:
        topic = partition.topic
        if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) or topic in {".", ".."}:
            raise FatalError(f"not the name of a Kafka topic: {topic!r}")
        return self._state_dir / topic / str(partition.partition)

    def _open(self, partition: TopicPartition) -> int:
        if partition not in self._handles:
            self._handles[partition] = self._trusted_or_new(self._directory(partition))
        return self._handles[partition].position

    def _trusted_or_new(self, directory: Path) -> Handle:
        if directory.exists():
            try:
                return self._trusted(directory)
            except Untrusted as reason:
                _set_aside(directory, str(reason))
        return self._new(directory)

    def _trusted(self, directory: Path) -> Handle:
        """Open the database before anything is judged: only its lock tells that nobody else is using it."""
        handle = Handle(directory, self._database(directory, create=False), UUID(int=0))
        try:
            handle.uuid = _marked_uuid(directory / MARKER, self._identity)
            handle.load_position()
        except BaseException:
            handle.close()
            raise
        return handle

    def _new(self, directory: Path) -> Handle:
        directory.mkdir(parents=True)
        try:
            return self._filled(directory)
        except Untrusted as error:
            raise FatalError(f"a new store cannot be made: {error}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _filled(self, directory: Path) -> Handle:
        handle = Handle(directory, self._database(directory, create=True), uuid4())
        try:
            handle.commit(handle.batch((), 0), _UNFLUSHED_BYTES_OF_ONE)
            marker = {"format": FORMAT, "uuid": str(handle.uuid), "identity": self._identity}
            write_durably(directory / MARKER, json.dumps(marker).encode())
        except BaseException:
            handle.close()
            raise
        return handle

    def _database(self, directory: Path, *, create: bool) -> Rdict:
        try:
            return Rdict(str(directory / "db"), rocks_options(self._cache, create=create))
        except Exception as error:
            raise mapped(error, directory) from error

    def _reset(self, partition: TopicPartition) -> None:
        directory = self._handles[partition].directory
        self._close(partition)
        _set_aside(directory, "the changelog does not have its position")
        self._open(partition)

    def _scan(self, partition: TopicPartition, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        handle = self._handles.get(partition)
        if handle is None:
            return []
        try:
            return list(islice(_entries_after(handle.db, after), limit))
        except Exception as error:
            raise handle.distrust(error) from error

    def _write_in_turn(self, writes: Sequence[StoreWrite]) -> None:
        for each in writes:
            self._write(*each)

    def _write(self, partition: TopicPartition, entries: Entries, position: int) -> None:
        handle = self._handles[partition]
        flush_at = min(_UNFLUSHED_BYTES_OF_ONE, _UNFLUSHED_BYTES // len(self._handles))
        try:
            try:
                handle.commit(handle.batch(entries, position), flush_at)
            except FatalError as error:
                log.warning("store_reopened", directory=str(handle.directory), error=str(error))
                self._reopen(handle)
                handle.commit(handle.batch(entries, position), flush_at)
        except Untrusted as error:
            raise handle.distrust(error) from error
        handle.position = position

    def _reopen(self, handle: Handle) -> None:
        with handle.lock:
            handle.close()
            try:
                handle.db = self._database(handle.directory, create=False)
            except TransientError as error:  # what is closed cannot be written to: the restart waits for room
                raise FatalError(f"the store cannot be reopened: {error}") from error

    def _close_in_turn(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._close(partition)

    def _close(self, partition: TopicPartition) -> None:
        handle = self._handles.pop(partition, None)
        if handle is not None:
            with handle.lock:
                handle.close()


def _entries_after(db: Rdict, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries in the order of their keys, without the position; a damaged file raises instead of ending it."""
    cursor = db.iter()
    cursor.seek(after + b"\0")
    while cursor.valid():
        key, value = bytes(cursor.key()), bytes(cursor.value())
        if key != POSITION_KEY:
            yield key, value
        cursor.next()
    cursor.status()


def _marked_uuid(path: Path, identity: str) -> UUID:
    """The uuid that the marker names; `Untrusted` unless the marker is one of ours."""
    try:
        marker = json.loads(path.read_bytes())
        uuid = UUID(marker["uuid"])
    except FileNotFoundError:
        raise Untrusted("it has no marker") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Untrusted("its marker cannot be read") from None
    if marker.get("format") != FORMAT:
        raise Untrusted(f"its format is not {FORMAT}")
    if marker.get("identity") != identity:
        raise Untrusted("it belongs to another consumer group or changelog topic")
    return uuid


def _set_aside(directory: Path, reason: str) -> None:
    """Rename the directory, keeping it for whoever wants to know; the one that was kept before goes."""
    pattern = re.compile(re.escape(directory.name) + r"\.set-aside-([0-9]+)")
    older = {int(match[1]): path for path in directory.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    kept = directory.with_name(f"{directory.name}.set-aside-{max(older, default=0) + 1}")
    directory.rename(kept)
    for path in older.values():
        shutil.rmtree(path)
    log.warning(
        "store_set_aside",
        topic=directory.parent.name,
        partition=int(directory.name),
        reason=reason,
        kept_as=kept.name,
    )
