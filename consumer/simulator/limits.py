"""Answers for the limits that the organisation tells of itself, by namespace. Touches nothing.

The keys of `platform.api` are Genesys's own. Those of `outbound` are not published: they are named here after the
error codes that come with them, so a client should rely on none.
"""

from collections.abc import Callable, Mapping

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.dnc import RECORDS_PER_LIST_MAX, RECORDS_PER_ORGANIZATION_MAX
from consumer.simulator.errors import REQUEST_BYTES_MAX, ApiError
from consumer.simulator.lists import CONTACTS_MAX
from consumer.simulator.operations import Operation
from consumer.simulator.organisation import LISTS_MAX

DEFAULT_REQUESTS_PER_MINUTE = 300
NO_LIMIT = 2**31 - 1
"""What is told of a limit that the simulator was told not to have: Genesys always has one."""


class Limits:
    """The limits, as they are and as they are unless somebody asks for others.

    Args:
        requests_per_minute: Requests per token and minute; None is without limit.

    Attributes:
        actions: How each operation is carried out.
    """

    def __init__(self, requests_per_minute: Callable[[], int | None]) -> None:
        self._requests_per_minute = requests_per_minute
        self.actions: Mapping[Operation, Action] = {
            Operation.GET_LIMITS: self._effective,
            Operation.GET_DEFAULT_LIMITS: self._default,
        }

    def _effective(self, call: Call) -> Done:
        return _told(call.namespace, self._requests_per_minute() or NO_LIMIT)

    def _default(self, call: Call) -> Done:
        return _told(call.namespace, DEFAULT_REQUESTS_PER_MINUTE)


def _told(namespace: str, requests_per_minute: int) -> Done:
    namespaces = {
        "platform.api": {
            "client.credentials.token.rate.per.minute": requests_per_minute,
            "token.rate.per.minute": requests_per_minute,
            "request.bytes.max": REQUEST_BYTES_MAX,
        },
        "outbound": {
            "contact.lists.per.org": LISTS_MAX,
            "contacts.per.org": CONTACTS_MAX,
            "dnc.records.per.list": RECORDS_PER_LIST_MAX,
            "dnc.records.per.organization": RECORDS_PER_ORGANIZATION_MAX,
        },
    }
    if namespace not in namespaces:
        raise ApiError(404, "not.found", "There are no limits of this namespace.")
    entities = [{"key": key, "namespace": namespace, "value": value} for key, value in namespaces[namespace].items()]
    return Done(orjson.dumps({"entities": entities}))
