"""RocksDB itself, on a real disk: what a crash, a damaged file, a full disk or a second process leaves."""

import asyncio
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rocksdict import Options, Rdict
from structlog.testing import capture_logs
from typing_extensions import override

from consumer.adapters.breadcrumbs import FileBreadcrumbs
from consumer.adapters.dedupe_store import store as stores
from consumer.adapters.dedupe_store.database import Handle, Untrusted
from consumer.adapters.dedupe_store.files import instance_id, occupied, pseudonym_key
from consumer.adapters.dedupe_store.store import RocksStore
from consumer.adapters.schema_registry.registry import RegistrySchemas, opened
from consumer.errors import ConsumerError, FatalError, TransientError
from consumer.model import TopicPartition
from consumer.ports import Breadcrumb
from tests.lives import settings
from tests.store_contract import OTHER, PARTITION, StoreContract, identity

PROJECT = Path(__file__).parents[2]
IDENTITY = "genesys-consumer/genesys-consumer-dedupe-changelog"
PER_WRITE = 50
UNCOMPACTED = (
    15  # with `early_flush`, so many writes make too few table files for a compaction: none vanishes in a copy
)
StoreMaker = Callable[..., RocksStore]

WRITER = """
import asyncio, sys
from pathlib import Path
from consumer.adapters.dedupe_store import store as stores
from tests.integration.test_dedupe_store import IDENTITY, PARTITION, entries_of
stores._UNFLUSHED_BYTES_OF_ONE = 100_000

async def main():
    store = stores.RocksStore(Path(sys.argv[1]), IDENTITY)
    position = await store.open(PARTITION)
    print(position, flush=True)
    while True:
        await store.write((PARTITION, entries_of(position), position + 1))
        position += 1
        print(position, flush=True)

asyncio.run(main())
"""

HOLDER = """
import asyncio, sys
from pathlib import Path
from consumer.adapters.dedupe_store.store import RocksStore
from tests.integration.test_dedupe_store import IDENTITY, PARTITION
store = RocksStore(Path(sys.argv[1]), IDENTITY)
print(asyncio.run(store.open(PARTITION)), flush=True)
sys.stdin.read()
"""


HANGING = """
import asyncio, sys, threading
from pathlib import Path
from consumer.adapters.dedupe_store import store as stores
from consumer.adapters.dedupe_store.database import Handle
from tests.integration.test_dedupe_store import IDENTITY, PARTITION
stores.CLOSE_WITHIN_S = 0.05
Handle.close = lambda handle: threading.Event().wait()

async def main():
    store = stores.RocksStore(Path(sys.argv[1]), IDENTITY)
    await store.open(PARTITION)
    await store.close_all()

asyncio.run(main())
print("ends")
"""

OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
async def make_store(tmp_path) -> AsyncIterator[StoreMaker]:
    """Makes a store on the state directory of the test, or another; all are closed in the end."""
    made: list[RocksStore] = []

    def make(state_dir: Path = tmp_path / "state", identity: str = IDENTITY) -> RocksStore:
        made.append(RocksStore(state_dir, identity))
        return made[-1]

    yield make
    for store in made:
        await store.close_all()


