"""What a record becomes, step by step, for whoever writes a mapping.

Answers for the same stages in the same order as the pipeline's, each with what it sees. It shows contact data, so what
it makes is for the terminal of whoever has the record anyway. Touches a file or a topic, and the registry; nothing of
Genesys, and no state.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.one_record import read_one
from consumer.adapters.schema_registry import LocalSchemas, RegistrySchemas
from consumer.core import decode
from consumer.core.decode import WriterSchema
from consumer.core.dedupe import suppression, to_change
from consumer.core.envelopes.choice import Envelopes
from consumer.core.mapping import Row
from consumer.core.validate import validate
from consumer.errors import DecodeError, FatalError, RecordError, ValidationError
from consumer.model import UNCHANGED, Change, ChangeEvent, Reason, Record, TopicPartition
from consumer.operate import printing
from consumer.settings import Settings, ready_made_mappings

_POSITION = re.compile(r"(.+)/([0-9]+)/([0-9]+)")
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
    if Path(source).is_file():
        name = topic or settings.kafka_source_topics[0]
        return Record(name, 0, 0, 0, None if key is None else key.encode(), Path(source).read_bytes())
    position = _POSITION.fullmatch(source)
    if position is None:
        raise FatalError(f"{source} is neither a file nor topic/partition/offset")
    partition = TopicPartition(position[1], int(position[2]))
    return read_one(Connection.of(settings), partition, int(position[3]))


async def explain(record: Record, settings: Settings) -> list[Step]:
    """The way of a record, up to the stage that refuses it.

    Raises:
        SettingsError: A mapping is wrong.
        TransientError: The registry cannot tell now.
    """
    envelopes = Envelopes.of(settings.source_envelope, settings.source_mapping, ready_made_mappings())
    way = _Way(record, envelopes, settings)
    schemas = _schemas(settings)
    try:
        if record.value is None:
            events = way.tombstone()
        else:
            events = way.events(way.read(await schemas.fetch(way.framing(record.value))))
        for number, event in enumerate(events):
            way.judge(event, "" if len(events) == 1 else f" {number + 1}")
    except DecodeError as error:
        way.refused(error)
    finally:
        await schemas.close()
    return way.steps


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


def _schemas(settings: Settings) -> LocalSchemas | RegistrySchemas:
    local = LocalSchemas(settings.schemas_dir)
    if settings.schema_registry_url is None:
        return local
    return RegistrySchemas(
        settings.schema_registry_url, settings.schema_registry_username, settings.schema_registry_password, local
    )


class _Way:
    """The steps so far, and the stages that add to them."""

    def __init__(self, record: Record, envelopes: Envelopes, settings: Settings) -> None:
        self.steps: list[Step] = []
        self._record = record
        self._envelopes = envelopes
        self._columns = settings.genesys_attribute_columns
        self._stage = "record"

    def refused(self, error: RecordError) -> None:
        """The stage under way refuses the record."""
        self._add(f"rejected: {', '.join(error.reasons)}", error.detail, passed=False)

    def _add(self, *lines: str, passed: bool = True) -> None:
        self.steps.append(Step(self._stage, passed, [line for line in lines if line]))

    def tombstone(self) -> Sequence[ChangeEvent]:
        """A null value deletes whom the key names."""
        self._add("a tombstone: null value")
        self._stage = "key"
        (result,) = decode.decode([self._record], {}).results
        if isinstance(result, DecodeError):
            raise result
        return [result] if isinstance(result, ChangeEvent) else result

    def framing(self, value: bytes) -> int:
        """The id of the schema."""
        self._add(f"{len(value):,} bytes, of {self._record.topic}")
        self._stage = "framing"
        schema_id = decode.schema_id(value)
        self._add(f"Confluent wire format, schema id {schema_id}")
        return schema_id

    def read(self, text: str | None) -> tuple[WriterSchema, Row]:
        """The schema, and the fields that were written with it."""
        self._stage = "schema"
        if text is None:
            raise DecodeError((Reason.SCHEMA_UNKNOWN,), "neither the registry nor SCHEMAS_DIR knows the id")
        schema = WriterSchema(text)
        name = ".".join(str(schema.definition[key]) for key in ("namespace", "name") if key in schema.definition)
        self._add(name)
        self._stage = "fields"
        fields = schema.read((self._record.value or b"")[5:])
        self._add(*_shown(fields))
        return schema, fields

    def events(self, read: tuple[WriterSchema, Row]) -> Sequence[ChangeEvent]:
        """What the envelope makes of the fields."""
        schema, fields = read
        self._stage = "envelope"
        mapper = self._envelopes.mapper(self._record.topic, schema.definition)
        chosen = self._envelopes.chosen(self._record.topic, schema.definition)
        events = mapper(fields, self._record)
        if not events:
            self._add(chosen, "ignored: it is about no contact, or tells nothing of what is mapped")
            return ()
        self._add(chosen)
        return [events] if isinstance(events, ChangeEvent) else events

    def judge(self, event: ChangeEvent, number: str) -> None:
        """The rules, and what is done."""
        self._stage = f"change event{number}"
        self._add(*_told(event))
        self._stage = f"rules{number}"
        (contact,) = validate([event], self._columns)
        if isinstance(contact, ValidationError):
            self.refused(contact)
            change = suppression(event, 0, _LIST_ID, "")
        else:
            self._add("all kept")
            change = to_change(event, contact, 0, _LIST_ID)
        self._stage = f"in Genesys{number}"
        self._add(_done(change), passed=change is not None)


def _shown(fields: object, path: str = "") -> list[str]:
    """Every value with its path; records within are gone through."""
    if not isinstance(fields, Mapping):
        return [f"{path} = {'null' if fields is None else repr(fields)}"]
    return [line for name, value in fields.items() for line in _shown(value, f"{path}.{name}" if path else str(name))]


def _told(event: ChangeEvent) -> list[str]:
    moment = datetime.fromtimestamp(event.occurred_at / 1000, UTC).isoformat(timespec="milliseconds")
    order = "none: by the order of the partition" if event.version is None else str(event.version)
    fields = {"phone": event.phone, "email": event.email, "consent": event.consent, "do_not_call": event.do_not_call}
    told = {name: value for name, value in {**fields, **event.attributes}.items() if value is not UNCHANGED}
    partly = ", of some fields; the others are unchanged" if event.partial else ""
    return [
        f"{event.change_type} of {event.external_id!r}{partly}",
        f"at {moment}, version {order}",
        *(f"{name} = {value!r}" for name, value in told.items()),
    ]


def _done(change: Change | None) -> str:
    if change is None:
        return "nothing; the record is a dead letter"
    return (
        f"{change.operation}, goes first: the person must not be called" if change.withdrawal else str(change.operation)
    )
