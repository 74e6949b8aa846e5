"""Reads JSON as Kafka Connect's converter writes it: `{"schema": …, "payload": …}`; or without a schema.

Answers for what comes out being what an Avro record of the same content would be: fields as a dict, and a definition
in Avro's words, from which an envelope's mapping is made. With a schema the definition is that schema's
(`connect_schema`), and the payload has to fit it. Without one it is what the values are, and all text is string. A few
bytes cannot ask for much: sizes, depths and numbers of values are limited, in records and in schemas. Touches nothing
else.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast

import orjson
from fastavro import parse_schema

from consumer.core.connect_schema import MAX_DEPTH, Check, Type, UnfitError, compiled, is_integer, too_deep
from consumer.errors import DecodeError, undecodable
from consumer.model import Events, Record

MAX_VALUES = 100_000
"""Values in a record, those of its schema among them."""

_MAX_DEFINITIONS = 256
"""Definitions whose mapping is kept: topics have few."""

_MAX_DEFINITION_BYTES = 4_000_000
"""How long their texts may be, all together: in memory they take up about five times as much."""

_MADE_UP = re.compile(r"(record|struct)_[0-9]+")

Mapper = Callable[[dict[str, object], Record], Events]
OnSchema = Callable[[Mapping[str, object]], None]


def is_made_up(name: str) -> bool:
    """Whether the name of a record's definition is one that was made up, since the record tells none."""
    return _MADE_UP.fullmatch(name) is not None


def ignored(_: Mapping[str, object]) -> None:
    """Nobody asks for schemas."""


class JsonReader:
    """Makes the change events of a record in JSON.

    Args:
        mapping: Makes the mapping for a definition; raises `DecodeError` when the definition is not understood.
        on_schema: Called with each definition that is a schema's, and is understood. It does not raise.
    """

    def __init__(self, mapping: Callable[[Mapping[str, object]], Mapper], on_schema: OnSchema = ignored) -> None:
        self._mapping = mapping
        self._on_schema = on_schema
        self._known: dict[bytes, tuple[int, tuple[Check, Mapper] | DecodeError]] = {}  # with the size of the text

    def __call__(self, value: bytes, record: Record) -> Events:
        """The change events.

        Raises:
            DecodeError: It is not JSON, does not fit its schema, or is not understood.
        """
        document = _loaded(value)
        if document.keys() == {"schema", "payload"} and document["schema"] is not None:
            schema, payload = document["schema"], document["payload"]
            check, mapping = self._prepared(_text_of(schema), lambda: compiled(schema), self._on_schema)
        else:
            payload = document["payload"] if document.keys() == {"schema", "payload"} else document
            definition = _Shape().of(payload)
            check, mapping = self._prepared(orjson.dumps(definition), lambda: Type(definition, _as_it_is), ignored)
        return mapping(_fitting(check, payload), record)

    def _prepared(self, text: bytes, prepare: Callable[[], Type], told: OnSchema) -> tuple[Check, Mapper]:
        key = hashlib.sha256(text).digest()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(text), self._prepare(prepare, told)
            self._forget()
        _, made = known
        if isinstance(made, DecodeError):
            raise made.with_traceback(None)
        return made

    def _forget(self) -> None:
        """Forget the oldest definitions, where they are too many or too large."""
        while (
            len(self._known) > _MAX_DEFINITIONS or sum(size for size, _ in self._known.values()) > _MAX_DEFINITION_BYTES
        ):
            del self._known[next(iter(self._known))]

    def _prepare(self, prepare: Callable[[], Type], told: OnSchema) -> tuple[Check, Mapper] | DecodeError:
        try:
            made, check = prepare()
            definition = _checked(made)
            mapping = self._mapping(definition)
        except DecodeError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whoever sends a schema must not be able to stop the program
            return undecodable(f"the schema cannot be used: {type(error).__name__}")
        told(definition)
        return check, mapping


def _checked(definition: object) -> dict[str, object]:
    """The definition of a record, on which whoever maps the fields may rely: it is valid Avro."""
    kind = definition["type"] if isinstance(definition, dict) else definition
    if not isinstance(definition, dict) or kind != "record":
        raise _no_object("the JSON is not an object, or its schema not of one", is_text=kind == "string")
    try:
        parse_schema(definition)
    except Exception as error:  # noqa: BLE001  # foreign code on foreign input: anything may come
        cause = type(error).__name__
    else:
        return definition
    raise undecodable(f"the JSON has names that no schema could have: {cause}")


def _loaded(value: bytes) -> dict[str, object]:
    """The document, parsed only when it cannot hold too many values: each but the first follows one of four bytes."""
    if sum(map(value.count, (b",", b"[", b"{", b":"))) > 2 * MAX_VALUES:
        raise undecodable(f"the JSON may hold more than {MAX_VALUES:,} values")
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(value)
        if isinstance(document, dict):
            return document
        raise _no_object("the JSON is not an object", is_text=isinstance(document, str))
    raise undecodable("the value is not JSON")


def _no_object(what: str, *, is_text: bool) -> DecodeError:
    """The error of JSON that holds no fields. An outbox's payload, which may be JSON itself, is text by default."""
    remedy = ", but text: of an outbox, have the router expand it (table.expand.json.payload=true)"
    return undecodable(what + (remedy if is_text else ""))


def _text_of(schema: object) -> bytes:
    """A schema as text; orjson writes fewer levels than it reads."""
    with suppress(orjson.JSONEncodeError):
        return orjson.dumps(schema)
    raise too_deep()


def _fitting(check: Check, payload: object) -> dict[str, object]:
    if payload is None:
        raise undecodable("the payload is null")
    try:
        return cast("dict[str, object]", check(payload))
    except UnfitError as error:
        place = ".".join(reversed(error.path))
    raise undecodable(f"the payload does not fit its schema{f', at {place}' if place else ''}")


# -- without a schema


def _as_it_is(value: object) -> object:
    return value


class _Shape:
    """What values are, in Avro's words. Of the items of a list, the first of each kind tells."""

    def __init__(self) -> None:
        self._records = 0

    def of(self, value: object, depth: int = 1) -> object:
        """The type of a value that stands so deep."""
        if depth > MAX_DEPTH:
            raise too_deep()
        if isinstance(value, dict):
            self._records += 1
            name = f"record_{self._records}"
            fields = [{"name": key, "type": self.of(each, depth + 1)} for key, each in value.items()]
            return {"type": "record", "name": name, "fields": fields}
        if isinstance(value, list):
            samples = {type(each): each for each in reversed(value)}.values()
            items = [self.of(sample, depth + 1) for sample in samples]
            return {"type": "array", "items": items[0] if len(items) == 1 else items}
        return _scalar(value)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if is_integer(value, 64) else "double"
    return "double" if isinstance(value, float) else "string"
