"""GET requests to a schema registry, and what their answers mean.

It answers for telling "there is no such thing" from "the registry cannot tell now", and for logging in anew, once, when
the registry does not know who asks. Nothing but the configured host is asked; redirects are not followed. Touches the
registry, and by its login the token endpoint.

It is asked with aiohttp, which the project has anyway. `AsyncSchemaRegistryClient` of confluent-kafka would bring
authlib, cachetools, httpx2 and what these bring, for a few GET requests, and caches nothing over restarts.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import aiohttp
from yarl import URL

from consumer import properties
from consumer.adapters.schema_registry import answers
from consumer.adapters.schema_registry.failures import why
from consumer.adapters.schema_registry.login import login
from consumer.errors import SourceUnavailable, TransientError
from consumer.settings import Settings

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5, sock_read=10)
_HEADERS = {"Accept": "application/vnd.schemaregistry.v1+json, application/json, */*;q=0.1"}

IsUnknown = Callable[[Mapping[str, Any]], bool]
"""Whether the JSON of a 404 says that the thing, not the path, is unknown."""

Version = Callable[[], Awaitable[str | None]]
"""Fetches one schema of several; None when it is gone. Raises `DecodeError` where it is not Avro."""


class NoSuchPathError(SourceUnavailable):
    """There is nothing at this path: the URL is wrong, or the registry does not know names of this kind."""


class ForeignNotFoundError(SourceUnavailable):
    """A 404 that is no object: of a proxy, or of a registry's web server, which knows no such path."""


class _NotLoggedInError(TransientError):
    """The registry does not know who asks."""


class Transport:
    """A connection to the registry.

    Attributes:
        base: Where the API is, without user and password.
    """

    def __init__(
        self, url: str, username: str | None, password: str | None, chosen: Mapping[str, str] = properties.NONE
    ) -> None:
        """Prepare; nothing is asked before the first `get`.

        Args:
            url: Where the API is; a user name and password in it count when none are given.
            username: For basic authentication.
            password: For basic authentication.
            chosen: Properties of the registry's client.
        """
        base = URL(url)
        self.base = str(base.with_user(None)).rstrip("/")
        self._login = login(base, username, password, chosen)
        self._tls = properties.tls(chosen)
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """To the registry of the settings, which must name one."""
        return cls(
            settings.schema_registry_url or "",
            settings.schema_registry_username,
            settings.schema_registry_password,
            settings.schema_registry_properties_file,
        )

    async def get(self, url: str, is_unknown: IsUnknown) -> str | None:
        """The body of an answer; None when the registry says that there is no such thing.

        Args:
            url: What to ask for, encoded, without credentials.
            is_unknown: As above.

        Raises:
            TransientError: The registry cannot tell now.
        """
        headers = await self._login.headers()
        try:
            return await self._get(url, headers, is_unknown)
        except _NotLoggedInError:
            if not self._login.drop(headers):
                raise
        return await self._get(url, await self._login.headers(), is_unknown)

    async def _get(self, url: str, headers: Mapping[str, str], is_unknown: IsUnknown) -> str | None:
        path = url.removeprefix(self.base)
        try:
            async with self._opened().get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                return await self._read(response, path, is_unknown)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise SourceUnavailable(f"schema registry: GET {path}: {why(error)}") from error

    async def close(self) -> None:
        """Let go of the connections."""
        await self._login.close()
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=_HEADERS, timeout=_TIMEOUT, trust_env=False
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse, path: str, is_unknown: IsUnknown) -> str | None:
        """What an answer means."""
        status = response.status
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            refused = _NotLoggedInError if status == HTTPStatus.UNAUTHORIZED else TransientError
            raise refused(f"schema registry: GET {path} answered {status}: check {self._login.look_at}")
        if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            raise SourceUnavailable(f"schema registry: GET {path} answered {status}", answers.retry_after(response))
        if status == HTTPStatus.OK and response.content_type == "text/html":
            raise SourceUnavailable(f"schema registry: GET {path} answered with a web page: check its URL")
        body = await answers.text(response)
        if status == HTTPStatus.OK:
            return body
        told = f"schema registry: GET {path} answered 404, not as a registry does: check its URL"
        with suppress(ValueError, RecursionError):
            if is_unknown(answers.parsed(body)):
                return None
            raise NoSuchPathError(told)
        raise ForeignNotFoundError(told)
