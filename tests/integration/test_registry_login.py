"""A registry behind TLS, client certificates and tokens, over real sockets; and what is told when one does not fit."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from consumer.adapters.schema_registry import confluent
from consumer.adapters.schema_registry.login import _FetchedToken
from consumer.adapters.schema_registry.transport import Transport
from consumer.errors import SourceUnavailable, TransientError
from consumer.settings import load
from tests.certificates import Authority, Pair
from tests.lives import REQUIRED
from tests.registry import Registry, running

SCHEMA = '"string"'
SECRET = "s3cret+/%"  # noqa: S105 -- of a client that there is not


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the server's certificate is of."""
    return Authority(tmp_path_factory.mktemp("authority"))


Connect = Callable[..., Transport]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Makes connections to a registry as settings with these properties do."""
    made: list[Transport] = []

    def connect(url: str, *properties: str) -> Transport:
        file = tmp_path / "registry.properties"
        file.write_text("".join(f"{line}\n" for line in properties))
        more = {"SCHEMA_REGISTRY_PROPERTIES_FILE": str(file)} if properties else {}
        made.append(Transport.of(load({**REQUIRED, "SCHEMA_REGISTRY_URL": url, **more})))
        return made[-1]

    yield connect
    for each in made:
        await each.close()


def shown(pair: Pair) -> list[str]:
    """The properties that show a certificate."""
    return [f"ssl.certificate.location={pair.certificate}", f"ssl.key.location={pair.key}"]


# -- TLS


async def test_an_authority_of_their_own_is_believed_when_it_is_named(authority: Authority, connect: Connect) -> None:
    """And not before: the error says that the certificate is the reason."""
    async with running(authority.server()) as registry:
        registry.tell_schema(1, schema=SCHEMA)
        assert await confluent.schema(connect(registry.url, f"ssl.ca.location={authority.certificate}"), 1) == SCHEMA
        with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await confluent.schema(connect(registry.url), 1)
        assert len(registry.requests) == 1


async def test_another_authority_is_not_believed(authority: Authority, connect: Connect, tmp_path: Path) -> None:
    """The one that is named takes the place of the system's, it does not join them."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with running(authority.server()) as registry:
        with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await confluent.schema(connect(registry.url, f"ssl.ca.location={other.certificate}"), 1)
        assert registry.requests == []


@pytest.mark.parametrize("password", ["", "a password"])
async def test_a_client_certificate_lets_in(authority: Authority, connect: Connect, password: str) -> None:
    """Also with a key that needs a password; without a certificate the registry hangs up."""
    pair = authority.issue("client")
    properties = shown(authority.locked(pair, password) if password else pair)
    properties += [f"ssl.key.password={password}"] if password else []
    trusted = f"ssl.ca.location={authority.certificate}"
    async with running(authority.server(asks_for_certificate=True)) as registry:
        registry.tell_schema(1, schema=SCHEMA)
        assert await confluent.schema(connect(registry.url, trusted, *properties), 1) == SCHEMA
        with pytest.raises(SourceUnavailable):
            await confluent.schema(connect(registry.url, trusted), 1)
        assert len(registry.requests) == 1


async def test_basic_authentication_goes_through_tls(authority: Authority, connect: Connect) -> None:
    """The two have nothing to do with each other."""
    async with running(authority.server()) as registry:
        registry.tell_schema(1, schema=SCHEMA)
        url = registry.url.replace("//", "//ann:secret@")
        assert await confluent.schema(connect(url, f"ssl.ca.location={authority.certificate}"), 1) == SCHEMA
        assert registry.requests[0].headers["Authorization"] == "Basic YW5uOnNlY3JldA=="


# -- a token that is given


async def test_a_given_token_is_sent_with_what_confluent_cloud_wants(connect: Connect) -> None:
    """As its own clients send them."""
    async with running() as registry:
        registry.tell_schema(1, schema=SCHEMA)
        transport = connect(
            registry.url,
            "bearer.auth.credentials.source=STATIC_TOKEN",
            "bearer.auth.token=abc.DEF-123_~+/=",
            "bearer.auth.logical.cluster=lsrc-1",
            "bearer.auth.identity.pool.id=pool-1,pool-2",
        )
        assert await confluent.schema(transport, 1) == SCHEMA
        headers = registry.requests[0].headers
        assert headers["Authorization"] == "Bearer abc.DEF-123_~+/="
        assert headers["target-sr-cluster"] == "lsrc-1"
        assert headers["Confluent-Identity-Pool-Id"] == "pool-1,pool-2"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_given_token_that_is_refused_is_told_and_not_shown(connect: Connect, status: int) -> None:
    """There is no other: it is asked once, and pauses."""
    async with running() as registry:
        registry.tell("/schemas/ids/1", {}, status)
        properties = ("bearer.auth.credentials.source=STATIC_TOKEN", "bearer.auth.token=T0KEN")
        with pytest.raises(TransientError, match=r"check bearer\.auth\.token") as raised:
            await confluent.schema(connect(registry.url, *properties), 1)
        assert "T0KEN" not in str(raised.value)
        assert len(registry.requests) == 1


