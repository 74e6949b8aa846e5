"""The access token: who gets which one while a renewal is under way, in virtual time."""

import asyncio

import pytest

from consumer.access_token import AccessToken
from consumer.errors import Unauthorized
from tests.virtual_time import passes, run


class Login:
    """A login host: `token-1`, `token-2` and so on for an hour each, as soon as it answers."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = 0
        self.refusal: Unauthorized | None = None
        self.access = AccessToken(self.fetch, asyncio.get_running_loop().time)

    async def fetch(self) -> tuple[str, float]:
        self.asked += 1
        token = f"token-{self.asked}"
        await self.answering.wait()
        if self.refusal is not None:
            raise self.refusal
        return token, 3600.0

    async def falls_silent(self) -> None:
        """Hand out the first token and nothing after it, until a renewal is due and the old token good for a minute."""
        assert await self.access.get() == "token-1"
        self.answering.clear()
        await passes(3541.0)

    def answers_in(self, seconds: float) -> None:
        """Answer all that is asked by then."""
        asyncio.get_running_loop().call_later(seconds, self.answering.set)

    async def takes(self, wanted: str) -> float:
        """How long it takes to get this token."""
        clock = asyncio.get_running_loop().time
        began = clock()
        assert await self.access.get() == wanted
        return clock() - began


def test_a_renewal_that_hangs_holds_up_the_first_requests_for_a_second():
    """Who waits goes on with the old token then, who comes later at once; a new one is taken once it is there."""

    async def main() -> None:
        login = Login()
        await login.falls_silent()
        first = await asyncio.gather(*[login.takes("token-1") for _ in range(4)])
        assert max(first) == pytest.approx(1.0, abs=0.01)
        assert await login.takes("token-1") == pytest.approx(0.0, abs=0.01)
        login.answering.set()
        await passes(0.1)
        assert await login.takes("token-2") == 0.0
        assert login.asked == 2

    run(main())


def test_a_token_that_is_over_serves_nobody():
    """Then the renewal that is under way is all there is."""

    async def main() -> None:
        login = Login()
        await login.falls_silent()
        await login.takes("token-1")
        await passes(60.0)
        login.answers_in(7.0)
        assert await login.takes("token-2") == pytest.approx(7.0, abs=0.01)

    run(main())


def test_a_token_that_is_refused_during_a_renewal_serves_nobody():
    """Who waits beside it goes on waiting."""

    async def main() -> None:
        login = Login()
        await login.falls_silent()
        asyncio.get_running_loop().call_later(0.5, login.access.drop, "token-1")
        login.answers_in(7.0)
        assert await login.takes("token-2") == pytest.approx(7.0, abs=0.01)

    run(main())


def test_a_refused_client_is_told_although_the_old_token_is_good():
    """A refusal that comes within the second ends the request, as before."""

    async def main() -> None:
        login = Login()
        await login.falls_silent()
        login.refusal = Unauthorized("wrong secret")
        login.answers_in(0.5)
        with pytest.raises(Unauthorized):
            await login.access.get()

    run(main())
