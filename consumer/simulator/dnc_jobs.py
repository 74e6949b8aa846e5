"""Answers for the operations on do-not-call lists that go on after their answer: exports and imports. No socket."""

from collections.abc import Mapping
from functools import partial

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.dnc import DncList, DncLists, EntryKind
from consumer.simulator.dnc_files import Columns, DncStaging, begin_import, column_names, export, snapshot
from consumer.simulator.downloads import available_export
from consumer.simulator.errors import ApiError, invalid_property, invalid_value
from consumer.simulator.operations import DNC_LISTS_PATH, Operation
from consumer.simulator.organisation import spelled
from consumer.simulator.tasks import Export
from consumer.simulator.uploads import URL_LIFETIME_S, Incoming, Uploads, check_url_request

_COLUMN_FIELDS = {
    "phoneColumns": EntryKind.PHONE_NUMBERS,
    "emailColumns": EntryKind.EMAIL_ADDRESSES,
    "whatsAppColumns": EntryKind.WHATSAPP_NUMBERS,
    "customExclusionColumns": EntryKind.CUSTOM_VALUES,
}
_EXPIRATION_FIELD = "expirationDateTimeColumn"
_FIELDS = {"signedUrlTimeoutSeconds", "contentType", "id", _EXPIRATION_FIELD, *_COLUMN_FIELDS}
_INTERNAL_SOURCES = ("rds", "rds_custom")


def _checked_columns(request: Mapping[str, object]) -> tuple[Columns, str]:
    """The columns with entries, and the one with expirations.

    Raises:
        ApiError: They are not named as they should be.
    """
    if not request.keys() <= _FIELDS:
        raise invalid_property(min(request.keys() - _FIELDS))
    check_url_request(request)
    named = {field: request[field] for field in (*_COLUMN_FIELDS, _EXPIRATION_FIELD) if request.get(field) is not None}
    texts = {field: text for field, text in named.items() if isinstance(text, str)}
    if len(texts) < len(named):
        raise invalid_value(min(named.keys() - texts.keys()), "a string")
    columns = {kind: column_names(texts[field]) for field, kind in _COLUMN_FIELDS.items() if texts.get(field)}
    if not columns:
        raise ApiError(400, "bad.request", "The request names no columns with entries.", field="phoneColumns")
    return columns, texts.get(_EXPIRATION_FIELD, "")


def _check_takes(dnc_list: DncList, columns: Columns) -> None:
    """Refuse columns that the list does not hold, in the one way that the contract gives this request."""
    try:
        for kind in columns:
            dnc_list.check_takes(kind)
    except ApiError as refused:
        raise ApiError(400, "bad.request", str(refused)) from None


class DncJobs:
    """What takes its time in a do-not-call list.

    Attributes:
        actions: How each operation is carried out.
    """

    def __init__(self, lists: DncLists, uploads: Uploads) -> None:
        self._lists = lists
        self._uploads = uploads
        self.actions: Mapping[Operation, Action] = {
            Operation.START_DNC_EXPORT: self._start_export,
            Operation.GET_DNC_EXPORT: self._get_export,
            Operation.GET_DNC_UPLOAD_URL: self._issue_url,
            Operation.GET_DNC_IMPORT_STATUS: self._get_import_status,
        }

    def _start_export(self, call: Call) -> Done:
        dnc_list = self._lists.find(call.list_id)
        if dnc_list.definition["dncSourceType"] not in _INTERNAL_SOURCES:
            raise ApiError(400, "unexportable.dnc.list.type", "Only internal lists can be exported.")
        dnc_list.tasks.refuse_while_exporting()
        dnc_list.tasks.refuse_while_importing()
        entries = snapshot(dnc_list)
        ready_at, made = dnc_list.tasks.end_of(len(entries)), spelled(self._lists.now())
        dnc_list.tasks.export = Export(partial(export, entries), ready_at, made)
        return Done(orjson.dumps({"id": dnc_list.id, "selfUri": f"{DNC_LISTS_PATH}/{dnc_list.id}/export"}))

    def _get_export(self, call: Call) -> Done:
        return available_export(self._lists.find(call.list_id).tasks, call)

    def _get_import_status(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.find(call.list_id).tasks.import_status()))

    def _issue_url(self, call: Call) -> Done:
        request = call.json_object()
        columns, expiration_column = _checked_columns(request)
        dnc_list = self._lists.find(request["id"], "not.found")
        _check_takes(dnc_list, columns)
        opened = partial(self._open, dnc_list.id, columns, expiration_column)
        return self._uploads.issue(opened, call.origin, request.get("signedUrlTimeoutSeconds", URL_LIFETIME_S))

    def _open(self, list_id: str, columns: Columns, expiration_column: str) -> Incoming:
        self._lists.find(list_id)
        staging = DncStaging(columns, expiration_column, self._lists.now())

        def begin() -> None:
            begin_import(self._lists, self._lists.find(list_id), staging)

        return Incoming(list_id, staging, begin)
