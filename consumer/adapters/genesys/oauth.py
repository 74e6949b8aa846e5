"""Genesys' access tokens, by client credentials. Touches the login host through the transport."""

import time
from base64 import b64encode

from yarl import URL

from consumer.adapters.genesys.answers import content, refused_token
from consumer.adapters.genesys.transport import Endpoint, Request, Transport
from consumer.errors import SinkUnavailable

_TOKEN = Endpoint("token", "POST", "/oauth/token")
_FORM = b"grant_type=client_credentials"
_SHORTEST_LIFE_S = 300.0
"""Taken when Genesys does not say: the shortest that an OAuth client can be set to."""


class ClientCredentials:
    """An OAuth client that asks for tokens.

    Args:
        transport: Sends the token requests.
        login_url: The login host.
        client_id: OAuth client.
        client_secret: Its secret.
    """

    def __init__(self, transport: Transport, *, login_url: str, client_id: str, client_secret: str) -> None:
        basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
        self._request = Request(_TOKEN, URL(login_url) / "oauth" / "token", headers, _FORM)
        self._transport = transport

    async def fetch(self) -> tuple[str, float]:
        """A token, and how long it lives, in seconds.

        Raises:
            Unauthorized: The login host refuses the client.
            TransientError: The login host cannot tell now.
        """
        answer = await self._transport.send(self._request, self._transport.timeout_s)
        if answer.status != 200:  # noqa: PLR2004 -- the only status of a token
            raise refused_token(answer, time.time())
        return _parse(content(answer))


def _parse(answer: object) -> tuple[str, float]:
    match answer:
        case {"access_token": str(token), "expires_in": int(life_s)} if token:
            return token, float(life_s)
        case {"access_token": str(token)} if token:
            return token, _SHORTEST_LIFE_S
        case _:
            raise SinkUnavailable("the login host's answer holds no token")
