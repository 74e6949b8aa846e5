"""Salesforce's change events, as the Pub/Sub API has them and as Kafka Connect's source connector does.

Answers for what a null means: in an update, unchanged, unless the header marks the field as changed or nulled;
everywhere else, no value. The marks are bits, whose places are those of the fields in the writer's schema, or names. A
field of which only the difference is told (`diffFields`) counts as unchanged. A record may name many ids: they are the
contacts. A gap says that a contact changed, and not how. Touches nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter

from msgspec.structs import replace

from consumer.core.envelopes.position import folded
from consumer.core.envelopes.schema import Fields, Mapper
from consumer.core.mapping import BoundMapping, When, deletion, gap, unknown
from consumer.core.mapping_places import Getter, Row, nothing
from consumer.core.mapping_tables import ContactMapping, Path
from consumer.core.mapping_values import in_milliseconds
from consumer.errors import ManyChanged, undecodable
from consumer.model import UNCHANGED, ChangeEvent, ChangeType, Events, FuseCause, Record

_HEADER = "ChangeEventHeader"
_NEEDED = {"recordIds", "changeType", "commitTimestamp"}
_NOBODY = ""
_CHECKSUM_OF_ZEROS = "AAA"
"""What an id of 18 characters ends with that has no capital letters in its first 15, as one that is all zeros."""

MAX_IDS = 50_000
"""In a record: Salesforce's ids have 18 characters each, and with many more of them it would be too large."""

_ANY_SEQUENCE = 2**20 - 1
"""Stands where versions once had the sequence number: none that was kept is higher."""


def salesforce(definition: Mapping[str, object], mapping: ContactMapping) -> Mapper:
    """The mapping for records of a writer's schema.

    Raises:
        DecodeError: It is not one of Salesforce's change events, or lacks a field that the mapping names.
    """
    fields = Fields.of(definition)
    if not fields.within(_HEADER).keys() >= _NEEDED:
        raise unknown(f"the schema is not one of Salesforce's: it needs a {_HEADER}")
    return _Changes(fields, mapping).events


class _Marks:
    """Fields that a list of the header marks."""

    def __init__(self, entries: Iterable[object]) -> None:
        self._bits: dict[int | None, int] = {}
        self._names: set[str] = set()
        for entry in map(str, entries):
            field, marked, bits = entry.rpartition("0x")
            if marked:
                self._mark(field, bits)
            else:
                self._names |= {entry, _of_any(entry.rpartition(".")[2])}

    def _mark(self, field: str, bits: str) -> None:
        """Take in a bitmap: of all fields, or, after `POSITION-`, of those within one."""
        with suppress(ValueError):
            position = int(field.removesuffix("-")) if field else None
            self._bits[position] = self._bits.get(position, 0) | int(bits, 16)
            return
        raise undecodable("a bitmap of changed fields cannot be read")

    def covers(self, place: "_Place") -> bool:
        """Whether a field is marked, or what it stands in."""
        if self._bits.get(None, 0) >> place.position & 1 or not self._names.isdisjoint(place.names):
            return True
        return place.within is not None and bool(self._bits.get(place.position, 0) >> place.within & 1)


class _Place:
    """Where one mapped field stands.

    Args:
        path: Of the field.
        fields: Of the schema.
        get: Reads it.
    """

    def __init__(self, path: Path, fields: Fields, get: Getter) -> None:
        self.position = list(fields).index(path[0])
        within = list(fields.within(path[0]))
        self.within = within.index(path[1]) if len(path) > 1 and path[1] in within else None
        beside = {_of_any(path[0])} if len(path) == 1 else {path[-1]} - fields.keys()
        self.names = {".".join(path), path[0]} | beside
        self.get = get


def _of_any(name: str) -> str:
    """A name within any compound: it marks a field of that name beside the compounds, and none within another one."""
    return f".{name}"


