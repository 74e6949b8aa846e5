"""Keeps memory bounded: partitions that hold their share of what the settings allow are paused until there is room.

Each assigned partition has an equal share of the records and bytes. One that cannot settle, or waits for a schema, thus
does not keep the others from being read. One of whose contacts nobody knows whether it, or Genesys, is why it fails is
read on for a bit beyond its share: those that come tell, and otherwise it might never settle anything again.
"""

from consumer.pipeline.blame import TRIES
from consumer.pipeline.partitions import Partition, Partitions
from consumer.ports import Source

READ_AHEAD_BYTES = 128 * 1024 * 1024
"""Bytes of record values held, beside the configured number of records."""

_RESUME_BELOW = 0.8

BEYOND = 3 * TRIES
"""How often partitions that hold their share are read on, all together: a contact is given up after a third of that,
and has to begin anew where Genesys was in trouble meanwhile."""


class BackPressure:
    """Pauses and resumes partitions of the source.

    Args:
        partitions: The assigned ones.
        source: Where they are paused; polling goes on.
        read_ahead_records: Records held at the most.
    """

    def __init__(self, partitions: Partitions, source: Source, read_ahead_records: int) -> None:
        self._partitions = partitions
        self._source = source
        self._read_ahead_records = read_ahead_records

    def hold_back(self) -> None:
        """Pause every partition that holds its share."""
        full = [each for each in self._partitions.values() if not each.held_back and self._fill(each) > 1]
        for partition in full:
            partition.held_back = True
        if full:
            self._source.pause([partition.key for partition in full])

    def let_go(self) -> None:
        """Resume every partition that has room again, and one that has to show whether others are carried out."""
        freed = [each for each in self._partitions.values() if each.held_back and self._fill(each) < _RESUME_BELOW]
        for partition in freed:
            partition.beyond = 0
        freed += self._beyond()
        for partition in freed:
            partition.held_back = False
        if freed:
            self._source.resume([partition.key for partition in freed if not partition.blocked])

    def _beyond(self) -> list[Partition]:
        """A partition to be read on beyond its share; the next poll of it has it held back again."""
        lacking = [each for each in self._partitions.values() if each.lacks_others]
        for partition in lacking:
            partition.lacks_others = False
        full = [each for each in lacking if each.held_back and self._fill(each) >= _RESUME_BELOW]
        if not full or sum(each.beyond for each in self._partitions.values()) >= BEYOND:
            return []
        full[0].beyond += 1
        return full[:1]

    def _fill(self, partition: Partition) -> float:
        """How much of its share of the allowed records and bytes a partition holds."""
        records = partition.unsettled / self._read_ahead_records
        return max(records, partition.bytes / READ_AHEAD_BYTES) * len(self._partitions)
