"""What a record becomes, step by step, for whoever writes a mapping.

Answers for the same stages in the same order as the pipeline's, each with what it sees. It shows contact data, so what
it makes is for the terminal of whoever has the record anyway. Touches a file or a topic, and the registry; nothing of
Genesys, and no state.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.one_record import read_one
from consumer.adapters.schema_registry.registry import opened
from consumer.core import changes, decode
from consumer.core.dead_letters import as_told_first, is_replayed
from consumer.core.decode import Reader, ReaderName
from consumer.core.envelopes.choice import TopicEnvelope
from consumer.core.envelopes.schema import Mapper
from consumer.core.framing import KeySchema, unknown
from consumer.core.fuse import is_released, release
from consumer.core.mapping_places import Row
from consumer.core.mapping_tables import as_key
from consumer.core.moments import iso
from consumer.core.results import Result, events_of
from consumer.core.validate import validate
from consumer.errors import DecodeError, FatalError, ManyChanged, RecordError, ValidationError
from consumer.model import UNCHANGED, Change, ChangeEvent, Events, Position, Reason, Record, TopicPartition
from consumer.operate import printing
from consumer.pipeline.readers import decoded, envelopes_of, form_of, reader, reference, without_registry
from consumer.ports import Schemas
from consumer.settings import Settings

log = structlog.get_logger(__name__)

_LIST_ID = "(of Genesys)"


class Step(NamedTuple):
    """One stage of the way.

    Attributes:
        name: Of the stage.
        passed: Whether the record went on from there.
        lines: What it saw.
    """

    name: str
    passed: bool
    lines: Sequence[str]


def position(source: str) -> Position | None:
    """Where in Kafka a record stands that is named so; None where it is a file, or neither."""
    return None if _is_file(source) else Position.of(source)


def _is_file(source: str) -> bool:
    with suppress(OSError):  # a name that is too long
        return Path(source).is_file()
    return False


def find(settings: Settings, source: str, *, topic: str | None, key: str | None) -> Record:
    """The record to explain.

    Args:
        settings: Where Kafka is.
        source: A file that holds the value, or `topic/partition/offset`.
        topic: Of which topic a file is; the first source topic when it is not said.
        key: What a file's record has as key.

    Raises:
        FatalError: There is no such file and no such record.
        TransientError: The brokers cannot tell now.
    """
    if _is_file(source):
        name = topic or settings.kafka_source_topics[0]
        if name not in settings.kafka_source_topics:
            log.warning("topic_is_no_source", topic=name, remedy="add it to KAFKA_SOURCE_TOPICS, or correct --topic")
        return Record(name, 0, 0, 0, None if key is None else key.encode(), Path(source).read_bytes())
    place = position(source)
    if place is None:
        raise FatalError(f"{source} is neither a file nor topic/partition/offset")
    partition = TopicPartition(place.topic, place.partition)
    return read_one(Connection.of(settings), settings.kafka_group_id, partition, place.offset)


async def explain(record: Record, settings: Settings) -> list[Step]:
    """The way of a record, up to the stage that refuses it.

    Raises:
        SettingsError: A mapping is wrong.
        TransientError: The registry cannot tell now.
    """
    schemas = opened(settings)
    try:
        return (await _followed(record, settings, schemas)).steps
    finally:
        await schemas.close()


async def refusal(record: Record, settings: Settings, schemas: Schemas) -> RecordError | None:
    """Why a record would be rejected, without contact data; None where it would not.

    Raises:
        SettingsError: A mapping is wrong.
        TransientError: The registry cannot tell now.
    """
    return (await _followed(record, settings, schemas)).error


async def _followed(record: Record, settings: Settings, schemas: Schemas) -> "_Way":
    way = _Way(record, settings)
    try:
        name = way.framing()
        known = without_registry(way.envelope)
        if name in decode.reader_names([record], way.form) - known.keys():
            known[name] = way.reader(name, await schemas.fetch(reference(name)))
        (result,) = await decoded([as_told_first(record)], known, way.form, way.envelope, schemas)
        way.told(result)
    except DecodeError as error:
        way.refused(error)
    return way


def print_steps(steps: Sequence[Step], output: str) -> None:
    """Print each stage, and a line for each thing that it saw."""
    if output == "json":
        printing.document([step._asdict() for step in steps])
        return
    for step in steps:
        for line in _lines(step):
            printing.line(line.rstrip())


def _lines(step: Step) -> Iterator[str]:
    first, *others = step.lines
    yield f"{'✓' if step.passed else '✗'} {step.name:<14} {first}"
    yield from (f"{'':<16} {line}" for line in others)


class _Way:
    """The steps so far, and the stages that add to them."""

    def __init__(self, record: Record, settings: Settings) -> None:
        self.steps: list[Step] = []
        self.error: RecordError | None = None
        self.form = form_of(record.topic, settings)
        self._record = record
        self._framing = settings.source_framing.of(record.topic)
        self._envelopes = envelopes_of(settings)
        self._columns = settings.genesys_attribute_columns
        self._released_ms = settings.fuse_releases.get(record.topic, ())
        self._stage = "record"

    def refused(self, error: RecordError) -> None:
        """The stage under way refuses the record."""
        self.error = self.error or error
        first = self._fuse() if isinstance(error, ManyChanged) else ""
        self._add(first, f"rejected: {', '.join(error.reasons)}", error.detail, passed=False)

    def _fuse(self) -> str:
        """What comes before the record is rejected; a file does not tell when it was a record."""
        topic, time_ms = self._record.topic, self._record.timestamp_ms
        if is_released(time_ms, self._released_ms) or is_replayed(self._record):
            return "passes the fuse: it was released"
        needed = release(topic, time_ms) if time_ms else "its topic and time"
        return f"trips the fuse: {topic} stands still until FUSE_RELEASES has {needed}"

    def _add(self, *lines: str, passed: bool = True) -> None:
        self.steps.append(Step(self._stage, passed, [line for line in lines if line]))

    def framing(self) -> ReaderName:
        """What the record must be read with."""
        value = self._record.value
        self._add("a tombstone" if value is None else f"{len(value):,} bytes, of {self._record.topic}")
        self._stage = "framing"
        name, _ = self.form(self._record)
        tombstone = isinstance(name, KeySchema)
        self._add(f"{'of the key' if tombstone else self._framing}, schema {reference(name)}")
        self._stage = "change event" if tombstone else "schema"
        return name

    def reader(self, name: ReaderName, text: str | None) -> Reader:
        """Reads what was written with the schema."""
        if text is None:
            error = DecodeError((Reason.SCHEMA_UNKNOWN,), "neither the registry nor SCHEMAS_DIR knows it")
            raise unknown(error, name, self._record)
        made = reader(name, text, self.envelope)
        if isinstance(made, DecodeError):
            raise made
        return made

    @property
    def envelope(self) -> TopicEnvelope:
        """The topic's envelope, watched."""
        return replace(self._envelopes.of_topic(self._record.topic), mapper=self._mapper)

    def _mapper(self, definition: Mapping[str, object]) -> Mapper:
        self._stage = "schema"
        self._add(".".join(str(definition[key]) for key in ("namespace", "name") if key in definition))
        self._stage = "envelope"
        topic = self._record.topic
        mapper = self._envelopes.mapper(topic, definition)
        fitness = self._envelopes.fitness(topic, definition)
        lacking = [f"not there: {field}" for field in fitness.lacking]
        self._add(self._envelopes.chosen(topic, definition), *fitness.problems, *fitness.granted, *lacking)
        self._stage = "fields"

        def watched(fields: Row, record: Record) -> Events:
            self._add(*_shown(fields))
            self._stage = "change event"
            return mapper(fields, record)

        return watched

    def told(self, result: Result) -> None:
        """What the record tells, and what becomes of that."""
        if isinstance(result, DecodeError):
            raise result
        events = events_of(result)
        if not events:
            self._add("none: it is about no contact, or tells nothing of what is mapped; ignored")
        for number, event in enumerate(events, 1):
            self._judge(event, "" if len(events) == 1 else f" {number}")

    def _judge(self, event: ChangeEvent, number: str) -> None:
        """The rules, and what is done."""
        self._stage = f"change event{number}"
        self._add(*_told(event))
        self._stage = f"rules{number}"
        (contact,) = validate([event], self._columns)
        if isinstance(contact, ValidationError):
            self.refused(contact)
        else:
            self._add("all kept")
        change = changes.of(event, contact, 0, _LIST_ID)
        self._stage = f"in Genesys{number}"
        self._add(_done(change), passed=change is not None)


