"""Forgets contacts of which nothing was settled for longer than the set retention. Off unless it is set.

Who is suppressed, or not callable as a precaution, is not forgotten: his flags in Genesys may let somebody call, and
the next partial change that tells none of them would.

Walks the stores of the assigned partitions slice by slice, beside the flow. What it finds is not removed here: the next
settlement takes it along, so that changelog and store stay equal, and only if it is then as it was found.
"""

import asyncio
from collections.abc import Callable

import structlog

from consumer.core import fingerprints, state_bytes
from consumer.errors import TransientError
from consumer.pipeline.partitions import Partition, Partitions
from consumer.ports import Store, TimeAndChance
from consumer.settings import Settings

log = structlog.get_logger(__name__)

_DAY_S = 86_400

SLICE = 1_000
"""Entries looked at in one go: few enough that the store's thread and the event loop are not held up."""

PACE_S = 0.05
"""Between two slices: a million contacts take a minute."""

MOST = 10 * SLICE
"""Entries found that wait for a settlement; while none succeeds, the walk stands still."""

WALK_EVERY_S = 3600.0
LOOK_EVERY_S = 60.0
"""How often it is looked for partitions whose turn it is, as those that were restored: some stay for minutes only."""


class Retention:
    """Finds what is to be forgotten.

    Args:
        settings: How long an entry is kept after it was last settled.
        partitions: The assigned ones.
        store: What was delivered.
        contact_list_id: Part of fingerprints.
        times: Clocks.
        found: Called when a partition has something to forget.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        partitions: Partitions,
        store: Store,
        contact_list_id: str,
        times: TimeAndChance,
        found: Callable[[], None],
    ) -> None:
        self._partitions = partitions
        self._store = store
        self._contact_list_id = contact_list_id
        self._retention_s = settings.state_retention_days * _DAY_S
        self._now, self._clock = times.now, times.clock
        self._found = found

    async def run(self) -> None:
        """Walk through each store soon after it stands, and then every hour, until cancelled."""
        while True:
            for partition in list(self._partitions.values()):
                if partition.restored and self._clock() >= partition.walk_at:
                    await self._walk(partition)
                    partition.walk_at = self._clock() + WALK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)

    async def _walk(self, partition: Partition) -> None:
        """Look at every entry of a partition's store, as long as that is ours."""
        after, count = b"", 0
        while partition.restored and partition.stays():
            if len(partition.expired) >= MOST:
                await asyncio.sleep(PACE_S)
                continue
            try:
                entries = await self._store.scan(partition.key, after, SLICE)
            except TransientError as error:
                log.warning("retention_interrupted", partition=partition.key, error=str(error))
                return
            if not entries:
                break
            after = entries[-1][0]
            count += self._forget(partition, [entry for entry in entries if self._is_old(*entry)])
            await asyncio.sleep(PACE_S)
        if count:
            log.info("state_expired", partition=partition.key, entries=count)

    def _is_old(self, key: bytes, raw: bytes) -> bool:
        """Whether an entry is to be forgotten. Not so who is not callable although Genesys' flags may let him be."""
        settled_ms = state_bytes.settled_ms(raw) if len(key) == fingerprints.IDENTITY_BYTES else None
        if settled_ms is None or settled_ms / 1000 >= self._now() - self._retention_s:
            return False
        state, list_id = state_bytes.decode(raw), self._contact_list_id
        never_callable = state.fingerprint in fingerprints.not_callable_contents(list_id)
        unknown = state.fingerprint == fingerprints.unknown_content(list_id)
        return not (never_callable or (unknown and state.callable is False))

    def _forget(self, partition: Partition, entries: list[tuple[bytes, bytes]]) -> int:
        partition.expired.update(entries)
        if entries:
            self._found()
        return len(entries)
