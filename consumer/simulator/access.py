"""Answers for who may ask: clients and tokens, permissions, and requests per minute. The clock is an argument."""

import base64
import binascii
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

import orjson

from consumer.simulator.errors import ApiError, OAuthRefusal, bad_credentials, throttled

_WINDOW_S = 60.0
_FORM = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class _Token:
    expires_at: float
    window_ends: float = -math.inf
    used: int = 0


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _basic(authorization: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode(authorization.partition(" ")[2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise OAuthRefusal("invalid_request", "malformed authorization header") from None
    client_id, _, secret = decoded.partition(":")
    return client_id, secret


def _credentials(authorization: str, form: Mapping[str, list[str]]) -> tuple[str, str]:
    if authorization.lower().startswith("basic "):
        return _basic(authorization)
    return form.get("client_id", [""])[0], form.get("client_secret", [""])[0]


class Access:
    """Issues tokens and lets requests in.

    A token's minute begins with its first request after the last one ended; every request let in counts, whatever its
    answer.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        clients: Mapping[str, str] | None,
        token_lifetime_s: int,
        requests_per_minute: int | None,
        withheld_permissions: Collection[str],
    ) -> None:
        self._clock = clock
        self._clients = clients
        self._token_lifetime_s = token_lifetime_s
        self._tokens: dict[str, _Token] = {}
        self.requests_per_minute = requests_per_minute
        self.withheld_permissions = set(withheld_permissions)

    def issue(self, authorization: str, content_type: str, body: bytes) -> bytes:
        """Answer a token request.

        Raises:
            OAuthRefusal: It is malformed, or the client is not known, or its secret is wrong.
        """
        if content_type != _FORM:
            raise OAuthRefusal("invalid_request", f"the content type must be {_FORM}")
        form = parse_qs(body.decode(errors="replace"))
        if form.get("grant_type") != ["client_credentials"]:
            raise OAuthRefusal("invalid_request", "grant_type must be client_credentials")
        self._authenticate(*_credentials(authorization, form))
        token = secrets.token_urlsafe(32)
        self._tokens[token] = _Token(self._clock() + self._token_lifetime_s)
        return orjson.dumps({"access_token": token, "token_type": "bearer", "expires_in": self._token_lifetime_s})

    def _authenticate(self, client_id: str, secret: str) -> None:
        if not client_id or (self._clients is not None and client_id not in self._clients):
            raise OAuthRefusal("invalid_client", "client not found")
        if not secret or (self._clients is not None and self._clients[client_id] != secret):
            raise OAuthRefusal("invalid_client", "authentication failed")

    def admit(self, authorization: str, permission: str) -> None:
        """Let a request in.

        Raises:
            ApiError: 401 for the token, 429 for its rate, or 403 for the permission.
        """
        if not authorization:
            raise ApiError(
                401, "authentication.required", "No authentication bearer token specified in authorization header."
            )
        now = self._clock()
        token = self._tokens.get(_bearer(authorization))
        if token is None or now >= token.expires_at:
            raise bad_credentials()
        self._count(token, now)
        for missing in self.withheld_permissions.intersection(permission.split()):
            message = f"Unable to perform the requested action. You are missing the following permission: {missing}"
            raise ApiError(403, "missing.any.permissions", message)

    def _count(self, token: _Token, now: float) -> None:
        if self.requests_per_minute is None:
            return
        if now >= token.window_ends:
            token.window_ends, token.used = now + _WINDOW_S, 0
        if token.used >= self.requests_per_minute:
            raise throttled(max(1, math.ceil(token.window_ends - now)))
        token.used += 1

    def revoke(self, authorization: str) -> None:
        """Make a request's token worthless."""
        self._tokens.pop(_bearer(authorization), None)
