"""GET requests to a schema registry, and what their answers mean.

It answers for telling "there is no such thing" from "the registry cannot tell now". Nothing but the configured host
is asked. Touches the registry alone.

It is asked with aiohttp, which the project has anyway. `AsyncSchemaRegistryClient` of confluent-kafka would bring
authlib, cachetools, httpx2 and what these bring, for a few GET requests, and caches nothing over restarts.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Self

import aiohttp
from yarl import URL

from consumer.errors import SourceUnavailable, TransientError
from consumer.settings import Settings

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_BODY_LIMIT = 1_000_000


class NoSuchPathError(SourceUnavailable):
    """There is nothing at this path: the URL is wrong, or the registry does not know names of this kind."""


class Transport:
    """A connection to the registry.

    Attributes:
        base: Where the API is, without user and password.
    """

    def __init__(self, url: str, username: str | None, password: str | None) -> None:
        """Prepare; nothing is asked before the first `get`.

        Args:
            url: Where the API is; a user name and password in it count when none are given.
            username: For basic authentication.
            password: For basic authentication.
        """
        base = URL(url)
        login = username or base.user
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json, */*;q=0.1"}
        if login:
            credentials = f"{login}:{password or base.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {b64encode(credentials).decode()}"
        self.base = str(base.with_user(None)).rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """To the registry of the settings, which must name one."""
        url, password = settings.schema_registry_url or "", settings.schema_registry_password
        return cls(url, settings.schema_registry_username, password)

    async def get(self, url: str, is_unknown: Callable[[Mapping[str, Any]], bool]) -> str | None:
        """The body of an answer; None when the registry says that there is no such thing.

        Args:
            url: What to ask for, encoded, without credentials.
            is_unknown: Whether the JSON of a 404 says that the thing, not the path, is unknown.

        Raises:
            TransientError: The registry cannot tell now.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT, trust_env=False)
        path = url.removeprefix(self.base)
        try:
            async with self._session.get(URL(url, encoded=True), allow_redirects=False) as response:
                return await _read(response, path, is_unknown)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise SourceUnavailable(f"schema registry: GET {path}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()


async def _read(
    response: aiohttp.ClientResponse, path: str, is_unknown: Callable[[Mapping[str, Any]], bool]
) -> str | None:
    """What an answer means."""
    status = response.status
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise TransientError(
            f"schema registry: GET {path} answered {status}: "
            "check SCHEMA_REGISTRY_USERNAME, SCHEMA_REGISTRY_PASSWORD and what that user may read"
        )
    if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
        raise SourceUnavailable(f"schema registry: GET {path} answered {status}", _retry_after(response))
    body = await _body(response)
    if status == HTTPStatus.OK:
        return body
    if is_unknown(parsed(body)):
        return None
    raise NoSuchPathError(f"schema registry: GET {path} answered 404, not as a registry does: check its URL")


def parsed(body: str) -> Mapping[str, Any]:
    """The object that a body holds.

    Raises:
        ValueError: It holds none.
    """
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")  # noqa: TRY004 -- of what came, not of what was passed
    return answer


async def _body(response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise ValueError(f"the answer is longer than {_BODY_LIMIT} bytes")
    return body.decode()


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None
