"""Puts in place what a schema refers to. Touches nothing."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from fastavro.schema import SchemaParseException, UnknownType, parse_schema
from fastavro.types import DictSchema, NamedSchemas, Schema

from consumer.core.avro_schema import check_json, parsable
from consumer.errors import DecodeError, undecodable
from consumer.formats import SchemaReference

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = frozenset({"record", "error", "enum", "fixed"})
_HELD: Final = {"array": "items", "map": "values"}
_OF_FASTAVRO = "__"
"""How the keys begin that fastavro adds to what it parsed."""


def inlined(texts: Sequence[str], reference: SchemaReference) -> str:
    """One schema without references. What a reference is called is not asked: writers in Java do not, either.

    Args:
        texts: What the schema refers to, directly or not, each behind what it refers to; then the schema.
        reference: Names the schema in errors.

    Raises:
        DecodeError: They do not fit, or lead back to themselves.
    """
    try:
        return json.dumps(_put_together(texts))
    except (DecodeError, MemoryError):
        raise
    except UnknownType as error:
        cause = f"nothing defines {error.name} before it is used"
    except SchemaParseException as error:
        cause = str(error)
    except Exception as error:  # noqa: BLE001  # foreign code on foreign input: anything may come
        cause = type(error).__name__
    raise undecodable(f"references of schema {reference} do not fit: {cause}")


def _put_together(texts: Sequence[str]) -> Schema:
    *referred, text = texts
    known: NamedSchemas = {}
    for each in referred:
        parsed, defined = _parsed(each, known)
        if not _is_named_as_one_of(known, parsed):  # another version of what is there, which counts in Java, too
            _check_for_others(known, defined)
            known = defined | known
    schema, defined = _parsed(text, known)
    _check_for_others(known, defined)
    return _Inlining(known).apply(schema)


def _parsed(text: str, known: NamedSchemas) -> tuple[Schema, NamedSchemas]:
    """A schema with its names in full, and the types that it defines."""
    schema = json.loads(text)
    check_json(schema)
    names = dict(known)
    parsed = parse_schema(parsable(schema), names)
    return parsed, {name: each for name, each in names.items() if each is not known.get(name)}


def _is_named_as_one_of(known: NamedSchemas, parsed: Schema) -> bool:
    return isinstance(parsed, dict) and parsed["type"] in _NAMED and parsed["name"] in known


def _check_for_others(known: NamedSchemas, defined: NamedSchemas) -> None:
    """Refuse a name that means two types: who wrote the records took one of them, and nobody says which."""
    for name in known.keys() & defined.keys():
        if known[name] != defined[name]:
            raise SchemaParseException(f"{name} is defined in two ways")


class _Inlining:
    """Puts each type where it is used first.

    Args:
        known: What is referred to, by full name.
    """

    def __init__(self, known: Mapping[str, DictSchema]) -> None:
        self._known = known
        self._placed: set[str] = set()

    def apply(self, schema: Schema) -> Schema:
        """The schema, parsed, with what it refers to."""
        if isinstance(schema, list):
            return [self.apply(branch) for branch in schema]
        if isinstance(schema, dict):
            return self._defined(schema)
        if schema in _PRIMITIVES or schema in self._placed or schema not in self._known:
            return schema
        return self._defined(self._known[schema])

    def _defined(self, schema: DictSchema) -> Schema:
        made = {key: value for key, value in schema.items() if not key.startswith(_OF_FASTAVRO)}
        kind = schema["type"]
        if kind in _NAMED:
            name: str = schema["name"]
            if name in self._placed:
                return name
            self._placed.add(name)
        if kind in _HELD:
            made[_HELD[kind]] = self.apply(schema[_HELD[kind]])
        elif "fields" in schema:
            made["fields"] = [field | {"type": self.apply(field["type"])} for field in schema["fields"]]
        return made
