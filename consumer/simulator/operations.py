"""Answers for what the simulator can be asked: each operation's name, route and permission. Touches nothing."""

from enum import StrEnum
from typing import NamedTuple

CONTACT_LISTS_PATH = "/api/v2/outbound/contactlists"


class Operation(StrEnum):
    """The operations, by the names that faults, the journal and the statistics use."""

    TOKEN = "token"  # noqa: S105 - a name, not a secret
    LIST_CONTACT_LISTS = "list_contact_lists"
    CREATE_CONTACT_LIST = "create_contact_list"
    GET_CONTACT_LIST = "get_contact_list"
    DELETE_CONTACT_LIST = "delete_contact_list"
    ADD_CONTACTS = "add_contacts"
    DELETE_CONTACTS = "delete_contacts"
    READ_CONTACTS = "read_contacts"
    SEARCH_CONTACTS = "search_contacts"
    GET_CONTACT = "get_contact"
    UPDATE_CONTACT = "update_contact"
    DELETE_CONTACT = "delete_contact"


class Route(NamedTuple):
    """Where an operation is reached and which permission it needs."""

    operation: Operation
    method: str
    path: str
    permission: str


_LIST = CONTACT_LISTS_PATH + "/{list_id}"
_CONTACTS = _LIST + "/contacts"
_CONTACT = _CONTACTS + "/{contact_id}"

API_ROUTES = (
    Route(Operation.LIST_CONTACT_LISTS, "GET", CONTACT_LISTS_PATH, "outbound:contactList:view"),
    Route(Operation.CREATE_CONTACT_LIST, "POST", CONTACT_LISTS_PATH, "outbound:contactList:add"),
    Route(Operation.GET_CONTACT_LIST, "GET", _LIST, "outbound:contactList:view"),
    Route(Operation.DELETE_CONTACT_LIST, "DELETE", _LIST, "outbound:contactList:delete"),
    Route(Operation.ADD_CONTACTS, "POST", _CONTACTS, "outbound:contact:add"),
    Route(Operation.DELETE_CONTACTS, "DELETE", _CONTACTS, "outbound:contact:delete"),
    Route(Operation.READ_CONTACTS, "POST", _CONTACTS + "/bulk", "outbound:contact:view"),
    Route(Operation.SEARCH_CONTACTS, "POST", _CONTACTS + "/search", "outbound:contact:view"),
    Route(Operation.GET_CONTACT, "GET", _CONTACT, "outbound:contact:view"),
    Route(Operation.UPDATE_CONTACT, "PUT", _CONTACT, "outbound:contact:edit"),
    Route(Operation.DELETE_CONTACT, "DELETE", _CONTACT, "outbound:contact:delete"),
)
