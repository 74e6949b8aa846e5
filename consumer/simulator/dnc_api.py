"""Answers for the API's operations on do-not-call lists: a call in, the JSON of the answer out. Knows no socket."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import orjson

from consumer.simulator.api import PAGE_MAX, Action, Call, Done, page
from consumer.simulator.definitions import Definition
from consumer.simulator.dnc import DncList, DncLists, EntryKind, check_dnc_definition, expiration
from consumer.simulator.errors import ApiError, invalid_property, invalid_value
from consumer.simulator.list_api import selected
from consumer.simulator.operations import DNC_LISTS_PATH, Operation

REMOVE_MAX = 250

_NO_CONTENT = 204


def _texts(values: object, field: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise invalid_value(field, "an array of strings that are not empty")
    return values


def _check_patch(request: object, kind: EntryKind) -> dict[str, object]:
    if not isinstance(request, dict):
        raise ApiError(400, "bad.request", "The patch must be a JSON object.")
    unknown = request.keys() - {"action", kind.value, "expirationDateTime"}
    if unknown:
        raise invalid_property(min(unknown))
    if request.get("action") not in ("Add", "Remove"):
        message = "The action must be Add or Remove."
        raise ApiError(400, "invalid.dnc.patch.action", message, field="action")
    if not request.get(kind.value):
        message = f"The patch has no {kind.value}."
        raise ApiError(400, "invalid.dnc.patch.request", message, field=kind.value)
    return request


def _included(call: Call) -> dict[str, bool]:
    """What a call wants to know of a list besides its definition."""
    return {
        "with_size": call.flag("includeSize") or False,
        "with_import_status": call.flag("includeImportStatus") or False,
    }


def _check_source_takes(dnc_list: DncList, kind: EntryKind) -> None:
    """A POST knows one refusal for what a list does not hold, where PATCH and DELETE know two."""
    try:
        dnc_list.check_takes(kind)
    except ApiError as refused:
        raise ApiError(400, "dnc.source.operation.not.supported", str(refused)) from None


def _expired_only(call: Call) -> bool:
    """A DELETE knows no refusal of a parameter as such."""
    try:
        return call.flag("expiredOnly") or False
    except ApiError as refused:
        raise ApiError(400, "bad.request", str(refused), field=refused.field) from None


class DncApi:
    """The operations on do-not-call lists and their entries.

    A refused request has changed nothing.

    Attributes:
        actions: How each operation is carried out.
    """

    def __init__(self, lists: DncLists) -> None:
        self._lists = lists
        self.actions: Mapping[Operation, Action] = {
            Operation.LIST_DNC_LISTS: self._list,
            Operation.CREATE_DNC_LIST: self._create,
            Operation.GET_DNC_LIST: self._get,
            Operation.UPDATE_DNC_LIST: self._update,
            Operation.DELETE_DNC_LIST: self._delete,
            Operation.LIST_DNC_DIVISION_VIEWS: self._list_views,
            Operation.GET_DNC_DIVISION_VIEW: self._get_view,
            Operation.ADD_DNC_PHONE_NUMBERS: partial(self._add, EntryKind.PHONE_NUMBERS),
            Operation.PATCH_DNC_PHONE_NUMBERS: partial(self._patch, EntryKind.PHONE_NUMBERS),
            Operation.DELETE_DNC_PHONE_NUMBERS: partial(self._clear, EntryKind.PHONE_NUMBERS),
            Operation.ADD_DNC_EMAIL_ADDRESSES: partial(self._add, EntryKind.EMAIL_ADDRESSES),
            Operation.PATCH_DNC_EMAIL_ADDRESSES: partial(self._patch, EntryKind.EMAIL_ADDRESSES),
            Operation.DELETE_DNC_EMAIL_ADDRESSES: partial(self._clear, EntryKind.EMAIL_ADDRESSES),
            Operation.PATCH_DNC_WHATSAPP_NUMBERS: partial(self._patch, EntryKind.WHATSAPP_NUMBERS),
            Operation.DELETE_DNC_WHATSAPP_NUMBERS: partial(self._clear, EntryKind.WHATSAPP_NUMBERS),
            Operation.PATCH_DNC_CUSTOM_VALUES: partial(self._patch, EntryKind.CUSTOM_VALUES),
            Operation.DELETE_DNC_CUSTOM_VALUES: partial(self._clear, EntryKind.CUSTOM_VALUES),
        }

    def _list(self, call: Call) -> Done:
        return self._page(call, DNC_LISTS_PATH, DncList.body, [])

    def _list_views(self, call: Call) -> Done:
        return self._page(call, DNC_LISTS_PATH + "/divisionviews", DncList.view, call.ids("id"))

    def _page(self, call: Call, path: str, describe: Callable[..., Definition], ids: Sequence[str]) -> Done:
        number, size = call.number("pageNumber", 1), call.number("pageSize", 25, PAGE_MAX)
        included, source = _included(call), call.text("dncSourceType")
        lists = [each for each in self._lists.all() if not source or each.definition["dncSourceType"] == source]
        found = selected(call, lists, ids)
        shown = [describe(each, **included) for each in found[(number - 1) * size : number * size]]
        return Done(orjson.dumps(page(path, shown, number, size, len(found))))

    def _create(self, call: Call) -> Done:
        created = self._lists.create(check_dnc_definition(call.payload))
        return Done(orjson.dumps(created.body(with_size=False)))

    def _get(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.find(call.list_id).body(**_included(call))))

    def _get_view(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.find(call.list_id, "resource.not.found").view(**_included(call))))

    def _update(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.update(call.list_id, call.payload).body(with_size=False)))

    def _delete(self, call: Call) -> Done:
        self._lists.delete(call.list_id)
        return Done()

    def _add(self, kind: EntryKind, call: Call) -> Done:
        dnc_list = self._lists.find(call.list_id)
        _check_source_takes(dnc_list, kind)
        values = _texts(call.array(), kind.value)
        expires = expiration(call.text("expirationDateTime"), self._lists.now())
        self._lists.add(dnc_list, kind, values, expires)
        return Done(status=_NO_CONTENT, dnc_entries=tuple(values))

    def _patch(self, kind: EntryKind, call: Call) -> Done:
        dnc_list = self._lists.find(call.list_id)
        dnc_list.check_takes(kind)
        request = _check_patch(call.payload, kind)
        values = _texts(request[kind.value], kind.value)
        if request["action"] == "Add":
            until = request.get("expirationDateTime") or ""
            self._lists.add(dnc_list, kind, values, expiration(str(until), self._lists.now()))
        elif len(values) > REMOVE_MAX:
            message = f"Only {REMOVE_MAX} entries can be removed at once."
            raise ApiError(400, "dnc.delete.entries.max.per.request.exceeded", message, field=kind.value)
        else:
            self._lists.remove(dnc_list, kind, values)
        return Done(status=_NO_CONTENT, dnc_entries=tuple(values))

    def _clear(self, kind: EntryKind, call: Call) -> Done:
        dnc_list = self._lists.find(call.list_id)
        dnc_list.check_takes(kind)
        dnc_list.tasks.refuse_while_importing()
        gone = self._lists.clear(dnc_list, kind, expired_only=_expired_only(call))
        return Done(status=_NO_CONTENT, dnc_entries=gone)
