"""The changelog in memory keeps to what the one on Kafka does: the pipeline's own tests trust it."""

from consumer.model import TopicPartition
from tests import virtual_time
from tests.changelog_contract import Entries, entries_of
from tests.memory_ports import MemoryTopics, World

P0 = TopicPartition("contacts", 0)


def test_a_changelog_in_memory_is_read_to_its_end() -> None:
    """From the beginning and from a position, with empty stretches between; at the very end there is nothing."""
    world = World()
    held: Entries = [(bytes([number]), b"state") for number in range(25)]
    world.changelog[P0] = list(held)

    async def main() -> None:
        topics = MemoryTopics(world)
        assert await entries_of(topics.changelog(P0, 0)) == held
        assert await entries_of(topics.changelog(P0, 7), 7) == held[7:]
        assert [chunk.entries == [] async for chunk in topics.changelog(P0, 0)] == [True, False, False, False]
        assert [chunk async for chunk in topics.changelog(P0, 25)] == []

    virtual_time.run(main())
