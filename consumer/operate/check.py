"""`check`: whether the program could run as it is set up. Every part is asked, also after one that fails.

Answers for one line for each thing, with the remedy where something is wrong, and without a secret in it. Changes
nothing, neither in Kafka nor in Genesys: what a start would create is said to be so.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from consumer.adapters.genesys.inspection import Inspection as GenesysInspection, Probe
from consumer.adapters.genesys.named_lists import FoundList
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.inspection import Inspected, Inspection as KafkaInspection
from consumer.adapters.schema_registry import confluent
from consumer.adapters.schema_registry.login import is_readable
from consumer.adapters.schema_registry.registry import opened
from consumer.adapters.schema_registry.transport import Transport
from consumer.adapters.worker import in_a_thread
from consumer.core.envelopes.choice import DEFAULT, Envelopes
from consumer.errors import ConsumerError, DecodeError, SettingsError
from consumer.operate import newest, printing
from consumer.operate.line import Line
from consumer.pipeline.mapping_check import Finding, Fit, look, unmatched
from consumer.pipeline.readers import envelopes_of
from consumer.ports import TopicSchemas
from consumer.settings import Settings, load, misspelt

ANY_SCHEMA = 1
"""An id to ask the registry for: whether it knows it does not matter."""

ROOM_BYTES = 16_000_000
"""With less left in the state directory stores take nothing, and then nothing is settled."""

_ANOTHER_LIST = (
    "missing, although this group has filled a list, which has another name: name that one in GENESYS_CONTACT_LIST; "
    "for a new one see docs/procedures.md, Filling a list from the topic"
)
_BLOCKS_NOBODY = "a new one blocks nobody until it is assigned to the campaigns"

_ANOTHER_DNC_LIST = (
    "missing, although this group has filled a list: if it had a do-not-call list, that has another name, and is the "
    f"one to name in GENESYS_DNC_LIST. Otherwise it is created at start; {_BLOCKS_NOBODY}"
)


TellLine = Callable[[Line], None]
"""Called with each line, from whichever thread, as soon as it is known."""


async def check(config: Path | None, tell: TellLine) -> list[Line]:
    """Ask everything, at once where one thing does not need another.

    Args:
        config: Settings below the environment.
        tell: Told of each line meanwhile.

    Returns:
        All lines, in the same order each time.
    """
    try:
        settings = load(config=config)
        envelopes = envelopes_of(settings)
    except SettingsError as error:
        return _told(tell, (Line("settings", holds=False, detail=problem) for problem in error.problems))
    own = _told(tell, _own(settings, envelopes))
    kafka, schemas, genesys = await asyncio.gather(
        _of_brokers(tell, settings),
        _gathered(tell, _schemas(settings, envelopes)),
        _gathered(tell, _genesys(settings)),
    )
    return [*own, *kafka, *schemas, *genesys]


async def _of_brokers(tell: TellLine, settings: Settings) -> list[Line]:
    """What the brokers say; where they answer, also whether the newest records of each source topic can be read."""
    lines = await in_a_thread("kafka-inspection", lambda: _told(tell, _kafka(settings)))
    if not lines[0].holds:  # no broker answers
        return lines
    holding = {line.what for line in lines if line.holds}
    readable = [topic for topic in settings.kafka_source_topics if f"topic {topic}" in holding]
    return [*lines, *await _gathered(tell, newest.lines(settings, readable))]


def print_line(line: Line) -> None:
    """Print what was found of one thing, at once."""
    printing.line(f"{line.mark} {line.what}: {line.detail}")
    sys.stdout.flush()


def print_document(lines: Sequence[Line]) -> None:
    """Print all that was found, for programs."""
    checks = [{"check": line.what, "ok": line.holds, "sure": line.sure, "detail": line.detail} for line in lines]
    printing.document({"ok": all(line.holds for line in lines), "checks": checks})


def _told(tell: TellLine, lines: Iterable[Line]) -> list[Line]:
    told = []
    for line in lines:
        tell(line)
        told.append(line)
    return told


async def _gathered(tell: TellLine, lines: AsyncIterator[Line]) -> list[Line]:
    told = []
    async for line in lines:
        tell(line)
        told.append(line)
    return told


# -- what is this machine's


def _own(settings: Settings, envelopes: Envelopes) -> Iterator[Line]:
    yield from _settings()
    yield from _tables(envelopes.mappings, settings.kafka_source_topics)
    yield from _columns(settings, envelopes)
    yield _state_directory(settings.state_dir)


def _settings() -> list[Line]:
    """What is left to say of settings that are valid."""
    slips = [
        Line("settings", holds=False, detail=f"{name} in the environment is no setting: is it {meant}?")
        for name, meant in misspelt().items()
    ]
    return slips or [Line("settings", holds=True, detail="every one is valid")]


def _tables(tables: Collection[str], topics: Sequence[str]) -> Iterator[Line]:
    """What tables of SOURCE_MAPPING count for, where that may surprise."""
    for table in sorted(set(tables) - {DEFAULT, *topics}):
        close = get_close_matches(table, topics, 1, cutoff=0.8)
        question = f"; or is it {close[0]}?" if close else ""
        detail = f"[{table}] is no source topic: it counts for records whose schema has that name{question}"
        yield Line("SOURCE_MAPPING", holds=True, detail=detail)


def _columns(settings: Settings, envelopes: Envelopes) -> Iterator[Line]:
    """Attributes and columns that have no other side, which may be meant."""
    for problem in unmatched(settings, envelopes):
        what, _, detail = problem.partition(": ")
        yield Line(what, holds=True, detail=detail, sure=False)


def _state_directory(directory: Path) -> Line:
    """Whether this user could keep the stores there; what is made to find out is removed again."""
    there = next(path for path in (directory, *directory.absolute().parents) if os.access(path, os.F_OK))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK) and _takes_files(there):
        if (left := shutil.disk_usage(there).free) < ROOM_BYTES:
            detail = f"{directory}: its volume has {left:,} bytes left of {ROOM_BYTES:,} needed: make room, or grow it"
            return Line("state directory", holds=False, detail=detail)
        detail = f"{directory} can be written to" if there == directory else f"{directory} is missing, is made at start"
        return Line("state directory", holds=True, detail=detail)
    problem = "may not be written to by this user" if there.is_dir() else "is no directory"
    return Line("state directory", holds=False, detail=f"{there} {problem}: set STATE_DIR to where the stores may be")


def _takes_files(directory: Path) -> bool:
    """Whether something can be made there: not everything that looks like a directory takes files, as `/proc`."""
    try:
        Path(tempfile.mkdtemp(prefix=".check-", dir=directory)).rmdir()
    except OSError:
        return False
    return True


# -- Kafka


def _kafka(settings: Settings) -> Iterator[Line]:
    try:
        inspection = KafkaInspection(Connection.of(settings), settings)
        brokers = inspection.brokers()
    except ConsumerError as error:
        remedy = "check KAFKA_BOOTSTRAP_SERVERS and KAFKA_PROPERTIES_FILE"
        yield Line("brokers", holds=False, detail=f"{error}; {remedy}: topics cannot be asked for")
        return
    yield Line("brokers", holds=True, detail=f"{brokers} in the cluster")
    yield from _inspected("topic", inspection.topics)
    yield from _inspected("group", lambda: [inspection.group()])
    if settings.kafka_guarantee == "exactly_once":
        yield from _inspected("transactions", lambda: [inspection.transactions()])


def _inspected(what: str, ask: Callable[[], list[Inspected]]) -> Iterator[Line]:
    try:
        found = ask()
    except ConsumerError as error:
        yield Line(what, holds=False, detail=str(error))
        return
    for each in found:
        yield Line(f"{what} {each.what}", not each.problem, each.problem or each.detail, each.asked)


# -- schemas


async def _schemas(settings: Settings, envelopes: Envelopes) -> AsyncIterator[Line]:
    try:
        schemas = opened(settings)
    except SettingsError as error:
        for problem in error.problems:
            yield Line("schemas", holds=False, detail=problem)
        return
    try:
        yield (last := Line("schemas", holds=True, detail=f"those of {settings.schemas_dir} are valid"))
        if is_readable(settings):
            detail = "user and password can be read by anyone on the way: name SCHEMA_REGISTRY_URL by https://"
            yield Line("registry login", holds=True, detail=detail, sure=False)
        if settings.schema_registry_url is not None:
            yield (last := await _registry(settings))
        if not last.holds:
            yield Line("mappings", holds=True, detail="cannot be looked at without the registry", sure=False)
            return
        for line in await _mappings(settings, envelopes, schemas):
            yield line
    finally:
        await schemas.close()


async def _registry(settings: Settings) -> Line:
    registry = Transport.of(settings)
    try:
        await confluent.schema(registry, ANY_SCHEMA)
    except DecodeError:  # it answers, with a schema of another kind
        return _reached("registry")
    except ConsumerError as error:
        return Line("registry", holds=False, detail=f"{error} (SCHEMA_REGISTRY_URL)")
    finally:
        await registry.close()
    return _reached("registry")


async def _mappings(settings: Settings, envelopes: Envelopes, schemas: TopicSchemas) -> list[Line]:
    findings = await look(settings, envelopes, schemas)
    return [line for finding in findings for line in (_mapping(finding), *_granted(finding))]


def _mapping(finding: Finding) -> Line:
    details = "; ".join(finding.details)
    told = {
        Fit.FITS: "the latest schema of the topic fits" + (f"; it does not tell {details}" if details else ""),
        Fit.NO_SCHEMA: "no schema is registered for the topic: it is checked when a record comes",
        Fit.NOT_KNOWN: f"it could not be checked: {details}",
        Fit.LACKS: f"no version of the schema has {details}: correct the path, or leave the field out",
        Fit.REJECTS: f"records of the latest schema would be rejected: {details}; name new fields beside the old ones",
        Fit.UNFIT: f"no schema of the topic can be read, so that a start is refused: {details}; "
        "correct SOURCE_MAPPING or SOURCE_ENVELOPE",
    }
    return Line(f"mapping {finding.topic}", finding.fit in {Fit.FITS, Fit.NO_SCHEMA}, told[finding.fit])


def _granted(finding: Finding) -> Iterator[Line]:
    """Flags whose null may come as a default that grants."""
    for flag in finding.granted:
        remedy = "or have the converter keep nulls, which no schema tells (docs/formats.md, Traps)"
        yield Line(f"nulls of {finding.topic}", holds=True, detail=f"{flag}, {remedy}", sure=False)


def _reached(what: str) -> Line:
    return Line(what, holds=True, detail="it answers")


# -- Genesys


async def _genesys(settings: Settings) -> AsyncIterator[Line]:
    inspection = GenesysInspection.of(settings)
    try:
        yield (token := await _asked("token", inspection.log_in, "the OAuth client is let in"))
        if not token.holds:
            yield _not_asked("contact list")
            if settings.genesys_dnc_list is not None:
                yield _not_asked("do-not-call list")
            return
        async for line in _contact_list(inspection, settings):
            yield line
        if settings.genesys_dnc_list is not None:
            async for line in _dnc_list(inspection, settings):
                yield line
    finally:
        await inspection.close()


def _not_asked(what: str) -> Line:
    detail = "it and the permissions for it cannot be asked for without a token"
    return Line(what, holds=True, detail=detail, sure=False)


async def _contact_list(inspection: GenesysInspection, settings: Settings) -> AsyncIterator[Line]:
    async for line in _list("contact list", inspection.contact_list, inspection, inspection.contact_probes):
        is_another = line == _missing("contact list") and await in_a_thread("kafka-inspection", _has_begun, settings)
        yield line._replace(holds=False, detail=_ANOTHER_LIST) if is_another else line


async def _dnc_list(inspection: GenesysInspection, settings: Settings) -> AsyncIterator[Line]:
    what, name = "do-not-call list", settings.genesys_dnc_list or ""
    async for line in _list(what, lambda: inspection.dnc_list(name), inspection, inspection.dnc_probes):
        if line != _missing(what):
            yield line
        elif await in_a_thread("kafka-inspection", _has_begun, settings):
            yield line._replace(detail=_ANOTHER_DNC_LIST, sure=False)
        else:
            yield line._replace(detail=f"{line.detail}; {_BLOCKS_NOBODY}")


def _has_begun(settings: Settings) -> bool:
    """Whether the group has filled a list; not where the brokers do not tell, of whom other lines speak."""
    try:
        return KafkaInspection(Connection.of(settings), settings).has_begun()
    except ConsumerError:
        return False


async def _list(
    what: str,
    find: Callable[[], Awaitable[FoundList | None]],
    inspection: GenesysInspection,
    probes: Callable[[str], list[Probe]],
) -> AsyncIterator[Line]:
    """A list, and the permissions for what is in it."""
    try:
        found = await find()
    except ConsumerError as error:
        yield Line(what, holds=False, detail=str(error))
        return
    if found is None:
        yield _missing(what)
        return
    detail = f"{found.list_id}: {found.doubt}" if found.doubt else f"{found.list_id} is as it must be"
    yield Line(what, holds=True, detail=detail, sure=not found.doubt)
    for probe in probes(found.list_id):
        yield await _permission(inspection, probe)


def _missing(what: str) -> Line:
    return Line(what, holds=True, detail="missing, is created at start; permissions for it cannot be asked yet")


async def _permission(inspection: GenesysInspection, probe: Probe) -> Line:
    line = await _asked(f"permission {probe.permission}", lambda: inspection.ask(probe), "the OAuth client has it")
    return line if line.holds else line._replace(detail=f"{line.detail}; give it to a role of the client")


async def _asked(what: str, ask: Callable[[], Awaitable[None]], detail: str) -> Line:
    try:
        await ask()
    except ConsumerError as error:
        return Line(what, holds=False, detail=str(error))
    return Line(what, holds=True, detail=detail)
