"""Takes polled records through decode and validate, to be judged. A record that can never succeed ends here.

A record whose schema is not known yet blocks its partition, and only that. One that trips the fuse stops its topic.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

import structlog
from msgspec.structs import replace

from consumer.core import changes, dead_letters, dedupe, fingerprints
from consumer.core.decode import ReaderName
from consumer.core.results import Result
from consumer.core.validate import validate
from consumer.errors import DecodeError, RecordError, ValidationError
from consumer.model import (
    Amendment,
    ChangeEvent,
    ChangeType,
    Contact,
    Outcome,
    Record,
    State,
    Work,
)
from consumer.pipeline.admission import Admission, States
from consumer.pipeline.partitions import Partition
from consumer.pipeline.quarantine import Quarantine
from consumer.pipeline.readers import Readers
from consumer.pipeline.told import Told, contacts_at_once, echoed, is_undecoded, mark_positions, place_of, spread
from consumer.ports import Telemetry
from consumer.settings import Settings

log = structlog.get_logger(__name__)

CHUNK = 200
"""Records that go through the stages before other tasks get a turn: few enough that requests keep up with intake."""

TURNS = 5
"""Turns of the event loop from an answer to the next request: given between chunks while all requests are under way.

More of them cost CPU, which is what everything waits for otherwise.
"""


class Intake:
    """The stages from record to change.

    Args:
        settings: Attribute columns, and what becomes of records that cannot be decoded.
        readers: Makes what the records of a topic are read with.
        quarantine: Decodes.
        admission: Where valid changes go.
        telemetry: Told of gaps, and of logs that begin anew.
        contact_list_id: Part of each fingerprint.
        saturated: Whether as many requests to Genesys are under way as may be.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        readers: Callable[[str], Readers],
        quarantine: Quarantine,
        admission: Admission,
        telemetry: Telemetry,
        contact_list_id: str,
        saturated: Callable[[], bool],
    ) -> None:
        self._make_readers = readers
        self._quarantine = quarantine
        self._admission = admission
        self._telemetry = telemetry
        self._contact_list_id = contact_list_id
        self._columns = settings.genesys_attribute_columns
        self._suppress_undecodable = settings.suppress_undecodable
        self._saturated = saturated
        self._readers: dict[str, Readers] = {}

    async def take(self, partition: Partition, records: Sequence[Record]) -> ReaderName | None:
        """Take records that follow on through the stages.

        Returns:
            What must be learnt first; then the records from there on are held. So they are once the fuse has tripped.
        """
        records = self._fresh(partition, records)
        start, size = 0, CHUNK
        while start < len(records) and not partition.closing:
            taken, missing = self._take_chunk(partition, records[start : start + size])
            start += taken
            partition.in_hand = len(records) - start
            size = min(CHUNK, max(1, 2 * taken))  # what is decoded and not taken is decoded again
            if missing is not None or partition.fused:
                # In front: what was polled meanwhile may be held already.
                partition.hold(records[start:], first=True)
                partition.in_hand = 0
                return missing
            for _ in range(TURNS if self._saturated() else 1):
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
        if partition.fused:
            return 0, None
        readers = self._readers_of(partition.key.topic)
        repeated, known = self._repeated(partition, records, readers)
        fresh = [record for record in records if record.offset not in repeated] if repeated else records
        results, missing = self._quarantine.decode(fresh, readers.known, readers.form)
        if readers.keyed and not _keyed(fresh, results):
            readers.keyed = False
            log.info("keys_are_not_external_ids", topic=partition.key.topic, remedy="none needed: repeats cost more")
            return self._take_chunk(partition, records)
        if self._suppress_undecodable:
            results, missing = _nameable(fresh, results, missing, readers)
        if len(results) > (some := contacts_at_once(results)):
            results, missing = results[:some], None
        passing = partition.fuse.passing(fresh, results)
        if passing < len(results):
            results, missing = results[:passing], None
        if len(results) < len(fresh):
            records = records[: records.index(fresh[len(results)])]
        self._report_gaps(partition, records)
        works = _without(repeated, partition.tracker.add(records))
        self._let_in(partition, *spread(partition.tracker, works, results), known)
        return len(records), missing

    def _let_in(self, partition: Partition, works: Sequence[Work], told: Sequence[Told], known: States) -> None:
        """Have works judged, each with what was told of it."""
        readers = self._readers_of(partition.key.topic)
        told = echoed(partition, works, told)
        contacts = iter(validate([event for event in told if not isinstance(event, DecodeError)], self._columns))
        for work, result in zip(works, told, strict=True):
            if isinstance(result, DecodeError):
                self._reject(work, result)
            else:
                self._prepare(work, result, next(contacts), readers)
        if readers.has_positions:
            self._follow_log(partition, works, told)
            mark_positions(works, told, partition.epochs)
        self._admission.admit(partition, works, known)

    def _repeated(self, partition: Partition, records: Sequence[Record], readers: Readers) -> tuple[set[int], States]:
        """Offsets of records that are duplicates for sure, before anything is decoded, and what was looked up for that.

        Not sure is one of a contact of which something is under way, or of which an earlier record here may tell more.
        """
        if not readers.keyed:
            return set(), {}
        identities = [fingerprints.identity_of_key(record.key) for record in records]
        known = self._admission.look_up(partition, identities)
        repeated, unsure = set[int](), set[bytes]()
        if not any(known.values()):
            return repeated, known
        for record, identity in zip(records, identities, strict=True):
            state = None if identity in unsure else known.get(identity)
            if state is not None and state.imprint and _repeats(record, readers, state):
                repeated.add(record.offset)
            else:
                unsure.add(identity)
        return repeated, known

    def _prepare(
        self, work: Work, event: ChangeEvent, contact: Contact | Amendment | ValidationError, readers: Readers
    ) -> None:
        """Give a work its change, or its rejection; a rejected withdrawal has both a change and reasons."""
        if isinstance(contact, ValidationError):
            self._prepare_rejected(work, event, contact)
            return
        work.external_id = contact.external_id
        if isinstance(contact, Amendment) and _changes_nothing(event, contact):
            work.outcome = Outcome.DUPLICATE
            return
        offset = dead_letters.place_in_order(work.record)
        imprint = readers.imprint(work.record) if readers.keyed else b""
        change = changes.to_change(event, contact, offset, self._contact_list_id, imprint)
        # One of a record that was put back says so.
        work.change = change if offset == work.record.offset else replace(change, replayed=True)

    def _prepare_rejected(self, work: Work, event: ChangeEvent, error: ValidationError) -> None:
        if is_undecoded(event):
            self._reject(work, error)
            return
        work.external_id = event.named
        work.reasons, work.detail = error.reasons, error.detail
        work.accepted_as = Outcome.REJECTED
        offset = dead_letters.place_in_order(work.record)
        change = changes.suppression(event, offset, self._contact_list_id, changes.valid_number(event, error))
        if change is None:
            work.outcome = Outcome.REJECTED
        else:
            work.change = change if offset == work.record.offset else replace(change, replayed=True)

    def _reject(self, work: Work, error: RecordError) -> None:
        """Give a work its rejection; the contact may have to be suppressed all the same."""
        work.reasons, work.detail = error.reasons, error.detail
        readers = self._readers_of(work.record.topic)
        external_id = readers.named_by_key(work.record) if self._suppress_undecodable else None
        if external_id is None:
            work.outcome = Outcome.REJECTED
        else:
            work.external_id = external_id
            work.change = changes.precaution(
                external_id, dead_letters.place_in_order(work.record), self._contact_list_id
            )
            work.accepted_as = Outcome.REJECTED

    def _follow_log(self, partition: Partition, works: Sequence[Work], told: Sequence[Told]) -> None:
        """See where the works stand in the log of their source, and say so when that began anew."""
        begun = partition.epochs.follow([place for event in told if (place := place_of(event)) is not None])
        if not begun:
            return
        placed = [work for work, event in zip(works, told, strict=True) if place_of(event) is not None]
        for number in begun:
            remedy = "positions of the source went back, as after a failover: see it in the operating guide"
            log.warning("source_epoch_began", record=str(placed[number].record.position), remedy=remedy)
            self._telemetry.source_epoch_began(partition.key)

    @staticmethod
    def _fresh(partition: Partition, records: Sequence[Record]) -> Sequence[Record]:
        fresh = partition.tracker.fresh(records)
        if len(fresh) < len(records):
            log.warning("records_came_again", partition=partition.key, records=len(records) - len(fresh))
        return fresh

    def _report_gaps(self, partition: Partition, records: Sequence[Record]) -> None:
        for expected, seen in partition.tracker.gaps(records):
            log.warning("offsets_do_not_follow_on", partition=partition.key, expected=expected, seen=seen)
            self._telemetry.offset_gap(partition.key)


