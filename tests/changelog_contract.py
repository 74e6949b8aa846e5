"""What every reading of a changelog keeps to, in memory and on Kafka."""

from collections.abc import AsyncIterator

from consumer.ports import ChangelogChunk

Entries = list[tuple[bytes, bytes | None]]


async def entries_of(chunks: AsyncIterator[ChangelogChunk], start: int = 0) -> Entries:
    """All entries of a reading that began there, whose stretches follow on up to the end."""
    entries: Entries = []
    position = end = start
    async for chunk in chunks:
        assert chunk.position > position if chunk.entries else chunk.position >= position
        position, end = chunk.position, chunk.end
        entries += chunk.entries
    assert position >= end
    return entries


async def next_entries(chunks: AsyncIterator[ChangelogChunk]) -> ChangelogChunk:
    """The next stretch that is not empty."""
    while not (chunk := await anext(chunks)).entries:
        pass
    return chunk
