"""Files of properties that settings name, in the words of client libraries: checked, and never shown.

Answers for the form of such a file, and for the properties of the schema registry's client, which have the names of
Confluent's: which there are, what they need of each other, and that their certificates can be used. Reads the files
that it is told, and those that they name; touches nothing else.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Where secrets may go without TLS."""

SOURCE = "bearer.auth.credentials.source"
GIVEN, FETCHED = "STATIC_TOKEN", "OAUTHBEARER"
TOKEN = "bearer.auth.token"  # noqa: S105 -- its name
CLIENT_ID, CLIENT_SECRET = "bearer.auth.client.id", "bearer.auth.client.secret"
TOKEN_URL = "bearer.auth.issuer.endpoint.url"  # noqa: S105 -- its name
SCOPE = "bearer.auth.scope"
CLUSTER, POOL = "bearer.auth.logical.cluster", "bearer.auth.identity.pool.id"
CA, CERTIFICATE, KEY, KEY_PASSWORD = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
)

_NEEDED = {GIVEN: (TOKEN,), FETCHED: (CLIENT_ID, CLIENT_SECRET, TOKEN_URL)}
"""What each source of tokens needs."""

_ALLOWED = {GIVEN: {TOKEN, CLUSTER, POOL}, FETCHED: {CLIENT_ID, CLIENT_SECRET, TOKEN_URL, SCOPE, CLUSTER, POOL}}
REGISTRY_PROPERTIES = (
    *(CA, CERTIFICATE, KEY, KEY_PASSWORD),
    *(SOURCE, TOKEN, CLIENT_ID, CLIENT_SECRET, TOKEN_URL, SCOPE, CLUSTER, POOL),
)
"""All that the registry's client has."""

ELSEWHERE = {
    "url": "set SCHEMA_REGISTRY_URL",
    "schema.registry.url": "set SCHEMA_REGISTRY_URL",
    "basic.auth.user.info": "set SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD",
    "basic.auth.credentials.source": "set SCHEMA_REGISTRY_USERNAME and SCHEMA_REGISTRY_PASSWORD",
}
"""Properties of Confluent's client that are settings here, and where to turn instead."""

_NAME = re.compile(r"[a-z]{1,20}(\.[a-z]{1,20}){1,6}")
"""What looks like a name, and not like half of a secret."""

_BEARER_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_ANYTHING = re.compile(r"[!-~]+")
_HEADERS = {TOKEN: _BEARER_TOKEN, CLUSTER: _ANYTHING, POOL: _ANYTHING}
"""What goes into a header as it is."""


class Properties(dict[str, str]):
    """Properties by name. Some are secrets, so their text shows none."""

    def __repr__(self) -> str:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        return f"<{len(self)} properties>"


NONE: Final[Mapping[str, str]] = Properties()


def read(path: Path, wrong: Callable[[str], str | None]) -> tuple[Properties, list[str]]:
    """The properties of a file: `key=value` lines, empty lines, and comments that begin with `#`.

    Args:
        path: Of the file.
        wrong: What is wrong with a name; None when nothing is.

    Returns:
        The properties, and a sentence for each line that is wrong, without its text: that may be a secret.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not text.
    """
    properties = Properties()
    problems: list[str] = []
    for number, line in enumerate(map(str.strip, path.read_text(encoding="utf-8").splitlines()), start=1):
        if line and not line.startswith("#"):
            name, equals, value = (part.strip() for part in line.partition("="))
            problem = _form(name, equals, properties) or wrong(name)
            problems += [f"line {number}: {problem}"] if problem else []
            properties[name] = value
    return properties, problems


def _form(name: str, equals: str, before: Mapping[str, str]) -> str | None:
    if not equals or not name:
        return "must be `key=value`, or a comment that begins with `#`"
    return f"{name} is given twice" if name in before else None


# -- of the schema registry's client


