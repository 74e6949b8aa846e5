"""Answers for contact lists: what a list must be, which there are, and what was done to their contacts.

Reads the wall clock for `dateCreated`; touches nothing else.
"""

import math
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from consumer.simulator.contacts import Contacts
from consumer.simulator.errors import ApiError, invalid_parameter, invalid_property, invalid_value, list_not_found
from consumer.simulator.imports import NO_ROOM, Staging
from consumer.simulator.operations import CONTACT_LISTS_PATH
from consumer.simulator.tasks import Tasks

NAME_LENGTH_MAX = 64
COLUMNS_MAX = 50
COLUMN_LENGTH_MAX = 128
PHONE_COLUMNS_MAX = 10
LISTS_MAX = 1_000
CONTACTS_MAX = 5_000_000
CONTACTS_PER_LIST_MAX = 1_000_000

Definition = dict[str, Any]

HOME_DIVISION = {
    "id": "00000000-0000-4000-8000-000000000001",
    "name": "Home",
    "selfUri": "/api/v2/authorization/divisions/00000000-0000-4000-8000-000000000001",
}
_NO_COLUMNS: Definition = {"phoneColumns": [], "emailColumns": [], "whatsAppColumns": []}
_READ_ONLY_FIELDS = frozenset({"id", "dateCreated", "dateModified", "importStatus", "size", "selfUri", "version"})
_FIELD_TYPES: Mapping[str, type] = {
    "name": str, "division": dict, "columnNames": list, "phoneColumns": list, "emailColumns": list,
    "whatsAppColumns": list, "previewModeColumnName": str, "previewModeAcceptedValues": list, "attemptLimits": dict,
    "automaticTimeZoneMapping": bool, "zipCodeColumnName": str, "columnDataTypeSpecifications": list,
    "trimWhitespace": bool, "retentionType": str, "retentionDays": int, "dateExpiration": str, "timeZone": str,
}  # fmt: skip


# What a list keeps for good, and how Genesys refuses to change it.
_FIXED_FIELDS: Mapping[str, tuple[str, str]] = {
    "columnNames": ("cannot.update.contact.column.names", "Contact column names are different"),
    "phoneColumns": ("cannot.update.phone.columns", "Phone number columns are different"),
    "emailColumns": ("cannot.update.email.columns", "Email columns are different"),
    "whatsAppColumns": ("cannot.update.whatsapp.columns", "WhatsApp columns are different"),
    "columnDataTypeSpecifications": (
        "cannot.update.column.data.type.specifications",
        "Column data type specifications are different",
    ),
    "automaticTimeZoneMapping": (
        "cannot.edit.automatic.time.zone.mapping.settings",
        "Automatic time zone mapping is different",
    ),
    "zipCodeColumnName": ("cannot.edit.automatic.time.zone.mapping.settings", "The zip code column is different"),
}


class _Channel(NamedTuple):
    """How one way to reach people is spelled in properties and codes."""

    field: str
    word: str
    absent: str


_CHANNELS = (
    _Channel("phoneColumns", "phone", "contact.columns.do.not.contain.phone.number.column"),
    _Channel("emailColumns", "email", "contact.columns.do.not.contain.email.column"),
    _Channel("whatsAppColumns", "whatsapp", "contact.columns.do.not.contain.whatsapp.column"),
)


def _refused(code: str, message: str, field: str) -> ApiError:
    return ApiError(400, code, message, field=field)


