"""What the text of a setting may be, and the value that it becomes; each parser takes one kind.

Where a rule is broken they raise `BadValueError`; where they read a file also `OSError`, `UnicodeDecodeError` or
`RecursionError`.
This module reads the files that settings name, and nothing else.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from consumer import properties
from consumer.columns import OWN
from consumer.formats import Choice, PerTopic
from consumer.properties import Properties, is_open

REGIONS = {
    "us-east-1": "mypurecloud.com",
    "us-east-2": "use2.us-gov-pure.cloud",
    "us-west-2": "usw2.pure.cloud",
    "ca-central-1": "cac1.pure.cloud",
    "mx-central-1": "mxc1.pure.cloud",
    "sa-east-1": "sae1.pure.cloud",
    "eu-west-1": "mypurecloud.ie",
    "eu-west-2": "euw2.pure.cloud",
    "eu-central-1": "mypurecloud.de",
    "eu-central-2": "euc2.pure.cloud",
    "eusc-de-east-1": "edee1.eusc-pure.cloud",
    "me-central-1": "mec1.pure.cloud",
    "ap-south-1": "aps1.pure.cloud",
    "ap-northeast-1": "mypurecloud.jp",
    "ap-northeast-2": "apne2.pure.cloud",
    "ap-northeast-3": "apne3.pure.cloud",
    "ap-southeast-1": "apse1.pure.cloud",
    "ap-southeast-2": "mypurecloud.com.au",
}
"""Genesys domain by AWS region. Source: the region tables of the official SDKs."""

OWN_PROPERTIES = {
    "bootstrap.servers": "set KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "set KAFKA_BOOTSTRAP_SERVERS",
    "group.id": "set KAFKA_GROUP_ID",
    "group.instance.id": "set KAFKA_GROUP_INSTANCE_ID",
    "auto.offset.reset": "set KAFKA_START",
    "transactional.id": "the program chooses it",
    "enable.auto.commit": "offsets are committed when their records are settled",
    "enable.auto.offset.store": "offsets are committed when their records are settled",
    "enable.partition.eof": "the program needs it",
    "statistics.interval.ms": "the program needs it",
    "transaction.timeout.ms": "the program chooses it",
    "isolation.level": "it is always read_committed",
    "partition.assignment.strategy": "it is cooperative-sticky; set group.protocol=consumer for the new protocol",
    "enable.idempotence": "it is always on",
    "acks": "it is always all",
    "request.required.acks": "it is always all",
}
"""Properties of librdkafka on which the guarantees rest, and where to turn instead."""

_BROKER = re.compile(
    r"((plaintext|ssl|sasl_plaintext|sasl_ssl)://)?([^\s/:@\[\]]+|\[[^\s\]]+\])(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE
)
_LAST_PORT = 65_535

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMERIC = re.compile(r".*\.(ms|bytes|kbytes|messages)")
"""Names of librdkafka's properties that are numbers."""

_FRACTIONS = frozenset({"linger.ms", "queue.buffering.max.ms"})
"""Those of them that may have a fraction."""

_SHOWN = 100
"""Characters of a bad value that are shown."""

_LIST_NAME_MAX = 64
_COLUMN_NAME_MAX = 128


class BadValueError(ValueError):
    """The value breaks a rule; the message says which."""


def text(raw: str) -> str:
    """Any text."""
    return raw


def whole(raw: str) -> str:
    """Any text without the character at which a text ends for others, such as the operating system, and in UTF-8."""
    if "\0" in raw:
        raise BadValueError("must not hold a null character")
    if any("\ud800" <= character <= "\udfff" for character in raw):  # how Python has bytes that are none
        raise BadValueError("must be UTF-8")
    return raw


def name(raw: str) -> str:
    """Any text that says something."""
    if not raw.strip():
        raise BadValueError("must not be empty")
    return raw


def printable(raw: str) -> str:
    """A name of a member or its group: with any but printable ASCII the library joins the group, and never settles."""
    for character in name(raw):
        if not " " <= character <= "~":
            raise BadValueError(f"must be printable ASCII, and holds {_kind(character)}")
    return raw


def _kind(character: str) -> str:
    """What a character is that cannot be shown, or not by everybody."""
    if character in "\r\n":
        return "the end of a line"
    return f"{character!a}, which is {'a control character' if character.isascii() else 'not ASCII'}"


