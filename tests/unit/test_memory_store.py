"""The in-memory store of the pipeline's tests keeps the contract that RocksDB's keeps."""

from collections.abc import Callable

import pytest

from consumer.ports import Store
from tests.memory_ports import MemoryStore, World
from tests.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def stores(self) -> Callable[[], Store]:
        """Stores on one world."""
        world = World()
        return lambda: MemoryStore(world)
