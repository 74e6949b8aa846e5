"""Tables of a mapping, as a TOML file has them, checked: which field of a row becomes which field of a change event.

Touches nothing else.

A field is named by a path such as `address.city`, by `@key` or `@header.NAME` for what stands around the value, or by a
list of these, of which the first counts that the schema has. It may have `values`, from text to what it stands for, and
instead of a path a constant `value`. What `values` does not name stays as it is: a consent of "perhaps" is then not a
boolean, and it is for validation to say so.
"""

from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from typing import Final, cast

from msgspec import Struct

from consumer.errors import SettingsError
from consumer.model import ChangeType

Path = tuple[str, ...]

BY_KEY: Final[Path] = ("@key",)
"""The path of the record's key."""

CHANGE_TYPES: Final[Mapping[str, ChangeType]] = {
    change_type.value: change_type for change_type in ChangeType if change_type is not ChangeType.GAP
}
"""By name: what a source may say happened."""

FLAGS = ("consent", "do_not_call")
REQUIRED = ("phone", *FLAGS)
_CONTENT = frozenset({*REQUIRED, "email"})
_OPTIONAL = ("external_id", "email", "change_type", "occurred_at", "version")
_KEYS = frozenset({*REQUIRED, *_OPTIONAL, "attributes", "only", "prefix"})
_FIELD_KEYS = frozenset({"path", "value", "values"})


class Source(Struct, frozen=True):
    """Where the value of one field comes from.

    Attributes:
        paths: The first that a schema has counts; none: the constant.
        values: What a value, as text, stands for; empty: itself.
        constant: The value where there is no path.
    """

    paths: tuple[Path, ...] = ()
    values: Mapping[str, object] = {}
    constant: object = None


class Only(Struct, frozen=True):
    """Which rows count: those with one of these values, as text, at the path."""

    paths: tuple[Path, ...]
    values: frozenset[str]


class ContactMapping(Struct, frozen=True, kw_only=True):
    """A checked table.

    Attributes:
        sources: By field of the change event.
        attributes: By name of the attribute.
        only: Which rows count; None: all.
        prefix: Of the names of metadata in flattened rows.
    """

    sources: Mapping[str, Source]
    attributes: Mapping[str, Source]
    only: Only | None = None
    prefix: str = "__"

    def is_of_others(self, columns: AbstractSet[str]) -> bool:
        """Whether rows that have all of these columns are of another table: they tell something, and of no contact.

        Whom a row is about, when it changed and whether it counts, other tables tell as well, and so may a delete that
        tells no more. Of an external id that stands around rows nobody knows which columns go with it.
        """
        sources = self.sources.items()
        about = _names([source for name, source in sources if name not in _CONTENT])
        about |= _names([Source(self.only.paths)] if self.only else [])
        content = _names([source for name, source in sources if name in _CONTENT] + list(self.attributes.values()))
        others = columns - about
        by_column = not any(path[0].startswith("@") for path in self.sources.get("external_id", Source()).paths)
        return by_column and bool(others) and others.isdisjoint(content)


def _names(sources: Sequence[Source]) -> set[str]:
    """Of the columns in which, or within which, these are."""
    return {path[0] for source in sources for path in source.paths}


def parse(tables: Mapping[str, object]) -> dict[str, ContactMapping]:
    """Check all tables.

    Args:
        tables: By topic, by name of a writer's schema, or `default`.

    Raises:
        SettingsError: With one sentence for each thing that is wrong.
    """
    problems: list[str] = []
    mappings = {name: _Table(name, table, problems).mapping() for name, table in tables.items()}
    if problems:
        raise SettingsError(problems)
    return mappings


def _names_of_tables(name: str, table: Mapping[str, object]) -> Iterator[str]:
    """Names of what is meant as tables: TOML takes an unquoted name apart at its dots."""
    if table.keys() & _KEYS:
        yield name
        return
    for key, inner in table.items():
        if isinstance(inner, dict):
            yield from _names_of_tables(f"{name}.{key}", inner)


