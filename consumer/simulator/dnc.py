"""Answers for do-not-call lists: what a list must be, which there are, and what they hold.

The clocks are arguments: the wall clock is for expiry and dates. Touches nothing else. Where Genesys publishes no rule
it chooses: entries are kept as they are given, whatever they look like; an expired entry holds nobody back but stays
until it is deleted; an expiration lies in the future, within 180 days.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from consumer.simulator.definitions import Definition, check_name, checked_fields, refused
from consumer.simulator.errors import ApiError, invalid_value
from consumer.simulator.operations import DNC_LISTS_PATH
from consumer.simulator.organisation import Lists, OneList, spelled
from consumer.simulator.tasks import AT_ONCE, Pace, Tasks

RECORDS_PER_LIST_MAX = 1_000_000
RECORDS_PER_ORGANIZATION_MAX = 2_000_000
EXPIRATION_DAYS_MAX = 180
EXPIRATION = "%Y-%m-%dT%H:%MZ"

CONTACT_METHODS = ("Email", "Phone", "Any", "WhatsApp")
SOURCE_TYPES = ("rds", "rds_custom", "dnc.com", "gryphon")

_DAY_S = 86_400
_FIELD_TYPES: Mapping[str, type] = {
    "name": str, "dncSourceType": str, "contactMethod": str, "loginId": str, "campaignId": str, "dncCodes": list,
    "licenseId": str, "division": dict, "customExclusionColumn": str,
}  # fmt: skip
_VIEWED_FIELDS = ("id", "name", "division", "dncSourceType", "contactMethod", "size", "importStatus")


class EntryKind(StrEnum):
    """What a list may hold, by the property of a patch that carries it."""

    PHONE_NUMBERS = "phoneNumbers"
    EMAIL_ADDRESSES = "emailAddresses"
    WHATSAPP_NUMBERS = "whatsAppNumbers"
    CUSTOM_VALUES = "customExclusionColumnEntries"


_METHODS = {
    EntryKind.PHONE_NUMBERS: "Phone",
    EntryKind.EMAIL_ADDRESSES: "Email",
    EntryKind.WHATSAPP_NUMBERS: "WhatsApp",
}


def _checked(body: object) -> Definition:
    definition = checked_fields(body, _FIELD_TYPES)
    check_name(definition.get("name", ""))
    if "dncSourceType" not in definition:
        raise refused("constraint.validation", "The list has no dncSourceType.", "dncSourceType")
    for field, allowed in (("dncSourceType", SOURCE_TYPES), ("contactMethod", CONTACT_METHODS)):
        if field in definition and definition[field] not in allowed:
            raise invalid_value(field, "one of " + ", ".join(allowed))
    if not all(isinstance(code, str) for code in definition.get("dncCodes", [])):
        raise invalid_value("dncCodes", "an array of strings")
    return definition


def check_dnc_definition(body: object) -> Definition:
    """Return what a client may set of a new list.

    Raises:
        ApiError: The list may not be created so.
    """
    definition = _checked(body)
    source = definition["dncSourceType"]
    if source == "rds" and "contactMethod" not in definition:
        raise refused("invalid.create", "An internal list needs a contactMethod.", "contactMethod")
    if source == "rds_custom" and not definition.get("customExclusionColumn"):
        message = "A custom list needs a customExclusionColumn."
        raise refused("dnc.list.missing.custom.exclusion.column", message, "customExclusionColumn")
    needed = {"dnc.com": ("loginId", "dncCodes"), "gryphon": ("licenseId",)}.get(source, ())
    for field in needed:
        if not definition.get(field):
            raise refused("dnc.source.configuration.invalid", f"A list of {source} needs {field}.", field)
    return definition


def expiration(text: str, now: float) -> float | None:
    """When an entry expires, in seconds since 1970; nothing is never.

    Raises:
        ApiError: It is not spelled so, over, or more than 180 days away.
    """
    if not text:
        return None
    try:
        expires = datetime.strptime(text, EXPIRATION).replace(tzinfo=UTC)
    except ValueError:
        expires = None
    if (
        expires is None
        or expires.strftime(EXPIRATION) != text
        or not now < expires.timestamp() <= now + EXPIRATION_DAYS_MAX * _DAY_S
    ):
        message = f"The expiration must be spelled yyyy-MM-ddTHH:mmZ and lie within {EXPIRATION_DAYS_MAX} days."
        raise refused("invalid.date.value", message, "expirationDateTime")
    return expires.timestamp()


class DncList(OneList):
    """One do-not-call list, with its entries and the time at which each expires."""

    def __init__(self, definition: Definition, now: float, tasks: Tasks) -> None:
        super().__init__(definition, DNC_LISTS_PATH, now, tasks)
        self.entries: dict[EntryKind, dict[str, float | None]] = {kind: {} for kind in EntryKind}

    def __len__(self) -> int:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        return sum(map(len, self.entries.values()))

    def view(self, *, with_size: bool, with_import_status: bool = False) -> Definition:
        """The little that those see of it who may only search."""
        body = self.body(with_size=with_size, with_import_status=with_import_status)
        seen = {field: body[field] for field in _VIEWED_FIELDS if field in body}
        return seen | {"selfUri": f"{DNC_LISTS_PATH}/divisionviews/{self.id}"}

    def check_takes(self, kind: EntryKind) -> None:
        """Refuse entries that a list of this source or contact method does not hold.

        Raises:
            ApiError: It does not.
        """
        source = "rds_custom" if kind is EntryKind.CUSTOM_VALUES else "rds"
        if self.definition["dncSourceType"] != source:
            message = f"A list of source {self.definition['dncSourceType']} does not support this operation."
            raise ApiError(400, "dnc.source.operation.not.supported", message)
        method = self.definition.get("contactMethod")
        if source == "rds" and method not in ("Any", _METHODS[kind]):
            raise ApiError(400, "dnc.list.invalid.contact.method", f"The list is for contact method {method}.")

    def update(self, body: object, now: float) -> None:
        """Replace what can be replaced.

        Raises:
            ApiError: It may not be, or the version is not the last one.
        """
        definition = _checked(body)
        assert isinstance(body, dict)  # noqa: S101 - `_checked` takes nothing else
        if body.get("version") != self.definition["version"]:
            raise ApiError(409, "invalid.update.wrong.version", "The version does not match the current version.")
        for field, code in (
            ("dncSourceType", "cannot.update.dnc.list.type"),
            ("customExclusionColumn", "cannot.update.custom.exclusion.column"),
            ("contactMethod", "invalid.update"),
        ):
            if definition.get(field) != self.definition.get(field):
                raise refused(code, f"The {field} cannot be changed.", field)
        kept = {field: self.definition[field] for field in ("division", "id", "dateCreated", "selfUri")}
        changed = {"dateModified": spelled(now), "version": self.definition["version"] + 1}
        self.definition = kept | definition | changed


class DncLists(Lists[DncList]):
    """The do-not-call lists of the organisation.

    Args:
        now: The wall clock, in seconds since 1970.
        pace: How long things take in them.
        per_list_max: How many entries a list may have.
        per_organization_max: How many entries all lists may have.
        refused: Entries that no list takes, whatever they look like.

    Attributes:
        tally: How many entries were written and removed.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        pace: Pace = AT_ONCE,
        per_list_max: int = RECORDS_PER_LIST_MAX,
        per_organization_max: int = RECORDS_PER_ORGANIZATION_MAX,
        refused: Collection[str] = (),
    ) -> None:
        super().__init__("do-not-call list", "dnc.list.not.found", now, pace)
        self._per_list_max = per_list_max
        self._per_organization_max = per_organization_max
        self._refused = frozenset(refused)
        self.tally: Counter[str] = Counter(added=0, removed=0)

    def create(self, definition: Definition) -> DncList:
        """Create a list from a checked definition.

        Raises:
            ApiError: The name is taken, or there are too many lists.
        """
        self.check_new(definition["name"])
        return self.put(DncList(definition, self.now(), Tasks(self.pace, "dnc.list")))

    def update(self, list_id: str, body: Any) -> DncList:
        """Replace the definition of a list.

        Raises:
            ApiError: There is none, or it may not be so.
        """
        dnc_list = self.find(list_id, "resource.not.found")
        if isinstance(body, dict) and body.get("name") != dnc_list.name:
            self.check_name_is_free(body.get("name"))
        dnc_list.update(body, self.now())
        return dnc_list

    def delete(self, list_id: str) -> None:
        """Delete a list with its entries.

        Raises:
            ApiError: There is none.
        """
        self.drop(self.find(list_id, "resource.not.found"))

    def in_force(self, dnc_list: DncList, kind: EntryKind) -> set[str]:
        """The entries that hold somebody back now."""
        now = self.now()
        return {value for value, expires in dnc_list.entries[kind].items() if expires is None or expires > now}

    def add(self, dnc_list: DncList, kind: EntryKind, values: Sequence[str], expires: float | None) -> None:
        """Write entries; what is there already gets the new expiration.

        Raises:
            ApiError: There is no room for all of them, or one is refused.
        """
        if not self._refused.isdisjoint(values):
            raise invalid_value(kind.value, "entries that the list takes")
        self.check_room(dnc_list, len(set(values) - dnc_list.entries[kind].keys()))
        self.write(dnc_list, kind, values, expires)

    def write(self, dnc_list: DncList, kind: EntryKind, values: Sequence[str], expires: float | None) -> None:
        """Write entries that there is room for."""
        dnc_list.entries[kind].update(dict.fromkeys(values, expires))
        self.tally["added"] += len(values)

    def check_room(self, dnc_list: DncList, new: int) -> None:
        """Refuse so many new entries when there is no room for them.

        Raises:
            ApiError: There is none.
        """
        if len(dnc_list) + new > self._per_list_max:
            message = f"A do-not-call list may have {self._per_list_max} records."
            raise ApiError(400, "dnc.records.per.list.limit.exceeded", message)
        if sum(map(len, self.held())) + new > self._per_organization_max:
            message = f"The organization may have {self._per_organization_max} do-not-call records."
            raise ApiError(400, "dnc.records.per.organization.limit.exceeded", message)

    def remove(self, dnc_list: DncList, kind: EntryKind, values: Iterable[str]) -> None:
        """Remove entries; what is not there counts as removed."""
        held = dnc_list.entries[kind]
        gone = held.keys() & set(values)
        for value in gone:
            del held[value]
        self.tally["removed"] += len(gone)

    def clear(self, dnc_list: DncList, kind: EntryKind, *, expired_only: bool) -> tuple[str, ...]:
        """Remove all entries of a kind, or those that are over; tell which."""
        spared = self.in_force(dnc_list, kind) if expired_only else set()
        gone = tuple(dnc_list.entries[kind].keys() - spared)
        self.remove(dnc_list, kind, gone)
        return gone
