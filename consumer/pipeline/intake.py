"""Takes polled records through decode and validate, to be judged. A record that can never succeed ends here.

A record whose schema is not known yet blocks its partition, and only that: the schema is fetched for as long as the
registry cannot tell, and for a set time when the registry does not know it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from consumer.core import dead_letters, decode, dedupe
from consumer.core.decode import Reader, WriterSchema
from consumer.core.envelopes.choice import Envelopes
from consumer.core.validate import validate
from consumer.errors import DecodeError, TransientError, ValidationError
from consumer.model import Amendment, ChangeEvent, ChangeType, Contact, Events, Outcome, Reason, Record, Work
from consumer.pipeline.admission import Admission
from consumer.pipeline.partitions import Partition
from consumer.ports import Schemas, Telemetry

log = structlog.get_logger(__name__)

CHUNK = 200
"""Records that go through the stages before other tasks get a turn: few enough that requests keep up with intake."""

_RETRY_S = 1.0
_UNKNOWN_FOR_S = 60.0
"""How long an unknown schema id is taken as unknown without asking again."""


_Readers = dict[int, Reader | DecodeError]


def make_reader(text: str, envelopes: Envelopes, topic: str) -> Reader | DecodeError:
    """What turns a payload of this schema into change events, or the error that each of its records gets."""
    try:
        schema = WriterSchema(text)
        mapper = envelopes.mapper(topic, schema.definition)
    except DecodeError as error:
        return error
    return lambda payload, record: mapper(schema.read(payload), record)


class Intake:
    """The stages from record to change.

    Args:
        schemas: Where writer schemas come from.
        envelopes: What stands around a contact in a record.
        admission: Where valid changes go.
        telemetry: Told of gaps.
        contact_list_id: Part of each fingerprint.
        columns: Attribute source names with their columns.
        suppress_undecodable: Whether a record that cannot be decoded suppresses the contact that its key names.
        unknown_timeout: How long the registry may lag, seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        schemas: Schemas,
        envelopes: Envelopes,
        admission: Admission,
        telemetry: Telemetry,
        contact_list_id: str,
        columns: Sequence[tuple[str, str]],
        suppress_undecodable: bool,
        unknown_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._schemas = schemas
        self._envelopes = envelopes
        self._admission = admission
        self._telemetry = telemetry
        self._contact_list_id = contact_list_id
        self._columns = columns
        self._suppress_undecodable = suppress_undecodable
        self._unknown_timeout = unknown_timeout
        self._clock = clock
        self._readers: defaultdict[str, _Readers] = defaultdict(dict)

    async def take(self, partition: Partition, records: Sequence[Record]) -> int | None:
        """Take records that follow on through the stages.

        Returns:
            The id of a schema that must be fetched first; then the records from there on are held.
        """
        records = self._fresh(partition, records)
        for start in range(0, len(records), CHUNK):
            taken, missing = self._take_chunk(partition, records[start : start + CHUNK])
            if missing is not None:
                # In front: what was polled meanwhile may be held already.
                partition.held[:0] = records[start + taken :]
                return missing
            await asyncio.sleep(0)
        return None

    async def learn(self, topic: str, schema_id: int, held: Sequence[Record]) -> None:
        """Fetch a schema, and at the same time all others that the held records of the topic will need."""
        missing = {schema_id, *decode.schema_ids(held)} - self._readers[topic].keys()
        await asyncio.gather(*(self._learn(topic, each) for each in missing))

    async def _learn(self, topic: str, schema_id: int) -> None:
        """Fetch a schema, for as long as it takes; one that stays unknown makes its records rejected."""
        give_up, readers = self._clock() + self._unknown_timeout, self._readers[topic]
        while schema_id not in readers:
            reader = await self._fetch(topic, schema_id, final=self._clock() >= give_up)
            if reader is None:
                await asyncio.sleep(_RETRY_S)
            else:
                readers[schema_id] = reader
                if isinstance(reader, DecodeError) and Reason.SCHEMA_UNKNOWN in reader.reasons:
                    loop = asyncio.get_running_loop()
                    loop.call_later(_UNKNOWN_FOR_S, readers.pop, schema_id, None)

    async def _fetch(self, topic: str, schema_id: int, *, final: bool) -> Reader | DecodeError | None:
        try:
            text = await self._schemas.fetch(schema_id)
        except TransientError as error:
            log.warning("schema_not_available", schema_id=schema_id, error=str(error))
            return None
        except DecodeError as error:
            return error
        if text is not None:
            return make_reader(text, self._envelopes, topic)
        return DecodeError((Reason.SCHEMA_UNKNOWN,), f"schema id {schema_id} is unknown") if final else None

    def _take_chunk(self, partition: Partition, records: Sequence[Record]) -> tuple[int, int | None]:
        """How many records were taken, and the id of the schema that the next one needs."""
        if partition.closing:
            return 0, None
        results, missing = decode.decode(records, self._readers[partition.key.topic])
        self._report_gaps(partition, records[: len(results)])
        works, told = _spread(partition.tracker.add(records[: len(results)]), results)
        events = [result for result in told if not isinstance(result, DecodeError)]
        contacts = iter(validate(events, self._columns))
        for work, result in zip(works, told, strict=True):
            if isinstance(result, DecodeError):
                self._reject(work, result)
            else:
                self._prepare(work, result, next(contacts))
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
        external_id = decode.named_by_key(work.record) if self._suppress_undecodable else None
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


def valid_number(event: ChangeEvent, error: ValidationError) -> str:
    """The phone number of a rejected event, if that is not among what is wrong with it."""
    return event.phone if isinstance(event.phone, str) and Reason.PHONE_NOT_E164 not in error.reasons else ""
