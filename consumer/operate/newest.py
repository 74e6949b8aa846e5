"""Whether the newest records of the source topics can be read: each is taken the way that `explain` shows.

Answers for what the records themselves say of framing, envelope and mapping, which a schema alone does not. One may be
a bad one; that a topic cannot be read is when all are rejected. A replayed dead letter is tried where there are not
enough others: it was rejected before, and may be again. Keys are tried as those of tombstones, of which there may be
none among them. Touches the topics and the registry, and tells no contact data.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from heapq import nlargest

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.sampling import newest_records
from consumer.adapters.schema_registry.registry import opened
from consumer.core.dead_letters import is_replayed
from consumer.core.decode import key_alone
from consumer.errors import ConsumerError, OtherColumns, RecordError, SettingsError, TransientError
from consumer.model import Record
from consumer.operate.explain import refusal
from consumer.operate.line import Line
from consumer.settings import Settings

RECORDS = 5
"""How many of a topic are tried."""

OFFSETS = 20
"""How many of each partition are looked at to find them."""


async def lines(settings: Settings, readable: Collection[str]) -> AsyncIterator[Line]:
    """A line for each source topic, and one more where a tombstone would be rejected for its key.

    Args:
        settings: How records are read.
        readable: Those of the source topics that are there and may be read.
    """
    for topic in settings.kafka_source_topics:
        if topic in readable:
            for line in await _lines(topic, settings):
                yield line
        else:
            yield _not_told(topic, "not asked, since the topic is missing or may not be read")


async def _lines(topic: str, settings: Settings) -> list[Line]:
    try:
        records = await _newest(topic, settings)
    except ConsumerError as error:
        return [Line(f"record of {topic}", holds=False, detail=str(error))]
    if not records:
        return [_not_told(topic, "none is among its newest offsets: whether they can be read shows with the first")]
    gone = [key_alone(record) for record in records if record.key]
    try:
        line = judged(records, await _refusals(records, settings))
        return [line, *keys_judged(gone, await _refusals(gone, settings))]
    except SettingsError:  # of which another line speaks
        return [_not_told(topic, "not asked, since the schemas are not valid")]
    except TransientError as error:
        return [_not_told(topic, f"could not be tried: {error}")]


def _not_told(topic: str, why: str) -> Line:
    return Line(f"record of {topic}", holds=True, detail=why, sure=False)


async def _newest(topic: str, settings: Settings) -> Sequence[Record]:
    """The newest records of a topic, the newest first and those that were replayed last; none where it is empty."""
    records: list[Record] = []
    async for came in newest_records(Connection.of(settings), settings.kafka_group_id, topic, OFFSETS):
        records = nlargest(RECORDS, [*records, *came], key=_age)
    return records


def _age(record: Record) -> tuple[bool, int, int]:
    return not is_replayed(record), record.timestamp_ms, record.offset


async def _refusals(records: Sequence[Record], settings: Settings) -> Sequence[RecordError | None]:
    schemas = opened(settings)
    try:
        return [await refusal(record, settings, schemas) for record in records]
    finally:
        await schemas.close()


def judged(records: Sequence[Record], errors: Sequence[RecordError | None]) -> Line:
    """What it means that these records, the newest first, are rejected for these errors, or pass.

    That all are rejected is no chance; that some are may be theirs.
    """
    what, many = f"record {records[0].position}", len(records)
    refused = [(record, error) for record, error in zip(records, errors, strict=True) if error is not None]
    if not refused:
        return Line(what, holds=True, detail="it can be read" + (f", as all of the newest {many}" if many > 1 else ""))
    record, error = refused[0]
    detail = f"{record.position} is rejected: {_why(error)}; see check --explain {record.position}"
    if all(is_replayed(record) for record, _ in refused):
        detail = f"replayed dead letters, which were rejected before; {detail}"
    share = f"{len(refused)} of the newest {many}" if len(refused) < many else f"all of the newest {many}"
    return Line(what, holds=len(refused) < many, detail=f"{share} would be rejected; {detail}" if many > 1 else detail)


def keys_judged(gone: Sequence[Record], errors: Sequence[RecordError | None]) -> list[Line]:
    """What it means that tombstones with the keys of these records would be rejected for these errors, or pass.

    There may never be any, so that nothing has to be wrong.
    """
    refused = [(record, error) for record, error in zip(gone, errors, strict=True) if error is not None]
    return [
        Line(f"key {record.position}", holds=True, detail=_of_key(error), sure=False) for record, error in refused[:1]
    ]


def _of_key(error: RecordError) -> str:
    if isinstance(error, OtherColumns):
        effect = "where that changes, the former contact may stay callable, and tombstones are rejected"
        return f"it lacks the column of external_id: {effect} (docs/formats.md, Traps)"
    remedy = "correct SOURCE_KEY, or have none sent (docs/formats.md, Traps)"
    return f"a tombstone with it would be rejected: {_why(error)}; {remedy}"


def _why(error: RecordError) -> str:
    return ", ".join(error.reasons) + (f", {error.detail}" if error.detail else "")