def topic(raw: str) -> str:
    """The name of a topic."""
    if not _TOPIC.fullmatch(raw) or raw in {".", ".."}:
        raise BadValueError(f"{raw[:_SHOWN]!r} is no topic: must be 1 to 249 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return raw


def topics(raw: str) -> tuple[str, ...]:
    """Names of one topic or more, comma-separated."""
    return tuple(map(topic, names(raw)))


def list_name(raw: str) -> str:
    """The name or id of a list of Genesys; with white space around it, it would be the name of another list."""
    if raw != name(raw).strip():
        raise BadValueError("must not begin or end with white space")
    if len(raw) > _LIST_NAME_MAX:
        raise BadValueError(f"must have at most {_LIST_NAME_MAX} characters")
    return raw


def key(raw: str) -> str:
    """A secret that nobody guesses."""
    if len(raw) < 16:  # noqa: PLR2004 -- what a person makes up, others can guess
        raise BadValueError("must have 16 characters or more, for example of `openssl rand -hex 32`")
    return raw


def names(raw: str) -> tuple[str, ...]:
    """One name or more, comma-separated."""
    found = tuple(part.strip() for part in raw.split(",") if part.strip())
    if not found:
        raise BadValueError("must name at least one, comma-separated")
    return found


def brokers(raw: str) -> str:
    """Addresses of brokers, comma-separated, each with its port or without one."""
    for address in names(name(raw)):
        found = _BROKER.fullmatch(address)
        if found is None or not 0 < int(found["port"] or 1) <= _LAST_PORT:
            shown = "what holds @, perhaps a password," if "@" in raw else address[:_SHOWN]
            raise BadValueError(f"{shown} is no broker: must be HOST:PORT, comma-separated, for example kafka:9092")
    return raw


def columns(raw: str) -> tuple[tuple[str, str], ...]:
    """Attributes, comma-separated, as `source` or `source=column`: pairs of source and column."""
    pairs = [part.strip().partition("=") for part in raw.split(",") if part.strip()]
    found = tuple((source.strip(), (column or source).strip()) for source, _, column in pairs)
    taken = [column for _, column in found]
    if not all(source and column and _is_column(column) for source, column in found):
        raise BadValueError(
            f"must be `source` or `source=column`; a column has 1 to {_COLUMN_NAME_MAX} characters, and no backslash"
        )
    if len(set(taken)) != len(taken) or set(taken) & set(OWN):
        raise BadValueError(f"column names must be unique and none of {', '.join(OWN)}")
    if len(taken) + len(OWN) > 50:  # noqa: PLR2004 -- Genesys' limit of columns in a list
        raise BadValueError("a contact list has at most 50 columns")
    return found


def _is_column(column: str) -> bool:
    """Whether Genesys takes it for a column's name."""
    return len(column) <= _COLUMN_NAME_MAX and "\\" not in column


def one_of(*choices: str) -> Callable[[str], str]:
    """One of these, in any case."""

    def parse(raw: str) -> str:
        if raw.lower() not in choices:
            raise BadValueError(f"must be one of {', '.join(choices)}")
        return raw.lower()

    return parse


def per_topic(default: Choice) -> Callable[[str], PerTopic[Choice]]:
    """A choice for all topics, and `topic=choice` for some, comma-separated."""
    choices = type(default)

    def parse(raw: str) -> PerTopic[Choice]:
        chosen: dict[str, Choice] = {}
        for part in filter(None, map(str.strip, raw.split(","))):
            topic, _, name = map(str.strip, part.rpartition("="))
            if name.lower() not in [*choices] or topic in chosen:
                raise BadValueError(f"must be one of {', '.join(choices)}, or topic=one for a topic, each once")
            chosen[topic] = choices(name.lower())
        return PerTopic(chosen.pop("", default), chosen)

    return parse


def boolean(raw: str) -> bool:
    """`true` or `false`."""
    if raw.lower() not in {"true", "false"}:
        raise BadValueError("must be true or false")
    return raw.lower() == "true"


@dataclass(frozen=True, slots=True)
class Integer:
    """Parses a whole number, and tells which ones it takes.

    Attributes:
        low: The smallest.
        high: The largest.
    """

    low: int
    high: int

    def __call__(self, raw: str) -> int:
        """The number that a text is."""
        if not re.fullmatch(r"-?[0-9]{1,18}", raw) or not self.low <= int(raw) <= self.high:
            raise BadValueError(f"must be a whole number from {self.low} to {self.high}")
        return int(raw)


def releases(raw: str) -> dict[str, tuple[int, ...]]:
    """`topic@time`, comma-separated: milliseconds since the epoch by topic, once the epoch itself and once another."""
    found: dict[str, tuple[int, ...]] = {}
    for part in filter(None, map(str.strip, raw.split(","))):
        topic, _, time = part.rpartition("@")
        time_ms = _milliseconds(time)
        before = found.get(topic, ())
        if not topic or time_ms is None or (time_ms == 0) in {each == 0 for each in before}:
            raise BadValueError(
                "must be topic@time for each topic once, for example crm.contacts@2026-11-29T06:00:00Z, "
                "and once beside it with 1970-01-01T00:00:00Z"
            )
        found[topic] = (*before, time_ms)
    return found


def _milliseconds(text: str) -> int | None:
    """A time with its zone, in ISO 8601, as milliseconds since the epoch; None when it is no such thing."""
    with suppress(ValueError, TypeError):
        return (datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return None


def region(raw: str) -> str:
    """The Genesys domain of an AWS region, or that domain itself."""
    if raw in REGIONS:
        return REGIONS[raw]
    if raw in REGIONS.values():
        return raw
    raise BadValueError(f"must be an AWS region or Genesys domain that Genesys Cloud has: {', '.join(REGIONS)}")


def toml(raw: str) -> dict[str, Any]:
    """The tables of a TOML file. Editors of Windows begin one with a mark (BOM), which TOML does not know."""
    try:
        return tomllib.loads(Path(raw).read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise BadValueError(f"is no TOML: {error}") from None


def http_address(raw: str) -> tuple[str | None, int]:
    """Host and port to listen at; no host: at every address of the machine, of IPv4 and of IPv6."""
    host, _, port = raw.rpartition(":")
    if not re.fullmatch(r"[^\s/]+", host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > _LAST_PORT:
        raise BadValueError("must be HOST:PORT, for example 0.0.0.0:8080, or *:8080 for IPv4 and IPv6")
    return None if host == "*" else host.strip("[]"), int(port)


def url(raw: str) -> str:
    """An address of a service, without the slash at its end."""
    _parts(raw)
    return _base(raw)


def _parts(raw: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(raw)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    raise BadValueError("must be a URL that begins with https:// (or http://)")


def _base(raw: str) -> str:
    """What paths are appended to."""
    if re.search(r"[\s?#]", raw):
        raise BadValueError("must not hold white space, a query (?) or a fragment (#): paths are appended to it")
    return raw.rstrip("/")


def genesys_url(raw: str) -> str:
    """An address to which credentials and personal data may go."""
    parts = _parts(raw)
    if is_open(parts.scheme, parts.hostname):
        raise BadValueError("plain http goes only to loopback: use https://")
    if "@" in parts.netloc:
        raise BadValueError("must not hold a user or password")
    return _base(raw)


def directory(raw: str) -> Path:
    """A directory that exists."""
    path = Path(raw)
    if not path.is_dir():
        raise BadValueError("must be a directory that exists")
    return path


def path(raw: str) -> Path:
    """A path of anything, or of nothing yet."""
    return Path(raw)


def kafka_properties(raw: str) -> Properties:
    """A file of librdkafka's properties; one that the program sets itself is refused."""
    found, problems = properties.read(Path(raw), _not_kafka_s)
    return _properties(found, problems or [*_no_numbers(found), *_no_client_id(found)])


def _not_kafka_s(name: str) -> str | None:
    return f"{name} is not for this file: {OWN_PROPERTIES[name]}" if name in OWN_PROPERTIES else None


def _no_numbers(found: Properties) -> Iterator[str]:
    """The library takes what begins with a number, and leaves out the rest: 45 ms of `45s`."""
    for name, value in found.items():
        form = r"-?[0-9]+(\.[0-9]+)?" if name in _FRACTIONS else "-?[0-9]+"
        if _NUMERIC.fullmatch(name) and not re.fullmatch(form, value):
            yield f"{name} must be a {'' if name in _FRACTIONS else 'whole '}number, in digits alone"


def _no_client_id(found: Properties) -> Iterator[str]:
    """What the brokers call a member of the group begins with it."""
    try:
        printable(found.get("client.id") or "unset")
    except BadValueError as error:
        yield f"client.id {error}"


def registry_properties(raw: str) -> Properties:
    """A file of the properties that Confluent's registry client has."""
    found, problems = properties.read(Path(raw), properties.no_registry_property)
    return _properties(found, problems or properties.contradictions(found))


def _properties(found: Properties, problems: list[str]) -> Properties:
    if problems:
        raise BadValueError("; ".join(problems))
    return found
