"""Where in its database's log a change stands, as one number of 63 bits that orders the changes of one row.

Answers for which parts of a position are kept. Changes of one row are in different transactions, which a lock keeps
apart, or else follow each other in the partition: an equal version is ordered by offset. So what orders transactions
is enough, and what orders changes within one may be left out. What does not fit has no version: None.

| database | from | kept |
|---|---|---|
| PostgreSQL | `lsn` | all of it |
| MySQL, MariaDB | `file`, `pos` | 31 bits of the number of the file, 32 of the position; not `row` |
| SQL Server | `commit_lsn` | 23, 28 and 12 bits of its three parts; not `change_lsn` nor `event_serial_no` |
| Oracle | `commit_scn`, else `scn` | all of it |
| MongoDB | `ts_ms`, `ord` | 32 bits of the second, 31 of the order within |

Touches nothing else.
"""

from collections.abc import Callable, Collection, Sequence

from consumer.core.mapping import Row

Position = Callable[[Row], int | None]
"""Reads the version from what a source tells of itself; None when it does not tell."""

_LSN_PARTS = 3


def position(names: Collection[str], prefix: str = "") -> Position | None:
    """How to read the version where a source tells so much of itself; None when it tells nothing that orders.

    Args:
        names: What the source tells.
        prefix: Stands before each name.
    """
    for needed, read in _POSITIONS.items():
        told = [f"{prefix}{name}" for name in needed]
        if set(told) <= set(names):
            return _reader(told, read)
    return None


def _reader(told: Sequence[str], read: Callable[[Sequence[object]], int | None]) -> Position:
    return lambda source: read([source.get(name) for name in told])


def _mysql(values: Sequence[object]) -> int | None:
    file, place = values
    return folded([_number(str(file).rpartition(".")[2]), _number(place)], (31, 32))


def _sql_server(values: Sequence[object]) -> int | None:
    parts = str(values[0]).split(":")
    if len(parts) != _LSN_PARTS or not all(part.isalnum() and part.isascii() for part in parts):
        return None
    try:
        return folded([int(part, 16) for part in parts], (23, 28, 12))
    except ValueError:
        return None


def _mongodb(values: Sequence[object]) -> int | None:
    milliseconds, order = map(_number, values)
    return None if milliseconds is None else folded([milliseconds // 1000, order], (32, 31))


def _first(values: Sequence[object]) -> int | None:
    """The first of them that is a number of 63 bits."""
    for value in values:
        number = _number(value)
        if number is not None and 0 <= number < 1 << 63:
            return number
    return None


_POSITIONS: dict[tuple[str, ...], Callable[[Sequence[object]], int | None]] = {
    ("file", "pos"): _mysql,
    ("commit_lsn",): _sql_server,
    ("commit_scn", "scn"): _first,
    ("scn",): _first,
    ("ts_ms", "ord"): _mongodb,
    ("lsn",): _first,
}
"""By what it is read from."""


def _number(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() else None
    return value if type(value) is int else None


def folded(parts: Sequence[int | None], bits: Sequence[int]) -> int | None:
    """The parts behind each other, the first one counting most; None when one is missing or does not fit."""
    whole = 0
    for part, width in zip(parts, bits, strict=True):
        if part is None or not 0 <= part < 1 << width:
            return None
        whole = whole << width | part
    return whole
