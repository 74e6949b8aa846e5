"""All settings, with their defaults, rules and explanations; checked at start, every bad one named at once.

Environment variables come first, then the TOML file of `--config`, then the default. In the file a setting has its
name in lower case, tables joined by an underscore: `[kafka] group_id` is `KAFKA_GROUP_ID`. This module reads the
environment, that file, and the files that settings name. `OTEL_*` variables are the OpenTelemetry SDK's own.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from consumer import properties
from consumer.errors import SettingsError
from consumer.model import EnvelopeName, Framing, KeyFormat
from consumer.properties import LOOPBACK, Properties


def _release() -> str:
    try:
        return metadata.version("genesys-consumer")
    except metadata.PackageNotFoundError:  # a checkout that is run without being installed
        return "dev"


RELEASE = _release()
"""Version of the program."""

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

RESERVED_COLUMNS = ("external_id", "phone_number", "email", "consent_flag", "do_not_call")
"""The contact list columns that every list has; attribute columns come after them."""

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
    "isolation.level": "it is always read_committed",
    "partition.assignment.strategy": "it is cooperative-sticky; set group.protocol=consumer for the new protocol",
    "enable.idempotence": "it is always on",
    "acks": "it is always all",
    "request.required.acks": "it is always all",
}
"""Properties of librdkafka on which the guarantees rest, and where to turn instead."""


Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class PerTopic(Generic[Choice]):
    """A choice for each source topic.

    Attributes:
        default: For topics that are not named.
        named: By topic.
    """

    default: Choice
    named: Mapping[str, Choice]

    @property
    def by_topic(self) -> dict[str, str]:
        """All choices, that for topics that are not named under `default`."""
        return {"default": self.default, **self.named}

    def of(self, topic: str) -> Choice:
        """The choice for a topic."""
        return self.named.get(topic, self.default)


class _BadError(ValueError):
    """The value breaks a rule; the message says which."""


def _text(raw: str) -> str:
    return raw


def _name(raw: str) -> str:
    if not raw.strip():
        raise _BadError("must not be empty")
    return raw


def _key(raw: str) -> str:
    if len(raw) < 16:  # noqa: PLR2004 -- what a person makes up, others can guess
        raise _BadError("must have 16 characters or more, for example of `openssl rand -hex 32`")
    return raw


def _names(raw: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in raw.split(",") if part.strip())
    if not names:
        raise _BadError("must name at least one, comma-separated")
    return names


def _columns(raw: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.strip().partition("=") for part in raw.split(",") if part.strip()]
    columns = tuple((source.strip(), (column or source).strip()) for source, _, column in pairs)
    taken = [column for _, column in columns]
    if len(set(taken)) != len(taken) or set(taken) & set(RESERVED_COLUMNS):
        raise _BadError(f"column names must be unique and none of {', '.join(RESERVED_COLUMNS)}")
    if len(taken) + len(RESERVED_COLUMNS) > 50:  # noqa: PLR2004 -- Genesys' limit of columns in a list
        raise _BadError("a contact list has at most 50 columns")
    return columns


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw.lower() not in choices:
            raise _BadError(f"must be one of {', '.join(choices)}")
        return raw.lower()

    return parse


def _per_topic(default: Choice) -> Callable[[str], PerTopic[Choice]]:
    choices = type(default)

    def parse(raw: str) -> PerTopic[Choice]:
        chosen: dict[str, Choice] = {}
        for part in filter(None, map(str.strip, raw.split(","))):
            topic, _, name = map(str.strip, part.rpartition("="))
            if name.lower() not in [*choices] or topic in chosen:
                raise _BadError(f"must be one of {', '.join(choices)}, or topic=one for a topic, each once")
            chosen[topic] = choices(name.lower())
        return PerTopic(chosen.pop("", default), chosen)

    return parse


def _boolean(raw: str) -> bool:
    if raw.lower() not in {"true", "false"}:
        raise _BadError("must be true or false")
    return raw.lower() == "true"


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"-?[0-9]+", raw) or not low <= int(raw) <= high:
            raise _BadError(f"must be a whole number from {low} to {high}")
        return int(raw)

    return parse


def _flag(raw: str) -> bool:
    if raw.lower() not in {"true", "false"}:
        raise _BadError("must be true or false")
    return raw.lower() == "true"


def _releases(raw: str) -> dict[str, int]:
    """Times by topic, milliseconds since the epoch."""
    releases: dict[str, int] = {}
    for part in filter(None, map(str.strip, raw.split(","))):
        topic, _, time = part.rpartition("@")
        time_ms = _milliseconds(time)
        if not topic or time_ms is None or topic in releases:
            raise _BadError("must be topic@time for each topic once, for example crm.contacts@2026-11-29T06:00:00Z")
        releases[topic] = time_ms
    return releases


def _milliseconds(text: str) -> int | None:
    """A time with its zone, in ISO 8601, as milliseconds since the epoch; None when it is no such thing."""
    with suppress(ValueError, TypeError):
        return (datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return None


def _region(raw: str) -> str:
    if raw in REGIONS:
        return REGIONS[raw]
    if raw in REGIONS.values():
        return raw
    raise _BadError(f"must be an AWS region or Genesys domain that Genesys Cloud has: {', '.join(REGIONS)}")


def _toml(raw: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(raw).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise _BadError(f"{raw}: {error}") from None


def _http_address(raw: str) -> tuple[str, int]:
    host, _, port = raw.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 -- the highest port
        raise _BadError("must be HOST:PORT, for example 0.0.0.0:8080")
    return host.strip("[]"), int(port)


def _url(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise _BadError("must be a URL that begins with https:// (or http://)")
    return raw.rstrip("/")


def _genesys_url(raw: str) -> str:
    parts = urlsplit(_url(raw))
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise _BadError("plain http goes only to loopback: use https://")
    return raw.rstrip("/")


def _directory(raw: str) -> Path:
    path = Path(raw)
    if not path.is_dir():
        raise _BadError("must be a directory that exists")
    return path


def _path(raw: str) -> Path:
    return Path(raw)


def _kafka_properties(raw: str) -> Properties:
    return _properties(*properties.read(Path(raw), _not_kafka_s))


def _not_kafka_s(name: str) -> str | None:
    return f"{name} is not for this file: {OWN_PROPERTIES[name]}" if name in OWN_PROPERTIES else None


def _registry_properties(raw: str) -> Properties:
    found, problems = properties.read(Path(raw), properties.no_registry_property)
    return _properties(found, problems or properties.contradictions(found))


def _properties(found: Properties, problems: list[str]) -> Properties:
    if problems:
        raise _BadError("; ".join(problems))
    return found


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one setting is read.

    Attributes:
        help: What it is, for the table in the documentation.
        parse: From text to value; raises `_BadError`.
        default: Text taken when it is not set; None makes it required; "" leaves it unset (None).
        secret: May also come as a file named by `<NAME>_FILE`, and is never shown.
    """

    help: str
    parse: Callable[[str], object] = _text
    default: str | None = ""
    secret: bool = False


