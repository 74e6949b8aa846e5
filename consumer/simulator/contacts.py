"""Answers for the contacts of one list: what a contact must be, and a million of them in little memory.

Touches nothing. A contact is kept as the JSON of its values in column order, so that it costs about as many bytes as
its values have.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Any, Self, TypedDict

import orjson

from consumer.simulator.errors import ApiError, invalid_property, invalid_value
from consumer.simulator.operations import CONTACT_LISTS_PATH

VALUE_LENGTH_MAX = 512
# Neither length nor alphabet is published: these admit a UUID and the ids seen in official samples.
ID_LENGTH_MAX = 100
_ID = re.compile(r"[A-Za-z0-9._-]+")

_STATUS_FIELDS = frozenset({"phoneNumberStatus", "contactableStatus"})
_KEPT_FIELDS = _STATUS_FIELDS | {"latestWhatsAppEvaluations", "retentionType", "retentionDays", "dateExpiration"}
_READ_ONLY_FIELDS = frozenset({"latestSmsEvaluations", "latestEmailEvaluations", "dateCreated"})
_WRITABLE_FIELDS = _KEPT_FIELDS | _READ_ONLY_FIELDS | {"id", "contactListId", "data", "callable"}
# What a read returns may be sent back whole by PUT.
_REPLACEABLE_FIELDS = _WRITABLE_FIELDS | {
    "name", "selfUri", "callRecords", "contactColumnTimeZones", "configurationOverrides",
}  # fmt: skip

_BAD_UPDATE = "invalid.update"
_POISON_CODE = "contact.datum.length.limit.exceeded"

Contact = dict[str, Any]
Match = Callable[[Contact], bool]


class ContactView(TypedDict):
    """A contact as those who look inside see it."""

    data: dict[str, str]
    callable: bool


class PoisonKind(Enum):
    """What a contact does to the request that holds it."""

    REFUSED = auto()
    """Its data is blamed, with a 400."""
    BREAKS = auto()
    """A 500, and nothing is done; where the contact would only be patched or imported too."""
    CUTS = auto()
    """All is done, and the connection is closed instead of an answer."""
    LEFT_OUT = auto()
    """The others are added, and the answer holds those alone."""


@dataclass(frozen=True, slots=True)
class Poison:
    """Contacts with which something is wrong that does not show in their data.

    Attributes:
        matches: Tells them by their data.
        code: The code of the refusal.
        kind: What becomes of requests with them; the last two only where contacts are added.
    """

    matches: Callable[[Mapping[str, str]], bool]
    code: str = _POISON_CODE
    kind: PoisonKind = PoisonKind.REFUSED

    @classmethod
    def marked(cls, marker: str, code: str = _POISON_CODE, kind: PoisonKind = PoisonKind.REFUSED) -> Self:
        """Poison where any value contains the marker."""
        return cls(lambda data: any(marker in value for value in data.values()), code, kind)

    def check(self, data: Mapping[str, str], code: str | None = None) -> None:
        """Refuse the contact, or break at it, if it is one of them; `code` is for endpoints that lack its own."""
        if self.kind is PoisonKind.REFUSED and self.matches(data):
            raise ApiError(400, code or self.code, "The contact data is refused.")
        if self.kind is PoisonKind.BREAKS and self.matches(data):
            raise ApiError(500, "internal.server.error", "The server met an unexpected error.")

    def cuts(self, data: Mapping[str, str]) -> bool:
        """Whether the answer to a request that adds the contact is cut."""
        return self.kind is PoisonKind.CUTS and self.matches(data)

    def leaves_out(self, data: Mapping[str, str]) -> bool:
        """Whether the contact is not added, and the others of its request are."""
        return self.kind is PoisonKind.LEFT_OUT and self.matches(data)


def check_id(contact_id: object, too_long: str = "contact.id.length.limit.exceeded") -> None:
    """Refuse an id that no contact can have; `too_long` is the code of one that has too many characters."""
    if not isinstance(contact_id, str):
        raise invalid_value("id", "a string")
    if len(contact_id) > ID_LENGTH_MAX:
        message = f"The contact id is longer than {ID_LENGTH_MAX} characters."
        raise ApiError(400, too_long, message, field="id")
    if not _ID.fullmatch(contact_id):
        raise ApiError(400, "invalid.contact.id", "The contact id has special characters.", field="id")


def new_row(values: Sequence[str]) -> bytes:
    """The row of a contact of which nothing is known but its values, in column order."""
    return _compact([True, None, *values])


# How the row of such a contact begins.
_NEW = b"[true,null,"


def read_row(row: bytes) -> tuple[bool, Contact, list[str]]:
    """Whether the contact is callable, what else is known of it, and its values in column order."""
    callable_, status, *values = orjson.loads(row)
    return callable_, status or {}, values


def _compact(row: list[Any]) -> bytes:
    # A copy, because orjson's own bytes hold on to the kilobyte they were written in.
    return bytes(memoryview(orjson.dumps(row)))


def _wrong_value(data: Mapping[str, Any]) -> ApiError:
    column = next(column for column, value in data.items() if type(value) is not str or len(value) > VALUE_LENGTH_MAX)
    if type(data[column]) is not str:
        return invalid_value(column, "a string")
    message = f"The value of column '{column}' is longer than {VALUE_LENGTH_MAX} characters."
    return ApiError(400, "contact.datum.length.limit.exceeded", message, field=column)


class Contacts:
    """The contacts of one list."""

    def __init__(self, list_id: str, columns: Sequence[str]) -> None:
        self._list_id = list_id
        self._columns = tuple(columns)
        self._column_set = frozenset(columns)
        self._uri = f"{CONTACT_LISTS_PATH}/{list_id}/contacts/"
        self._rows: dict[str, bytes] = {}
        self._applied: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, contact_id: object) -> bool:
        return contact_id in self._rows

    @property
    def applied(self) -> Mapping[str, int]:
        """How often each contact was written, those deleted since included."""
        return self._applied

    def check(self, contact: object, poison: Poison | None, *, replaces: bool = False) -> Contact:
        """Return the contact if it may be written.

        Raises:
            ApiError: It may not.
        """
        if type(contact) is not dict:
            raise ApiError(400, "bad.request", "A contact must be a JSON object.")
        known = _REPLACEABLE_FIELDS if replaces else _WRITABLE_FIELDS
        if not contact.keys() <= known:
            raise invalid_property(min(contact.keys() - known))
        if contact.get("contactListId") != self._list_id:
            raise invalid_value("contactListId", "the id of the contact list")
        if contact.get("id") is not None:
            check_id(contact["id"])
        self._check_status(contact)
        self._check_data(contact.get("data"), poison, _BAD_UPDATE if replaces else "invalid.contact.columns")
        return contact

    def _check_status(self, contact: Contact) -> None:
        if type(contact.get("callable")) not in (bool, type(None)):
            raise invalid_value("callable", "a boolean")
        for field in contact.keys() & _STATUS_FIELDS:
            if type(contact[field]) not in (dict, type(None)):
                raise invalid_value(field, "an object")

    def _check_data(self, data: object, poison: Poison | None, unknown_column: str) -> None:
        if not data:
            raise ApiError(400, "contact.missing.data", "A contact has no data.", field="data")
        if type(data) is not dict:
            raise invalid_value("data", "an object of strings")
        if data.keys() != self._column_set:
            raise self._wrong_columns(data.keys(), unknown_column)
        for value in data.values():
            if type(value) is not str or len(value) > VALUE_LENGTH_MAX:
                raise _wrong_value(data)
        if poison is not None:
            poison.check(data)

    def _wrong_columns(self, given: Iterable[str], unknown_column: str) -> ApiError:
        unknown = sorted(set(given) - self._column_set)
        if unknown:
            message = "The contact has columns that the contact list does not have."
            return ApiError(400, unknown_column, message, field=unknown[0])
        missing = next(column for column in self._columns if column not in set(given))
        message = f"The contact has no value for column '{missing}'."
        return ApiError(400, "contact.missing.columns", message, field=missing)

    def check_patch(self, given: object, poison: Poison | None) -> Contact:
        """Return what a bulk update may change of contacts: any of their columns, callable and statuses.

        Raises:
            ApiError: It may not.
        """
        if type(given) is not dict:
            raise ApiError(400, _BAD_UPDATE, "A bulk update needs a contact.", field="contact")
        if not given.keys() <= _REPLACEABLE_FIELDS:
            raise invalid_property(min(given.keys() - _REPLACEABLE_FIELDS))
        self._check_status(given)
        data = given.get("data") or {}
        if type(data) is not dict or not data.keys() <= self._column_set:
            raise ApiError(400, _BAD_UPDATE, "The contact has columns that the list does not have.", field="data")
        if any(type(value) is not str or len(value) > VALUE_LENGTH_MAX for value in data.values()):
            raise ApiError(400, _BAD_UPDATE, "A value is no string, or is too long.", field="data")
        if poison is not None:
            poison.check(data, _BAD_UPDATE)
        return given | {"data": data}

    def patch(self, contact_id: str, patch: Contact) -> bool:
        """Merge a checked patch into a contact; tell whether there was one."""
        before = self.get(contact_id)
        if before is None:
            return False
        self.put(contact_id, patch | {"data": before["data"] | patch["data"]}, afresh=False)
        return True

    def put(self, contact_id: str, contact: Contact, *, afresh: bool) -> Contact:
        """Write a checked contact and return it as a read would.

        Args:
            contact_id: Its id; a contact that has it is replaced.
            contact: The contact.
            afresh: Whether what is known of it besides its data is forgotten.
        """
        before = None if afresh else self._rows.get(contact_id)
        callable_, status = (True, None) if before is None else orjson.loads(before)[:2]
        if contact.get("callable") is not None:
            callable_ = contact["callable"]
        given = contact.keys() & _KEPT_FIELDS
        if given:
            status = (status or {}) | {field: contact[field] for field in given if contact[field] is not None}
        data: dict[str, str] = contact["data"]
        self._rows[contact_id] = _compact([callable_, status, *map(data.__getitem__, self._columns)])
        self._applied[contact_id] = self._applied.get(contact_id, 0) + 1
        return self._body(contact_id, data, callable_, status)

    def load(self, contact_id: str, row: bytes, *, afresh: bool) -> None:
        """Write a row of an import: `row` is what `new_row` made.

        Args:
            contact_id: Its id; a contact that has it is replaced.
            row: Its values.
            afresh: Whether what is known of it besides its data is forgotten.
        """
        before = None if afresh else self._rows.get(contact_id)
        if before is not None and not before.startswith(_NEW):
            row = _compact(orjson.loads(before)[:2] + orjson.loads(row)[2:])
        self._rows[contact_id] = row
        self._applied[contact_id] = self._applied.get(contact_id, 0) + 1

    def clear(self) -> None:
        """Delete every contact."""
        self._rows.clear()

    def snapshot(self, wanted: Match | None = None) -> dict[str, bytes]:
        """The rows as they are now, by id; those of the contacts that are wanted, or all."""
        if wanted is None:
            return self._rows.copy()
        return {contact_id: row for contact_id, row in self._rows.items() if wanted(self._read(contact_id, row))}

    def get(self, contact_id: str) -> Contact | None:
        """The contact as Genesys describes it."""
        row = self._rows.get(contact_id)
        return None if row is None else self._read(contact_id, row)

    def _read(self, contact_id: str, row: bytes) -> Contact:
        callable_, status, *values = orjson.loads(row)
        return self._body(contact_id, dict(zip(self._columns, values, strict=True)), callable_, status)

    def remove(self, contact_id: str) -> bool:
        """Delete the contact; tell whether there was one."""
        return self._rows.pop(contact_id, None) is not None

    def page(
        self, start: int, size: int, wanted: Match | None, order: Callable[[list[Contact]], None] | None = None
    ) -> tuple[list[Contact], int]:
        """Some of the contacts that are wanted, or of all, in order of arrival or another; and how many those are."""
        rows = self._rows if wanted is None else self.snapshot(wanted)
        if order is not None:
            contacts = [self._read(*item) for item in rows.items()]
            order(contacts)
            return contacts[start : start + size], len(contacts)
        return [self._read(*item) for item in islice(rows.items(), start, start + size)], len(rows)

    def views(self) -> Iterator[tuple[str, ContactView]]:
        """Every contact as it is now, even if it changes while this goes on."""
        for contact_id, row in list(self._rows.items()):
            callable_, _, *values = orjson.loads(row)
            yield contact_id, {"data": dict(zip(self._columns, values, strict=True)), "callable": callable_}

    def _body(self, contact_id: str, data: dict[str, str], callable_: bool, status: Contact | None) -> Contact:
        body: Contact = {
            "id": contact_id,
            "contactListId": self._list_id,
            "data": data,
            "callable": callable_,
            "selfUri": self._uri + contact_id,
        }
        return body if status is None else body | status
