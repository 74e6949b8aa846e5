"""Maps the rows of a file of contacts onto change events.

Answers for the names that a column may have and for text that means something else than text. A field goes by its
native name, as in `schemas/crm_contact_change.avsc`, or by the name of its column in the contact list; whatever else
is an attribute. Touches nothing else, and no detail of an error holds a value.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

from consumer.columns import CONSENT, DO_NOT_CALL, EXTERNAL_ID, PHONE
from consumer.core.mapping import deletion
from consumer.core.moments import MAX_MS, milliseconds
from consumer.errors import DecodeError, undecodable
from consumer.model import ChangeEvent, ChangeType

REQUIRED = ("externalId", "consent", "doNotCall", "phone")
"""Without the first three no row could be a contact; without the last one known contacts would lose their numbers."""

_COLUMNS = {
    EXTERNAL_ID: "externalId",
    PHONE: "phone",
    CONSENT: "consent",
    DO_NOT_CALL: "doNotCall",
    "occurred_at": "occurredAt",
    "change_type": "changeType",
}
_FIELDS = frozenset({*REQUIRED, "phone", "email", "occurredAt", "version", "changeType", "attributes"})
_CHANGE_TYPES = {change_type.value: change_type for change_type in ChangeType}
_WITHDRAWING = {"consent": False, "doNotCall": True}
_WORDS = {"true": True, "t": True, "false": False, "f": False}  # the short ones are PostgreSQL's
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_LONG = range(-(2**63), 2**63)
_VALUE = re.compile(
    r"true|false|[^\s@]+@(?!odata\.|microsoft\.)[^\s@]+\.[^\s@]+|(?!\d{4}-\d\d-\d\d$)[+(]*\d(?:\W?\d){6,}",
    re.IGNORECASE,
)
"""A flag, an address or a number, as a whole: no name of a column, and not to be repeated. OData has names with @."""

_JOINED = re.compile(r"[,\r\n]")
"""What stands between the values of a row that a quote has made one."""

T = TypeVar("T")

Fields = Mapping[str, object]
"""The values of a row, by name."""

_NOTHING: Fields = {}


class Rows:
    """Reads rows of one file.

    Args:
        columns: Source name and column name of each configured attribute.
        occurred_at: When what a row says was so, if the row does not tell: milliseconds since the epoch, UTC.
    """

    def __init__(self, columns: Sequence[tuple[str, str]], occurred_at: int) -> None:
        self._occurred_at = occurred_at
        by_column = {column: source for source, column in columns}
        self._attributes = by_column | {source: source for source, _ in columns}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Fields that a file must have, and that none of its names stands for."""
        fields = {self._field(name) for name in names}
        return [field for field in REQUIRED if field not in fields]

    def emptied(self, names: Iterable[str]) -> list[str]:
        """Fields and attributes that a file may leave out, and does: known contacts lose what they have there."""
        fields = {self._field(name) for name in names}
        attributes = () if "attributes" in fields else {*self._attributes.values()}
        return [field for field in ("email", *sorted(attributes)) if field not in fields]

    def doubled(self, names: Iterable[str]) -> list[str]:
        """Fields and attributes for which more than one of the names of a file stands; others go by their place."""
        fields = [self._field(name) for name in names]
        twice = {field for field in fields if fields.count(field) > 1}
        return sorted(each if self._is_known(each) else f"the name in place {fields.index(each) + 1}" for each in twice)

    def misspelt(self, names: Iterable[str]) -> list[str]:
        """Names that would be left out, and are a known one but for case and what stands between words."""
        known = {_bare(name): name for name in (*_COLUMNS, *_FIELDS, *self._attributes)}
        return [f"{name!r} (is it {known[_bare(name)]}?)" for name in self.left_out(names) if _bare(name) in known]

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Names that stand for no field, and for no attribute that is configured; without those that are `values`."""
        return [name for name in names if not (self._is_known(name) or _holds_a_value(name))]

    def values(self, names: Iterable[str]) -> list[int]:
        """Places, from 1, of names that must be values: in a header they are those of a row, which it swallowed."""
        places = enumerate(names, start=1)
        return [place for place, name in places if not self._is_known(name) and _holds_a_value(name)]

    def _is_known(self, name: str) -> bool:
        return self._field(name) in _FIELDS or name in self._attributes

    def _field(self, name: str) -> str:
        return _COLUMNS.get(name) or self._attributes.get(name, name)

    def event(self, fields: Fields) -> ChangeEvent:
        """The change event of a row.

        What cannot be read is a flaw of the event, and not its end: the flags are told all the same. A delete needs no
        attributes.

        Raises:
            DecodeError: The external id is given twice.
        """
        flaws: list[str] = []
        known = _known(fields, flaws)
        external_id = known.get("externalId")
        change_type = _read(_change_type, known.get("changeType"), ChangeType.UPDATE, flaws)
        occurred_at = _read(self._time, known.get("occurredAt"), self._occurred_at, flaws)
        version = _read(_version, known.get("version"), None, flaws)
        if change_type is ChangeType.DELETE:
            return deletion(external_id, (occurred_at, version, None, "; ".join(flaws)))
        attributes = self._told(fields, known.get("attributes"), flaws)
        return ChangeEvent(
            change_type,
            external_id,
            occurred_at,
            version,
            known.get("phone"),
            known.get("email"),
            known.get("consent"),
            known.get("doNotCall"),
            attributes,
            flaw="; ".join(flaws),
        )

    def _told(self, fields: Fields, nested: object, flaws: list[str]) -> dict[str, str]:
        """The attributes of a row, by source name."""
        attributes: dict[str, str] = {}
        outer = [(name, value) for name, value in fields.items() if _COLUMNS.get(name, name) not in _FIELDS]
        for name, value in (*outer, *_read(_object, nested, _NOTHING, flaws).items()):
            source = self._attributes.get(name)
            if source is None or value is None:
                continue
            if source in attributes:
                flaws.append(f"attribute {source} is given twice")
            attributes[source] = _read(partial(_attribute, source), value, "", flaws)
        return attributes

    def _time(self, value: object) -> int:
        if value is None:
            return self._occurred_at
        moment = _moment(value) if isinstance(value, str) else value
        if type(moment) is not int or not 0 <= moment <= MAX_MS:
            raise undecodable("occurredAt is neither milliseconds since the epoch nor ISO 8601 with a time zone")
        return moment


def _holds_a_value(name: str) -> bool:
    return any(_VALUE.fullmatch(part.strip()) for part in _JOINED.split(name))


def deletes(fields: Fields) -> bool:
    """Whether a row deletes its contact, and so needs to tell nothing more of it."""
    return _known(fields, []).get("changeType") == ChangeType.DELETE


def typed(name: str, text: str) -> object:
    """What a text in a file without types stands for: nothing, a boolean, a whole number, or the text itself."""
    if not text:
        return None
    field = _COLUMNS.get(name, name)
    if field in {"consent", "doNotCall"}:
        return _WORDS.get(text.lower(), text)
    if field in {"version", "occurredAt"} and _WHOLE.fullmatch(text):
        return int(text)
    return text


def _known(fields: Fields, flaws: list[str]) -> dict[str, object]:
    """The fields of a row. Of one that is given twice the value counts that withdraws, or else the first."""
    known: dict[str, object] = {}
    for name, value in fields.items():
        field = _COLUMNS.get(name, name)
        if field not in _FIELDS:
            continue
        if field in known:
            flaws.append(_twice(field))
        if field not in known or (field in _WITHDRAWING and value is _WITHDRAWING[field]):
            known[field] = value
    return known


def _twice(field: str) -> str:
    detail = f"{field} is given twice"
    if field == "externalId":
        raise undecodable(detail)  # nobody is named for sure
    return detail


def _read(convert: Callable[[object], T], value: object, otherwise: T, flaws: list[str]) -> T:
    """What a value stands for; where that cannot be told, a flaw, and what to take in its place."""
    try:
        return convert(value)
    except DecodeError as error:
        flaws.append(error.detail)
        return otherwise


def _object(value: object) -> Fields:
    if value is None:
        return _NOTHING
    if not isinstance(value, dict):
        raise undecodable("attributes is not an object")
    return cast("Fields", value)


def _attribute(source: str, value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            raise undecodable(f"attribute {source} is of type {type(value).__name__}")


def _change_type(value: object) -> ChangeType:
    if value is None:
        return ChangeType.UPDATE
    change_type = _CHANGE_TYPES.get(value) if isinstance(value, str) else None
    if change_type is None:
        raise undecodable(f"changeType is none of {', '.join(ChangeType)}")
    return change_type


def _version(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value not in _LONG:
        raise undecodable("version is not a whole number of 64 bits")
    return value


def _moment(text: str) -> object:
    """Milliseconds since the epoch of an ISO 8601 text; None when it is none, or has no time zone."""
    try:
        return milliseconds(text)
    except ValueError:
        return None


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
