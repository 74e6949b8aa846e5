"""Answers for contact lists: which there are, and what was done to their contacts.

Reads the wall clock for `dateCreated`; touches nothing else.
"""

import math
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from consumer.simulator.contacts import Contacts
from consumer.simulator.definitions import Definition, check_definition, check_fixed
from consumer.simulator.errors import ApiError, invalid_parameter
from consumer.simulator.imports import NO_ROOM, Staging
from consumer.simulator.operations import CONTACT_LISTS_PATH
from consumer.simulator.organisation import HOME_DIVISION, Lists
from consumer.simulator.tasks import Tasks

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


class ContactLists(Lists[ContactList]):
    """The contact lists of the organisation.

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
        super().__init__("contact list", "contact.list.not.found")
        self._clock = clock
        self._job_seconds = job_seconds
        self._rows_per_second = rows_per_second
        self._per_list_max = per_list_max
        self.tally: Counter[str] = Counter(applied=0, deleted=0, requeued=0)

    def create(self, definition: Definition) -> ContactList:
        """Create a list from a checked definition.

        Raises:
            ApiError: The name is taken, or there are too many lists.
        """
        self.check_new(definition["name"])
        return self.put(ContactList(definition, Tasks(self._clock, self._job_seconds, self._rows_per_second)))

    def now(self) -> float:
        """The time, in seconds that only grow."""
        return self._clock()

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
        contact_list.replace(definition)

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
        others = sum(len(existing.contacts) for existing in self.held() if existing is not contact_list)
        room, message = min(
            (self._per_list_max, f"A contact list may have {self._per_list_max} contacts."),
            (CONTACTS_MAX - others, f"The organization may have {CONTACTS_MAX} contacts."),
        )
        if len(contact_list.contacts) + len(contact_ids) <= room:
            return
        new = {contact_id for contact_id in contact_ids if contact_id not in contact_list.contacts}
        if len(contact_list.contacts) + len(new) > room:
            raise ApiError(400, "contacts.per.org.limit.exceeded", message)
