"""What a first fill decided of a file's rows, while it lasts: a RocksDB under the state directory, gone at its end.

Touches `<state_dir>/load~scratch`: no topic can have that name. Nothing in it needs to survive: it is made anew by each
run, from the file and the stores. It holds hashes and numbers, no contact data.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from consumer.errors import FatalError

NAME = "load~scratch"
_CACHE_BYTES = 16 << 20
_WRITE_BUFFER_BYTES = 8 << 20

Entries = Sequence[tuple[bytes, bytes]]


class Scratch:
    """`consumer.command_ports.Scratch` on RocksDB.

    Args:
        state_dir: The state directory, which this process occupies.

    Raises:
        FatalError: The directory cannot be used.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / NAME
        try:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._db = Rdict(str(self._directory), _options())
        except Exception as error:  # noqa: BLE001 -- rocksdict raises nothing narrower
            raise FatalError(f"{self._directory} cannot be used: {error}") from None
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[assignment, method-assign]  # a property, whatever the stubs say

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return list(self._db.get(list(keys)) or ()) if keys else []

    def write(self, entries: Entries) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in entries:
            batch.put(key, value)
        try:
            self._db.write(batch, self._unlogged)
        except Exception as error:  # noqa: BLE001 -- as above
            raise FatalError(f"{self._directory} cannot be written: {error}") from None

    def close(self) -> None:
        """Remove it."""
        self._db.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _options() -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(_CACHE_BYTES))
    blocks.set_bloom_filter(10, block_based=False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.none())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    return options
