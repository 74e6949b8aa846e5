"""How requests to the registry log in: not at all, by user and password, or by a token.

Answers for the headers of each way, and for what to look at when they are refused. Touches nothing itself.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Protocol

from yarl import URL

from consumer import properties
from consumer.access_token import AccessToken
from consumer.adapters.schema_registry.tokens import TokenEndpoint
from consumer.settings import Settings

_USER = (
    "SCHEMA_REGISTRY_USERNAME, SCHEMA_REGISTRY_PASSWORD or SCHEMA_REGISTRY_PROPERTIES_FILE, and what that user may read"
)
_GIVEN = f"{properties.TOKEN} in SCHEMA_REGISTRY_PROPERTIES_FILE, and what it may read"
_FETCHED = (
    f"{properties.CLIENT_ID}, {properties.SCOPE}, {properties.CLUSTER} and {properties.POOL} "
    "in SCHEMA_REGISTRY_PROPERTIES_FILE, and what that client may read"
)

_FRESH_S = 30.0
"""A token of this age or younger that is refused would only be followed by one that is refused as well."""


def is_readable(settings: Settings) -> bool:
    """Whether user and password of the settings can be read by anyone on the way to the registry."""
    base = URL(settings.schema_registry_url or "")
    user = settings.schema_registry_username or base.user
    return bool(user) and properties.is_open(base.scheme, base.host)


class Login(Protocol):
    """One way to log in.

    Attributes:
        look_at: What may be wrong when the registry refuses it.
    """

    look_at: str

    async def headers(self) -> Mapping[str, str]:
        """Headers that log in.

        Raises:
            TransientError: They cannot be had now.
        """
        ...

    def drop(self, headers: Mapping[str, str]) -> bool:
        """Forget headers that were refused; whether there may be others now."""
        ...

    async def close(self) -> None:
        """Let go of what is held."""
        ...


def login(base: URL, username: str | None, password: str | None, chosen: Mapping[str, str]) -> Login:
    """The way that is set up.

    Args:
        base: Where the registry is; a user name and password in it count when none are given.
        username: For basic authentication.
        password: For basic authentication.
        chosen: Properties of the registry's client.
    """
    source = chosen.get(properties.SOURCE)
    if source == properties.FETCHED:
        return _FetchedToken(TokenEndpoint(chosen), _cluster(chosen))
    if source == properties.GIVEN:
        return _Known({"Authorization": f"Bearer {chosen[properties.TOKEN]}", **_cluster(chosen)}, _GIVEN)
    user = username or base.user
    if not user:
        return _Known({}, _USER)
    credentials = f"{user}:{password or base.password or ''}".encode()
    return _Known({"Authorization": f"Basic {b64encode(credentials).decode()}"}, _USER)


def _cluster(chosen: Mapping[str, str]) -> dict[str, str]:
    """What Confluent Cloud wants to know beside a token."""
    names = {"target-sr-cluster": properties.CLUSTER, "Confluent-Identity-Pool-Id": properties.POOL}
    return {header: chosen[name] for header, name in names.items() if name in chosen}


class _Known:
    """Headers that do not change."""

    def __init__(self, headers: Mapping[str, str], look_at: str) -> None:
        self.look_at = look_at
        self._headers = headers

    async def headers(self) -> Mapping[str, str]:
        return self._headers

    def drop(self, headers: Mapping[str, str]) -> bool:
        return False

    async def close(self) -> None:
        """Nothing is held."""


class _FetchedToken:
    """A token that is fetched, and others after it."""

    look_at = _FETCHED

    def __init__(
        self, endpoint: TokenEndpoint, beside: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._access = AccessToken(endpoint.fetch, monotonic)
        self._beside = beside

    async def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await self._access.get()}", **self._beside}

    def drop(self, headers: Mapping[str, str]) -> bool:
        token = headers["Authorization"].removeprefix("Bearer ")
        age_s = self._access.age_s(token)
        if age_s is not None and age_s <= _FRESH_S:
            return False
        self._access.drop(token)
        return True

    async def close(self) -> None:
        await self._access.close()
