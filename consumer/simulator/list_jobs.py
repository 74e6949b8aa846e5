"""Answers for the API's operations that go on after their answer: clears, bulk operations, exports, imports. No socket.

What the schema leaves open is assumed: a bulk update merges its contact into each selected one, column by column; the
contacts are selected when it is asked for; a new export takes the place of the old one at once. `downloadURI` of a bulk
operation is left out: what the file would hold is not published.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.contacts import Contact, Match, Poison
from consumer.simulator.downloads import available_export
from consumer.simulator.errors import ApiError, invalid_property, invalid_value
from consumer.simulator.exports import export
from consumer.simulator.filters import selection
from consumer.simulator.lists import ContactList, ContactLists
from consumer.simulator.operations import CONTACT_LISTS_PATH, Operation
from consumer.simulator.organisation import spelled
from consumer.simulator.tasks import Export, Job

_SELECTORS = frozenset({"contactListFilterId", "criteria"})
_EXPORT_FIELDS = _SELECTORS | {"contactIds"}
_REMOVE_FIELDS = _SELECTORS | {"generateDownloadURI"}
_UPDATE_FIELDS = _EXPORT_FIELDS | {"generateDownloadURI", "contact"}
_REMOVE, _UPDATE = "BulkDelete", "BulkEdit"


def _check_fields(request: Mapping[str, Any], known: frozenset[str]) -> None:
    if not request.keys() <= known:
        raise invalid_property(min(request.keys() - known))


def _given_ids(request: Mapping[str, Any]) -> Sequence[str] | None:
    ids = request.get("contactIds")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(isinstance(contact_id, str) for contact_id in ids):
        raise invalid_value("contactIds", "an array of strings")
    return ids


def _matching(contact_list: ContactList, match: Match | None, ids: Sequence[str] | None) -> dict[str, bytes]:
    """The rows that a filter and a choice of ids agree on."""
    if ids is None:
        return contact_list.contacts.snapshot(match)
    chosen = set(ids)
    return contact_list.contacts.snapshot(lambda each: each["id"] in chosen and (match is None or match(each)))


class ListJobs:
    """What takes its time in a contact list."""

    def __init__(self, lists: ContactLists, poison: Poison | None) -> None:
        self._lists = lists
        self._poison = poison

    @property
    def actions(self) -> Mapping[Operation, Action]:
        """The operations."""
        return {
            Operation.CLEAR_CONTACT_LIST: self._clear,
            Operation.BULK_REMOVE: self._bulk_remove,
            Operation.BULK_UPDATE: self._bulk_update,
            Operation.LIST_JOBS: self._list_jobs,
            Operation.GET_JOB: self._get_job,
            Operation.START_EXPORT: self._start_export,
            Operation.GET_EXPORT: self._get_export,
            Operation.GET_IMPORT_STATUS: self._get_import_status,
        }

    def _get_import_status(self, call: Call) -> Done:
        return Done(orjson.dumps(self._lists.find(call.list_id).tasks.import_status()))

    def _clear(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id)
        contact_list.tasks.refuse_while_importing()
        contact_list.tasks.begin_clear(lambda: self._empty(contact_list))
        return Done(status=204)

    def _empty(self, contact_list: ContactList) -> None:
        self._lists.tally["deleted"] += len(contact_list.contacts)
        contact_list.contacts.clear()

    def _start_export(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id)
        contact_list.tasks.refuse_while_exporting()
        contact_list.tasks.refuse_while_importing()
        request = call.json_object() if call.body not in {b"", b"null"} else {}
        _check_fields(request, _EXPORT_FIELDS)
        match = selection(request, contact_list.definition["columnNames"])
        rows = _matching(contact_list, match, _given_ids(request))
        chunks = partial(export, contact_list.definition, rows)
        made = spelled(self._lists.now())
        contact_list.tasks.export = Export(chunks, contact_list.tasks.end_of(len(rows)), made)
        return Done(orjson.dumps({"id": contact_list.id, "selfUri": f"{CONTACT_LISTS_PATH}/{contact_list.id}/export"}))

    def _get_export(self, call: Call) -> Done:
        return available_export(self._lists.find(call.list_id).tasks, call)

    def _bulk_remove(self, call: Call) -> Done:
        contact_list, request = self._open_bulk(call, _REMOVE_FIELDS)
        match = selection(request, contact_list.definition["columnNames"])
        if match is None:
            raise ApiError(400, "invalid.contact.list.filter", "A bulk operation needs criteria.", field="criteria")
        ids = tuple(_matching(contact_list, match, None))
        return self._begin(contact_list, _REMOVE, self._removals(contact_list, ids), ids)

    def _removals(self, contact_list: ContactList, ids: Sequence[str]) -> Iterator[None]:
        for contact_id in ids:
            self._lists.tally["deleted"] += contact_list.contacts.remove(contact_id)
            yield

    def _bulk_update(self, call: Call) -> Done:
        contact_list, request = self._open_bulk(call, _UPDATE_FIELDS)
        match, given = selection(request, contact_list.definition["columnNames"]), _given_ids(request)
        if match is None and given is None:
            raise ApiError(400, "invalid.update", "A bulk update needs contactIds or criteria.")
        patch = contact_list.contacts.check_patch(request.get("contact"), self._poison)
        ids = tuple(_matching(contact_list, match, given))
        return self._begin(contact_list, _UPDATE, self._updates(contact_list, ids, patch), ids)

    def _updates(self, contact_list: ContactList, ids: Sequence[str], patch: Contact) -> Iterator[None]:
        for contact_id in ids:
            self._lists.tally["applied"] += contact_list.contacts.patch(contact_id, patch)
            yield

    def _open_bulk(self, call: Call, known: frozenset[str]) -> tuple[ContactList, dict[str, Any]]:
        contact_list = self._lists.find(call.list_id)
        contact_list.tasks.refuse_while_clearing()
        contact_list.tasks.refuse_while_editing()
        request = call.json_object()
        _check_fields(request, known)
        if type(request.get("generateDownloadURI")) not in (bool, type(None)):
            raise invalid_value("generateDownloadURI", "a boolean")
        return contact_list, request

    def _begin(self, contact_list: ContactList, kind: str, work: Iterator[None], ids: tuple[str, ...]) -> Done:
        tasks = contact_list.tasks
        job = Job(kind, tasks.begin(work, len(ids)))
        tasks.jobs.append(job)
        return Done(orjson.dumps(_described(contact_list, job)), ids, status=202)

    def _list_jobs(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id, "resource.not.found")
        jobs = [_described(contact_list, job) for job in reversed(contact_list.tasks.jobs)]
        uri = f"{CONTACT_LISTS_PATH}/{contact_list.id}/contacts/bulk/jobs"
        return Done(orjson.dumps({"total": len(jobs), "entities": jobs, "selfUri": uri}))

    def _get_job(self, call: Call) -> Done:
        contact_list = self._lists.find(call.list_id, "resource.not.found")
        for job in contact_list.tasks.jobs:
            if job.id == call.job_id:
                return Done(orjson.dumps(_described(contact_list, job)))
        raise ApiError(404, "resource.not.found", "The bulk operation was not found.")


def _described(contact_list: ContactList, job: Job) -> dict[str, Any]:
    """A bulk operation as Genesys describes it."""
    now = contact_list.tasks.catch_up()
    return {
        "id": job.id,
        "state": "InProgress" if job.task.runs(now) else "Complete",
        "type": job.kind,
        "totalRecords": job.task.total,
        "completedRecords": job.task.done,
        "percentComplete": job.task.percent(now),
        "selfUri": f"{CONTACT_LISTS_PATH}/{contact_list.id}/contacts/bulk/jobs/{job.id}",
    }
