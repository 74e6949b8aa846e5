"""Access tokens for the registry, fetched by client credentials.

Touches the token endpoint alone. Texts of its answers are left out of errors, but for the error's code.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_plus

import aiohttp
from yarl import URL

from consumer import properties
from consumer.adapters.schema_registry import answers
from consumer.adapters.schema_registry.failures import why
from consumer.errors import SourceUnavailable, TransientError

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5, sock_read=10)
_USUAL_LIFE_S = 300.0
"""Taken when the endpoint does not say."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CODE = re.compile(r"[a-z_]{1,40}")
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_LOOK_AT = (
    f"check {properties.CLIENT_ID}, {properties.CLIENT_SECRET} and {properties.SCOPE} "
    "in SCHEMA_REGISTRY_PROPERTIES_FILE"
)


class TokenEndpoint:
    """Where a registry's client asks for tokens.

    Args:
        chosen: Properties of the registry's client; they name the endpoint and the client.
    """

    def __init__(self, chosen: Mapping[str, str]) -> None:
        client = ":".join(quote_plus(chosen[name]) for name in (properties.CLIENT_ID, properties.CLIENT_SECRET))
        self._url = URL(chosen[properties.TOKEN_URL])
        self._headers = {"Accept": "application/json", "Authorization": f"Basic {b64encode(client.encode()).decode()}"}
        self._form = {"grant_type": "client_credentials"}
        if properties.SCOPE in chosen:
            self._form["scope"] = chosen[properties.SCOPE]
        self._tls = properties.authorities(chosen)

    async def fetch(self) -> tuple[str, float]:
        """A token, and how long it lives, in seconds.

        Raises:
            TransientError: The endpoint refuses the client, or cannot tell now.
        """
        try:
            answer = await self._asked()
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise SourceUnavailable(f"token endpoint {self._url.host}: {why(error)}") from error
        return _parse(answer)

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
