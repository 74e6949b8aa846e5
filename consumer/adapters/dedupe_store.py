"""The local index of what was delivered: one RocksDB for each source partition, under the state directory.

It answers for durability, for noticing a store that cannot be trusted, and for the files that name this state
directory. It touches nothing but the state directory::

    <state_dir>/instance.json, pseudonym.key
    <state_dir>/<topic>/<partition>/store.json          marker: format, uuid, identity
    <state_dir>/<topic>/<partition>/db/                 RocksDB; the same uuid and the changelog position inside
    <state_dir>/<topic>/<partition>.set-aside-<n>/      the last one that could not be trusted

The changelog is the truth, so a store is trusted only when marker, database and identity agree; otherwise it is set
aside and begins empty, at position 0. A store is never partly right: the position is written in one batch with its
entries, and only one write-ahead log holds records at a time (see `_Handle.commit`).

What a failure becomes:

- No space left: `TransientError`. The same handle works again a few seconds after there is room (16 MB).
- Another failed write or fsync: RocksDB then refuses all writes, so the database is reopened and the write repeated,
  once; `FatalError` when that fails too. Repeating is harmless: an entry is a whole value.
- A failed read, or corruption met in a write: `FatalError`, and the marker is removed, so that the restart rebuilds.
- The store is open in another process: `FatalError`; nothing is set aside.
"""

import asyncio
import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, Rdict, WriteBatch

from consumer.errors import ConsumerError, FatalError, TransientError
from consumer.model import TopicPartition

FORMAT = 2
"""Changes with every change in how entries or the position are laid down; another one is set aside."""

_POSITION_KEY = b"\0position"
"""Cannot be an entry's: those are the 32 bytes of an identity, or `chain`."""

CACHE_BYTES = 8 << 20
"""Of blocks of all databases, full in the end. More serves little: the keys are hashes, so none are read together."""
_UNFLUSHED_BYTES = 64 << 20
_UNFLUSHED_BYTES_OF_ONE = 2 << 20
_WRITE_BUFFER_BYTES = 16 << 20
"""Never full, since `_Handle.commit` flushes before; RocksDB recovers from a full disk when it finds as much room."""
_MEMTABLE_FILTER = 0.02
"""Of a write buffer, for a bloom filter: most contacts are not in it, and a search for them takes twice as long."""
_NO_SPACE = os.strerror(errno.ENOSPC)
_KEY_BYTES = 32
_MARKER = "store.json"

log = structlog.get_logger(__name__)
_T = TypeVar("_T")
Entries = Sequence[tuple[bytes, bytes | None]]


class _Untrusted(ConsumerError):
    """The store on disk is not what was written; the message says how that shows."""


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TransientError(f"no space left in the state directory: {error}") from error
        raise FatalError(f"the state directory cannot be used: {error}") from error


def _mapped(error: Exception, directory: Path) -> ConsumerError:
    """What an error of RocksDB means; rocksdict raises bare `Exception`, so the text decides."""
    text = str(error)
    if _NO_SPACE in text:
        return TransientError(f"no space left in the state directory: {directory}")
    if "While lock file" in text or "lock hold by" in text:
        return FatalError(f"{directory} is in use by another process: each process needs a STATE_DIR of its own")
    if text.startswith("IO error") and "No such file" not in text:
        return FatalError(f"the store cannot be used: {text}")
    return _Untrusted(text)


def rocks_options(cache: Cache, *, create: bool) -> Options:
    """Sized for many databases in one process: what they share is bounded, what each has of its own is small."""
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_bloom_filter(10, block_based=False)
    options = Options(raw_mode=True)  # the other mode unpickles what it reads
    options.create_if_missing(create)
    options.set_block_based_table_factory(blocks)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_compression_type(DBCompressionType.none())  # hashes do not compress
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(_MEMTABLE_FILTER)
    options.set_max_background_jobs(2)
    options.set_max_file_opening_threads(1)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


