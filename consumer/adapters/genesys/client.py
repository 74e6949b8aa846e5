"""Requests to Genesys' API: the token is added, and renewed once when it is refused. Touches nothing but its parts.

One call is one attempt, and its error says what may follow; when the next attempt comes is not decided here. Only the
limit of requests is kept here, since it is one for all that ask.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from urllib.parse import quote

import aiohttp
import orjson
from opentelemetry.trace import Tracer
from yarl import URL

from consumer.access_token import AccessToken
from consumer.adapters.genesys.addresses import safe
from consumer.adapters.genesys.answers import ListGone, NotThere, Parse, checked
from consumer.adapters.genesys.oauth import ClientCredentials
from consumer.adapters.genesys.transport import Answer, Endpoint, FileBody, OnRequest, Request, Transport
from consumer.core.delivery import Throttle
from consumer.errors import FatalError, RefusedByGenesys, SinkUnavailable, Throttled, TooLarge
from consumer.settings import Settings

_JSON = {"Content-Type": "application/json"}
_NO_PATH: Mapping[str, str] = {}
SLOWEST_UPLOAD = 100_000
"""Bytes in a second: whoever takes a file more slowly than that is taken for gone."""

NOT_TOO_LARGE_BYTES = 32_768
"""A body that no limit of Genesys forbids: the one known is 15 times as high, and one contact hardly takes more."""

CREATED_S = 60.0
"""So long after a list was made nobody believes that it is not there: reads may lag behind."""

_LEAST_S = 0.001
"""A limit of zero would be none at all."""


class Client:
    """One OAuth client of one Genesys organisation. Make it where the event loop runs.

    Args:
        settings: Hosts, credentials and limits.
        on_request: Told of each physical request.
        tracer: Makes one CLIENT span for each physical request.
        monotonic: Clock of the token's expiry, in seconds.
        throttle: The limit of requests, on the event loop's clock.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_request: OnRequest,
        tracer: Tracer,
        monotonic: Callable[[], float],
        throttle: Throttle,
    ) -> None:
        self.throttle = throttle
        self._api_url = settings.genesys_api_url
        region_url = f"https://api.{settings.genesys_region}"  # also named where a proxy stands before it
        self._origins = {URL(url).origin() for url in (settings.genesys_api_url, region_url)}
        self._new_until: dict[str, float] = {}
        self._timeout_s = settings.genesys_request_timeout_s
        self._transport = Transport(
            timeout_s=settings.genesys_request_timeout_s,
            max_in_flight=settings.genesys_max_in_flight,
            on_request=on_request,
            tracer=tracer,
        )
        credentials = ClientCredentials(
            self._transport,
            login_url=settings.genesys_login_url,
            client_id=settings.genesys_oauth_client_id,
            client_secret=settings.genesys_oauth_client_secret,
        )
        self._access = AccessToken(credentials.fetch, monotonic)

    async def close(self) -> None:
        """Close all connections."""
        await self._access.close()
        await self._transport.close()

    async def log_in(self) -> None:
        """Have a token.

        Raises:
            Unauthorized: The login host refuses the client.
            TransientError: It cannot tell now.
        """
        await self._token(self.deadline())

    def created(self, list_id: str) -> None:
        """A list has just been made: that it is not there is not believed for a while."""
        self._new_until[list_id] = asyncio.get_running_loop().time() + CREATED_S

    def deadline(self) -> float:
        """When a call that starts now must be over, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    async def call(
        self,
        endpoint: Endpoint,
        *,
        deadline: float,
        path: Mapping[str, str] = _NO_PATH,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        sure: Callable[[], bool] | None = None,
        paid: bool = False,
        parse: Parse = orjson.loads,
    ) -> object:
        """Ask Genesys.

        Args:
            endpoint: What is asked.
            deadline: When it must be over, on the event loop's clock.
            path: What stands in the path in place of the template's names.
            query: Of the URL.
            body: JSON; None sends none.
            sure: Asked in the moment in which the request is written; when it says no, nothing is.
            paid: Whether the throttle knows of this request already; otherwise it waits for its turn.
            parse: Reads the JSON of the answer.

        Returns:
            The JSON of the answer, None when it has no body.

        Raises:
            RefusedByGenesys: The data is blamed.
            TransientError: Not now, or nobody knows whether it was applied.
            FatalError: It cannot succeed until somebody changes something.
        """
        if not paid:
            await self._turn(deadline)
        names = {name: quote(value, safe="") for name, value in path.items()}
        url = URL(self._api_url + endpoint.template.format_map(names), encoded=True).with_query(query)
        answer = await self._authorised(Request(endpoint, url, _JSON if body else {}, body, sure=sure), deadline)
        try:
            return checked(answer, endpoint, time.time(), parse)
        except Throttled as throttled:
            self.throttle.told_to_wait(asyncio.get_running_loop().time(), throttled.retry_after or 0.0)
            raise
        except TooLarge as too_large:
            raise _believed(too_large, len(body or b"")) from None
        except ListGone as gone:
            raise self._if_believed(gone, path) from None
        except NotThere:
            await self._find_list(endpoint, path, deadline)
            raise

    def _if_believed(self, gone: ListGone, path: Mapping[str, str]) -> FatalError | SinkUnavailable:
        now = asyncio.get_running_loop().time()
        is_new = any(self._new_until.get(name, 0.0) > now for name in path.values())
        return SinkUnavailable(str(gone)) if is_new else FatalError(str(gone))

    async def _find_list(self, endpoint: Endpoint, path: Mapping[str, str], deadline: float) -> None:
        """Look whether the list is there that something was asked of.

        Raises:
            FatalError: It is not.
            TransientError: Nobody can tell now.
        """
        if endpoint.within is not None:
            with suppress(RefusedByGenesys):  # no contact was asked for that could be to blame
                await self.call(endpoint.within, deadline=deadline, path=path)

    async def send_file(
        self, endpoint: Endpoint, url: URL, headers: Mapping[str, str], body: FileBody, *, with_token: bool
    ) -> Answer:
        """Send a file, for as long as its size may take; the answer, whatever it says.

        Args:
            endpoint: What is sent.
            url: Where.
            headers: All that the receiver is to see; the token comes with them only when asked for.
            body: The file.
            with_token: The receiver is Genesys itself.

        Raises:
            SinkUnavailable: No whole answer came: it may have arrived.
        """
        limit_s = self._timeout_s + body.size / SLOWEST_UPLOAD
        request = Request(endpoint, url, headers, body, foreign=not with_token)
        if with_token:
            return await self._authorised(request, asyncio.get_running_loop().time() + limit_s)
        return await self._transport.send(request, limit_s)

    @asynccontextmanager
    async def download(self, endpoint: Endpoint, address: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The file at an address that an answer gave, as it comes.

        The token goes to the API alone, at its own host or the one of the settings, and not to where that redirects: a
        signed URL needs none.

        Raises:
            SinkUnavailable: There is no file, or it broke off.
            FatalError: The address is not one that data of contacts may come from.
        """
        url = _checked_address(address)
        headers = {}
        if url.origin() in self._origins:
            await self._turn(self.deadline())
            headers["Authorization"] = f"Bearer {await self._token(self.deadline())}"
        async with self._transport.stream(Request(endpoint, url, headers)) as response:
            location = response.headers.get("Location")
            if location is None:
                _check_file(response)
                yield self._transport.parts(response)
                return
        async with self._transport.stream(Request(endpoint, _checked_address(location), {})) as response:
            _check_file(response)
            yield self._transport.parts(response)

    async def _turn(self, deadline: float) -> None:
        """Wait until the limit of requests leaves one, or go into debt where that takes longer than the call may.

        Otherwise a small limit would let no call come to its end that takes two requests: what it owes, the next waits.

        Raises:
            Throttled: Genesys asked everybody to wait for longer.
        """
        clock = asyncio.get_running_loop().time
        while (wait := self.throttle.wait(clock())) > 0:
            if clock() + wait > deadline:
                break
            await asyncio.sleep(wait)
        if (pause := self.throttle.pause(clock())) > 0:
            raise Throttled("Genesys asked everybody to wait", pause)
        self.throttle.started(clock())

    async def _authorised(self, request: Request, deadline: float) -> Answer:
        """Send with a token, and once more with a new one when it is refused."""
        token = await self._token(deadline)
        answer = await self._send(request, token, deadline)
        if answer.status != 401:  # noqa: PLR2004 -- unauthorized
            return answer
        self._access.drop(token)
        token = await self._token(deadline)
        self.throttle.started(asyncio.get_running_loop().time())
        return await self._send(replace(request, resend_count=1), token, deadline)

    async def _token(self, deadline: float) -> str:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._access.get()
        except TimeoutError:
            raise SinkUnavailable("no token came within the time of the request") from None

    async def _send(self, request: Request, token: str, deadline: float) -> Answer:
        left = deadline - asyncio.get_running_loop().time()
        headers = {**request.headers, "Authorization": f"Bearer {token}"}
        return await self._transport.send(replace(request, headers=headers), max(left, _LEAST_S))


