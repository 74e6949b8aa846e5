"""Answers for contact lists: which there are, and what was done to their contacts.

The clocks are arguments: the wall clock is for dates. Touches nothing else.
"""

import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from consumer.simulator.contacts import Contacts
from consumer.simulator.definitions import Definition, check_definition, check_fixed
from consumer.simulator.errors import ApiError, invalid_parameter
from consumer.simulator.imports import NO_ROOM, Staging
from consumer.simulator.operations import CONTACT_LISTS_PATH
from consumer.simulator.organisation import Lists, OneList, spelled
from consumer.simulator.tasks import AT_ONCE, Pace, Tasks

CONTACTS_MAX = 5_000_000
CONTACTS_PER_LIST_MAX = 1_000_000

_NO_COLUMNS: Definition = {"phoneColumns": [], "emailColumns": [], "whatsAppColumns": []}


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


class ContactList(OneList):
    """One contact list, with its contacts."""

    def __init__(self, definition: Definition, now: float, tasks: Tasks) -> None:
        super().__init__(_NO_COLUMNS | definition, CONTACT_LISTS_PATH, now, tasks)
        self.contacts = Contacts(self.id, definition["columnNames"])

    def __len__(self) -> int:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        return len(self.contacts)

    def replace(self, definition: Definition, now: float) -> None:
        """Become what a checked definition says; only the division may be left out of it and stays."""
        kept = {field: self.definition[field] for field in ("id", "dateCreated", "selfUri", "division")}
        self.definition = _NO_COLUMNS | kept | definition | {"version": self.definition["version"]}
        self.change({}, now)

    def change(self, changes: Definition, now: float) -> None:
        """Take over checked properties; the list has another version afterwards."""
        version = self.definition["version"] + 1
        self.definition = self.definition | changes | {"version": version, "dateModified": spelled(now)}


class ContactLists(Lists[ContactList]):
    """The contact lists of the organisation.

    Args:
        now: The wall clock, in seconds since 1970.
        pace: How long things take in them.
        per_list_max: How many contacts a list may have.

    Attributes:
        tally: How many contacts were applied and deleted, and how many updates asked for the contact to be queued
            again, which may call a person twice.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        *,
        pace: Pace = AT_ONCE,
        per_list_max: int = CONTACTS_PER_LIST_MAX,
    ) -> None:
        super().__init__("contact list", "contact.list.not.found", now, pace)
        self._per_list_max = per_list_max
        self.tally: Counter[str] = Counter(applied=0, deleted=0, requeued=0)

    def create(self, definition: Definition) -> ContactList:
        """Create a list from a checked definition.

        Raises:
            ApiError: The name is taken, or there are too many lists.
        """
        self.check_new(definition["name"])
        return self.put(ContactList(definition, self.now(), Tasks(self.pace)))

    def update(self, contact_list: ContactList, body: Mapping[str, Any]) -> None:
        """Replace a list's definition.

        Raises:
            ApiError: It is not of the version last read, changes what is fixed, or may not be.
        """
        if body.get("version") != contact_list.definition["version"]:
            message = "The version of the contact list does not match the current version."
            raise ApiError(409, "invalid.update.wrong.version", message, field="version")
        check_fixed(contact_list.definition, body)
        definition = check_definition(body)
        self.check_name_is_free(definition["name"], contact_list)
        contact_list.replace(definition, self.now())

    def delete(self, list_id: str) -> None:
        """Delete a list with its contacts.

        Raises:
            ApiError: There is none, or an import into it goes on.
        """
        doomed = self.find(list_id)
        doomed.tasks.refuse_while_importing()
        self.drop(doomed)

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
        others = sum(len(existing) for existing in self.held() if existing is not contact_list)
        room, message = min(
            (self._per_list_max, f"A contact list may have {self._per_list_max} contacts."),
            (CONTACTS_MAX - others, f"The organization may have {CONTACTS_MAX} contacts."),
        )
        if len(contact_list) + len(contact_ids) <= room:
            return
        new = {contact_id for contact_id in contact_ids if contact_id not in contact_list.contacts}
        if len(contact_list) + len(new) > room:
            raise ApiError(400, "contacts.per.org.limit.exceeded", message)