@pytest.fixture
def early_flush(monkeypatch) -> None:
    """Records leave memory for a table file after a few writes."""
    monkeypatch.setattr(stores, "_UNFLUSHED_BYTES_OF_ONE", 20_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of the given size, or resizes it."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def resize(size: str) -> Path:
        how = ["-o", f"remount,size={size}"] if mounted.is_mount() else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        done = subprocess.run(["mount", *how, str(mounted)], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603, S607 -- the system's own
        if done.returncode != 0:
            given_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            given_up(f"A FULL DISK WAS NOT TRIED, mounting needs root: {done.stderr}")
        return mounted

    yield resize
    if mounted.is_mount():
        subprocess.run(["umount", str(mounted)], check=True, timeout=10)  # noqa: S603, S607 -- the system's own


def entries_of(write: int) -> list[tuple[bytes, bytes | None]]:
    """The entries of the nth write: no two writes share a key."""
    return [(identity(number), number.to_bytes(60)) for number in range(write * PER_WRITE, (write + 1) * PER_WRITE)]


async def fill(store: RocksStore, writes: int, partition: TopicPartition = PARTITION) -> None:
    """Open the store and do writes 0, 1, ... up to that position."""
    for write in range(await store.open(partition), writes):
        await store.write((partition, entries_of(write), write + 1))


def writes_present(store: RocksStore, writes: int) -> list[bool]:
    """For each write whether all of it is there; none may be there in part."""
    present = []
    for write in range(writes):
        values = store.read(PARTITION, [key for key, _ in entries_of(write)])
        assert values in ([None] * PER_WRITE, [value for _, value in entries_of(write)])
        present.append(values[0] is not None)
    return present


def database(state_dir: Path) -> Path:
    """Directory of RocksDB."""
    return state_dir / PARTITION.topic / str(PARTITION.partition) / "db"


def set_aside(state_dir: Path) -> list[str]:
    """Names of what was set aside."""
    return sorted(path.name for path in (state_dir / PARTITION.topic).iterdir() if "set-aside" in path.name)


def logs_with_records(state_dir: Path) -> list[Path]:
    """Write-ahead logs that are not empty, oldest first."""
    return [path for path in sorted(database(state_dir).glob("*.log")) if path.stat().st_size]


def flip_middle(path: Path) -> None:
    """One byte turns over, as on a worn disk."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


class TestRocksStoreKeepsTheContract(StoreContract):
    @override
    @pytest.fixture
    def stores(self, make_store):
        return make_store


class TestCrash:
    async def test_a_killed_process_leaves_every_acknowledged_write_and_a_position_that_fits(
        self, tmp_path, make_store
    ):
        """After kill -9 the position is that of the last acknowledged write or one more, and no more is there."""
        for acknowledged_before_kill in (1, 37, 80, 150):
            position = self.written_until_killed(tmp_path, acknowledged_before_kill)
            store = make_store(tmp_path)
            found = await store.open(PARTITION)
            assert found in {position, position + 1}
            assert writes_present(store, found + 2) == [True] * found + [False] * 2
            assert set_aside(tmp_path) == []
            await store.close_all()

    @staticmethod
    def written_until_killed(state_dir: Path, acknowledged: int) -> int:
        """Run the writer for that many writes and kill it; returns the last position that it saw written."""
        command = [sys.executable, "-c", WRITER, str(state_dir)]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603 -- ours
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(acknowledged + 1)]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.readlines()
        return int([line for line in lines if line.endswith("\n")][-1])

    async def test_a_torn_tail_of_the_log_keeps_what_is_before_it(self, tmp_path, make_store):
        """Power fails within a write: what was acknowledged before is there, with the position that fits it."""
        await fill(make_store(), 20)
        shutil.copytree(tmp_path / "state", tmp_path / "crashed")
        (log,) = logs_with_records(tmp_path / "crashed")
        os.truncate(log, log.stat().st_size - 30)
        store = make_store(tmp_path / "crashed")
        assert await store.open(PARTITION) == 19
        assert writes_present(store, 20) == [True] * 19 + [False]
        assert set_aside(tmp_path / "crashed") == []

    @pytest.mark.usefixtures("early_flush")
    async def test_a_torn_older_log_never_leaves_a_gap(self, tmp_path, make_store):
        """Whenever the process dies, no log but the last may hold records: RocksDB would pass over what one lost."""
        store = make_store()
        for writes in range(1, UNCOMPACTED):
            await fill(store, writes)
            crashed = shutil.copytree(tmp_path / "state", tmp_path / f"crashed-{writes}")
            for log in logs_with_records(crashed)[:1]:
                os.truncate(log, log.stat().st_size - 30)
            survivor = make_store(crashed)
            position = await survivor.open(PARTITION)
            assert writes_present(survivor, writes) == [write < position for write in range(writes)]

    async def test_a_new_store_that_was_never_finished_is_set_aside(self, tmp_path, make_store):
        """A crash between making the database and its marker costs nothing but an empty directory."""
        store = make_store()
        await store.open(PARTITION)
        await store.close(PARTITION)
        (database(tmp_path / "state").parent / "store.json").unlink()
        assert await store.open(PARTITION) == 0
        assert set_aside(tmp_path / "state") == ["0.set-aside-1"]


def lose(pattern: str) -> Callable[[Path], None]:
    """Damage: files of the database vanish."""

    def damage(partition: Path) -> None:
        for path in partition.glob(pattern):
            path.unlink()

    return damage


def flip(pattern: str) -> Callable[[Path], None]:
    """Damage: a byte turns over in the middle of each file that holds something."""

    def damage(partition: Path) -> None:
        damaged = [path for path in partition.glob(pattern) if path.stat().st_size]
        assert damaged
        for path in damaged:
            flip_middle(path)

    return damage


def zero_tail(partition: Path) -> None:
    """Damage: the end of the log was allocated and never written."""
    (log,) = [path for path in partition.glob("db/*.log") if path.stat().st_size]
    content = log.read_bytes()
    log.write_bytes(content[:-6000] + bytes(6000))


def new_database(partition: Path) -> None:
    """Damage: what is left by a start that found no CURRENT and made a new database."""
    shutil.rmtree(partition / "db")
    Rdict(str(partition / "db"), Options(raw_mode=True)).close()


def mark(**changed: Any) -> Callable[[Path], None]:
    """Damage: the marker says something else."""

    def damage(partition: Path) -> None:
        marker = json.loads((partition / "store.json").read_bytes())
        (partition / "store.json").write_text(json.dumps(marker | changed))

    return damage


def marker_of(text: str) -> Callable[[Path], None]:
    """Damage: the marker is not what was written."""

    def damage(partition: Path) -> None:
        (partition / "store.json").write_text(text)

    return damage


async def with_a_flipped_table(tmp_path: Path, make_store: Callable[..., RocksStore]) -> tuple[RocksStore, Path]:
    """A store that opens all the same, and its state directory."""
    await fill(make_store(), UNCOMPACTED)
    crashed = shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    flip("db/*.sst")(database(crashed).parent)
    store = make_store(crashed)
    assert await store.open(PARTITION) == UNCOMPACTED
    return store, crashed


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            flip("db/*.log"),
            zero_tail,
            lose("db/CURRENT"),
            lose("db/MANIFEST-*"),
            lose("db/*"),
            new_database,
            lose("store.json"),
            marker_of("[]"),
            marker_of("{}"),
            marker_of(""),
            mark(format=3),
            mark(uuid="00000000-0000-0000-0000-000000000001"),
            mark(uuid=7),
            mark(identity="another group"),
        ],
        ids=[
            "log flipped in the middle",
            "log zeroed at the end",
            "no CURRENT",
            "no MANIFEST",
            "no file left",
            "new database",
            "no marker",
            "marker that is no object",
            "marker without anything",
            "marker cut off",
            "another format",
            "marker of another store",
            "marker without a uuid",
            "another identity",
        ],
    )
    async def test_a_store_that_cannot_be_trusted_begins_empty(self, tmp_path, make_store, damage):
        """It is set aside with a warning, nothing of it is seen, and the new one works, now and after a restart."""
        await fill(make_store(), 200)
        crashed = shutil.copytree(tmp_path / "state", tmp_path / "crashed")
        damage(database(crashed).parent)
        store = make_store(crashed)
        with capture_logs() as logs:
            assert await store.open(PARTITION) == 0
        assert [(line["log_level"], line["event"], line["kept_as"]) for line in logs] == [
            ("warning", "store_set_aside", "0.set-aside-1")
        ]
        assert writes_present(store, 200) == [False] * 200
        assert set_aside(crashed) == ["0.set-aside-1"]
        await fill(store, 3)
        await store.close(PARTITION)
        assert await make_store(crashed).open(PARTITION) == 3

    @pytest.mark.usefixtures("early_flush")
    async def test_a_lost_table_file_is_noticed(self, tmp_path, make_store):
        """The database names a file that is gone: set aside."""
        await fill(make_store(), UNCOMPACTED)
        crashed = shutil.copytree(tmp_path / "state", tmp_path / "crashed")
        lose("db/*.sst")(database(crashed).parent)
        store = make_store(crashed)
        assert await store.open(PARTITION) == 0
        assert set_aside(crashed) == ["0.set-aside-1"]

    @pytest.mark.usefixtures("early_flush")
    async def test_a_flipped_table_file_stops_the_reader_and_the_restart_begins_empty(self, tmp_path, make_store):
        """RocksDB finds it only when it reads there: that is never an absent key, and the next start rebuilds."""
        store, crashed = await with_a_flipped_table(tmp_path, make_store)
        with pytest.raises(FatalError, match="rebuilt at the next start"):
            writes_present(store, UNCOMPACTED)
        await store.close_all()
        restarted = make_store(crashed)
        assert await restarted.open(PARTITION) == 0
        assert writes_present(restarted, UNCOMPACTED) == [False] * UNCOMPACTED

    @pytest.mark.usefixtures("early_flush")
    async def test_a_flipped_table_file_stops_a_scan_too(self, tmp_path, make_store):
        """It would end like one that has come to the last entry, and what stands behind would never be looked at."""
        store, crashed = await with_a_flipped_table(tmp_path, make_store)
        with pytest.raises(FatalError, match="rebuilt at the next start"):
            await store.scan(PARTITION, b"", UNCOMPACTED * PER_WRITE)
        assert not (database(crashed).parent / "store.json").exists()

    async def test_damage_that_a_write_meets_has_the_restart_begin_empty(self, make_store, monkeypatch):
        """Opened anew as it is, it would meet the same at each start."""
        store = make_store()
        await fill(store, 3)

        def damaged(*_: object) -> None:
            raise Untrusted("Corruption: block checksum mismatch")

        monkeypatch.setattr(Handle, "commit", damaged)
        with pytest.raises(FatalError, match="rebuilt at the next start"):
            await store.write((PARTITION, entries_of(3), 4))
        monkeypatch.undo()
        await store.close_all()
        assert await make_store().open(PARTITION) == 0

    async def test_a_store_of_another_partition_copied_in_is_set_aside(self, tmp_path, make_store):
        """A database and a marker that do not belong together are two halves of nothing."""
        store = make_store()
        await fill(store, 5)
        await fill(store, 7, OTHER)
        await store.close_all()
        target = database(tmp_path / "state")
        shutil.rmtree(target)
        shutil.copytree(target.parent.parent / str(OTHER.partition) / "db", target)
        again = make_store()
        assert await again.open(PARTITION) == 0
        assert await again.open(OTHER) == 7

    async def test_only_the_last_store_set_aside_is_kept(self, tmp_path, make_store):
        """Evidence does not fill the disk; what somebody named by hand is left alone."""
        store = make_store()
        await store.open(PARTITION)
        (tmp_path / "state" / PARTITION.topic / "0.set-aside-by-hand").mkdir()
        for write in range(3):
            await store.write((PARTITION, entries_of(write), write + 1))
            await store.reset(PARTITION)
        assert set_aside(tmp_path / "state") == ["0.set-aside-3", "0.set-aside-by-hand"]


class FailingOnce:
    """Stands before the database; its first fsync fails, as on a disk with a bad block."""

    def __init__(self, db: Rdict) -> None:
        self.db = db
        self.failed = False

    def flush_wal(self, *, sync: bool) -> None:
        """Fail once."""
        assert sync  # what is not on disk is lost with the machine
        if not self.failed:
            self.failed = True
            raise Exception("IO error: While fdatasync: Input/output error")  # noqa: TRY002 -- as rocksdict does
        self.db.flush_wal(sync)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)


class TestFailedWrites:
    async def test_a_full_disk_is_an_outage_that_ends_by_itself(self, small_disk, make_store):
        """Writes say so and lose nothing; with room again the same handle works, and so does the next start."""
        disk = small_disk("3m")
        store = make_store(disk)
        await store.open(PARTITION)
        written = await self.writes_until_full(store)
        with pytest.raises(TransientError, match="no space left"):
            await store.write((PARTITION, entries_of(written), written + 1))
        assert writes_present(store, written) == [True] * written
        small_disk("30m")
        await asyncio.wait_for(self.until_written(store, written), 30)
        await store.close_all()
        assert await make_store(disk).open(PARTITION) == written + 1
        assert set_aside(disk) == []

    @staticmethod
    async def writes_until_full(store: RocksStore) -> int:
        """Write until there is no room; returns how many were acknowledged."""
        for write in range(100_000):
            try:
                await store.write((PARTITION, entries_of(write), write + 1))
            except TransientError:
                return write
        raise AssertionError("the disk never filled up")

    @staticmethod
    async def until_written(store: RocksStore, write: int) -> None:
        """Repeat the write, as the pipeline does."""
        while True:
            try:
                return await store.write((PARTITION, entries_of(write), write + 1))
            except TransientError:
                await asyncio.sleep(0.05)

    async def test_no_room_for_a_new_store_is_an_outage_that_leaves_nothing_behind(self, small_disk, make_store):
        """Opening is tried again when there is room, and nothing needs to be set aside."""
        disk = small_disk("8k")
        store = make_store(disk)
        with pytest.raises(TransientError, match="no space left"):
            await store.open(PARTITION)
        small_disk("30m")
        assert await store.open(PARTITION) == 0
        assert set_aside(disk) == []

    async def test_a_failed_fsync_is_survived_by_reopening(self, make_store):
        """RocksDB refuses every write after it, so the database is opened anew and the write repeated."""
        store = make_store()
        await fill(store, 3)
        handle = store._handles[PARTITION]
        handle.db = FailingOnce(handle.db)
        with capture_logs() as logs:
            await fill(store, 5)
        assert [line["event"] for line in logs] == ["store_reopened"]
        assert writes_present(store, 6) == [True] * 5 + [False]

    async def test_what_waits_in_memory_is_bounded_for_all_stores_together(self, make_store, monkeypatch):
        """With many partitions each is written to its tables sooner."""
        monkeypatch.setattr(stores, "_UNFLUSHED_BYTES", 10_000)
        store = make_store()
        await fill(store, 1)
        assert store._handles[PARTITION].unflushed > 0
        await store.open(OTHER)
        await fill(store, 2)
        assert store._handles[PARTITION].unflushed == 0

    async def test_a_database_that_is_gone_when_it_is_reopened_is_not_made_anew(self, tmp_path, make_store):
        """It would be empty, at a position that says otherwise: who withdrew before would not be known."""
        store = make_store()
        await fill(store, 3)
        handle = store._handles[PARTITION]
        handle.db = FailingOnce(handle.db)
        shutil.rmtree(database(tmp_path / "state"))
        with pytest.raises(FatalError):
            await store.write((PARTITION, entries_of(3), 4))
        await store.close_all()
        assert await make_store().open(PARTITION) == 0

    async def test_a_disk_that_goes_on_failing_is_fatal(self, make_store, monkeypatch):
        """One repetition, no more: then the process stops, and what was acknowledged is there at the next start."""
        store = make_store()
        await fill(store, 3)
        opened = store._database
        monkeypatch.setattr(store, "_database", lambda *where, create: FailingOnce(opened(*where, create=create)))
        handle = store._handles[PARTITION]
        handle.db = FailingOnce(handle.db)
        with pytest.raises(FatalError, match="Input/output error"):
            await store.write((PARTITION, entries_of(3), 4))
        monkeypatch.undo()
        await store.close_all()
        again = make_store()
        assert await again.open(PARTITION) in {3, 4}
        assert writes_present(again, 3) == [True] * 3

    async def test_a_read_while_the_database_is_reopened_waits_for_it(self, make_store, monkeypatch):
        """It is answered from the database that is open then."""
        store = make_store()
        await fill(store, 1)
        opened, closed, go_on = store._database, threading.Event(), threading.Event()

        def reopen(*where: Path, create: bool) -> Any:
            closed.set()
            assert go_on.wait(10)
            return opened(*where, create=create)

        monkeypatch.setattr(store, "_database", reopen)
        handle = store._handles[PARTITION]
        handle.db = FailingOnce(handle.db)
        writing = asyncio.create_task(store.write((PARTITION, entries_of(1), 2)))
        assert await asyncio.to_thread(closed.wait, 10)
        reading = asyncio.create_task(asyncio.to_thread(store.read, PARTITION, [identity(0)]))
        done, _ = await asyncio.wait({reading}, timeout=0.1)
        assert not done
        go_on.set()
        await writing
        assert None not in await reading

    async def test_no_room_while_the_database_is_reopened_is_fatal(self, make_store, monkeypatch):
        """What is closed can be neither read nor written: the restart waits for room."""
        store = make_store()
        await fill(store, 1)

        def full(*_: Path, **__: bool) -> Any:
            raise TransientError("no space left in the state directory")

        opened = store._database
        monkeypatch.setattr(store, "_database", full)
        handle = store._handles[PARTITION]
        handle.db = FailingOnce(handle.db)
        with pytest.raises(FatalError, match="cannot be reopened"):
            await store.write((PARTITION, entries_of(1), 2))
        monkeypatch.setattr(store, "_database", opened)
        await store.close_all()

    async def test_a_state_directory_that_cannot_be_used_is_fatal(self, tmp_path, make_store):
        """The message names the path."""
        (tmp_path / "state").write_text("a file")
        with pytest.raises(FatalError, match=r"STATE_DIR cannot be used.*state"):
            await make_store().open(PARTITION)


class TestSecondProcess:
    @pytest.mark.parametrize("identity", [IDENTITY, "another group"])
    async def test_it_is_refused_and_the_first_is_left_alone(self, tmp_path, make_store, identity):
        """Not even a store of another identity is set aside while somebody has it open."""
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, str(tmp_path), cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"0\n"
        with pytest.raises(FatalError, match=r"in use by another process.*STATE_DIR"):
            await make_store(tmp_path, identity).open(PARTITION)
        assert set_aside(tmp_path) == []
        await asyncio.wait_for(holder.communicate(b""), 20)  # the end of its input ends it
        assert await make_store(tmp_path).open(PARTITION) == 0
        assert set_aside(tmp_path) == []

    def test_it_is_kept_out_of_the_whole_directory_until_the_first_has_ended(self, tmp_path):
        """Stores are opened late, and a second process under the name of this one would end it."""
        directory = tmp_path / "state"
        with occupied(directory):
            with pytest.raises(FatalError, match="STATE_DIR is used by another process"), occupied(directory):
                pass
            with occupied(tmp_path / "other"):
                pass
        with occupied(directory):
            pass

    def test_a_file_system_without_locks_keeps_nobody_out(self, tmp_path, monkeypatch):
        """As some network file systems are; it is said."""
        monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
        with capture_logs() as said, occupied(tmp_path):
            pass
        assert [line["event"] for line in said] == ["state_directory_not_locked"]

    def test_a_directory_that_cannot_be_made_is_told(self, tmp_path):
        """With the setting that names it."""
        (tmp_path / "state").write_text("a file")
        with pytest.raises(FatalError, match="STATE_DIR cannot be used"), occupied(tmp_path / "state"):
            pass


class TestHangingVolume:
    async def test_who_closes_stores_waits_no_longer_than_for_one(self, make_store, monkeypatch):
        """So that the member can leave its group. They are closed when the volume answers, before one is opened."""
        answers, close = threading.Event(), Handle.close

        def hang(handle: Handle) -> None:
            answers.wait()
            close(handle)

        monkeypatch.setattr(Handle, "close", hang)
        monkeypatch.setattr(stores, "CLOSE_WITHIN_S", 0.05)
        store = make_store()
        await fill(store, 2)
        await fill(store, 1, OTHER)
        with capture_logs() as told:
            closing = asyncio.create_task(store.close(PARTITION, OTHER))
            await asyncio.wait([closing], timeout=5.0)
        opening = asyncio.create_task(store.open(PARTITION))
        await asyncio.sleep(0)
        answers.set()
        assert await opening == 2
        await closing
        assert [(line["event"], line["log_level"], line["partitions"]) for line in told] == [
            ("store_not_closed", "error", 2)
        ]
        assert "volume of STATE_DIR" in told[0]["remedy"]

    def test_a_process_whose_stores_do_not_close_ends(self, tmp_path):
        """The interpreter waits for no thread of theirs."""
        command = [sys.executable, "-c", HANGING, str(tmp_path)]
        ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 -- ours
        assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["ends"]), ended.stderr


class TestPlace:
    async def test_what_stands_in_the_state_directory_is_told(self, tmp_path, make_store):
        """Whoever looks into it finds each file in docs/operations.md, and none there that is not made."""
        told = {
            part if part is parts[0] else parts[0][: parts[0].rfind("/") + 1] + part
            for line in re.findall(r"^ {4}STATE_DIR/([^\s,]+(?:, [^\s,]+)*) ", OPERATIONS, re.MULTILINE)
            for parts in [line.split(", ")]
            for part in parts
        }
        with occupied(tmp_path):
            instance_id(tmp_path)
            pseudonym_key(tmp_path)
        registry = opened(settings(state_dir=tmp_path, schema_registry_url="http://127.0.0.1:1"))
        assert isinstance(registry, RegistrySchemas)
        registry._cache.put(1, "{}")
        FileBreadcrumbs(tmp_path).lay(Breadcrumb("topic", 0, 0, 0, 0, alone=True))
        FileBreadcrumbs(tmp_path)  # what it finds, a process has died on
        store = make_store(tmp_path)
        await store.open(PARTITION)
        await store.reset(PARTITION)
        partition = f"{PARTITION.topic}/{PARTITION.partition}"
        named = {path.replace("<topic>/<partition>", partition).replace("<n>", "1") for path in told}
        assert [path for path in sorted(named) if not (tmp_path / path).exists()] == []
        assert {path.name for path in tmp_path.iterdir()} == {path.split("/")[0] for path in named}

    @pytest.mark.parametrize("topic", ["", ".", "..", "a/b", "../up", "a b", "a\n", "x" * 250])
    async def test_a_topic_that_is_no_directory_name_is_refused(self, tmp_path, make_store, topic):
        """Nothing outside the state directory can be named."""
        with pytest.raises(FatalError, match="not the name of a Kafka topic"):
            await make_store().open(TopicPartition(topic, 0))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("early_flush")
    async def test_size_counts_the_open_stores(self, make_store):
        """About the number of keys, bytes of the files; nothing is counted once all are closed."""
        store = make_store()
        await fill(store, 10)
        await fill(store, 10, OTHER)
        keys, size = store.size()
        assert 1000 <= keys <= 1020
        assert size > 1000 * 92
        await store.close(OTHER)
        assert 500 <= store.size()[0] <= 510
        await store.close(PARTITION)
        assert store.size() == (0, 0)

    def test_the_instance_id_is_made_once(self, tmp_path):
        """The same state directory is the same instance over restarts; another one is another."""
        assert instance_id(tmp_path / "a") == instance_id(tmp_path / "a")
        assert instance_id(tmp_path / "a") != instance_id(tmp_path / "b")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["instance.json"]

    def test_processes_that_start_together_agree(self, tmp_path):
        """Whoever loses the race to create the file takes what the winner wrote."""
        with ThreadPoolExecutor(8) as starters:
            assert len(set(starters.map(instance_id, [tmp_path] * 50))) == 1

    def test_what_was_made_is_only_read_afterwards(self, tmp_path):
        """A restart needs no room on the disk for it."""
        pseudonym_key(tmp_path)
        before = tmp_path.stat().st_mtime_ns
        pseudonym_key(tmp_path)
        assert tmp_path.stat().st_mtime_ns == before

    @pytest.mark.parametrize("content", ["{}", "", "[]", '{"instance": "one"}', '{"instance": 7}'])
    def test_a_damaged_instance_id_is_fatal(self, tmp_path, content):
        """A guess could take another instance's transactions over."""
        (tmp_path / "instance.json").write_text(content)
        with pytest.raises(FatalError, match="delete it"):
            instance_id(tmp_path)

    @pytest.mark.parametrize(
        ("code", "expected"), [(errno.ENOSPC, TransientError), (errno.EDQUOT, TransientError), (errno.EIO, FatalError)]
    )
    @pytest.mark.parametrize("of_the_directory", [False, True])
    def test_what_did_not_get_to_the_disk_is_not_taken_for_made(
        self, tmp_path, monkeypatch, code, expected, of_the_directory
    ):
        """Neither the content nor the name; where only room is missing it is tried again."""
        fsync = os.fsync

        def failing(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) is of_the_directory:
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(ConsumerError) as caught:
            instance_id(tmp_path)
        assert type(caught.value) is expected

    def test_the_pseudonym_key_is_made_once_and_private(self, tmp_path):
        """32 random bytes in hex, which nobody but the owner reads, the same at every start."""
        key = pseudonym_key(tmp_path / "a")
        assert len(bytes.fromhex(key.decode())) == 32
        assert pseudonym_key(tmp_path / "a") == key
        assert pseudonym_key(tmp_path / "b") != key
        assert stat.S_IMODE((tmp_path / "a" / "pseudonym.key").stat().st_mode) == 0o600

    def test_a_damaged_pseudonym_key_is_fatal(self, tmp_path):
        """A new key would give every person a new pseudonym, unnoticed."""
        (tmp_path / "pseudonym.key").write_bytes(b"short")
        with pytest.raises(FatalError, match="PSEUDONYM_KEY"):
            pseudonym_key(tmp_path)
