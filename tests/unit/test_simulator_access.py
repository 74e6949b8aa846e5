"""Tokens, permissions and rates by a clock that is moved by hand."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from consumer.simulator.access import Access
from consumer.simulator.errors import ApiError, OAuthRefusal

FORM = "application/x-www-form-urlencoded"
GRANT = b"grant_type=client_credentials"
VIEW = "outbound:contact:view"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def access_with(clock: Clock, **changes: Any) -> Access:
    """Access for any client, without limits unless changed."""
    plain: Mapping[str, Any] = {
        "clients": None,
        "token_lifetime_s": 300,
        "requests_per_minute": None,
        "withheld_permissions": (),
    }
    return Access(clock, **{**plain, **changes})


def basic(credentials: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def bearer(access: Access) -> str:
    """An Authorization header with a new token."""
    reply = json.loads(access.issue(basic("id:secret"), FORM, GRANT))
    return f"Bearer {reply['access_token']}"


def refusal(access: Access, authorization: str) -> ApiError | None:
    """How a request is refused; None when it is let in."""
    try:
        access.admit(authorization, VIEW)
    except ApiError as error:
        return error
    return None


def test_a_token_tells_its_lifetime_and_ends_with_it():
    """expires_in is the lifetime, and at its end the token is refused."""
    clock = Clock()
    access = access_with(clock)
    assert json.loads(access.issue(basic("id:secret"), FORM, GRANT))["expires_in"] == 300
    token = bearer(access)
    clock.now = 299.9
    assert refusal(access, token) is None
    clock.now = 300.0
    expired = refusal(access, token)
    assert expired is not None
    assert (expired.status, expired.code) == (401, "bad.credentials")


def test_credentials_may_be_in_the_form():
    """client_secret_post is as good as Basic."""
    access = access_with(Clock(), clients={"id": "s&cret"})
    assert access.issue("", FORM, GRANT + b"&client_id=id&client_secret=s%26cret")


@pytest.mark.parametrize(
    ("authorization", "content_type", "body", "error", "description"),
    [
        (basic("other:secret"), FORM, GRANT, "invalid_client", "client not found"),
        (basic("id:wrong"), FORM, GRANT, "invalid_client", "authentication failed"),
        ("", FORM, GRANT, "invalid_client", "client not found"),
        ("Basic !!", FORM, GRANT, "invalid_request", "malformed"),
        (basic("id:secret"), FORM, b"grant_type=password", "invalid_request", "grant_type"),
        (basic("id:secret"), "application/json", b"{}", "invalid_request", "content type"),
    ],
)
def test_a_token_is_refused_with_its_reason(
    authorization: str, content_type: str, body: bytes, error: str, description: str
):
    """Each wrong token request has the error the contract knows, and says what is wrong."""
    access = access_with(Clock(), clients={"id": "secret"})
    with pytest.raises(OAuthRefusal, match=description) as refused:
        access.issue(authorization, content_type, body)
    reply = refused.value.reply()
    assert (reply.status, json.loads(reply.body)["error"]) == (400, error)


def test_any_client_with_a_secret_is_known_when_none_are_given():
    """Without clients any id and secret do, but an empty secret does not."""
    access = access_with(Clock())
    assert access.issue(basic("anyone:anything"), FORM, GRANT)
    with pytest.raises(OAuthRefusal, match="authentication failed"):
        access.issue(basic("anyone:"), FORM, GRANT)


def test_a_minute_holds_so_many_requests():
    """The third of two requests a minute is refused until the minute is over, with the whole seconds left."""
    clock = Clock()
    access = access_with(clock, requests_per_minute=2)
    token = bearer(access)
    assert refusal(access, token) is None
    clock.now = 18.5
    assert refusal(access, token) is None
    refused = refusal(access, token)
    assert refused is not None
    assert (refused.status, refused.retry_after) == (429, 42)
    clock.now = 59.99
    last = refusal(access, token)
    assert last is not None
    assert last.retry_after == 1
    clock.now = 60.0
    assert refusal(access, token) is None


def test_each_token_has_its_own_minute():
    """One token's requests do not count for another."""
    access = access_with(Clock(), requests_per_minute=1)
    first, second = bearer(access), bearer(access)
    assert refusal(access, first) is None
    assert refusal(access, second) is None
    assert refusal(access, first) is not None


def test_a_revoked_token_is_refused_and_others_are_not():
    """Revoking one token leaves the others good."""
    access = access_with(Clock())
    first, second = bearer(access), bearer(access)
    access.revoke(first)
    assert refusal(access, first) is not None
    assert refusal(access, second) is None


def test_a_withheld_permission_is_named():
    """The 403 says which permission is missing, from the moment it is withheld."""
    access = access_with(Clock())
    token = bearer(access)
    assert refusal(access, token) is None
    access.withheld_permissions.add(VIEW)
    refused = refusal(access, token)
    assert refused is not None
    assert (refused.status, refused.code) == (403, "missing.any.permissions")
    assert VIEW in str(refused)
