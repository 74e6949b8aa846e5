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

Answers, too, for the position that tells that the log began anew, after a failover or a restore: in which records come,
that is by commit, while a version may be lower than that of another row that a shorter transaction changed meanwhile.

| database | position of the commit |
|---|---|
| PostgreSQL | the first of `sequence`: of the commit before; `lsn` while there was none since a snapshot |
| MySQL, MariaDB, SQL Server | the version |
| Oracle | `commit_scn` |
| MongoDB | none: the version is a time |

In PostgreSQL a change stands where it was made, perhaps before what a snapshot read, and is committed after that: there
versions are not in the order of commits.

Touches nothing else.
"""

import re
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from consumer.core.mapping import When
from consumer.core.mapping_places import Row
from consumer.core.mapping_values import is_digits

Position = Callable[[Row], int | None]
"""Reads the version from what a source tells of itself; None when it does not tell."""

_LSN_PARTS = 3
_SEQUENCE = re.compile(r'\[(?:null,)?"([0-9]{1,19})"')
_NAME_CHARACTERS = 100


class Log(Struct, frozen=True):
    """What a source tells of its log.

    Attributes:
        version: Reads the version.
        commit: Reads the position of the commit; None where the source does not tell it.
        name: Where the source tells its own name; "" where it does not.
        by_commit: Whether versions are in the order of commits.
    """

    version: Position
    commit: Position | None
    name: str
    by_commit: bool

    def when(self, source: Row, time: int, *, snapshot: bool, flaw: str) -> When:
        """Time, version and place of a change.

        What a snapshot read counts as just before its position, so that no change is older than it.

        Args:
            source: What the source tells of itself.
            time: Of the change by the source's clock, milliseconds since the epoch.
            snapshot: Whether a snapshot read the row.
            flaw: What is wrong with the time: then nothing in the log can be told by it.
        """
        version = self.version(source)
        name = str(source.get(self.name) or "")[:_NAME_CHARACTERS] if self.name else ""
        if snapshot:
            place = None if self.commit is None or flaw else (None, time, name, self.by_commit)
            return (0, None, place, flaw) if version is None else (time, max(0, version - 1), place, flaw)
        commit = version if self.commit is self.version else self.commit(source) if self.commit else None
        return time, version, None if commit is None or flaw else (commit, time, name, self.by_commit), flaw


def log(names: Collection[str], prefix: str = "") -> Log | None:
    """How to read what a source tells of its log; None when it tells nothing that orders.

    Args:
        names: What the source tells.
        prefix: Stands before each name.
    """
    version = _found(_POSITIONS, names, prefix)
    name = f"{prefix}name" if f"{prefix}name" in names else ""
    by_commit = f"{prefix}lsn" not in names
    return None if version is None else Log(version, _commit(version, names, prefix), name, by_commit)


def _commit(version: Position, names: Collection[str], prefix: str) -> Position | None:
    if {f"{prefix}file", f"{prefix}commit_lsn"}.isdisjoint(names):
        return _found(_COMMITS, names, prefix)
    return version


def _found(places: "_Places", names: Collection[str], prefix: str) -> Position | None:
    for needed, read in places.items():
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


def _postgres_commit(values: Sequence[object]) -> int | None:
    """The first number of a JSON list of two: positions of the commit before, which may be null, and of the change."""
    found = _SEQUENCE.match(str(values[0]))
    return None if found is None else _first([found[1]])


_Places = dict[tuple[str, ...], Callable[[Sequence[object]], int | None]]

_POSITIONS: _Places = {
    ("file", "pos"): _mysql,
    ("commit_lsn",): _sql_server,
    ("commit_scn", "scn"): _first,
    ("scn",): _first,
    ("ts_ms", "ord"): _mongodb,
    ("lsn",): _first,
}
"""By what it is read from."""

_COMMITS: _Places = {("commit_scn",): _first, ("sequence", "lsn"): _postgres_commit}


def _number(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if is_digits(value) else None
    return value if type(value) is int else None


def folded(parts: Sequence[int | None], bits: Sequence[int]) -> int | None:
    """The parts behind each other, the first one counting most; None when one is missing or does not fit."""
    whole = 0
    for part, width in zip(parts, bits, strict=True):
        if part is None or not 0 <= part < 1 << width:
            return None
        whole = whole << width | part
    return whole
