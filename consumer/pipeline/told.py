"""What records tell, made ready to be judged: one contact at a time, each delete once, each version as what it is.

Answers for what is told being spread over works, a tombstone being the delete that it repeats, and versions that are
positions in a log being marked as such. Touches nothing but the works and the partition that it is given.
"""

from collections.abc import Sequence
from typing import cast

from msgspec.structs import replace

from consumer.core.deleted import Deleted
from consumer.core.epochs import Epochs
from consumer.core.offsets import Tracker
from consumer.core.results import Result, is_tombstone
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, LogPlace, Outcome, Record, Work
from consumer.pipeline.partitions import Partition

# Bound once: to find a member in its class takes Python 3.11 longer than a comparison.
_DELETE_EVENT = ChangeType.DELETE

CONTACTS_AT_ONCE = 2_000
"""Contacts that are judged before other tasks get a turn, where records tell of several."""

Told = ChangeEvent | DecodeError
"""What is told of one contact, or why nobody knows."""


def contacts_at_once(results: Sequence[Result]) -> int:
    """How many results, at least one, hold no more contacts than are judged before other tasks get a turn."""
    if _of_one_each(results):
        return len(results)
    contacts = 0
    for number, result in enumerate(results):
        contacts += len(result) if isinstance(result, tuple) else 1
        if contacts > CONTACTS_AT_ONCE and number:
            return number
    return len(results)


def _of_one_each(results: Sequence[Result]) -> bool:
    """Whether every record tells of one contact: the common case, told at a glance."""
    return tuple not in set(map(type, results))


def spread(tracker: Tracker, works: Sequence[Work], results: Sequence[Result]) -> tuple[Sequence[Work], Sequence[Told]]:
    """A work for each contact that a record tells of, and its result; a record that is about none ends here."""
    if _of_one_each(results):
        return works, cast("Sequence[Told]", results)
    parts: list[tuple[Work, Told]] = []
    for work, result in zip(works, results, strict=True):
        if not isinstance(result, tuple):
            parts.append((work, result))
        elif result:
            parts += zip(tracker.divide(work, len(result)), result, strict=True)
        else:
            work.outcome = Outcome.IGNORED
    return [work for work, _ in parts], [result for _, result in parts]


def is_undecoded(event: Told) -> bool:
    """Whether this cannot be carried out and names nobody: at most the key of its record does."""
    if isinstance(event, DecodeError):
        return True
    return bool(event.flaw) and event.named is None


def echoed(partition: Partition, works: Sequence[Work], told: Sequence[Told]) -> Sequence[Told]:
    """What is told; a tombstone right behind the delete of its key becomes that delete again, with all that orders it.

    That is version, time and place in the log. With Kafka's time it would count as a newer delete, and undo a row made
    in between when both are sent again.
    """
    if works and not any(map(is_tombstone, told)):
        _note_delete(partition, works[-1].record, told[-1])
        return told
    return [_echo(partition, work.record, event) for work, event in zip(works, told, strict=True)]


def _echo(partition: Partition, record: Record, event: Told) -> Told:
    before = partition.deleted
    _note_delete(partition, record, event)
    if before is None or not isinstance(event, ChangeEvent) or not event.tombstone:
        return event
    if not before.is_right_before(record, event):
        return event
    return replace(event, version=before.version, occurred_at=before.occurred_at, log=before.log)


def _note_delete(partition: Partition, record: Record, event: Told) -> None:
    """Remember the last record if it is a delete, also for whoever goes on behind it."""
    partition.deleted = None
    if isinstance(event, ChangeEvent) and event.change_type is _DELETE_EVENT:
        partition.deleted = partition.deletes[record.offset] = Deleted.of(record, event)


def place_of(event: Told) -> LogPlace | None:
    """Where what is told stands in the log of its source; None where it does not say."""
    return event.log if isinstance(event, ChangeEvent) else None


def mark_positions(works: Sequence[Work], told: Sequence[Told], epochs: Epochs) -> None:
    """Have changes judged as what they are: their versions are positions in a log, within its epochs."""
    for work, event in zip(works, told, strict=True):
        change = work.change
        if change is None or change.version is None:
            continue
        position, time, source, by_commit = place_of(event) or (0, change.occurred_at, None, True)
        read = position is None
        concurrent = read and not by_commit
        if change.withdrawal or epochs.last or concurrent:
            epoch, positional = epochs.of(time, source), change.withdrawal
            work.change = replace(change, positional=positional, epoch=epoch, read=read, concurrent=concurrent)