@dataclass(eq=False, slots=True)
class _Handle:
    """An open database.

    Attributes:
        directory: Holds marker and database.
        db: Replaced when it is reopened.
        uuid: Of the store; in the marker and in the database.
        position: Changelog offset that it reflects.
        unflushed: Bytes in memory and in the write-ahead log alone.
        lock: Held for reads, and while `db` is closed or reopened: rocksdict cannot do both at once.
    """

    directory: Path
    db: Rdict
    uuid: UUID
    position: int = 0
    unflushed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, entries: Entries, position: int) -> WriteBatch:
        """Entries and position as one write."""
        batch = WriteBatch(raw_mode=True)
        for key, value in entries:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_POSITION_KEY, self.uuid.bytes + position.to_bytes(8))
        return batch

    def commit(self, batch: WriteBatch, flush_at: int) -> None:
        """Write durably; flush here, before RocksDB would do it in the background.

        A background flush lets two write-ahead logs hold records. RocksDB then opens without complaint when the older
        one is damaged at its end, and the position would claim entries that are gone.
        """
        self.unflushed += batch.size_in_bytes()
        try:
            self.db.write(batch)
            self.db.flush_wal(sync=True)  # not a synced write, which holds the GIL through the fsync
            if self.unflushed > flush_at:
                self.db.flush(wait=True)
                self.unflushed = 0
        except Exception as error:
            raise _mapped(error, self.directory) from error

    def load_position(self) -> None:
        """Read the position that the database holds; `_Untrusted` when it is that of another store, or missing."""
        try:
            found = self.db.get(_POSITION_KEY)
        except Exception as error:
            raise _mapped(error, self.directory) from error
        if not isinstance(found, bytes) or len(found) != len(self.uuid.bytes) + 8 or found[:-8] != self.uuid.bytes:
            raise _Untrusted("the database is not the one that the marker names")
        self.position = int.from_bytes(found[-8:])

    def distrust(self, error: Exception) -> FatalError:
        """Have the next start set the store aside."""
        with contextlib.suppress(OSError):
            (self.directory / _MARKER).unlink(missing_ok=True)
        return FatalError(f"the store is damaged and will be rebuilt at the next start: {error}")

    def close(self) -> None:
        """Release the database; after a failed write RocksDB repeats its complaint here, and lets go all the same."""
        try:
            self.db.close()
        except Exception as error:  # noqa: BLE001 -- rocksdict raises nothing narrower
            log.warning("store did not close cleanly", directory=str(self.directory), error=str(error))

    def bytes_on_disk(self) -> int:
        """Size of the database's files; one that vanishes meanwhile counts nothing."""
        total = 0
        for entry in os.scandir(self.directory / "db"):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
        return total


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
        self._handles: dict[TopicPartition, _Handle] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="store")

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

    async def write(self, partition: TopicPartition, entries: Entries, position: int) -> None:
        await self._run(lambda: self._write(partition, entries, position))

    async def close(self, partition: TopicPartition) -> None:
        await self._run(lambda: self._close(partition))

    async def close_all(self) -> None:
        """Close every store and end the thread; nothing can be opened afterwards."""
        for partition in list(self._handles):
            await self.close(partition)
        self._worker.shutdown()

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
        return await asyncio.get_running_loop().run_in_executor(self._worker, _file_errors()(work))

    def _directory(self, partition: TopicPartition) -> Path:
        topic = partition.topic
        if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) or topic in {".", ".."}:
            raise FatalError(f"not the name of a Kafka topic: {topic!r}")
        return self._state_dir / topic / str(partition.partition)

    def _open(self, partition: TopicPartition) -> int:
        if partition not in self._handles:
            self._handles[partition] = self._trusted_or_new(self._directory(partition))
        return self._handles[partition].position

    def _trusted_or_new(self, directory: Path) -> _Handle:
        if directory.exists():
            try:
                return self._trusted(directory)
            except _Untrusted as reason:
                _set_aside(directory, str(reason))
        return self._new(directory)

    def _trusted(self, directory: Path) -> _Handle:
        """Open the database before anything is judged: only its lock tells that nobody else is using it."""
        handle = _Handle(directory, self._database(directory, create=False), UUID(int=0))
        try:
            handle.uuid = _marked_uuid(directory / _MARKER, self._identity)
            handle.load_position()
        except BaseException:
            handle.close()
            raise
        return handle

    def _new(self, directory: Path) -> _Handle:
        directory.mkdir(parents=True)
        try:
            return self._filled(directory)
        except _Untrusted as error:
            raise FatalError(f"a new store cannot be made: {error}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def _filled(self, directory: Path) -> _Handle:
        handle = _Handle(directory, self._database(directory, create=True), uuid4())
        try:
            handle.commit(handle.batch((), 0), _UNFLUSHED_BYTES_OF_ONE)
            marker = {"format": FORMAT, "uuid": str(handle.uuid), "identity": self._identity}
            _write_durably(directory / _MARKER, json.dumps(marker).encode())
        except BaseException:
            handle.close()
            raise
        return handle

    def _database(self, directory: Path, *, create: bool) -> Rdict:
        try:
            return Rdict(str(directory / "db"), rocks_options(self._cache, create=create))
        except Exception as error:
            raise _mapped(error, directory) from error

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

    def _write(self, partition: TopicPartition, entries: Entries, position: int) -> None:
        handle = self._handles[partition]
        flush_at = min(_UNFLUSHED_BYTES_OF_ONE, _UNFLUSHED_BYTES // len(self._handles))
        try:
            try:
                handle.commit(handle.batch(entries, position), flush_at)
            except FatalError as error:
                log.warning("store reopened after a failed write", directory=str(handle.directory), error=str(error))
                self._reopen(handle)
                handle.commit(handle.batch(entries, position), flush_at)
        except _Untrusted as error:
            raise handle.distrust(error) from error
        handle.position = position

    def _reopen(self, handle: _Handle) -> None:
        with handle.lock:
            handle.close()
            try:
                handle.db = self._database(handle.directory, create=False)
            except TransientError as error:  # what is closed cannot be written to: the restart waits for room
                raise FatalError(f"the store cannot be reopened: {error}") from error

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
        if key != _POSITION_KEY:
            yield key, value
        cursor.next()
    cursor.status()


def _marked_uuid(path: Path, identity: str) -> UUID:
    """The uuid that the marker names; `_Untrusted` unless the marker is one of ours."""
    try:
        marker = json.loads(path.read_bytes())
        uuid = UUID(marker["uuid"])
    except FileNotFoundError:
        raise _Untrusted("it has no marker") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _Untrusted("its marker cannot be read") from None
    if marker.get("format") != FORMAT:
        raise _Untrusted(f"its format is not {FORMAT}")
    if marker.get("identity") != identity:
        raise _Untrusted("it belongs to another consumer group or changelog topic")
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
        "store set aside",
        topic=directory.parent.name,
        partition=int(directory.name),
        reason=reason,
        kept_as=kept.name,
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _durable_draft(directory: Path, content: bytes) -> Iterator[Path]:
    """A file of mode 0600 with this content, on disk, that becomes another's: rename or link it."""
    descriptor, name = tempfile.mkstemp(dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
        _sync_directory(directory)
    finally:
        Path(name).unlink(missing_ok=True)


def _write_durably(path: Path, content: bytes) -> None:
    with _durable_draft(path.parent, content) as draft:
        draft.replace(path)


def _created_once(path: Path, content: bytes) -> bytes:
    """The content of the file, which is created whole; of two processes that create it both get the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with _durable_draft(path.parent, content) as draft, contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    return path.read_bytes()


@_file_errors()
def instance_id(state_dir: Path) -> str:
    """What names this state directory among those of the group: made once, kept in it."""
    path = state_dir / "instance.json"
    content = _created_once(path, json.dumps({"instance": str(uuid4())}).encode())
    try:
        return str(UUID(json.loads(content)["instance"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FatalError(f"{path} is damaged: delete it, and a new one is made") from None


@_file_errors()
def pseudonym_key(state_dir: Path) -> bytes:
    """Key of the pseudonyms: made at random once, kept in the state directory, readable by its owner alone.

    It is text, so that it may become the PSEUDONYM_KEY of all instances.
    """
    path = state_dir / "pseudonym.key"
    key = _created_once(path, secrets.token_hex(_KEY_BYTES).encode())
    if len(key) != 2 * _KEY_BYTES:
        raise FatalError(f"{path} is damaged: put it back, or set PSEUDONYM_KEY; a new key makes new pseudonyms")
    return key
