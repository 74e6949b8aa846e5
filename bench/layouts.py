"""One database for each partition, or one with a column family for each: what each layout costs at 64 partitions.

Both with the store's own options and the same entries, each in a process of its own. `docs/design.md` has the decision.
"""

import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from rocksdict import Cache, Rdict, WriteBatch

from bench import machine
from consumer.adapters.dedupe_store.database import CACHE_BYTES, rocks_options

PARTITIONS = 64
KEYS = 20_000
AT_ONCE = 1_000
UNFLUSHED_BYTES = (64 << 20) // PARTITIONS

_T = TypeVar("_T")


@dataclass(frozen=True)
class Layout:
    """What a layout costs.

    Attributes:
        name: Of the layout.
        create_s: All partitions, new.
        write_us: One entry, with its share of syncs and flushes.
        close_s: All partitions.
        open_s: All partitions again, from the disk.
        leave_ms: One partition that moves away is closed.
        rss_mb: Of the process, filled.
        open_files: Of the process, filled.
    """

    name: str
    create_s: float
    write_us: float
    close_s: float
    open_s: float
    leave_ms: float
    rss_mb: int
    open_files: int


class _Databases:
    """A database for each partition."""

    def __init__(self, directory: Path, cache: Cache) -> None:
        self._each = [
            Rdict(str(directory / str(number)), rocks_options(cache, create=True)) for number in range(PARTITIONS)
        ]

    def partition(self, number: int) -> Rdict:
        return self._each[number]

    def leave(self) -> None:
        self._each.pop().close()

    def close(self) -> None:
        for each in self._each:
            each.close()


class _Families:
    """A column family for each partition, in one database."""

    def __init__(self, directory: Path, cache: Cache) -> None:
        options = rocks_options(cache, create=True)
        options.create_missing_column_families(True)
        families = {str(number): rocks_options(cache, create=True) for number in range(PARTITIONS)}
        self._db = Rdict(str(directory), options, column_families=families)
        self._each = [self._db.get_column_family(name) for name in families]

    def partition(self, number: int) -> Rdict:
        return self._each[number]

    def leave(self) -> None:
        """Its memtable is flushed, so that the shared log can be let go of; the family itself stays open."""
        self._each.pop().flush(wait=True)

    def close(self) -> None:
        for each in self._each:
            each.close()
        self._db.close()


LAYOUTS: Mapping[str, Callable[[Path, Cache], _Databases | _Families]] = {
    "databases": _Databases,
    "column families": _Families,
}


def measure() -> list[Layout]:
    """Both layouts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        return list(processes.map(_measured, LAYOUTS))


def _measured(name: str) -> Layout:
    machine.stay_on(machine.CONSUMER_CORE)
    entries = [(hashlib.sha256(number.to_bytes(4)).digest(), os.urandom(66)) for number in range(KEYS)]
    cache, process = Cache(CACHE_BYTES), psutil.Process()
    before = process.memory_info().rss
    with tempfile.TemporaryDirectory() as directory:
        create_s, layout = _timed(lambda: LAYOUTS[name](Path(directory), cache))
        write_s, _ = _timed(lambda: _fill(layout, entries))
        rss, files = process.memory_info().rss - before, process.num_fds()
        close_s, _ = _timed(layout.close)
        open_s, layout = _timed(lambda: LAYOUTS[name](Path(directory), cache))
        _fill(layout, entries[:AT_ONCE])
        leave_s, _ = _timed(layout.leave)
        layout.close()
    write_us = write_s / (KEYS * PARTITIONS) * 1e6
    return Layout(
        name,
        create_s=round(create_s, 2),
        write_us=round(write_us, 1),
        close_s=round(close_s, 2),
        open_s=round(open_s, 2),
        leave_ms=round(leave_s * 1000, 2),
        rss_mb=round(rss / 2**20),
        open_files=files,
    )


def _fill(layout: _Databases | _Families, entries: list[tuple[bytes, bytes]]) -> None:
    """As a settlement does: a part of each partition in turn, synced, and flushed before RocksDB would."""
    for begin in range(0, len(entries), AT_ONCE):
        for number in range(PARTITIONS):
            batch = WriteBatch(raw_mode=True)
            for key, value in entries[begin : begin + AT_ONCE]:
                batch.put(key, value)
            db = layout.partition(number)
            db.write(batch)
            db.flush_wal(sync=True)
            if (begin + AT_ONCE) * 100 % UNFLUSHED_BYTES < AT_ONCE * 100:
                db.flush(wait=True)


def _timed(call: Callable[[], _T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