def no_registry_property(name: str) -> str | None:
    """What is wrong with a name; None when the registry's client has such a property."""
    if name in ELSEWHERE:
        return f"{name} is not for this file: {ELSEWHERE[name]}"
    if name in REGISTRY_PROPERTIES:
        return None
    called = name if _NAME.fullmatch(name) else "such property"
    return f"there is no {called}; there are {', '.join(REGISTRY_PROPERTIES)}"


def contradictions(properties: Mapping[str, str]) -> list[str]:
    """What no property of the registry's client breaks alone: a sentence for each, without a value."""
    empty = [f"{name} is empty" for name, value in properties.items() if not value]
    return empty or [*_tokens(properties), *_certificates(properties)]


def _tokens(properties: Mapping[str, str]) -> Iterator[str]:
    source = properties.get(SOURCE)
    bearer = {name for name in properties if name.startswith("bearer.")} - {SOURCE}
    if source not in _NEEDED:
        if source or bearer:
            yield f"{SOURCE} must be {GIVEN} or {FETCHED}"
        return
    yield from (f"{source} needs {name}" for name in _NEEDED[source] if name not in bearer)
    yield from (f"{name} has no meaning with {source}" for name in sorted(bearer - _ALLOWED[source]))
    for name, allowed in _HEADERS.items():
        if name in bearer and not allowed.fullmatch(properties[name]):
            yield f"{name} holds characters that cannot be sent"
    if TOKEN_URL in bearer and not is_safe(properties[TOKEN_URL]):
        yield f"{TOKEN_URL} must be a URL that begins with https://, without a user; plain http goes only to loopback"


def is_open(scheme: str, host: str | None) -> bool:
    """Whether what goes there can be read by anyone on the way: by plain http, and not to this machine itself."""
    return scheme == "http" and host not in LOOPBACK


def is_safe(url: str) -> bool:
    """Whether a secret may be sent there."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme in {"http", "https"} and not is_open(parts.scheme, parts.hostname)
        return secure and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False


def _certificates(properties: Mapping[str, str]) -> Iterator[str]:
    for name in (KEY, KEY_PASSWORD):
        if name in properties and CERTIFICATE not in properties:
            yield f"{name} needs {CERTIFICATE}"
    unreadable = [
        problem
        for name in (CA, CERTIFICATE, KEY)
        if name in properties and (problem := _unreadable(name, Path(properties[name])))
    ]
    yield from unreadable
    if not unreadable:
        yield from _unusable(properties)


def _unreadable(name: str, path: Path) -> str | None:
    try:
        path.read_bytes()
    except (OSError, ValueError) as error:  # of a null character it is the latter
        return f"{name}: {error}"
    return None


def _unusable(properties: Mapping[str, str]) -> Iterator[str]:
    try:
        authorities(properties)
    except ssl.SSLError as error:
        yield f"{CA} holds no certificates in PEM ({error.reason})"
    try:
        _show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), properties)
    except ssl.SSLError as error:
        what = f"{CERTIFICATE} and {KEY} are no certificate with its key in PEM"
        yield f"{what}, or {KEY_PASSWORD} is wrong ({error.reason})"


def tls(properties: Mapping[str, str]) -> ssl.SSLContext:
    """How the registry is spoken to: whom it is believed to be, and the certificate that it is shown.

    Raises:
        OSError: A file can no longer be read, or used.
    """
    context = ssl.create_default_context(cafile=properties.get(CA))
    _show(context, properties)
    return context


def authorities(properties: Mapping[str, str]) -> ssl.SSLContext:
    """How others beside the registry are spoken to: its authority is believed, and the system's, and nothing is shown.

    Raises:
        OSError: A file can no longer be read, or used.
    """
    context = ssl.create_default_context()
    if CA in properties:
        context.load_verify_locations(properties[CA])
    return context


def _show(context: ssl.SSLContext, properties: Mapping[str, str]) -> None:
    if CERTIFICATE in properties:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(properties[CERTIFICATE], properties.get(KEY), properties.get(KEY_PASSWORD, ""))
