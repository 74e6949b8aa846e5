"""Access tokens for the registry: fetched by client credentials, kept until shortly before they expire.

Answers for at most one token request being under way, of which everybody who waits for a token learns the same. Touches
the token endpoint alone. Texts of its answers are left out of errors, but for the error's code.
"""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_plus

import aiohttp
from yarl import URL

from consumer import properties
from consumer.adapters.schema_registry import answers
from consumer.errors import SourceUnavailable, TransientError

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_RENEW_BEFORE_S = 60.0
_USUAL_LIFE_S = 300.0
"""Taken when the endpoint does not say."""

_FRESH_S = 30.0
"""A token of this age or younger that is refused would only be followed by one that is refused as well."""

_RETRY_RENEWAL_S = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CODE = re.compile(r"[a-z_]{1,40}")
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_LOOK_AT = (
    f"check {properties.CLIENT_ID}, {properties.CLIENT_SECRET} and {properties.SCOPE} "
    "in SCHEMA_REGISTRY_PROPERTIES_FILE"
)


class Tokens:
    """Hands out the token.

    Args:
        chosen: Properties of the registry's client; they name the endpoint and the client.
        monotonic: Clock of the expiry, in seconds.
    """

    def __init__(self, chosen: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic) -> None:
        client = ":".join(quote_plus(chosen[name]) for name in (properties.CLIENT_ID, properties.CLIENT_SECRET))
        self._url = URL(chosen[properties.TOKEN_URL])
        self._headers = {"Accept": "application/json", "Authorization": f"Basic {b64encode(client.encode()).decode()}"}
        self._form = {"grant_type": "client_credentials"}
        if properties.SCOPE in chosen:
            self._form["scope"] = chosen[properties.SCOPE]
        self._tls = properties.authorities(chosen)
        self._monotonic = monotonic
        self._token = ""
        self._fetched_at = self._renew_at = self._expires_at = 0.0
        self._renewal: asyncio.Task[str] | None = None

    async def get(self) -> str:
        """A token that is good for now.

        Raises:
            TransientError: The endpoint refuses the client, or cannot tell now.
        """
        if self._token and self._monotonic() < self._renew_at:
            return self._token
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renewed())
            self._renewal.add_done_callback(self._over)
        return await asyncio.shield(self._renewal)

    def drop(self, token: str) -> bool:
        """Forget a token that was refused; whether another one may be had, or has taken its place."""
        if token != self._token:
            return True
        if self._monotonic() - self._fetched_at <= _FRESH_S:
            return False
        self._token = ""
        return True

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
        try:
            answer = await self._asked()
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise SourceUnavailable(f"token endpoint {self._url.host}: {type(error).__name__}: {error}") from error
        self._token, life_s = _parse(answer)
        self._fetched_at = asked_at
        self._expires_at = asked_at + life_s
        self._renew_at = self._expires_at - min(_RENEW_BEFORE_S, life_s / 2)

    async def _asked(self) -> Mapping[str, Any]:
        """What the endpoint says; a session for a request, as there is one in an hour."""
        connector = aiohttp.TCPConnector(ssl=self._tls)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False) as session,
            session.post(self._url, data=self._form, headers=self._headers, allow_redirects=False) as response,
        ):
            status = response.status
            if status not in {HTTPStatus.OK, *_REFUSED}:
                raise SourceUnavailable(
                    f"token endpoint {self._url.host} answered {status}", answers.retry_after(response)
                )
            body = await answers.text(response)
        if status == HTTPStatus.OK:
            return answers.parsed(body)
        raise TransientError(f"token endpoint {self._url.host} answered {status}{_code(body)}: {_LOOK_AT}")


def _code(body: str) -> str:
    """The error's code in an answer that refuses."""
    try:
        code = str(answers.parsed(body).get("error"))
    except (ValueError, RecursionError):
        return ""
    return f" {code}" if _CODE.fullmatch(code) else ""


def _parse(answer: Mapping[str, Any]) -> tuple[str, float]:
    """The token, and how long it lives, which some tell as text."""
    token, life = answer.get("access_token"), str(answer.get("expires_in"))
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise SourceUnavailable("the token endpoint's answer holds no token")
    return token, float(life) if life.isascii() and life.isdigit() else _USUAL_LIFE_S
