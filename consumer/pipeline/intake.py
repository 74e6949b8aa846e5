"""Takes polled records through decode and validate, to be judged. A record that can never succeed ends here.

A record whose schema is not known yet blocks its partition, and only that. One that trips the fuse stops its topic.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import structlog
from msgspec.structs import replace

from consumer.core import dead_letters, dedupe
from consumer.core.decode import ReaderName
from consumer.core.validate import validate
from consumer.errors import DecodeError, ValidationError
from consumer.model import Amendment, ChangeEvent, ChangeType, Contact, Events, Outcome, Reason, Record, Work
from consumer.pipeline.admission import Admission
from consumer.pipeline.partitions import Partition
from consumer.pipeline.quarantine import Quarantine
from consumer.pipeline.readers import Readers
from consumer.ports import Telemetry

log = structlog.get_logger(__name__)

CHUNK = 200
"""Records that go through the stages before other tasks get a turn: few enough that requests keep up with intake."""


class Intake:
    """The stages from record to change.

    Args:
        readers: Makes what the records of a topic are read with.
        quarantine: Decodes.
        admission: Where valid changes go.
        telemetry: Told of gaps.
        contact_list_id: Part of each fingerprint.
        columns: Attribute source names with their columns.
        suppress_undecodable: Whether a record that cannot be decoded suppresses the contact that its key names.
    """

    def __init__(
        self,
        *,
        readers: Callable[[str], Readers],
        quarantine: Quarantine,
        admission: Admission,
        telemetry: Telemetry,
        contact_list_id: str,
        columns: Sequence[tuple[str, str]],
        suppress_undecodable: bool,
    ) -> None:
        self._make_readers = readers
        self._quarantine = quarantine
        self._admission = admission
        self._telemetry = telemetry
        self._contact_list_id = contact_list_id
        self._columns = columns
        self._suppress_undecodable = suppress_undecodable
        self._readers: dict[str, Readers] = {}

    async def take(self, partition: Partition, records: Sequence[Record]) -> ReaderName | None:
        """Take records that follow on through the stages.

        Returns:
            What must be learnt first; then the records from there on are held. So they are once the fuse has tripped.
        """
        records = self._fresh(partition, records)
        for start in range(0, len(records), CHUNK):
            taken, missing = self._take_chunk(partition, records[start : start + CHUNK])
            if missing is not None or partition.fused:
                # In front: what was polled meanwhile may be held already.
                partition.held[:0] = records[start + taken :]
                return missing
            await asyncio.sleep(0)
        return None

    async def learn(self, partition: Partition, missing: ReaderName) -> None:
        """Fetch a schema, and at the same time all others that the held records will need."""
        await self._readers_of(partition.key.topic).learn(missing, partition.held)

    def _readers_of(self, topic: str) -> Readers:
        if topic not in self._readers:
            self._readers[topic] = self._make_readers(topic)
        return self._readers[topic]

    def _take_chunk(self, partition: Partition, records: Sequence[Record]) -> tuple[int, ReaderName | None]:
        """How many records were taken, and what the next one has to be read with."""
        if partition.closing or partition.fused:
            return 0, None
        readers = self._readers_of(partition.key.topic)
        results, missing = self._quarantine.decode(records, readers.known, readers.form)
        passing = partition.fuse.passing(records, results)
        if passing < len(results):
            results, missing = results[:passing], None
        self._report_gaps(partition, records[: len(results)])
        works, told = _spread(partition.tracker.add(records[: len(results)]), results)
        events = [result for result in told if not isinstance(result, DecodeError)]
        contacts = iter(validate(events, self._columns))
        for work, result in zip(works, told, strict=True):
            if isinstance(result, DecodeError):
                self._reject(work, result)
            else:
                self._prepare(work, result, next(contacts))
        if readers.has_positions:
            _mark_positions(works)
        self._admission.admit(partition, works)
        return len(results), missing

    def _prepare(self, work: Work, event: ChangeEvent, contact: Contact | Amendment | ValidationError) -> None:
        """Give a work its change, or its rejection; a rejected withdrawal has both a change and reasons."""
        offset = dead_letters.place_in_order(work.record)
        if isinstance(contact, ValidationError):
            work.external_id = event.external_id if isinstance(event.external_id, str) else None
            work.reasons, work.detail = contact.reasons, contact.detail
            work.change = dedupe.suppression(event, offset, self._contact_list_id, valid_number(event, contact))
            work.accepted_as = Outcome.REJECTED
            work.outcome = Outcome.REJECTED if work.change is None else None
            return
        work.external_id = contact.external_id
        if _changes_nothing(event, contact):
            work.outcome = Outcome.DUPLICATE
        else:
            work.change = dedupe.to_change(event, contact, offset, self._contact_list_id)

    def _reject(self, work: Work, error: DecodeError) -> None:
        """Give a work its rejection; the contact may have to be suppressed all the same."""
        work.reasons, work.detail = error.reasons, error.detail
        readers = self._readers_of(work.record.topic)
        external_id = readers.named_by_key(work.record) if self._suppress_undecodable else None
        if external_id is None:
            work.outcome = Outcome.REJECTED
        else:
            work.external_id = external_id
            work.change = dedupe.precaution(
                external_id, dead_letters.place_in_order(work.record), self._contact_list_id
            )
            work.accepted_as = Outcome.REJECTED

    @staticmethod
    def _fresh(partition: Partition, records: Sequence[Record]) -> Sequence[Record]:
        fresh = partition.tracker.fresh(records)
        if len(fresh) < len(records):
            log.warning("records_came_again", partition=partition.key, records=len(records) - len(fresh))
        return fresh

    def _report_gaps(self, partition: Partition, records: Sequence[Record]) -> None:
        for expected, seen in partition.tracker.gaps(records):
            log.warning("offsets_do_not_follow_on", partition=partition.key, expected=expected, seen=seen)
            self._telemetry.offset_gap(partition.key, expected, seen)


def _changes_nothing(event: ChangeEvent, contact: Contact | Amendment) -> bool:
    """Whether a partial event tells of fields alone that the list does not have; to undelete is something else."""
    return isinstance(contact, Amendment) and contact.empty and event.change_type is not ChangeType.UNDELETE


def _spread(
    works: Sequence[Work], results: Sequence[Events | DecodeError]
) -> tuple[Sequence[Work], Sequence[ChangeEvent | DecodeError]]:
    """A work for each contact that a record tells of, and its result; a record that is about none ends here."""
    if tuple not in set(map(type, results)):
        return works, cast("Sequence[ChangeEvent | DecodeError]", results)
    spread: list[tuple[Work, ChangeEvent | DecodeError]] = []
    for work, result in zip(works, results, strict=True):
        if not isinstance(result, tuple):
            spread.append((work, result))
        elif result:
            work.parts = [Work(work.record, work.assignment, part=part) for part in range(len(result))]
            spread += zip(work.parts, result, strict=True)
        else:
            work.outcome = Outcome.IGNORED
    return [work for work, _ in spread], [result for _, result in spread]


def _mark_positions(works: Sequence[Work]) -> None:
    """Have withdrawals judged as what they are: their versions are positions in a log."""
    for work in works:
        if work.change is not None and work.change.withdrawal and work.change.version is not None:
            work.change = replace(work.change, positional=True)


def valid_number(event: ChangeEvent, error: ValidationError) -> str:
    """The phone number of a rejected event, if that is not among what is wrong with it."""
    return event.phone if isinstance(event.phone, str) and Reason.PHONE_NOT_E164 not in error.reasons else ""