def _setting(
    help_: str, parse: Callable[[str], object] = _text, default: str | None = "", *, secret: bool = False
) -> Any:
    """Declare a setting: Any, since the attribute has the type that `parse` returns."""
    return field(metadata={"rule": _Rule(help_, parse, default, secret)}, repr=not secret)


def packaged_schemas() -> Path:
    """The schemas that come with the program."""
    return _packaged("schemas")


def ready_made_mappings() -> dict[str, dict[str, Any]]:
    """The mappings that come with the program: tables by envelope."""
    return {path.stem: _toml(str(path)) for path in sorted(_packaged("mappings").glob("*.toml"))}


def _packaged(name: str) -> Path:
    """A directory that comes with the program: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, checked. Attribute names are the environment variables' in lower case."""

    kafka_bootstrap_servers: str = _setting("Kafka brokers, comma-separated HOST:PORT", _name, None)
    kafka_source_topics: tuple[str, ...] = _setting(
        "Topics with change events, comma-separated", _names, "crm.contacts.changes"
    )
    kafka_group_id: str = _setting("Consumer group", _name, "genesys-consumer")
    kafka_audit_topic: str = _setting("Topic of audit events", _name, "crm.contacts.audit")
    kafka_dead_letter_topic: str = _setting("Topic of dead letters", _name, "crm.contacts.dead-letters")
    kafka_changelog_topic: str = _setting(
        "Compacted topic that holds the dedupe state; unset: `<group id>-dedupe-changelog`"
    )
    kafka_properties_file: Properties = _setting(
        "File of librdkafka properties, one `key=value` a line: TLS, SASL, anything", _kafka_properties
    )
    kafka_start: str = _setting(
        "Where a group without offsets begins: `earliest` or `latest`",
        _one_of("earliest", "latest"),
        "earliest",
    )
    kafka_group_instance_id: str | None = _setting("Static membership: a name that this instance keeps over restarts")
    kafka_guarantee: str = _setting(
        "`exactly_once`, or `at_least_once` for brokers without transactions",
        _one_of("exactly_once", "at_least_once"),
        "exactly_once",
    )
    source_framing: PerTopic[Framing] = _setting(
        "How records name their schemas, for all source topics, or `topic=framing` for some, comma-separated: "
        + ", ".join(f"`{framing}`" for framing in Framing),
        _per_topic(Framing.CONFLUENT),
        "confluent",
    )
    source_key: PerTopic[KeyFormat] = _setting(
        "How the key of a tombstone holds the external id, in the same way: "
        + ", ".join(f"`{key_format}`" for key_format in KeyFormat),
        _per_topic(KeyFormat.STRING),
        "string",
    )
    source_envelope: PerTopic[EnvelopeName] = _setting(
        "What stands around a contact in a record, in the same way: "
        + ", ".join(f"`{envelope}`" for envelope in EnvelopeName),
        _per_topic(EnvelopeName.NATIVE),
        "native",
    )
    source_mapping: dict[str, Any] = _setting(
        "TOML file that says which field becomes which; unset: the ready-made mappings", _toml
    )
    schema_registry_url: str | None = _setting("Schema registry with Confluent's API; unset: local schemas alone", _url)
    schema_registry_username: str | None = _setting("User name at the registry")
    schema_registry_password: str | None = _setting("Password at the registry", secret=True)
    schema_registry_properties_file: Properties = _setting(
        "File of properties as Confluent's registry clients have them, one `key=value` a line: TLS, tokens",
        _registry_properties,
    )
    schemas_dir: Path = _setting(
        "Local schemas: `ids.json` maps ids to files, and each file has its fingerprint; unset: the packaged ones",
        _directory,
    )
    schema_unknown_timeout_s: int = _setting(
        "How long the registry may lag before records of an unknown schema id are rejected",
        _integer(0, 86400),
        "60",
    )
    suppress_undecodable: bool = _setting(
        "A record that cannot be decoded may be a withdrawal: the contact that its key names is not callable until a "
        "later change of it, or the record replayed, can be decoded: `true` or `false`",
        _flag,
        "false",
    )
    fuse_deletes: int = _setting(
        "More deletes than this among the last 1,000 change events of a topic stop it until somebody releases it; "
        "0: any number passes",
        _integer(0, 999),
        "500",
    )
    fuse_releases: dict[str, int] = _setting(
        "What a tripped fuse lets through, comma-separated: `topic@2026-11-29T06:00:00Z` for its records up to that "
        "time; the log says what to set",
        _releases,
    )
    genesys_region: str = _setting("AWS region name or Genesys domain", _region, "us-east-1")
    genesys_oauth_client_id: str = _setting("Id of the OAuth client (client credentials)", _name, None, secret=True)
    genesys_oauth_client_secret: str = _setting("Secret of the OAuth client", _name, None, secret=True)
    genesys_contact_list: str = _setting("Contact list, by name or id; a missing name is created", _name, None)
    genesys_attribute_columns: tuple[tuple[str, str], ...] = _setting(
        "Attributes that become columns, comma-separated: `source` or `source=column`", _columns
    )
    genesys_dnc_list: str | None = _setting(
        "Internal do-not-call list, by name or id, for numbers of people who withdrew consent or set do-not-call; "
        "a missing name is created; unset: none"
    )
    genesys_dnc_release: bool = _setting(
        "Whether a number is taken off the do-not-call list when its contact grants again, provably later: "
        "only for a list that nobody else uses",
        _boolean,
        "false",
    )
    genesys_login_url: str = _setting("Login host; unset: from the region", _genesys_url)
    genesys_api_url: str = _setting("API host; unset: from the region", _genesys_url)
    genesys_upload_url: str = _setting(
        "Host of file uploads in their older form, for `load`; unset: from the region", _genesys_url
    )
    genesys_requests_per_minute: int = _setting(
        "Client-side limit of requests; a lower one that Genesys tells takes its place", _integer(1, 100_000), "300"
    )
    genesys_max_in_flight: int = _setting("Requests sent and unanswered at a time", _integer(1, 64), "4")
    genesys_request_timeout_s: int = _setting("Total time limit of a request", _integer(1, 40), "20")
    batch_max_records: int = _setting("Contacts in a request", _integer(1, 1000), "100")
    batch_max_bytes: int = _setting("Bytes in a request's body", _integer(1000, 512_000), "500000")
    batch_linger_ms: int = _setting("Longest wait of a change for its batch to fill", _integer(0, 60_000), "500")
    read_ahead_records: int = _setting(
        "Records held while Genesys is slower than the stream; withdrawals among them go first",
        _integer(100, 10_000_000),
        "50000",
    )
    settle_interval_ms: int = _setting("Longest wait before a transaction", _integer(1, 60_000), "200")
    state_dir: Path = _setting("Directory of the RocksDB stores", _path, "./state")
    state_retention_days: int = _setting(
        "Days after which a contact without changes is forgotten; 0: never", _integer(0, 36_500), "0"
    )
    pseudonym_key: str | None = _setting(
        "Key of the pseudonyms in audit events, 16 characters or more; unset: random, kept in the state directory",
        _key,
        secret=True,
    )
    http_address: tuple[str, int] = _setting("Probes, metrics and status page", _http_address, "0.0.0.0:8080")
    drain_timeout_s: int = _setting("Time for finishing what is in flight at the end", _integer(1, 3600), "25")
    log_format: str | None = _setting("`json` or `console`; unset: json off a terminal", _one_of("json", "console"))
    log_level: str = _setting(
        "`debug`, `info`, `warning` or `error`", _one_of("debug", "info", "warning", "error"), "info"
    )


