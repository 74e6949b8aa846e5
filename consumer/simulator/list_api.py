"""Answers for the API's operations on contact lists as a whole: a call in, the JSON of the answer out. No socket.

What the schema leaves open is assumed: a PUT without a version has a wrong one; a bulk delete that names a list that is
not there, or cannot be deleted now, deletes none; no number is mapped to a time zone, so that every contact of a
preview is in the default window.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from consumer.simulator.api import PAGE_MAX, Action, Call, Done, page
from consumer.simulator.definitions import Definition, check_definition, check_retention
from consumer.simulator.errors import ApiError, invalid_value
from consumer.simulator.lists import ContactList, ContactLists, name_filter
from consumer.simulator.operations import CONTACT_LISTS_PATH, DIVISION_VIEWS_PATH, Operation
from consumer.simulator.organisation import OneList

LIST_IDS_MAX = 100
LISTS_DELETE_MAX = 100
LISTS_UPDATE_MAX = 100

_VIEW_FIELDS = ("id", "name", "division", "columnNames", "phoneColumns", "emailColumns", "whatsAppColumns")
_STATUS_FIELDS = frozenset({"size", "importStatus"})


def _body(contact_list: ContactList, call: Call) -> Definition:
    """The list with what the call wants to know besides."""
    return contact_list.body(
        with_size=call.flag("includeSize") or False, with_import_status=call.flag("includeImportStatus") or False
    )


def _view(contact_list: ContactList, call: Call) -> Definition:
    """The list as somebody sees it who may only search."""
    body = _body(contact_list, call)
    shown = {field: body[field] for field in body if field in _VIEW_FIELDS or field in _STATUS_FIELDS}
    return shown | {"selfUri": f"{DIVISION_VIEWS_PATH}/{contact_list.id}"}


AnyList = TypeVar("AnyList", bound=OneList)


def selected(call: Call, lists: Iterable[AnyList], ids: Sequence[str] = ()) -> list[AnyList]:
    """The lists that a call asks for by name or division, in the order that it asks for.

    Args:
        call: The call.
        lists: All of them.
        ids: Those that it asks for, where it may ask by id; none: any.

    Raises:
        ApiError: It asks for too many, or by a filter that there is not.
    """
    divisions = call.ids("divisionId")
    if len(ids) > LIST_IDS_MAX:
        message = f"Only {LIST_IDS_MAX} lists can be retrieved at once."
        raise ApiError(400, "too.many.bulk.retrieves", message, field="id")
    matches, name = name_filter(call.text("filterType", "Prefix")), call.text("name")
    found = [
        each
        for each in lists
        if (not name or matches(each.name, name))
        and (not ids or each.id in ids)
        and (not divisions or each.definition["division"].get("id") in divisions)
    ]
    if sort_by := call.text("sortBy"):
        descending = call.text("sortOrder").startswith("d")
        found.sort(key=lambda each: str(each.definition.get(sort_by, "")), reverse=descending)
    return found


class ListApi:
    """The operations on contact lists.

    Every operation checks all it was given before it changes anything: a refused request has changed nothing.
    """

    def __init__(self, lists: ContactLists) -> None:
        self._lists = lists

    @property
    def actions(self) -> Mapping[Operation, Action]:
        """How each operation is carried out."""
        return {
            Operation.LIST_CONTACT_LISTS: self._list_contact_lists,
            Operation.CREATE_CONTACT_LIST: self._create,
            Operation.GET_CONTACT_LIST: self._get,
            Operation.UPDATE_CONTACT_LIST: self._update,
            Operation.DELETE_CONTACT_LIST: self._delete,
            Operation.DELETE_CONTACT_LISTS: self._delete_many,
            Operation.UPDATE_CONTACT_LISTS: self._update_many,
            Operation.LIST_DIVISION_VIEWS: self._list_views,
            Operation.GET_DIVISION_VIEW: self._get_view,
            Operation.PREVIEW_TIME_ZONES: self._preview_time_zones,
        }

    def _list_contact_lists(self, call: Call) -> Done:
        return self._list(call, CONTACT_LISTS_PATH, _body)

    def _list_views(self, call: Call) -> Done:
        return self._list(call, DIVISION_VIEWS_PATH, _view)

    def _list(self, call: Call, path: str, describe: Callable[[ContactList, Call], Definition]) -> Done:
        number, size = call.number("pageNumber", 1), call.number("pageSize", 25, PAGE_MAX)
        found = selected(call, self._lists.all(), call.ids("id"))
        shown = found[(number - 1) * size : number * size]
        return Done(orjson.dumps(page(path, [describe(each, call) for each in shown], number, size, len(found))))

    def _create(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.create(check_definition(call.payload)).body(with_size=False)))

    def _get(self, call: Call) -> Done:
        return Done(orjson.dumps(_body(self._lists.find(call.list_id), call)))

    def _get_view(self, call: Call) -> Done:
        return Done(orjson.dumps(_view(self._lists.find(call.list_id), call)))

    def _update(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id, "resource.not.found")
        self._lists.update(contact_list, call.json_object())
        return Done(orjson.dumps(contact_list.body(with_size=False)))

    def _delete(self, call: Call) -> Done:
        self._lists.delete(call.list_id)
        return Done()

    def _delete_many(self, call: Call) -> Done:
        ids = call.ids("id")
        if not ids:
            raise ApiError(400, "bad.request", "No contact lists were specified.", field="id")
        if len(ids) > LISTS_DELETE_MAX:
            message = f"Only {LISTS_DELETE_MAX} contact lists can be deleted at once."
            raise ApiError(400, "too.many.deletes", message, field="id")
        if any(contact_list.tasks.importing for contact_list in [self._lists.find(each, "not.found") for each in ids]):
            raise ApiError(409, "bulk.delete.conflict", "A contact list is being imported.", field="id")
        for list_id in set(ids):
            self._lists.delete(list_id)
        return Done(status=204)

    def _update_many(self, call: Call) -> Done:
        request = call.json_object()
        ids, changes = request.get("contactListIds"), request.get("contactList")
        if not isinstance(ids, list) or not 0 < len(ids) <= LISTS_UPDATE_MAX:
            raise invalid_value("contactListIds", f"an array of 1 to {LISTS_UPDATE_MAX} ids")
        if not isinstance(changes, dict):
            raise invalid_value("contactList", "an object")
        retention = check_retention(changes)
        results = [self._updated(str(list_id), retention) for list_id in ids]
        failed = [place for place, result in enumerate(results) if not result["success"]]
        return Done(orjson.dumps({"results": results, "errorCount": len(failed), "errorIndexes": failed}))

    def _updated(self, list_id: str, changes: Definition) -> dict[str, Any]:
        try:
            contact_list = self._lists.find(list_id)
        except ApiError as error:
            told = {"code": error.code, "message": str(error), "status": error.status, "retryable": False}
            return {"id": list_id, "success": False, "status": error.status, "error": told}
        contact_list.change(changes, self._lists.now())
        return {"id": list_id, "success": True, "status": 200, "entity": contact_list.body(with_size=False)}

    def _preview_time_zones(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id, "resource.not.found")
        if not contact_list.definition.get("automaticTimeZoneMapping"):
            message = "The contact list has no automatic time zone mapping."
            raise ApiError(400, "not.automatic.time.zone.mapping", message)
        size = len(contact_list)
        named = {field: contact_list.definition[field] for field in ("id", "name", "selfUri")}
        return Done(orjson.dumps({"contactList": named, "contactsInDefaultWindow": size, "contactListSize": size}))
