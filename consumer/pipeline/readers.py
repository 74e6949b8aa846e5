"""What the records of a topic are read with, learnt schema by schema.

A schema is fetched for as long as the registry cannot tell, and for a set time when the registry does not know it, of
which no time counts in which it cannot tell. What was learnt is kept: a schema does not change.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial

import orjson
import structlog

from consumer.core import framing, keys
from consumer.core.avro import WriterSchema
from consumer.core.connect_json import JsonReader, OnSchema, ignored
from consumer.core.decode import ByKey, Reader, ReaderName, decode, missing_for_key, named_by_key, reader_names
from consumer.core.envelopes.choice import Envelope, Envelopes, TopicEnvelope
from consumer.core.framing import Form, KeySchema
from consumer.core.results import Result
from consumer.core.state_bytes import IMPRINT_BYTES
from consumer.errors import DecodeError, TransientError, undecodable
from consumer.formats import SchemaReference
from consumer.model import Reason, Record
from consumer.ports import Schemas
from consumer.settings import RELEASE, Settings, ready_made_mappings

Spawn = Callable[[Coroutine[object, object, None]], None]

Known = dict[ReaderName, Reader | DecodeError]
"""Readers by what they read; an error is the result of every record that would be read so."""

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
_TOLD_EVERY_S = 30.0
_RETRY_MAX_S = 60.0
"""A registry that asks for more is asked all the same: withdrawals may wait."""
_UNKNOWN_FOR_S = 60.0
"""How long an unknown schema is taken as unknown without asking again."""


def envelopes_of(settings: Settings) -> Envelopes:
    """The envelopes that the settings choose, with their mappings and the ready-made ones.

    Raises:
        SettingsError: A mapping is wrong.
    """
    return Envelopes.of(
        settings.source_envelope,
        settings.source_mapping,
        ready_made_mappings(),
        settings.kafka_source_topics,
    )


def form_of(topic: str, settings: Settings) -> Form:
    """How the records of a topic are split."""
    return framing.form(topic, settings.source_framing.of(topic), settings.source_key.of(topic))


def without_registry(envelope: TopicEnvelope, on_schema: OnSchema = ignored) -> Known:
    """The readers of what no registry knows; `on_schema` is called with each schema that records in JSON bring."""
    return {
        framing.JSON: _of_values(JsonReader(envelope, on_schema), envelope),
        KeySchema(framing.JSON): partial(keys.read_json, fields=envelope.key_fields),
        KeySchema(framing.TEXT): keys.read_text,
    }


def reader(name: ReaderName, text: str, envelope: TopicEnvelope) -> Reader | DecodeError:
    """The reader for a schema of values or of keys."""
    if isinstance(name, KeySchema):
        return _made(lambda: keys.avro_reader(text, envelope.key_fields))
    made = make_reader(text, envelope)
    return made if isinstance(made, DecodeError) else _of_values(made, envelope)


def _of_values(read: Reader, envelope: TopicEnvelope) -> Reader:
    return ByKey(read) if envelope.by_key else read


def reference(name: ReaderName) -> SchemaReference:
    """The schema that a reader needs."""
    return name.schema if isinstance(name, KeySchema) else name


async def fetched(name: ReaderName, envelope: TopicEnvelope, schemas: Schemas) -> Reader | DecodeError:
    """The reader for a schema that is asked for once, by whoever only looks: what is unknown now counts as unknown.

    Raises:
        TransientError: It cannot be asked for now.
    """
    try:
        text = await schemas.fetch(reference(name))
    except DecodeError as error:
        return error
    return DecodeError((Reason.SCHEMA_UNKNOWN,)) if text is None else reader(name, text, envelope)


async def decoded(
    records: Sequence[Record], known: Known, form: Form, envelope: TopicEnvelope, schemas: Schemas
) -> list[Result]:
    """What records of one topic tell, one result for each; what they have to be read with is asked for as in `fetched`.

    Args:
        records: Any of them.
        known: The readers so far; those that are missing come to it.
        form: How the records are split.
        envelope: What stands around a contact in them.
        schemas: Where writer schemas come from.

    Raises:
        TransientError: A schema cannot be asked for now.
    """
    results, missing = decode(records, known, form)
    while missing is not None:
        known[missing] = await fetched(missing, envelope, schemas)
        results, missing = decode(records, known, form)
    return results


def make_reader(text: str, envelope: Envelope) -> Reader | DecodeError:
    """What turns a body of this schema into change events, or the error that each of its records gets."""

    def make() -> Reader:
        schema = WriterSchema(text)
        mapper = envelope(schema.definition)
        return lambda body, record: mapper(schema.read(body), record)

    return _made(make)


def _made(make: Callable[[], Reader]) -> Reader | DecodeError:
    try:
        return make()
    except DecodeError as error:
        return error
    except Exception as error:  # noqa: BLE001 -- whoever registers a schema must not be able to stop the program
        return undecodable(f"the schema cannot be used: {type(error).__name__}")


class Readers:
    """The readers of one topic.

    Args:
        form: How its records are split.
        envelope: What stands around a contact in them.
        schemas: Where writer schemas come from.
        way: All that decides what a record becomes, besides its bytes and its schema.
        unknown_timeout: How long the registry may lag, seconds.
        clock: Monotonic seconds.
        spawn: Lets a task go on beside the rest.
        on_schema: Called with each schema that records in JSON bring.

    Attributes:
        form: As given.
        has_positions: As its envelope says.
        keyed: So too, until a key was something else: nobody relies on it any more.
        known: By what they read; an error is the result of every record that would be read so.
    """

    def __init__(
        self,
        form: Form,
        *,
        envelope: TopicEnvelope,
        schemas: Schemas,
        way: bytes,
        unknown_timeout: float,
        clock: Callable[[], float],
        spawn: Spawn,
        on_schema: OnSchema = ignored,
    ) -> None:
        self.form = form
        self.has_positions, self.keyed = envelope.has_positions, envelope.keyed
        self._way = way
        self._seeds: dict[ReaderName, bytes] = {}
        self.known = without_registry(envelope, on_schema)
        self._envelope = envelope
        self._schemas = schemas
        self._unknown_timeout = unknown_timeout
        self._clock = clock
        self._spawn = spawn
        self._learning: dict[ReaderName, asyncio.Event] = {}
        self._tell_at: dict[ReaderName, float] = {}

    def named_by_key(self, record: Record) -> str | None:
        """The external id that the key of a record names, whatever its value is; None when it names nobody for sure."""
        return named_by_key(record, self.known, self.form)

    def missing_for_key(self, record: Record) -> ReaderName | None:
        """What must be learnt before the key of a record can name anybody; None when nothing must."""
        return missing_for_key(record, self.known, self.form)

    def imprint(self, record: Record) -> bytes:
        """What a repeat of a record is told by: a hash of its body, its schema, and the way in which they are read."""
        try:
            name, body = self.form(record)
        except DecodeError:
            return b""
        seed = self._seeds.get(name)
        return hashlib.sha256(seed + body).digest()[:IMPRINT_BYTES] if seed else b""

    async def learn(self, name: ReaderName, held: Sequence[Record]) -> None:
        """Fetch a schema, for as long as it takes, and all others that the held records will need.

        Nobody waits for those: what stands before their records can be read, and withdrawals may be among it.
        """
        for missing in {name, *reader_names(held, self.form)} - self.known.keys() - self._learning.keys():
            self._learning[missing] = asyncio.Event()
            self._spawn(self._learn(missing))
        if name in self._learning:
            await self._learning[name].wait()

    async def _learn(self, name: ReaderName) -> None:
        """Fetch a schema, for as long as it takes; one that stays unknown makes its records rejected."""
        give_up = self._clock() + self._unknown_timeout
        while name not in self.known:
            wait_s, asked_at = _RETRY_S, self._clock()
            try:
                learnt = await self._fetch(name, final=asked_at >= give_up)
            except TransientError as error:
                wait_s = min(error.retry_after or _RETRY_S, _RETRY_MAX_S)
                give_up += self._clock() - asked_at + wait_s
                self._tell(name, error, wait_s)
                learnt = None
            if learnt is None:
                await asyncio.sleep(wait_s)
            else:
                self.known[name] = learnt
                if isinstance(learnt, DecodeError) and Reason.SCHEMA_UNKNOWN in learnt.reasons:
                    asyncio.get_running_loop().call_later(_UNKNOWN_FOR_S, self.known.pop, name, None)
        self._tell_at.pop(name, None)
        self._learning.pop(name).set()

    def _tell(self, name: ReaderName, error: TransientError, wait_s: float) -> None:
        """Say that a schema is asked for in vain: at once, and then now and then."""
        if self._clock() >= self._tell_at.get(name, 0.0):
            self._tell_at[name] = self._clock() + _TOLD_EVERY_S
            log.warning("schema_not_available", schema_id=str(reference(name)), error=str(error), retry_s=wait_s)

    async def _fetch(self, name: ReaderName, *, final: bool) -> Reader | DecodeError | None:
        wanted = reference(name)
        try:
            text = await self._schemas.fetch(wanted)
        except DecodeError as error:
            return error
        if text is not None:
            told = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
            self._seeds[name] = hashlib.sha256(told + self._way).digest()
            return reader(name, text, self._envelope)
        return DecodeError((Reason.SCHEMA_UNKNOWN,), f"schema id {wanted} is unknown") if final else None


def readers_of(
    settings: Settings,
    envelopes: Envelopes,
    schemas: Schemas,
    contact_list_id: str,
    *,
    clock: Callable[[], float],
    spawn: Spawn,
) -> Callable[[str], Readers]:
    """What makes the readers of a topic, for one contact list."""
    way = orjson.dumps((RELEASE, contact_list_id, settings.genesys_attribute_columns))

    def make(topic: str) -> Readers:
        return Readers(
            form_of(topic, settings),
            envelope=envelopes.of_topic(topic),
            way=way,
            schemas=schemas,
            unknown_timeout=settings.schema_unknown_timeout_s,
            clock=clock,
            spawn=spawn,
            on_schema=_doubts_told(topic, envelopes),
        )

    return make


def _doubts_told(topic: str, envelopes: Envelopes) -> OnSchema:
    """Logs, once, what is doubtful of schemas in JSON, which no registry has, so that it does not show at start.

    That is which optional fields of a mapping that is meant for the topic they do not have, as where a path is
    mistyped, and of which flags a null may come as a default that grants.
    """
    known: set[Sequence[str]] = set()

    def look(definition: Mapping[str, object]) -> None:
        try:
            fitness = envelopes.fitness(topic, definition)
        except Exception:  # noqa: BLE001 -- as above: whoever sends a schema
            return
        if fitness.meant and fitness.lacking and fitness.lacking not in known:
            known.add(fitness.lacking)
            log.warning("mapping_lacks_fields", topic=topic, fields="; ".join(fitness.lacking))
        if fitness.granted and fitness.granted not in known:
            known.add(fitness.granted)
            log.warning("mapping_null_grants", topic=topic, problems="; ".join(fitness.granted))

    return look
