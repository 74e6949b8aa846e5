"""An access token: fetched once for all who wait for it, renewed before it expires, and kept while no other can be had.

Answers for at most one request for a token being under way, of which everybody learns the same. Touches nothing: what
sends that request is an argument.
"""

import asyncio
from collections.abc import Awaitable, Callable

from consumer.errors import TransientError

_RENEW_BEFORE_S = 60.0
_RETRY_RENEWAL_S = 10.0
_PATIENCE_S = 1.0
"""How long a renewal is waited for that begins while the old token lives."""


class AccessToken:
    """Hands out the token.

    Args:
        fetch: A new token, and how long it lives, in seconds. What it raises, those who wait for the token get.
        monotonic: Clock of the expiry, in seconds.
    """

    def __init__(self, fetch: Callable[[], Awaitable[tuple[str, float]]], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._token = ""
        self._asked_at = self._fetched_at = self._renew_at = self._expires_at = 0.0
        self._renewal: asyncio.Task[str] | None = None

    async def get(self) -> str:
        """A token that is good for now: a new one once it is time, or the old one where that does not come soon.

        Raises:
            TransientError: There is none now.
            ConsumerError: Whatever else fetching one comes to.
        """
        if self._token and self._monotonic() < self._renew_at:
            return self._token
        renewal = self._renewal or self._begun()
        if self._lives():
            left = self._asked_at + _PATIENCE_S - self._monotonic()
            await asyncio.wait([renewal], timeout=max(0.0, left))
            if not renewal.done() and self._lives():  # it may have been refused meanwhile
                return self._token
        return await asyncio.shield(renewal)

    def drop(self, token: str) -> None:
        """Forget a token that was refused; one that replaced it meanwhile stays."""
        if token == self._token:
            self._token = ""

    def age_s(self, token: str) -> float | None:
        """How long ago a token was asked for; None when another one has taken its place."""
        return self._monotonic() - self._fetched_at if token == self._token else None

    async def close(self) -> None:
        """End a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _lives(self) -> bool:
        return bool(self._token) and self._monotonic() < self._expires_at

    def _begun(self) -> asyncio.Task[str]:
        self._asked_at = self._monotonic()
        self._renewal = asyncio.create_task(self._renewed())
        self._renewal.add_done_callback(self._over)
        return self._renewal

    def _over(self, renewal: asyncio.Task[str]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # seen, also when everybody who waited for it is gone

    async def _renewed(self) -> str:
        """A new token; the old one as long as it lives and no new one can be had."""
        try:
            self._token, life_s = await self._fetch()
        except TransientError:
            if not self._lives():
                raise
            self._renew_at = self._monotonic() + _RETRY_RENEWAL_S
        else:
            self._fetched_at = self._asked_at
            self._expires_at = self._asked_at + life_s
            self._renew_at = self._expires_at - min(_RENEW_BEFORE_S, life_s / 2)
        return self._token
