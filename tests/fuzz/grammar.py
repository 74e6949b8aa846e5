"""Schemas that are put together from the bytes of an input: valid JSON, and Avro more often than not."""

from typing import Any

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (None, "decimal", "timestamp-millis", "uuid", "date")
NATIVE_FIELDS = ("eventId", "changeType", "externalId", "occurredAt", "phone", "consent", "attributes", "x")
MOST_MEMBERS = 5
MOST_TYPES = 6_000
DEEPEST = 40


class Bytes:
    """The bytes of an input, taken one after the other; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte."""
        taken = self.take(1)
        return taken[0] if taken else 0

    def take(self, count: int) -> bytes:
        """The next bytes, as many as there are."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self._data[self._at :]


def schema_of(data: Bytes) -> dict[str, Any]:
    """A schema of a record."""
    return _Grammar(data).record(1)


class _Grammar:
    """Puts one schema together."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._types = 0

    def record(self, depth: int) -> dict[str, Any]:
        names = [self._data.byte() for _ in range(self._data.byte() % 8)]
        fields = [{"name": NATIVE_FIELDS[name % len(NATIVE_FIELDS)], "type": self._type(depth + 1)} for name in names]
        return {"type": "record", "name": self._name("R"), "fields": fields}

    def _type(self, depth: int) -> Any:
        self._types += 1
        kind = self._data.byte() % 16
        if kind < len(PRIMITIVES) or depth > DEEPEST or self._types > MOST_TYPES:
            return self._primitive(PRIMITIVES[kind % len(PRIMITIVES)])
        make = (self.record, self._array, self._map, self._union, self._enum, self._fixed, self._used, self._used)
        return make[kind - len(PRIMITIVES)](depth)

    def _primitive(self, kind: str) -> Any:
        logical = LOGICAL[self._data.byte() % len(LOGICAL)]
        return kind if logical is None else {"type": kind, "logicalType": logical, "precision": 4, "scale": 2}

    def _array(self, depth: int) -> Any:
        return {"type": "array", "items": self._type(depth + 1)}

    def _map(self, depth: int) -> Any:
        return {"type": "map", "values": self._type(depth + 1)}

    def _union(self, depth: int) -> Any:
        return [self._type(depth + 1) for _ in range(self._data.byte() % MOST_MEMBERS)]

    def _enum(self, _: int) -> Any:
        symbols = [chr(ord("A") + number) for number in range(self._data.byte() % MOST_MEMBERS)]
        return {"type": "enum", "name": self._name("E"), "symbols": symbols}

    def _fixed(self, _: int) -> Any:
        return {"type": "fixed", "name": self._name("F"), "size": self._data.byte() - 1}

    def _used(self, _: int) -> Any:
        """A type that is named, which may be defined elsewhere, or around it, or nowhere."""
        return self._name("REF"[self._data.byte() % 3])

    def _name(self, kind: str) -> str:
        return f"{kind}{self._data.byte() % 8}"
