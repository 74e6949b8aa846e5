"""Whether mappings work with the schemas that are registered for the source topics, asked before the first record.

Answers for what is known for sure. A mapping that fits no registered version can read nothing of its topic: that is a
mistake in the settings. One that fits an earlier version was right, and records of that version may still come, with
withdrawals among them. Nothing is known where a topic has no schemas of its own, or where the registry cannot tell.
Touches the schemas through their port.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from consumer.core.avro import WriterSchema
from consumer.core.envelopes.choice import Envelopes, Fitness
from consumer.errors import DecodeError, TransientError
from consumer.formats import Framing, SchemaKind, SchemaName
from consumer.ports import TopicSchemas
from consumer.settings import Settings

VERSIONS = 20
"""How many versions of a schema are looked at, when the latest one does not fit."""

_WITH_SCHEMAS = frozenset({
    Framing.BARE,
    Framing.CONFLUENT,
    Framing.CONFLUENT_HEADER,
    Framing.APICURIO,
    Framing.APICURIO_8_BYTE,
    Framing.CLOUDEVENTS,
    Framing.AUTO,
})  # fmt: skip
"""Framings whose schemas are registered for the topic, or may be."""


class Fit(Enum):
    """How a mapping and the schemas of a topic go together."""

    FITS = "the latest fits"
    LACKS = "the latest fits, but no version has some optional fields"
    REJECTS = "records of the latest would be rejected, all or some, and that is no proof of a mistake"
    UNFIT = "none fits"
    NO_SCHEMA = "there is none"
    NOT_KNOWN = "the registry cannot tell"


class Finding(Struct, frozen=True):
    """What was found of a topic.

    Attributes:
        topic: Which.
        fit: How its mapping and its schemas go together.
        details: What of the latest schema does not fit, or which optional fields it does not have.
        granted: Flags of the latest schema whose null may come as a default that grants.
    """

    topic: str
    fit: Fit
    details: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()


def unmatched(settings: Settings, envelopes: Envelopes) -> list[str]:
    """Attributes of mappings that no column takes, and columns that no mapping fills; a sentence each.

    Native change events name their attributes themselves: where a topic has them, any column may be filled.
    """
    columns = [source for source, _ in settings.genesys_attribute_columns]
    nowhere = {
        table: [name for name in mapping.attributes if name not in columns]
        for table, mapping in envelopes.mappings.items()
    }
    attributes = envelopes.attributes()
    empty = [] if attributes is None else [name for name in columns if name not in attributes]
    return [
        f"SOURCE_MAPPING: [{table}] attributes: GENESYS_ATTRIBUTE_COLUMNS has no {', '.join(names)}: it goes nowhere"
        for table, names in nowhere.items()
        if names
    ] + [
        f"GENESYS_ATTRIBUTE_COLUMNS: no mapping has an attribute {name}: the column stays empty for everybody"
        for name in empty
    ]


async def look(settings: Settings, envelopes: Envelopes, schemas: TopicSchemas) -> list[Finding]:
    """Look at all source topics whose records are written with schemas, all at the same time.

    Raises:
        FatalError: As the port does.
    """
    framing = settings.source_framing
    topics = [topic for topic in settings.kafka_source_topics if framing.of(topic) in _WITH_SCHEMAS]
    return await asyncio.gather(*[_look_at(topic, settings, envelopes, schemas) for topic in topics])


async def _look_at(topic: str, settings: Settings, envelopes: Envelopes, schemas: TopicSchemas) -> Finding:
    try:
        bare = settings.source_framing.of(topic) is Framing.BARE
        found = await (_of_bare(topic, envelopes, schemas) if bare else _of_versions(topic, envelopes, schemas))
    except TransientError as error:
        return Finding(topic, Fit.NOT_KNOWN, (str(error),))
    if not found:
        return Finding(topic, Fit.NO_SCHEMA)
    return replace(_judged(topic, found, mixed=envelopes.may_mix(topic)), granted=found[0].granted)


def _judged(topic: str, found: Sequence[Fitness], *, mixed: bool) -> Finding:
    """What the versions, the latest first, come to."""
    latest = found[0]
    if latest.problems:
        sure = not mixed and all(version.problems for version in found)
        return Finding(topic, Fit.UNFIT if sure else Fit.REJECTS, latest.problems + latest.doubts)
    if latest.doubts:
        return Finding(topic, Fit.REJECTS, latest.doubts)
    bound = [version for version in found if not version.problems]
    never = tuple(field for field in latest.lacking if all(field in version.lacking for version in bound))
    return Finding(topic, Fit.LACKS, never) if latest.meant and never else Finding(topic, Fit.FITS, latest.lacking)


async def _of_bare(topic: str, envelopes: Envelopes, schemas: TopicSchemas) -> list[Fitness]:
    """Of the one schema that all records have, whose name no record tells."""
    text = await schemas.fetch(SchemaName(SchemaKind.TOPIC, topic))
    return [] if text is None else [_fitness(text, topic, envelopes)]


async def _of_versions(topic: str, envelopes: Envelopes, schemas: TopicSchemas) -> list[Fitness]:
    """Of the versions, the latest first, as far as it takes to judge that one."""
    found: list[Fitness] = []
    async with aclosing(schemas.of_topic(topic)) as versions:
        async for text in versions:
            found.append(_fitness(text, topic, envelopes))
            if _is_enough(found):
                break
    return found


def _is_enough(found: Sequence[Fitness]) -> bool:
    latest, last = found[0], found[-1]
    if latest.problems:
        return not last.problems or len(found) == VERSIONS
    return bool(latest.doubts) or not latest.meant or not latest.lacking or len(found) == VERSIONS


def _fitness(text: str | DecodeError, topic: str, envelopes: Envelopes) -> Fitness:
    if isinstance(text, DecodeError):
        return Fitness((text.detail,))
    try:
        return envelopes.fitness(topic, WriterSchema(text).definition)
    except DecodeError as error:
        return Fitness((error.detail,))
    except Exception as error:  # noqa: BLE001 -- as in `readers`
        return Fitness((f"the schema cannot be used: {type(error).__name__}",))