class _Changes:
    """Change events of one schema.

    Args:
        fields: Of the schema.
        mapping: Of the fields.
    """

    def __init__(self, fields: Fields, mapping: ContactMapping) -> None:
        self._fields = fields
        self._places: dict[str, _Place] = {}
        self._whole = BoundMapping(mapping, fields.getter, deletes=True)
        self._updated = BoundMapping(mapping, self._resolve, sparse=True, deletes=True)

    def _resolve(self, path: Path) -> Getter | None:
        """In an update a field is looked up by its whole path, since it may be unchanged."""
        get = self._fields.getter(path)
        if get is None or get is nothing:
            return None
        name = ".".join(path)
        self._places[name] = _Place(path, self._fields, get)
        return itemgetter(name)

    def events(self, fields: Row, record: Record) -> Events:
        """What a record tells."""
        header = fields[_HEADER]
        if not isinstance(header, dict):
            raise undecodable(f"the record has no {_HEADER}")
        names = _names(header)
        event = self._event(header, fields, record)
        if event is None:
            return ()
        if len(names) == 1:
            return replace(event, external_id=names[0])
        return tuple(replace(event, external_id=name) for name in names)

    def _event(self, header: Row, fields: Row, record: Record) -> ChangeEvent | None:
        """The event, without whom it is about."""
        when = _when(header, record)
        gone = self._whole.when_gone(when)
        match header["changeType"]:
            case "CREATE":
                return self._of_whole(ChangeType.CREATE, fields, record, when)
            case "UPDATE":
                return self._of_update(header, fields, record, when)
            case "UNDELETE" if self._tells(fields):
                return self._of_whole(ChangeType.CREATE, fields, record, when)
            case "DELETE" if not self._tells(fields):
                return deletion(_NOBODY, gone)
            case "GAP_DELETE":
                return deletion(_NOBODY, gone)
            case "DELETE" | "UNDELETE" | "GAP_CREATE" | "GAP_UPDATE" | "GAP_UNDELETE":
                return gap(_NOBODY, gone)
            case _:
                raise undecodable("changeType is not one that Salesforce knows")

    def _of_whole(self, change_type: ChangeType, fields: Row, record: Record, when: When) -> ChangeEvent | None:
        row = self._whole.row(fields, record)
        if not self._whole.counts(row):
            return None
        return self._whole.event(change_type, _NOBODY, row, self._whole.when(row, *when))

    def _of_update(self, header: Row, fields: Row, record: Record, when: When) -> ChangeEvent | None:
        changed = _Marks([*_list(header, "changedFields"), *_list(header, "nulledFields")])
        differing = _Marks(_list(header, "diffFields"))
        told = {name: _value(place, fields, changed, differing) for name, place in self._places.items()}
        row = self._updated.row(told, record)
        if not self._updated.counts(row):
            return None
        return self._updated.event(ChangeType.UPDATE, _NOBODY, row, self._updated.when(row, *when))

    def _tells(self, fields: Row) -> bool:
        """Whether there is a value in any field that is mapped."""
        return any(place.get(fields) is not None for place in self._places.values())


def _value(place: _Place, fields: Row, changed: _Marks, differing: _Marks) -> object:
    """What an update tells of a field."""
    value = place.get(fields)
    if value is None:
        return None if changed.covers(place) else UNCHANGED
    return UNCHANGED if differing.covers(place) else value


def _names(header: Row) -> Sequence[str]:
    """The ids of the contacts."""
    listed = _list(header, "recordIds")
    if not listed:
        raise undecodable("recordIds is empty")
    if len(listed) > MAX_IDS:
        told = f"recordIds has {len(listed):,} ids, the limit is {MAX_IDS:,}"
        raise ManyChanged(FuseCause.OVERFLOW, f"{told}: have Salesforce send all contacts again")
    names = [str(name) for name in listed]
    if header["changeType"] == "GAP_OVERFLOW" or not all(_is_name(name) for name in names):
        raise ManyChanged(FuseCause.OVERFLOW, "more changed than is told: have Salesforce send all contacts again")
    return names


def _is_name(name: str) -> bool:
    """Whether it is the id of one record: neither a wildcard nor all zeros, with or without their checksum."""
    return not name.endswith("*") and bool(name.removesuffix(_CHECKSUM_OF_ZEROS).strip("0"))


def _when(header: Row, record: Record) -> When:
    """Time and version: those of the commit, to the second. Within one the partition's order counts.

    `sequenceNumber` begins anew with each transaction: by it a withdrawal could be older than what came just before.
    """
    committed, flaw = in_milliseconds(header["commitTimestamp"], record)
    return committed, None if flaw else folded([committed, _ANY_SEQUENCE], (42, 20)), None, flaw


def _list(header: Row, name: str) -> Sequence[object]:
    value = header.get(name)
    return value if isinstance(value, list) else ()