# -- a token that is fetched


class Endpoint(Registry):
    """A token endpoint: hands out `token-1`, `token-2` and so on.

    Attributes:
        more: What else stands in its answers.
        forms: What it was asked with.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.url = f"{registry.url}/token"
        self.more: dict[str, object] = {"token_type": "Bearer", "expires_in": 3600}
        self.forms: list[dict[str, str]] = []
        registry.answers["/token"] = self.hand_out
        self.properties = (
            "bearer.auth.credentials.source=OAUTHBEARER",
            "bearer.auth.client.id=the client",
            f"bearer.auth.client.secret={SECRET}",
            "bearer.auth.scope=api://registry/.default",
            f"bearer.auth.issuer.endpoint.url={self.url}",
        )

    async def hand_out(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a token."""
        self.requests.append(request)
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        return web.json_response({"access_token": f"token-{len(self.forms)}", **self.more})


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """A registry that knows a schema, and hands out tokens too."""
    async with running() as registry:
        registry.tell_schema(1, schema=SCHEMA)
        yield registry


@pytest.fixture
def endpoint(registry: Registry) -> Endpoint:
    """Where tokens are."""
    return Endpoint(registry)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which tokens expire."""
    clock = Clock()
    monkeypatch.setattr(_FetchedToken.__init__, "__defaults__", (clock,))
    return clock


def sent(registry: Registry) -> list[str]:
    """The tokens that the registry saw, in order."""
    asked = [request for request in registry.requests if request.path != "/token"]
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in asked]


async def test_a_token_is_fetched_by_client_credentials(
    registry: Registry, endpoint: Endpoint, connect: Connect
) -> None:
    """As RFC 6749 has it: id and secret encoded, then as user and password; the scope in the form."""
    assert await confluent.schema(connect(registry.url, *endpoint.properties), 1) == SCHEMA
    (request,) = endpoint.requests
    kind, _, value = request.headers["Authorization"].partition(" ")
    assert (request.method, kind) == ("POST", "Basic")
    assert base64.b64decode(value) == b"the+client:s3cret%2B%2F%25"
    assert endpoint.forms == [{"grant_type": "client_credentials", "scope": "api://registry/.default"}]
    assert sent(registry) == ["token-1"]


@pytest.mark.parametrize(("life", "kept_s"), [(3600, 3540), ("3600", 3540), (60, 30), (None, 240)])
async def test_a_token_is_kept_until_shortly_before_it_expires(
    registry: Registry, endpoint: Endpoint, connect: Connect, clock: Clock, *, life: object, kept_s: float
) -> None:
    """A minute before, or at half of a short life; five minutes where the endpoint does not say."""
    endpoint.more = {} if life is None else {"expires_in": life}
    transport = connect(registry.url, *endpoint.properties)
    for passes_s in (0, kept_s - 1, 1):
        clock.now += passes_s
        await confluent.schema(transport, 1)
    assert sent(registry) == ["token-1", "token-1", "token-2"]


async def test_who_asks_at_the_same_time_gets_the_same_token(
    registry: Registry, endpoint: Endpoint, connect: Connect
) -> None:
    """One request for it, whoever waits."""
    transport = connect(registry.url, *endpoint.properties)
    await asyncio.gather(*[confluent.schema(transport, 1) for _ in range(5)])
    assert len(endpoint.forms) == 1
    assert sent(registry) == ["token-1"] * 5


async def test_a_refused_token_is_renewed_once(
    registry: Registry, endpoint: Endpoint, connect: Connect, clock: Clock
) -> None:
    """It may have been revoked. Refused again, it is an error; one just fetched would only be refused as well."""
    transport = connect(registry.url, *endpoint.properties)
    await confluent.schema(transport, 1)
    clock.now += 60

    async def only_second(request: web.Request) -> web.StreamResponse:
        fits = request.headers["Authorization"] == "Bearer token-2"
        return web.json_response({"schema": SCHEMA} if fits else {}, status=200 if fits else 401)

    registry.answers["/schemas/ids/1"] = only_second
    assert await confluent.schema(transport, 1) == SCHEMA
    assert sent(registry) == ["token-1", "token-1", "token-2"]
    registry.tell("/schemas/ids/1", {}, 401)
    for passes_s, tokens in ((0, ["token-2"]), (60, ["token-2", "token-3"])):
        clock.now += passes_s
        before = len(sent(registry))
        with pytest.raises(TransientError, match=r"answered 401: check bearer\.auth\.client\.id"):
            await confluent.schema(transport, 1)
        assert sent(registry)[before:] == tokens


async def test_a_forbidden_schema_is_no_reason_for_another_token(
    registry: Registry, endpoint: Endpoint, connect: Connect, clock: Clock
) -> None:
    """The registry knows who asks, and says no."""
    registry.tell("/schemas/ids/1", {}, 403)
    transport = connect(registry.url, *endpoint.properties)
    for _ in range(2):
        clock.now += 60
        with pytest.raises(TransientError, match="what that client may read"):
            await confluent.schema(transport, 1)
    assert sent(registry) == ["token-1", "token-1"]


async def test_an_old_token_serves_while_no_new_one_can_be_had(
    registry: Registry, endpoint: Endpoint, connect: Connect, clock: Clock
) -> None:
    """Until it expires; the endpoint is asked again every ten seconds."""
    transport = connect(registry.url, *endpoint.properties)
    await confluent.schema(transport, 1)
    registry.tell("/token", {}, 503)
    clock.now += 3550
    for _ in range(3):
        await confluent.schema(transport, 1)
    asked = [request for request in registry.requests if request.path == "/token"]
    assert len(asked) == 2
    clock.now += 60
    with pytest.raises(SourceUnavailable, match=r"token endpoint 127\.0\.0\.1 answered 503"):
        await confluent.schema(transport, 1)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"error": "invalid_client", "error_description": SECRET}, 401, "answered 401 invalid_client: check bearer"),
        ({"error": "invalid_scope"}, 400, "answered 400 invalid_scope: check bearer"),
        ({"error": SECRET}, 400, "answered 400: check bearer"),
        (b"<html>", 403, "answered 403: check bearer"),
        (b"<html>", 200, "JSONDecodeError"),
        (b"[" * 100_000, 200, "RecursionError"),
        ({}, 200, "holds no token"),
        ({"access_token": 5}, 200, "holds no token"),
        ({"access_token": "a\r\nb"}, 200, "holds no token"),
        ({}, 302, "answered 302"),
        ({}, 500, "answered 500"),
    ],
)
async def test_an_endpoint_that_gives_no_token_is_told(
    registry: Registry, endpoint: Endpoint, connect: Connect, *, body: object, status: int, message: str
) -> None:
    """It pauses; the registry is not asked, and neither the secret nor the answer's text is shown."""
    registry.tell("/token", body, status, Location=f"{registry.url}/elsewhere")
    with pytest.raises(TransientError, match=message) as raised:
        await confluent.schema(connect(registry.url, *endpoint.properties), 1)
    assert SECRET not in repr(raised.value)
    assert [request.path for request in registry.requests] == ["/token"]