def _matches(name: str, pattern: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        raise invalid_parameter("name", "a regular expression") from None


_FILTERS: Mapping[str, Callable[[str, str], bool]] = {
    "Equals": operator.eq,
    "RegEx": _matches,
    "Contains": operator.contains,
    "Prefix": str.startswith,
    "BeginsWith": str.startswith,
    "EndsWith": str.endswith,
    "LessThan": operator.lt,
    "LessThanEqualTo": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanEqualTo": operator.ge,
}


def name_filter(filter_type: str) -> Callable[[str, str], bool]:
    """The comparison of a list's name with the `name` parameter.

    Raises:
        ApiError: There is no such filter type.
    """
    try:
        return _FILTERS[filter_type]
    except KeyError:
        raise invalid_parameter("filterType", "one of " + ", ".join(_FILTERS)) from None


def checked_fields(body: object, types: Mapping[str, type]) -> Definition:
    """Return the fields of a list that a client may set, and has set.

    Raises:
        ApiError: It is no object, or has fields that no list has, or of another type.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "bad.request", "A list must be a JSON object.")
    unknown = body.keys() - _READ_ONLY_FIELDS - types.keys()
    if unknown:
        raise invalid_property(min(unknown))
    definition = {field: body[field] for field in types if body.get(field) is not None}
    for field, value in definition.items():
        if type(value) is not types[field]:
            raise invalid_value(field, f"of type {types[field].__name__}")
    return definition


def check_definition(body: object) -> Definition:
    """Return what a client may set of a new list.

    Raises:
        ApiError: The list may not be created so.
    """
    definition = checked_fields(body, _FIELD_TYPES)
    check_name(definition.get("name", ""))
    _check_columns(definition.get("columnNames", []))
    _check_channels(definition)
    _check_time_zones(definition)
    _check_specifications(definition)
    return definition


def check_name(name: str) -> None:
    """Refuse a name that no list can have."""
    if not name.strip():
        raise _refused("name.cannot.be.blank", "The name cannot be blank.", "name")
    if len(name) > NAME_LENGTH_MAX:
        raise _refused("name.length.exceeded", f"The name is longer than {NAME_LENGTH_MAX} characters.", "name")


def _check_columns(columns: Sequence[object]) -> None:
    field = "columnNames"
    if not columns:
        raise _refused("no.contact.columns.defined", "The contact list has no columns.", field)
    if len(columns) > COLUMNS_MAX:
        raise _refused("contact.columns.limit.exceeded", f"There are more than {COLUMNS_MAX} columns.", field)
    for column in columns:
        if not isinstance(column, str) or not column or "\\" in column:
            raise invalid_value(field, "names without special characters")
        if len(column) > COLUMN_LENGTH_MAX:
            message = f"A column name is longer than {COLUMN_LENGTH_MAX} characters."
            raise _refused("contact.column.length.limit.exceeded", message, field)
    if len(set(columns)) < len(columns):
        raise _refused("not.unique.contact.columns", "The column names are not unique.", field)


def _check_channels(definition: Definition) -> None:
    if not any(definition.get(channel.field) for channel in _CHANNELS):
        message = "The contact list needs a phone, email or WhatsApp column."
        raise _refused("contact.list.both.phone.email.column.empty", message, "phoneColumns")
    for channel in _CHANNELS:
        _check_channel(channel, definition.get(channel.field, []), definition["columnNames"])
    if len(definition.get("phoneColumns", [])) > PHONE_COLUMNS_MAX:
        message = f"There are more than {PHONE_COLUMNS_MAX} phone columns."
        raise _refused("phone.columns.limit.exceeded", message, "phoneColumns")


def _check_channel(channel: _Channel, entries: Sequence[object], columns: Sequence[str]) -> None:
    names = []
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("columnName", "type")):
            message = "A contact column needs a columnName and a type."
            raise _refused(f"invalid.contact.{channel.word}.column", message, channel.field)
        names.append(entry["columnName"])
    if not set(names) <= set(columns):
        raise _refused(channel.absent, "A contact column is not among the columns.", channel.field)
    if len(set(names)) < len(names):
        raise _refused(f"not.unique.{channel.word}.columns", "The contact columns are not unique.", channel.field)


def _check_time_zones(definition: Definition) -> None:
    automatic = definition.get("automaticTimeZoneMapping", False)
    zip_column = definition.get("zipCodeColumnName")
    if zip_column is not None and not automatic:
        code = "cannot.have.zip.code.column.without.automatic.time.zone.mapping"
        raise _refused(code, "A zip code column needs automatic time zone mapping.", "zipCodeColumnName")
    if zip_column is not None and zip_column not in definition["columnNames"]:
        raise _refused("invalid.zip.code.column", "The zip code column is not a column.", "zipCodeColumnName")
    if automatic and any("callableTimeColumn" in entry for entry in definition.get("phoneColumns", [])):
        code = "cannot.have.callable.time.column.with.automatic.time.zone.mapping"
        raise _refused(code, "A callable time column excludes automatic time zone mapping.", "phoneColumns")


def _check_specifications(definition: Definition) -> None:
    field = "columnDataTypeSpecifications"
    specifications = definition.get(field)
    if not specifications:
        return
    if not all(isinstance(specification, dict) for specification in specifications):
        raise invalid_value(field, "an array of objects")
    specified = {specification.get("columnName") for specification in specifications}
    columns = set(definition["columnNames"])
    if specified - columns:
        code = "column.data.type.specification.column.name.not.found"
        raise _refused(code, "A data type specification names no column.", field)
    if columns - specified:
        code = "missing.column.data.type.specification.in.contact.list"
        raise _refused(code, "A column has no data type specification.", field)


def _check_fixed(known: Definition, given: Mapping[str, Any]) -> None:
    for field, (code, difference) in _FIXED_FIELDS.items():
        # Nothing, an empty list and false are all the absence of a property.
        if (known.get(field) or None) != (given.get(field) or None):
            message = f"An attempt was made to update a ContactList in an invalid way. Details: {difference}"
            raise _refused(code, message, field)


def timestamp() -> str:
    """The wall clock as Genesys writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ContactList:
    """One contact list: its definition, its contacts, and what goes on in it."""

    def __init__(self, definition: Definition, tasks: Tasks) -> None:
        list_id = str(uuid4())
        now = timestamp()
        given = _NO_COLUMNS | {"division": HOME_DIVISION}
        made = {"id": list_id, "dateCreated": now, "dateModified": now, "version": 1}
        self.definition: Definition = given | definition | made | {"selfUri": f"{CONTACT_LISTS_PATH}/{list_id}"}
        self.contacts = Contacts(list_id, definition["columnNames"])
        self.tasks = tasks

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.definition["id"])

    @property
    def name(self) -> str:
        """Its name, unique in the organisation."""
        return str(self.definition["name"])

    def replace(self, definition: Definition) -> None:
        """Become what a checked definition says; only the division may be left out of it and stays."""
        kept = {field: self.definition[field] for field in ("id", "dateCreated", "selfUri", "division")}
        self.definition = _NO_COLUMNS | kept | definition | {"version": self.definition["version"]}
        self.change({})

    def change(self, changes: Definition) -> None:
        """Take over checked properties; the list has another version afterwards."""
        version = self.definition["version"] + 1
        self.definition = self.definition | changes | {"version": version, "dateModified": timestamp()}

    def body(self, *, with_size: bool, with_import_status: bool = False) -> Definition:
        """The list as Genesys describes it."""
        body = self.definition | {"size": len(self.contacts)} if with_size else self.definition
        return body | {"importStatus": self.tasks.import_status()} if with_import_status else body


