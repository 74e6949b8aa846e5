"""What every `consumer.ports.Store` promises, as tests: RocksDB and the in-memory fake run the same ones."""

import hashlib
from collections.abc import Callable

import pytest

from consumer.model import TopicPartition
from consumer.ports import Store

PARTITION = TopicPartition("crm.contacts.changes", 0)
OTHER = TopicPartition("crm.contacts.changes", 1)


def identity(number: int) -> bytes:
    """The key of a contact, as long as a real one."""
    return hashlib.sha256(number.to_bytes(4)).digest()


class StoreContract:
    """Inherit it, and override the fixture `stores`: a function that makes one more store on the same storage."""

    @pytest.fixture
    def stores(self) -> Callable[[], Store]:
        raise NotImplementedError

    async def test_a_new_store_is_empty_at_position_zero(self, stores):
        """Nothing is remembered before the first write."""
        store = stores()
        assert await store.open(PARTITION) == 0
        assert store.read(PARTITION, [identity(1), b"chain"]) == [None, None]

    async def test_values_come_back_in_the_order_of_the_keys(self, stores):
        """A read answers key by key: None where nothing is, twice where a key is asked twice."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one"), (identity(2), b"two"), (b"chain", b"head")], 3))
        asked = [b"chain", identity(2), identity(3), identity(1), identity(2)]
        assert store.read(PARTITION, asked) == [b"head", b"two", None, b"one", b"two"]

    async def test_reading_no_keys_gives_no_values(self, stores):
        """A poll whose records were all rejected asks for nothing."""
        store = stores()
        await store.open(PARTITION)
        assert store.read(PARTITION, []) == []

    async def test_a_value_may_be_empty(self, stores):
        """Empty is a value, not an absence."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"")], 1))
        assert store.read(PARTITION, [identity(1)]) == [b""]

    async def test_none_removes(self, stores):
        """An entry without a value takes the key away, whether it was there or not."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one"), (identity(2), b"two")], 2))
        await store.write((PARTITION, [(identity(1), None), (identity(3), None)], 4))
        assert store.read(PARTITION, [identity(1), identity(2), identity(3)]) == [None, b"two", None]

    async def test_a_scan_goes_through_all_entries_in_slices(self, stores):
        """In the order of the keys, each once, with the current values and nothing of the store's own."""
        store = stores()
        await store.open(PARTITION)
        entries = {identity(number): b"%d" % number for number in range(10)} | {b"chain": b"head"}
        await store.write((PARTITION, [(identity(0), b"former"), (identity(99), b"gone")], 1))
        await store.write((PARTITION, [*entries.items(), (identity(99), None)], 2))
        found: list[tuple[bytes, bytes]] = []
        while piece := await store.scan(PARTITION, found[-1][0] if found else b"", 4):
            assert len(piece) <= 4
            found += piece
        assert found == sorted(entries.items())

    async def test_a_closed_store_has_nothing_to_scan(self, stores):
        """A partition may go while somebody walks through it."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one")], 1))
        await store.close(PARTITION)
        assert await store.scan(PARTITION, b"", 4) == []

    async def test_the_last_entry_of_a_key_counts(self, stores):
        """Entries of one write apply oldest first, as they stand in the changelog."""
        store = stores()
        await store.open(PARTITION)
        entries = [(identity(1), b"old"), (identity(1), b"new"), (identity(2), b"old"), (identity(2), None)]
        await store.write((PARTITION, entries, 4))
        assert store.read(PARTITION, [identity(1), identity(2)]) == [b"new", None]

    async def test_entries_and_position_outlive_the_store(self, stores):
        """A closed store opens again where it was, also in the next process."""
        first = stores()
        await first.open(PARTITION)
        await first.write((PARTITION, [(identity(1), b"one")], 17))
        await first.close(PARTITION)
        second = stores()
        assert await second.open(PARTITION) == 17
        assert second.read(PARTITION, [identity(1)]) == [b"one"]

    async def test_a_write_without_entries_moves_the_position(self, stores):
        """A stretch of changelog may hold nothing but control records."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [], 2**40))
        await store.close(PARTITION)
        assert await store.open(PARTITION) == 2**40

    async def test_partitions_do_not_see_each_other(self, stores):
        """The same contact in two partitions is two entries, with two positions."""
        store = stores()
        await store.open(PARTITION)
        await store.open(OTHER)
        await store.write((PARTITION, [(identity(1), b"one")], 5))
        assert store.read(OTHER, [identity(1)]) == [None]
        await store.close(OTHER)
        assert await store.open(OTHER) == 0
        assert await store.open(PARTITION) == 5

    async def test_several_partitions_are_written_in_one_call(self, stores):
        """Each with its own position; one that comes twice has the last."""
        store = stores()
        await store.open(PARTITION)
        await store.open(OTHER)
        writes = [(PARTITION, [(identity(1), b"one")], 5), (OTHER, [(identity(1), b"two")], 7)]
        await store.write(*writes, (PARTITION, [(identity(1), None)], 6))
        assert [store.read(each, [identity(1)]) for each in (PARTITION, OTHER)] == [[None], [b"two"]]
        for each, position in ((PARTITION, 6), (OTHER, 7)):
            await store.close(each)
            assert await store.open(each) == position

    async def test_opening_an_open_store_changes_nothing(self, stores):
        """An assignment may name a partition that never left."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one")], 5))
        assert await store.open(PARTITION) == 5
        assert store.read(PARTITION, [identity(1)]) == [b"one"]

    async def test_a_reset_store_is_empty_and_works(self, stores):
        """After a reset nothing of before is seen again, then or after a restart."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one"), (identity(2), b"two")], 9))
        await store.reset(PARTITION)
        assert store.read(PARTITION, [identity(1), identity(2)]) == [None, None]
        await store.write((PARTITION, [(identity(2), b"again")], 1))
        await store.close(PARTITION)
        later = stores()
        assert await later.open(PARTITION) == 1
        assert later.read(PARTITION, [identity(1), identity(2)]) == [None, b"again"]

    async def test_a_reset_alone_is_at_position_zero(self, stores):
        """A crash right after a reset replays from the beginning."""
        store = stores()
        await store.open(PARTITION)
        await store.write((PARTITION, [(identity(1), b"one")], 9))
        await store.reset(PARTITION)
        await store.close(PARTITION)
        assert await store.open(PARTITION) == 0

    async def test_closing_what_is_not_open_is_fine(self, stores):
        """A partition may be lost before its store was opened, and revoked after it was lost."""
        store = stores()
        await store.close(OTHER)
        assert await store.open(PARTITION) == 0
        await store.close(PARTITION)
        await store.close(PARTITION)
        assert await store.open(PARTITION) == 0

    async def test_a_closed_store_answers_nothing(self, stores):
        """Reading or writing a store that is not open is a mistake of the caller, and shows."""
        store = stores()
        await store.open(PARTITION)
        await store.close(PARTITION)
        with pytest.raises((KeyError, AssertionError)):
            store.read(PARTITION, [identity(1)])
        with pytest.raises((KeyError, AssertionError)):
            await store.write((PARTITION, [], 1))

    async def test_a_large_write_is_whole(self, stores):
        """A restore hands over many entries at once."""
        store = stores()
        await store.open(PARTITION)
        entries = [(identity(number), number.to_bytes(60)) for number in range(20_000)]
        await store.write((PARTITION, entries, 20_000))
        assert store.read(PARTITION, [key for key, _ in entries]) == [value for _, value in entries]