def _shown(fields: object, path: str = "") -> list[str]:
    """Every value with its path; records within are gone through."""
    if not isinstance(fields, Mapping):
        return [f"{path} = {_value(fields)}"]
    return [line for name, value in fields.items() for line in _shown(value, f"{path}.{name}" if path else str(name))]


def _told(event: ChangeEvent) -> list[str]:
    order = "none: by the order of the partition" if event.version is None else str(event.version)
    fields = {"phone": event.phone, "email": event.email, "consent": event.consent, "do_not_call": event.do_not_call}
    told = {name: value for name, value in {**fields, **event.attributes}.items() if value is not UNCHANGED}
    partly = ", of some fields; the others are unchanged" if event.partial else ""
    return [
        f"{event.change_type} of {event.external_id!r}{partly}",
        f"at {iso(event.occurred_at)}, version {order}",
        *(f"{name} = {_value(value)}" for name, value in told.items()),
    ]


def _value(value: object) -> str:
    """A value as it is told; the words are those of JSON and TOML, in which records and mappings have them."""
    return as_key(value) if value is None or isinstance(value, bool) else repr(value)


def _done(change: Change | None) -> str:
    if change is None:
        return "nothing; the record is a dead letter"
    return (
        f"{change.operation}, goes first: the person must not be called" if change.withdrawal else str(change.operation)
    )
