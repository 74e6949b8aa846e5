"""One RocksDB with the position of the changelog that it reflects.

Answers for writes that are whole and durable, and for what an error of RocksDB means. Touches one directory.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import structlog
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, Rdict, WriteBatch

from consumer.errors import ConsumerError, FatalError, TransientError

MARKER = "store.json"
"""File beside the database: a store without it is set aside."""

POSITION_KEY = b"\0position"
"""Cannot be an entry's: those are the 32 bytes of an identity, or words, as `chain` and `load-<id>`."""

CACHE_BYTES = 8 << 20
"""Of the block cache that all databases share; it fills up. More serves little: keys are hashes, each read alone."""
_WRITE_BUFFER_BYTES = 16 << 20
"""Never full, since `Handle.commit` flushes before; RocksDB recovers from a full disk when it finds as much room."""
_MEMTABLE_FILTER = 0.02
"""Of a write buffer, for a bloom filter: most contacts are not in it, and a search for them takes twice as long."""
_NO_SPACE = os.strerror(errno.ENOSPC)

log = structlog.get_logger(__name__)
Entries = Sequence[tuple[bytes, bytes | None]]


class Untrusted(ConsumerError):
    """The store on disk is not what was written; the message says how that shows."""


def mapped(error: Exception, directory: Path) -> ConsumerError:
    """What an error of RocksDB means; rocksdict raises bare `Exception`, so the text decides."""
    text = str(error)
    if _NO_SPACE in text:
        return TransientError(f"no space left in the state directory: {directory}")
    if "While lock file" in text or "lock hold by" in text:
        return FatalError(f"{directory} is in use by another process: each process needs a STATE_DIR of its own")
    if text.startswith("IO error") and "No such file" not in text:
        return FatalError(f"the store cannot be used: {text}")
    return Untrusted(text)


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
class Handle:
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
        batch.put(POSITION_KEY, self.uuid.bytes + position.to_bytes(8))
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
            raise mapped(error, self.directory) from error

    def load_position(self) -> None:
        """Read the position that the database holds; `Untrusted` when it is that of another store, or missing."""
        try:
            found = self.db.get(POSITION_KEY)
        except Exception as error:
            raise mapped(error, self.directory) from error
        if not isinstance(found, bytes) or len(found) != len(self.uuid.bytes) + 8 or found[:-8] != self.uuid.bytes:
            raise Untrusted("the database is not the one that the marker names")
        self.position = int.from_bytes(found[-8:])

    def distrust(self, error: Exception) -> FatalError:
        """Have the next start set the store aside."""
        with contextlib.suppress(OSError):
            (self.directory / MARKER).unlink(missing_ok=True)
        return FatalError(f"the store is damaged and will be rebuilt at the next start: {error}")

    def close(self) -> None:
        """Release the database; after a failed write RocksDB repeats its complaint here, and lets go all the same."""
        try:
            self.db.close()
        except Exception as error:  # noqa: BLE001 -- rocksdict raises nothing narrower
            log.warning("store_not_closed_cleanly", directory=str(self.directory), error=str(error))

    def bytes_on_disk(self) -> int:
        """Size of the database's files; one that vanishes meanwhile counts nothing."""
        total = 0
        for entry in os.scandir(self.directory / "db"):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
        return total
