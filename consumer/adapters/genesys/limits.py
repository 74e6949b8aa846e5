"""The limit of requests that Genesys tells: asked for at start and every hour, and kept where it is below our own.

Touches Genesys through the client. Nothing hangs on it: while Genesys does not tell, what held before still holds.
"""

import asyncio

import structlog

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.transport import Endpoint
from consumer.errors import ConsumerError, SinkUnavailable, TransientError

log = structlog.get_logger(__name__)

EVERY_S = 3600.0
RETRY_S = 60.0
"""How soon Genesys is asked again when it cannot tell now."""

_READ = Endpoint(
    "get_limits",
    "GET",
    "/api/v2/organizations/limits/namespaces/{namespaceName}",
    "limits:organization:view",
    "namespace of limits",
)
_PATH = {"namespaceName": "platform.api"}
_KEY = "client.credentials.token.rate.per.minute"


async def follow(client: Client) -> None:
    """Keep the client's throttle to what Genesys tells, until cancelled, or until it is plain that it never will."""
    known = None
    while True:
        try:
            told = await _told(client)
        except TransientError:
            delay = RETRY_S
        except ConsumerError as error:
            log.info("limit_not_told", error=str(error), remedy="none needed: GENESYS_REQUESTS_PER_MINUTE holds")
            return
        else:
            delay = EVERY_S
            client.throttle.go_by(told)
            if told != known:
                log.info("limit_told", requests_per_minute=told)
            known = told
        await asyncio.sleep(delay)


async def _told(client: Client) -> int:
    """Requests per token and minute."""
    match await client.call(_READ, deadline=client.deadline(), path=_PATH):
        case {"entities": list(limits)}:
            values = [limit.get("value") for limit in limits if isinstance(limit, dict) and limit.get("key") == _KEY]
        case _:
            values = []
    match values:
        case [int(value)] if value > 0:
            return value
        case _:
            raise SinkUnavailable("the answer does not match: it tells no limit of requests")