async def test_what_else_comes_from_the_endpoint_is_not_shown(
    registry: Registry, endpoint: Endpoint, connect: Connect
) -> None:
    """The HTTP library quotes it."""

    async def garbage(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(f"welcome, {SECRET}\r\n\r\n".encode())
        request.transport.close()
        return web.Response()

    registry.answers["/token"] = garbage
    with pytest.raises(SourceUnavailable, match=r"^token endpoint 127\.0\.0\.1: ClientResponseError$"):
        await confluent.schema(connect(registry.url, *endpoint.properties), 1)


async def test_a_wait_that_the_endpoint_asks_for_is_passed_on(
    registry: Registry, endpoint: Endpoint, connect: Connect
) -> None:
    """It is asked no sooner."""
    registry.tell("/token", {}, 429, **{"Retry-After": "7"})
    with pytest.raises(SourceUnavailable) as raised:
        await confluent.schema(connect(registry.url, *endpoint.properties), 1)
    assert raised.value.retry_after == 7


async def test_the_token_endpoint_may_have_the_registry_s_authority(authority: Authority, connect: Connect) -> None:
    """As a Keycloak in the same cluster has."""
    async with running(authority.server()) as registry:
        registry.tell_schema(1, schema=SCHEMA)
        endpoint = Endpoint(registry)
        trusted = f"ssl.ca.location={authority.certificate}"
        assert await confluent.schema(connect(registry.url, trusted, *endpoint.properties), 1) == SCHEMA
        untrusted = Transport.of(load({**REQUIRED, "SCHEMA_REGISTRY_URL": registry.url}))
        with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await confluent.schema(untrusted, 1)
        await untrusted.close()


async def test_closing_ends_a_token_request_that_is_under_way(
    registry: Registry, endpoint: Endpoint, connect: Connect
) -> None:
    """A drain does not wait for the endpoint."""
    asked = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    registry.answers["/token"] = silent
    transport = connect(registry.url, *endpoint.properties)
    fetch = asyncio.create_task(confluent.schema(transport, 1))
    await asked.wait()
    async with asyncio.timeout(5):
        await transport.close()
    with pytest.raises(asyncio.CancelledError):
        await fetch