class ContactLists:
    """The contact lists of the organisation, in order of creation; whoever looks at one sees what is due in it done.

    Attributes:
        tally: How many contacts were applied and deleted, and how many updates asked for the contact to be queued
            again, which may call a person twice.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        job_seconds: float = 0.0,
        rows_per_second: float = math.inf,
        per_list_max: int = CONTACTS_PER_LIST_MAX,
    ) -> None:
        """Describe how long things take, and how much there may be.

        Args:
            clock: Seconds that only grow.
            job_seconds: The least that a clear, an import, an export or a bulk operation takes.
            rows_per_second: Contacts that they handle in a second.
            per_list_max: How many contacts a list may have.
        """
        self._clock = clock
        self._job_seconds = job_seconds
        self._rows_per_second = rows_per_second
        self._per_list_max = per_list_max
        self._lists: dict[str, ContactList] = {}
        self.tally: Counter[str] = Counter(applied=0, deleted=0, requeued=0)

    def all(self) -> list[ContactList]:
        """Every list."""
        for contact_list in self._lists.values():
            contact_list.tasks.catch_up()
        return list(self._lists.values())

    def create(self, definition: Definition) -> ContactList:
        """Create a list from a checked definition.

        Raises:
            ApiError: The name is taken, or there are too many lists.
        """
        self._check_name_is_free(definition["name"], None)
        if len(self._lists) >= LISTS_MAX:
            raise ApiError(400, "max.entity.count.reached", f"There are already {LISTS_MAX} contact lists.")
        created = ContactList(definition, Tasks(self._clock, self._job_seconds, self._rows_per_second))
        self._lists[created.id] = created
        return created

    def update(self, contact_list: ContactList, body: Mapping[str, Any]) -> None:
        """Replace a list's definition.

        Raises:
            ApiError: It is not of the version last read, changes what is fixed, or may not be.
        """
        if body.get("version") != contact_list.definition["version"]:
            message = "The version of the contact list does not match the current version."
            raise ApiError(409, "invalid.update.wrong.version", message, field="version")
        _check_fixed(contact_list.definition, body)
        definition = check_definition(body)
        self._check_name_is_free(definition["name"], contact_list)
        contact_list.replace(definition)

    def _check_name_is_free(self, name: str, owner: ContactList | None) -> None:
        if any(existing.name == name for existing in self._lists.values() if existing is not owner):
            raise _refused("duplicate.name", "A contact list of this name exists.", "name")

    def find(self, list_id: str, absent: str = "contact.list.not.found") -> ContactList:
        """The list with this id.

        Args:
            list_id: The id.
            absent: The code of the operation's refusal when there is none.

        Raises:
            ApiError: There is none.
        """
        found = self._lists.get(list_id)
        if found is None:
            raise list_not_found(absent)
        found.tasks.catch_up()
        return found

    def look_up(self, name_or_id: str) -> ContactList:
        """The list with this id or name.

        Raises:
            LookupError: There is none.
        """
        for contact_list in self.all():
            if name_or_id in (contact_list.id, contact_list.name):
                return contact_list
        raise LookupError(f"no contact list {name_or_id!r}")

    def delete(self, list_id: str) -> None:
        """Delete a list with its contacts.

        Raises:
            ApiError: There is none, or an import into it goes on.
        """
        doomed = self.find(list_id)
        doomed.tasks.refuse_while_importing()
        del self._lists[doomed.id]

    def begin_import(self, contact_list: ContactList, staging: Staging) -> None:
        """Import a file that has arrived whole, in a while."""
        try:
            self.check_room(contact_list, [contact_id for contact_id, _ in staging.rows])
        except ApiError:
            staging.fail(NO_ROOM)
        work = self._counted(staging.applied_to(contact_list.contacts))
        contact_list.tasks.begin_import(work, staging.total, staging.failure)

    def _counted(self, steps: Iterator[bool]) -> Iterator[None]:
        for written in steps:
            self.tally["applied"] += written
            yield

    def check_room(self, contact_list: ContactList, contact_ids: Sequence[str]) -> None:
        """Refuse contacts that the list or the organisation has no room for.

        Genesys publishes no code for a full list: it is assumed to have that of a full organisation.

        Raises:
            ApiError: There is none.
        """
        others = sum(len(existing.contacts) for existing in self._lists.values() if existing is not contact_list)
        room, message = min(
            (self._per_list_max, f"A contact list may have {self._per_list_max} contacts."),
            (CONTACTS_MAX - others, f"The organization may have {CONTACTS_MAX} contacts."),
        )
        if len(contact_list.contacts) + len(contact_ids) <= room:
            return
        new = {contact_id for contact_id in contact_ids if contact_id not in contact_list.contacts}
        if len(contact_list.contacts) + len(new) > room:
            raise ApiError(400, "contacts.per.org.limit.exceeded", message)