_DERIVED: dict[str, Callable[[Mapping[str, object]], object]] = {
    "kafka_changelog_topic": lambda known: f"{known['kafka_group_id']}-dedupe-changelog",
    "kafka_properties_file": lambda _: Properties(),
    "schema_registry_properties_file": lambda _: Properties(),
    "source_mapping": lambda _: {},
    "fuse_releases": lambda _: {},
    "genesys_login_url": lambda known: f"https://login.{known['genesys_region']}",
    "genesys_api_url": lambda known: f"https://api.{known['genesys_region']}",
    "genesys_upload_url": lambda known: f"https://apps.{known['genesys_region']}",
    "schemas_dir": lambda _: packaged_schemas(),
    "genesys_attribute_columns": lambda _: (),
}
"""What an unset setting becomes, where that is not None; it may follow from those before it."""


def _unset(_: Mapping[str, object]) -> None:
    return None


def rules() -> dict[str, _Rule]:
    """The rule of every setting, by environment variable, in the order of the documentation."""
    return {f.name.upper(): f.metadata["rule"] for f in fields(Settings)}


def load(
    environ: Mapping[str, str] = os.environ, config: Path | None = None, unneeded: tuple[str, ...] = ()
) -> Settings:
    """Read and check all settings.

    Args:
        environ: Environment variables.
        config: TOML file below the environment.
        unneeded: Prefixes of settings that may be missing although they are required otherwise.

    Raises:
        SettingsError: With one sentence for each thing that is wrong.
    """
    problems: list[str] = []
    below = _read_config(config, problems)
    known: dict[str, object] = {}
    for name, rule in rules().items():
        try:
            raw = _raw(name, rule, environ, below)
            if not raw and rule.default is None and not name.startswith(unneeded):
                problems.append(f"{name}: required ({rule.help})")
            known[name.lower()] = rule.parse(raw) if raw else _DERIVED.get(name.lower(), _unset)(known)
        except (_BadError, OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}: {error}")
            known[name.lower()] = None
    problems += _unknown(below) + _contradictions(known)
    if problems:
        raise SettingsError(problems)
    return Settings(**known)  # type: ignore[arg-type]  # each value came from the field's own parser