class _Table:
    """One table on its way to a mapping; what is wrong goes to the problems."""

    def __init__(self, name: str, table: object, problems: list[str]) -> None:
        self._name = name
        self._table = cast("Mapping[str, object]", table) if isinstance(table, dict) else {}
        self._problems = problems

    def mapping(self) -> ContactMapping:
        if names := [name for name in _names_of_tables(self._name, self._table) if name != self._name]:
            self._problems += [f'SOURCE_MAPPING: [{name}]: a name with dots is quoted: ["{name}"]' for name in names]
            return ContactMapping(sources={}, attributes={})
        for key in self._table.keys() - _KEYS:
            self._wrong(key, f"no such field; there are {', '.join(sorted(_KEYS))}")
        for key in REQUIRED:
            if key not in self._table:
                self._wrong(key, "must be there; a constant is written { value = … }")
        fields = [key for key in (*REQUIRED, *_OPTIONAL) if key in self._table]
        return ContactMapping(
            sources={key: self._source(key, self._table[key]) for key in fields},
            attributes=self._attributes(),
            only=self._only(),
            prefix=self._prefix(),
        )

    def _attributes(self) -> dict[str, Source]:
        table = self._table.get("attributes", {})
        if not isinstance(table, dict):
            self._wrong("attributes", "must be a table")
            return {}
        return {str(name): self._source(f"attributes.{name}", value) for name, value in table.items()}

    def _only(self) -> Only | None:
        table = self._table.get("only")
        if table is None:
            return None
        match table:
            case {"path": path, "values": list(values), **others} if not others:
                return Only(self._paths("only", path), frozenset(map(as_key, values)))
        self._wrong("only", 'must be { path = "…", values = […] }')
        return None

    def _prefix(self) -> str:
        prefix = self._table.get("prefix", "__")
        if not isinstance(prefix, str):
            self._wrong("prefix", "must be text")
        return str(prefix)

    def _source(self, key: str, value: object) -> Source:
        if not isinstance(value, dict):
            return Source(self._paths(key, value))
        if value.keys() - _FIELD_KEYS or ("path" in value) == ("value" in value):
            self._wrong(key, "must have a path, or a constant value, and may have values")
            return Source()
        if "value" in value:
            return Source(constant=self._meant(key, value["value"]))
        return Source(self._paths(key, value["path"]), self._values(key, value.get("values", {})))

    def _values(self, key: str, values: object) -> dict[str, object]:
        if not isinstance(values, dict):
            self._wrong(key, "values must be a table")
            return {}
        return {name: self._meant(key, meant) for name, meant in values.items()}

    def _meant(self, key: str, value: object) -> object:
        """What a constant or one of the values stands for, which must be of the field's kind."""
        if key in FLAGS and not isinstance(value, bool):
            self._wrong(key, "a value must stand for true or false")
        if key not in FLAGS and not isinstance(value, str):
            self._wrong(key, "a value must stand for text")
        if key == "change_type" and value not in CHANGE_TYPES:
            self._wrong(key, f"a value must stand for one of {', '.join(CHANGE_TYPES)}")
        return value

    def _paths(self, key: str, value: object) -> tuple[Path, ...]:
        listed: Sequence[object] = value if isinstance(value, list) else [value]
        paths = [_path(path) for path in listed if isinstance(path, str) and path]
        if not paths or len(paths) < len(listed):
            self._wrong(key, "must be a path, or a list of paths")
        return tuple(paths)

    def _wrong(self, key: str, rule: str) -> None:
        self._problems.append(f"SOURCE_MAPPING: [{self._name}] {key}: {rule}")


def _path(text: str) -> Path:
    return (text,) if text.startswith("@") else tuple(text.split("."))


def shown(paths: Sequence[Path]) -> str:
    """Paths as people write them."""
    return ", ".join(".".join(path) for path in paths)


def as_key(value: object) -> str:
    """How a table of values writes a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
