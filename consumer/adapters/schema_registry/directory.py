"""Writer schemas from a directory. Touches nothing else."""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path

from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from consumer.core.avro_schema import parsable
from consumer.errors import DecodeError, SettingsError
from consumer.formats import SchemaKind, SchemaName, SchemaReference

_HIGHEST_ID = 2**31 - 1
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile("[0-9]{1,19}")
_VALUES = {
    SchemaKind.GUID: _UUID,
    SchemaKind.GLUE: _UUID,
    SchemaKind.GLOBAL_ID: _NUMBER,
    SchemaKind.CONTENT_ID: _NUMBER,
    SchemaKind.CONTENT_HASH: re.compile("[0-9a-f]{64}"),
    SchemaKind.AZURE: re.compile("[0-9a-f]{32}"),
    SchemaKind.TOPIC: re.compile(r"[A-Za-z0-9._-]{1,249}"),
}
"""What `ids.json` may call a schema besides a number. Fingerprints are not called: they follow from the schemas."""

_MALFORMED = (SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What fastavro and json raise at something that is not a schema."""


class LocalSchemas:
    """`consumer.ports.TopicSchemas` from a directory. All that it has is read at construction.

    Its `ids.json` maps names of schemas to files; each file `*.avsc` is known by its fingerprint too.

    Args:
        schemas_dir: The directory.
        named: Whether `ids.json` counts.

    Raises:
        SettingsError: `ids.json` or a file cannot be read, or is not what it must be.
    """

    def __init__(self, schemas_dir: Path, *, named: bool = True) -> None:
        problems: list[str] = []
        ids = _read_ids(schemas_dir, problems) if named else {}
        self._schemas = dict(_by_fingerprint(schemas_dir, problems))
        for key, name in ids.items():
            self._schemas |= _named(schemas_dir, key, name, problems)
        if problems:
            raise SettingsError(problems)

    async def fetch(self, reference: SchemaReference) -> str | None:
        return self._schemas.get(reference)

    async def of_topic(self, topic: str) -> AsyncGenerator[str | DecodeError, None]:
        text = self._schemas.get(SchemaName(SchemaKind.TOPIC, topic))
        if text is not None:
            yield text

    async def close(self) -> None:
        """Nothing is held."""


def _read_ids(schemas_dir: Path, problems: list[str]) -> Mapping[str, object]:
    path = schemas_dir / "ids.json"
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"SCHEMAS_DIR: {path} cannot be read: {error}")
        return {}
    if not isinstance(ids, dict):
        problems.append(f"SCHEMAS_DIR: {path} must be an object of ids and file names")
        return {}
    return ids


def _by_fingerprint(schemas_dir: Path, problems: list[str]) -> Iterator[tuple[SchemaReference, str]]:
    for path in sorted(schemas_dir.glob("*.avsc")):
        text = _read(path, problems)
        if text is not None:
            canonical = to_parsing_canonical_form(parsable(json.loads(text)))
            yield SchemaName(SchemaKind.FINGERPRINT, fingerprint(canonical, "CRC-64-AVRO")), text


def _named(schemas_dir: Path, key: str, name: object, problems: list[str]) -> Mapping[SchemaReference, str]:
    """What a line of `ids.json` adds; a problem when it is wrong."""
    reference = _reference(key)
    if reference is None or not isinstance(name, str):
        problems.append(
            f"SCHEMAS_DIR: ids.json must map ids from 0 to {_HIGHEST_ID}, or names such as "
            f"{', '.join(f'{kind}:…' for kind in _VALUES)}, to file names, not {key!r}"
        )
        return {}
    if not (schemas_dir / name).is_file():
        problems.append(f"SCHEMAS_DIR: schema {key} cannot be read: there is no file {schemas_dir / name}")
        return {}
    text = _read(schemas_dir / name, problems)
    return {} if text is None else {reference: text}


def _reference(key: str) -> SchemaReference | None:
    if key.isascii() and key.isdigit():
        return int(key) if int(key) <= _HIGHEST_ID else None
    kind, _, value = key.partition(":")
    value = value if kind == SchemaKind.TOPIC else value.lower()
    if kind in _VALUES and _VALUES[SchemaKind(kind)].fullmatch(value):
        return SchemaName(SchemaKind(kind), value)
    return None


def _read(path: Path, problems: list[str]) -> str | None:
    """The text of a schema; None and a problem when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        parse_schema(parsable(json.loads(text)))
    except OSError as error:
        problem = f"SCHEMAS_DIR: {path} cannot be read: {error}"
    except _MALFORMED as error:
        problem = f"SCHEMAS_DIR: {path} is not an Avro schema: {error}"
    else:
        return text
    if problem not in problems:
        problems.append(problem)
    return None