def _contradictions(known: Mapping[str, object]) -> list[str]:
    """What no setting breaks alone."""
    found = _shared_topics(known) + _late_requests(known) + _no_source_topics(known) + _nothing_to_release(known)
    return found + [f"SCHEMA_REGISTRY_PROPERTIES_FILE: {problem}" for problem in _two_minds(known)]


def _two_minds(known: Mapping[str, object]) -> Iterator[str]:
    """What the properties of the registry's client contradict in the settings."""
    chosen, url = known["schema_registry_properties_file"], known["schema_registry_url"]
    if not isinstance(chosen, Properties) or not chosen:
        return
    if not isinstance(url, str):
        yield "there is no registry; set SCHEMA_REGISTRY_URL too, or neither"
        return
    registry = urlsplit(url)
    if properties.SOURCE in chosen and (registry.username or known["schema_registry_username"]):
        yield f"{properties.SOURCE} is one way to log in, SCHEMA_REGISTRY_USERNAME another; choose one"
    useless = {name for name in chosen if name.startswith("ssl.")}
    if chosen.get(properties.SOURCE) == properties.FETCHED:
        useless.discard(properties.CA)
    if registry.scheme == "http" and useless:
        yield f"{', '.join(sorted(useless))} cannot be used, since SCHEMA_REGISTRY_URL is plain http"


