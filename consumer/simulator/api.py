"""Answers for the API's operations: a call in, the JSON of the answer out. Knows no socket and no client library."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from uuid import uuid4

import orjson

from consumer.simulator.contacts import Contact, Contacts, Poison, check_id
from consumer.simulator.errors import ApiError, invalid_parameter, invalid_value, unsupported_media_type
from consumer.simulator.filters import selection
from consumer.simulator.lag import Lag
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import CONTACT_LISTS_PATH, Operation
from consumer.simulator.sorts import ordering

ADD_MAX = 1_000
DELETE_MAX = 250
READ_MAX = 50
PAGE_MAX = 100

_JSON = "application/json"
_FLAGS = ("priority", "clearSystemData", "doNotQueue")
_BOOLEANS = {"true": True, "false": False}


@dataclass
class Call:
    """A request, read from its socket.

    Attributes:
        list_id: The contact list or do-not-call list in the path, or nothing.
        contact_id: The contact in the path, or nothing.
        job_id: The bulk operation in the path, or nothing.
        download_id: The exported file in the path, or nothing.
        origin: Where the simulator was reached, such as `http://127.0.0.1:8080`.
        query: The query parameters, each with all its values.
        content_type: The media type that its head tells, or nothing.
        body: The body.
        namespace: The namespace of limits in the path, or nothing.
    """

    list_id: str = ""
    contact_id: str = ""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    content_type: str = _JSON
    body: bytes = b""
    namespace: str = ""
    job_id: str = ""
    download_id: str = ""
    origin: str = ""

    @cached_property
    def payload(self) -> Any:
        """The body's JSON.

        Raises:
            ApiError: It is not JSON.
        """
        if self.content_type != _JSON:
            raise unsupported_media_type()
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise ApiError(400, "bad.request", "The request could not be understood: the body is not JSON.") from None

    def check_media_type(self) -> None:
        """Refuse a request without a body that tells the media type of one, unless that is JSON.

        Raises:
            ApiError: It does.
        """
        if self.content_type not in ("", _JSON):
            raise unsupported_media_type()

    def json_object(self) -> dict[str, Any]:
        """The body's JSON, which must be an object."""
        if not isinstance(self.payload, dict):
            raise ApiError(400, "bad.request", "The request could not be understood: the body is not an object.")
        return self.payload

    def array(self) -> list[Any]:
        """The body's JSON, which must be an array."""
        if not isinstance(self.payload, list):
            raise ApiError(400, "bad.request", "The request could not be understood: the body is not an array.")
        return self.payload

    def text(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        return self.query[name][0] if name in self.query else default

    def number(self, name: str, default: int, limit: int | None = None) -> int:
        """A parameter that counts from 1."""
        text = self.text(name, str(default))
        if not text.isdecimal() or int(text) < 1 or (limit is not None and int(text) > limit):
            raise invalid_parameter(name, "a positive number" if limit is None else f"from 1 to {limit}")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """A boolean parameter; None when it is not given."""
        if name not in self.query:
            return None
        try:
            return _BOOLEANS[self.text(name).lower()]
        except KeyError:
            raise invalid_parameter(name, "true or false") from None

    def flags(self) -> dict[str, bool]:
        """What is said of how contacts are added."""
        return {name: value for name in _FLAGS if (value := self.flag(name)) is not None}

    def ids(self, name: str) -> list[str]:
        """A parameter's ids, repeated or joined by commas."""
        return [part for value in self.query.get(name, ()) for part in value.split(",") if part]


class Done(NamedTuple):
    """An operation was carried out."""

    body: bytes = b""
    contact_ids: tuple[str, ...] = ()
    status: int = 200
    dnc_entries: tuple[str, ...] = ()
    location: str = ""
    cut: bool = False


Action = Callable[[Call], Done]


def named_contacts(operation: Operation, call: Call) -> tuple[str, ...]:
    """The contacts that a call names, as far as it can be read."""
    if operation is Operation.DELETE_CONTACTS:
        return tuple(call.ids("contactIds"))
    if operation is not Operation.ADD_CONTACTS:
        return (call.contact_id,) if call.contact_id else ()
    try:
        contacts = call.array()
    except ApiError:
        return ()
    ids = (contact.get("id") for contact in contacts if isinstance(contact, dict))
    return tuple(contact_id for contact_id in ids if isinstance(contact_id, str))


def page(path: str, entities: Sequence[Mapping[str, Any]], number: int, size: int, total: int) -> dict[str, Any]:
    """A page as Genesys describes it; number and size count from 1."""
    pages = -(-total // size)

    def uri(page: int) -> str:
        return f"{path}?pageSize={size}&pageNumber={page}"

    body = {
        "entities": entities, "pageSize": size, "pageNumber": number, "total": total, "pageCount": pages,
        "firstUri": uri(1), "selfUri": uri(number), "lastUri": uri(max(1, pages)),
    }  # fmt: skip
    if number < pages:
        body["nextUri"] = uri(number + 1)
    if number > 1:
        body["previousUri"] = uri(number - 1)
    return body


class Api:
    """The operations on contacts, and whatever others it is given.

    Every operation checks all it was given before it changes anything: a refused request has changed nothing.
    """

    def __init__(
        self,
        lists: ContactLists,
        poison: Poison | None,
        contacts_in_use: Collection[str],
        *others: Mapping[Operation, Action],
    ) -> None:
        self._lists = lists
        self._poison = poison
        self.contacts_in_use = set(contacts_in_use)
        self._lag = Lag(lists.pace.clock)
        self._actions: dict[Operation, Action] = {
            Operation.ADD_CONTACTS: self._add_contacts,
            Operation.DELETE_CONTACTS: self._delete_contacts,
            Operation.READ_CONTACTS: self._read_contacts,
            Operation.SEARCH_CONTACTS: self._search_contacts,
            Operation.GET_CONTACT: self._get_contact,
            Operation.UPDATE_CONTACT: self._update_contact,
            Operation.DELETE_CONTACT: self._delete_contact,
        }
        for actions in others:
            self._actions |= actions

    def carry_out(self, operation: Operation, call: Call, *, lag_s: float = 0.0) -> Done:
        """Carry out an operation.

        Args:
            operation: Which.
            call: What is asked.
            lag_s: For so many seconds afterwards reads show the contacts that it names as they are now.

        Raises:
            ApiError: It is refused, and nothing has changed.
        """
        before = self._named(operation, call) if lag_s else {}
        done = self._actions[operation](call)
        self._lag.note(call.list_id, before, lag_s)
        return done

    def _named(self, operation: Operation, call: Call) -> dict[str, Contact | None]:
        contacts = self._lists.find(call.list_id).contacts
        return {contact_id: contacts.get(contact_id) for contact_id in named_contacts(operation, call)}

    def _shown(self, contacts: Contacts, call: Call, contact_id: str) -> Contact | None:
        """A contact of a list as a read shows it."""
        return self._lag.shown(call.list_id, contact_id, contacts.get(contact_id))

    def _add_contacts(self, call: Call) -> Done:
        flags = call.flags()
        contact_list = self._lists.find(call.list_id)
        contact_list.tasks.refuse_while_clearing()
        given = call.array()
        if len(given) > ADD_MAX:
            message = f"Only {ADD_MAX} contacts can be added at once."
            raise ApiError(400, "too.many.contacts.added", message)
        check, poison = contact_list.contacts.check, self._poison
        checked = [check(contact, poison) for contact in given]
        cut = poison is not None and any(poison.cuts(contact["data"]) for contact in checked)
        if poison is not None:
            checked = [contact for contact in checked if not poison.leaves_out(contact["data"])]
        ids = tuple(contact.get("id") or str(uuid4()) for contact in checked)
        self._lists.check_room(contact_list, ids)
        bodies = self._write(contact_list.contacts, zip(ids, checked, strict=True), flags)
        return Done(orjson.dumps(bodies), ids, cut=cut)

    def _write(
        self, contacts: Contacts, checked: "zip[tuple[str, Contact]]", flags: Mapping[str, bool]
    ) -> list[Contact]:
        afresh, requeues = flags.get("clearSystemData", False), not flags.get("doNotQueue", False)
        bodies = []
        for contact_id, contact in checked:
            if requeues and contact_id in contacts:
                self._lists.tally["requeued"] += 1
            bodies.append(contacts.put(contact_id, contact, afresh=afresh))
        self._lists.tally["applied"] += len(bodies)
        return bodies

    def _delete_contacts(self, call: Call) -> Done:
        contacts = self._lists.find(call.list_id).contacts
        ids = call.ids("contactIds")
        if not ids:
            raise ApiError(400, "no.contacts.specified", "No contacts were specified.", field="contactIds")
        if len(ids) > DELETE_MAX:
            message = f"Only {DELETE_MAX} contacts can be deleted at once."
            raise ApiError(400, "too.many.contacts.added", message, field="contactIds")
        for contact_id in ids:
            check_id(contact_id, too_long="invalid.contact.id")
        free = [contact_id for contact_id in ids if contact_id not in self.contacts_in_use]
        self._lists.tally["deleted"] += sum(map(contacts.remove, free))
        return Done(contact_ids=tuple(ids))

    def _read_contacts(self, call: Call) -> Done:
        contacts = self._lists.find(call.list_id).contacts
        ids = call.array()
        if len(ids) > READ_MAX:
            raise ApiError(400, "too.many.contacts.requested", f"Only {READ_MAX} contacts can be read at once.")
        if not all(isinstance(contact_id, str) for contact_id in ids):
            raise ApiError(400, "bad.request", "A contact id must be a string.")
        shown = (self._shown(contacts, call, contact_id) for contact_id in ids)
        return Done(orjson.dumps([contact for contact in shown if contact is not None]))

    def _search_contacts(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id)
        request = call.json_object()
        columns = contact_list.definition["columnNames"]
        match, order = selection(request, columns), ordering(request, columns)
        number, size = request.get("pageNumber"), request.get("pageSize")
        if type(number) is not int or number < 1:
            raise invalid_value("pageNumber", "a positive number")
        if type(size) is not int or not 1 <= size <= PAGE_MAX:
            raise invalid_value("pageSize", f"from 1 to {PAGE_MAX}")
        entities, total = contact_list.contacts.page((number - 1) * size, size, match, order)
        path = f"{CONTACT_LISTS_PATH}/{call.list_id}/contacts/search"
        body = page(path, entities, number, size, total)
        return Done(orjson.dumps(body | {"contactsCount": total}))

    def _get_contact(self, call: Call) -> Done:
        contact = self._shown(self._lists.find(call.list_id).contacts, call, call.contact_id)
        if contact is None:
            raise ApiError(404, "resource.not.found", "The contact was not found.")
        return Done(orjson.dumps(contact))

    def _update_contact(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id)
        contact_list.tasks.refuse_while_clearing()
        contacts = contact_list.contacts
        contact = contacts.check(call.payload, self._poison, replaces=True)
        if contact.get("id", call.contact_id) != call.contact_id:
            raise invalid_value("id", "the id in the path")
        if call.contact_id not in contacts:
            raise ApiError(400, "contact.does.not.exist", "The contact does not exist.")
        self._lists.tally["applied"] += 1
        return Done(orjson.dumps(contacts.put(call.contact_id, contact, afresh=True)))

    def _delete_contact(self, call: Call) -> Done:
        contacts = self._lists.find(call.list_id).contacts
        if call.contact_id not in contacts:
            raise ApiError(404, "contact.not.found", "The contact was not found.")
        if call.contact_id in self.contacts_in_use:
            raise ApiError(400, "contact.in.use", "The contact is in use by a campaign.")
        contacts.remove(call.contact_id)
        self._lists.tally["deleted"] += 1
        return Done()
