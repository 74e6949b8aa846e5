"""Answers for where an exported file is: the download that the API names, and the presigned URL that it leads to.

An export's URI answers with a redirect to a presigned URL, as the official SDK describes `GET /api/v2/downloads`; the
status 302 is assumed. No socket.
"""

from collections.abc import Callable, Iterable, Mapping

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.errors import ApiError
from consumer.simulator.operations import DOWNLOADS_PATH, STORAGE_PATH, Operation
from consumer.simulator.tasks import Export, Tasks


def available_export(tasks: Tasks, call: Call) -> Done:
    """Where the latest export of a list is.

    Raises:
        ApiError: There is none, or none yet.
    """
    if tasks.export is None or tasks.exporting:
        raise ApiError(404, "no.available.list.export.uri", "There is no available export of the list.")
    uri = f"{call.origin}{DOWNLOADS_PATH}/{tasks.export.id}"
    if call.flag("download"):
        return Done(status=302, location=uri)
    return Done(orjson.dumps({"uri": uri, "exportTimestamp": tasks.export.made}))


class Downloads:
    """The exports that are ready.

    Args:
        all_tasks: What goes on in each list.

    Attributes:
        actions: How each operation is carried out.
    """

    def __init__(self, all_tasks: Callable[[], Iterable[Tasks]]) -> None:
        self._all_tasks = all_tasks
        self.actions: Mapping[Operation, Action] = {Operation.GET_DOWNLOAD: self._get}

    def find(self, download_id: str) -> Export | None:
        """The export with this id."""
        for tasks in self._all_tasks():
            made = tasks.export
            if made is not None and made.id == download_id and not tasks.exporting:
                return made
        return None

    def _get(self, call: Call) -> Done:
        found = self.find(call.download_id)
        if found is None:
            raise ApiError(404, "not.found", "The requested resource was not found.")
        url = f"{call.origin}{STORAGE_PATH}/exports/{found.id}?X-Amz-Signature={found.signature}"
        if call.flag("issueRedirect") is False:
            return Done(orjson.dumps({"url": url}))
        return Done(status=302, location=url)