def _no_source_topics(known: Mapping[str, object]) -> list[str]:
    """Topics for which something is chosen, and which are no source."""
    sources = known["kafka_source_topics"]
    chosen = {name: known[name] for name in ("source_framing", "source_key", "source_envelope", "fuse_releases")}
    named = {name: choice.named if isinstance(choice, PerTopic) else choice for name, choice in chosen.items()}
    return [
        f"{name.upper()}: {topic} is not in KAFKA_SOURCE_TOPICS"
        for name, topics in named.items()
        if isinstance(topics, Mapping) and isinstance(sources, tuple)
        for topic in sorted(topics.keys() - {*sources})
    ]


def _nothing_to_release(known: Mapping[str, object]) -> list[str]:
    if known["genesys_dnc_release"] is True and known["genesys_dnc_list"] is None:
        return ["GENESYS_DNC_RELEASE: there is no do-not-call list; set GENESYS_DNC_LIST too, or neither"]
    return []


def _late_requests(known: Mapping[str, object]) -> list[str]:
    """A request must be over before another consumer can own its partition, or it could land after a newer one."""
    of_kafka, limit_s = known["kafka_properties_file"], known["genesys_request_timeout_s"]
    session_ms = of_kafka.get("session.timeout.ms", "") if isinstance(of_kafka, Properties) else ""
    if not (isinstance(limit_s, int) and session_ms.isdecimal() and int(session_ms) < limit_s * 1000):
        return []
    return [f"GENESYS_REQUEST_TIMEOUT_S: {limit_s} s is longer than session.timeout.ms={session_ms} of Kafka"]


def _shared_topics(known: Mapping[str, object]) -> list[str]:
    """Topics of which two settings make use."""
    topics = [known["kafka_audit_topic"], known["kafka_dead_letter_topic"], known["kafka_changelog_topic"]]
    sources = known["kafka_source_topics"]
    every = [*topics, *(sources if isinstance(sources, tuple) else ())]
    twice = sorted({str(topic) for topic in every if topic is not None and every.count(topic) > 1})
    return [f"topic {topic}: named by two settings; each needs its own" for topic in twice]


def _raw(name: str, rule: _Rule, environ: Mapping[str, str], below: Mapping[str, str]) -> str:
    """The text of a setting: environment, its file, configuration file, default."""
    for source in (environ, below):
        if source.get(name):
            return source[name]
        if rule.secret and source.get(f"{name}_FILE"):
            return Path(source[f"{name}_FILE"]).read_text(encoding="utf-8").strip()
    return rule.default or ""


def _read_config(config: Path | None, problems: list[str]) -> dict[str, str]:
    if config is None:
        return {}
    try:
        return _flatten("", tomllib.loads(config.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"--config {config}: {error}")
        return {}


def _flatten(prefix: str, table: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}{key.upper()}"
        if isinstance(value, dict):
            flat |= _flatten(f"{name}_", value)
        elif isinstance(value, list):
            flat[name] = ",".join(map(str, value))
        else:
            flat[name] = str(value)
    return flat


def _unknown(below: Mapping[str, str]) -> list[str]:
    names = rules()
    secret_files = {f"{name}_FILE" for name, rule in names.items() if rule.secret}
    return [
        f"{name}: no such setting (in the configuration file)" for name in below.keys() - names.keys() - secret_files
    ]