def _changes_nothing(event: ChangeEvent, amendment: Amendment) -> bool:
    """Whether a partial event tells of fields alone that the list does not have; to undelete is something else."""
    return amendment.empty and event.change_type is not ChangeType.UNDELETE


def _nameable(
    records: Sequence[Record],
    results: list[Result],
    missing: ReaderName | None,
    readers: Readers,
) -> tuple[list[Result], ReaderName | None]:
    """The results before the first error of a record whose key nobody can read yet, and what it has to be read with."""
    for number, (record, result) in enumerate(zip(records, results, strict=False)):
        told = result if isinstance(result, tuple) else (result,)
        if any(map(is_undecoded, told)) and (needed := readers.missing_for_key(record)) is not None:
            return results[:number], needed
    return results, missing


def _repeats(record: Record, readers: Readers, state: State) -> bool:
    return dedupe.repeats(dead_letters.place_in_order(record), readers.imprint(record), state)


def _keyed(records: Sequence[Record], results: Sequence[Result]) -> bool:
    """Whether the key of each record is the external id that was found in it."""
    return all(
        record.key == result.external_id.encode()
        for record, result in zip(records, results, strict=False)
        if isinstance(result, ChangeEvent) and isinstance(result.external_id, str)
    )


def _without(repeated: Collection[int], works: Sequence[Work]) -> Sequence[Work]:
    """The works that are left when repeats have ended as what they are."""
    if not repeated:
        return works
    left = []
    for work in works:
        if work.record.offset in repeated:
            work.external_id = (work.record.key or b"").decode()
            work.outcome = Outcome.DUPLICATE
        else:
            left.append(work)
    return left
