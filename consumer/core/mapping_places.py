"""Where rows hold what a mapping wants: its paths, made into functions that read a row.

Answers for the same row giving the same value with a schema and without one. Touches nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter

from consumer.core.mapping_tables import Path, Source, as_key
from consumer.errors import undecodable
from consumer.model import UNCHANGED, Record

Row = dict[str, object]
Getter = Callable[[Row], object]
Resolve = Callable[[Path], Getter | None]
"""Reads what stands at a path in a row; None where rows have no such place."""


def nothing(_: Row) -> object:
    """Reads null: within a field that holds nothing else, as one row without a schema does and another not.

    Any other place of a list goes before that.
    """
    return None


def in_any(path: Path) -> Getter:
    """Reads what stands at a path in rows without a schema; what is not there is null."""
    name, *rest = path
    if not rest:
        return lambda row: row.get(name)
    inner = in_any(tuple(rest))

    def get(row: Row) -> object:
        record = row.get(name)
        return inner(record) if isinstance(record, dict) else None

    return get


def getter_of(source: Source, resolve: Resolve, *, loose: bool, sparse: bool) -> Getter | None:
    """Reads the value of a field; None where rows have none of its places.

    Args:
        source: Its places, of which the first counts that rows have, or its constant.
        resolve: Finds places.
        loose: Rows have no schema: which places they have shows in each.
        sparse: Rows tell only what changed, so a constant is not told.
    """
    if not source.paths:
        return untold if sparse else lambda _: source.constant
    if loose and len(source.paths) > 1:
        get: Getter | None = _first_there(source.paths)
    else:
        found = [itemgetter(path[0]) if path[0].startswith("@") else resolve(path) for path in source.paths]
        get = min((get for get in found if get is not None), key=lambda get: get is nothing, default=None)
    return then(get, _meaning(source.values)) if source.values else get


def _first_there(paths: Sequence[Path]) -> Getter:
    """Reads the first of the places that a row without a schema has. A null that is there counts, as in any other row.

    Otherwise a withdrawn consent would be made up again from another column. A key or header has no null: it is
    there where it tells something.
    """
    places = [(in_any(path[:-1]) if path[:-1] else _itself, path[-1], path[0].startswith("@")) for path in paths]

    def get(row: Row) -> object:
        for holder, name, around in places:
            held = holder(row)
            if isinstance(held, dict) and name in held and not (around and held[name] is None):
                return held[name]
        return None

    return get


def _itself(row: Row) -> object:
    return row


def _meaning(values: Mapping[str, object]) -> Callable[[object], object]:
    def meant(value: object) -> object:
        if type(value) is str:
            return values.get(value, value)
        return value if value is UNCHANGED else values.get(as_key(value), value)

    return meant


def then(get: Getter | None, convert: Callable[[object], object]) -> Getter | None:
    """As `converted`; None where there is nothing to read."""
    return None if get is None else converted(get, convert)


def converted(get: Getter, convert: Callable[[object], object]) -> Getter:
    """Reads a value and converts it."""
    return lambda row: convert(get(row))


def untold(_: Row) -> object:
    """Reads what rows do not tell."""
    return UNCHANGED


def names_around(sources: Sequence[Source]) -> list[str]:
    """Names of the key and of headers among the places: `@key`, `@header.NAME`."""
    return sorted({path[0] for source in sources for path in source.paths if path[0].startswith("@")})


def told_around(name: str, record: Record) -> object:
    """The key of a record, or one of its headers, as text; None where there is none.

    Raises:
        DecodeError: It is no text.
    """
    if name == "@key":
        raw = record.key
    else:
        wanted = name.removeprefix("@header.")
        raw = next((value for header, value in record.headers if header == wanted), None)
    with suppress(UnicodeDecodeError):
        return None if raw is None else raw.decode()
    raise undecodable(f"{name} is not UTF-8")