def _believed(told: TooLarge, sent: int) -> TooLarge | SinkUnavailable:
    """Blame nobody for a body that is too large by an answer whose limit it keeps to, or that is small by any limit.

    Nor is such a small limit taken for one. Otherwise a service in trouble, or something before it, could make all
    batches small for good, or have contacts given up one by one.
    """
    if told.limit is not None and sent <= told.limit:
        return SinkUnavailable(f"Genesys calls a body of {sent} bytes too large, and names a limit of {told.limit}")
    if sent <= NOT_TOO_LARGE_BYTES:
        named = "no limit" if told.limit is None else f"a limit of {told.limit}"
        remedy = "if something before Genesys has such a limit, lower BATCH_MAX_BYTES"
        return SinkUnavailable(f"a body of {sent} bytes is called too large, and {named} is named: {remedy}")
    return told if told.limit is None or told.limit >= NOT_TOO_LARGE_BYTES else TooLarge(None)


def _checked_address(address: str) -> URL:
    url = safe(address)
    if url is None:
        raise FatalError("Genesys names an address for a file that is not https")
    return url


def _check_file(response: aiohttp.ClientResponse) -> None:
    """Take only an answer that is a file, and whose end can be told from a broken connection.

    Raises:
        SinkUnavailable: It is something else.
    """
    if response.status != 200:  # noqa: PLR2004 -- a file, whole
        raise SinkUnavailable(f"no file where Genesys said there is one (status {response.status})")
    if response.content_length is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise SinkUnavailable("a file came without its length: nobody can tell whether it is whole")
