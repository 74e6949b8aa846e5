"""The access token: fetched by client credentials, shared by all requests, renewed before it expires.

Touches the login host through the transport. At most one token request is under way at a time; everybody who needs a
token waits for it, and learns the same of it.
"""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable

from yarl import URL

from consumer.adapters.genesys.answers import content, refused_token
from consumer.adapters.genesys.transport import Endpoint, Request, Transport
from consumer.errors import SinkUnavailable, TransientError

_TOKEN = Endpoint("token", "POST", "/oauth/token")
_FORM = b"grant_type=client_credentials"
_RENEW_BEFORE_S = 60.0
_SHORTEST_LIFE_S = 300.0
"""Taken when Genesys does not say: the shortest that an OAuth client can be set to."""

_RETRY_RENEWAL_S = 10.0


class Tokens:
    """Hands out the token.

    Args:
        transport: Sends the token requests.
        login_url: The login host.
        client_id: OAuth client.
        client_secret: Its secret.
        monotonic: Clock of the expiry, in seconds.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        login_url: str,
        client_id: str,
        client_secret: str,
        monotonic: Callable[[], float],
    ) -> None:
        basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
        self._request = Request(_TOKEN, URL(login_url) / "oauth" / "token", headers, _FORM)
        self._transport = transport
        self._monotonic = monotonic
        self._token = ""
        self._renew_at = self._expires_at = 0.0
        self._renewal: asyncio.Task[str] | None = None

    async def get(self) -> str:
        """A token that is good for now.

        Raises:
            Unauthorized: The login host refuses the client.
            TransientError: The login host cannot tell now.
        """
        if self._token and self._monotonic() < self._renew_at:
            return self._token
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renewed())
            self._renewal.add_done_callback(self._over)
        return await asyncio.shield(self._renewal)

    def drop(self, token: str) -> None:
        """Forget a token that was refused; one that replaced it meanwhile stays."""
        if token == self._token:
            self._token = ""

    async def close(self) -> None:
        """End a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _over(self, renewal: asyncio.Task[str]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # seen, also when everybody who waited for it is gone

    async def _renewed(self) -> str:
        """A new token; the old one as long as it lives and no new one can be had."""
        try:
            await self._fetch()
        except TransientError:
            now = self._monotonic()
            if not self._token or now >= self._expires_at:
                raise
            self._renew_at = now + _RETRY_RENEWAL_S
        return self._token

    async def _fetch(self) -> None:
        asked_at = self._monotonic()
        answer = await self._transport.send(self._request, self._transport.timeout_s)
        if answer.status != 200:  # noqa: PLR2004 -- the only status of a token
            raise refused_token(answer, time.time())
        token, life_s = _parse(content(answer))
        self._token = token
        self._expires_at = asked_at + life_s
        self._renew_at = self._expires_at - min(_RENEW_BEFORE_S, life_s / 2)


def _parse(answer: object) -> tuple[str, float]:
    match answer:
        case {"access_token": str(token), "expires_in": int(life_s)} if token:
            return token, float(life_s)
        case {"access_token": str(token)} if token:
            return token, _SHORTEST_LIFE_S
        case _:
            raise SinkUnavailable("the login host's answer holds no token")
