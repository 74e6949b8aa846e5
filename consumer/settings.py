"""All settings, with their defaults, rules and explanations; checked at start, every bad one named at once.

Environment variables come first, then the TOML file of `--config`, then the default. In the file a setting has its
name in lower case, tables joined by an underscore: `[kafka] group_id` is `KAFKA_GROUP_ID`. This module reads the
environment, that file, and those that hold secrets. `OTEL_*` variables are the OpenTelemetry SDK's own.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

from consumer import setting_values as values
from consumer.errors import SettingsError
from consumer.formats import EnvelopeName, Framing, KeyFormat, PerTopic
from consumer.properties import Properties
from consumer.setting_conflicts import conflicts


def _release() -> str:
    try:
        return metadata.version("genesys-consumer")
    except metadata.PackageNotFoundError:  # a checkout that is run without being installed
        return "dev"


RELEASE = _release()
"""Version of the program."""

_NEAR = 0.9
"""Likeness of two names of which one is taken for a slip of the other: a letter more, less, or another one."""

_BAD = (values.BadValueError, OSError, UnicodeDecodeError, RecursionError)
"""What comes of values, and of the files that they name."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one setting is read.

    Attributes:
        help: What it is, for the table in the documentation.
        parse: From text to value; raises `values.BadValueError`.
        default: Text taken when it is not set; None makes it required; "" leaves it unset (None).
        secret: May also come as a file named by `<NAME>_FILE`, and is never shown.
    """

    help: str
    parse: Callable[[str], object] = values.text
    default: str | None = ""
    secret: bool = False


def _setting(
    help_: str, parse: Callable[[str], object] = values.text, default: str | None = "", *, secret: bool = False
) -> Any:
    """Declare a setting: Any, since the attribute has the type that `parse` returns."""
    return field(metadata={"rule": _Rule(help_, parse, default, secret)}, repr=not secret)


def packaged_schemas() -> Path:
    """The schemas that come with the program."""
    return _packaged("schemas")


def ready_made_mappings() -> dict[str, dict[str, Any]]:
    """The mappings that come with the program: tables by envelope."""
    return {path.stem: values.toml(str(path)) for path in sorted(_packaged("mappings").glob("*.toml"))}


def _packaged(name: str) -> Path:
    """A directory that comes with the program: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, checked. Attribute names are the environment variables' in lower case."""

    kafka_bootstrap_servers: str = _setting("Kafka brokers, comma-separated HOST:PORT", values.brokers, None)
    kafka_source_topics: tuple[str, ...] = _setting(
        "Topics with change events, comma-separated", values.topics, "crm.contacts.changes"
    )
    kafka_group_id: str = _setting("Consumer group, in printable ASCII", values.printable, "genesys-consumer")
    kafka_audit_topic: str = _setting("Topic of audit events", values.topic, "crm.contacts.audit")
    kafka_dead_letter_topic: str = _setting("Topic of dead letters", values.topic, "crm.contacts.dead-letters")
    kafka_changelog_topic: str = _setting(
        "Compacted topic that holds the dedupe state; unset: `<group id>-dedupe-changelog`", values.topic
    )
    kafka_properties_file: Properties = _setting(
        "File of librdkafka properties, one `key=value` a line: TLS, SASL, anything", values.kafka_properties
    )
    kafka_start: str = _setting(
        "Where a group without offsets begins: `earliest` or `latest`",
        values.one_of("earliest", "latest"),
        "earliest",
    )
    kafka_group_instance_id: str | None = _setting(
        "Static membership: a name that this instance keeps over restarts, in printable ASCII", values.printable
    )
    kafka_guarantee: str = _setting(
        "`exactly_once`, or `at_least_once` for brokers without transactions",
        values.one_of("exactly_once", "at_least_once"),
        "exactly_once",
    )
    source_framing: PerTopic[Framing] = _setting(
        "How records name their schemas, for all source topics, or `topic=framing` for some, comma-separated: "
        + ", ".join(f"`{framing}`" for framing in Framing),
        values.per_topic(Framing.CONFLUENT),
        "confluent",
    )
    source_key: PerTopic[KeyFormat] = _setting(
        "How the key of a tombstone holds the external id, in the same way: "
        + ", ".join(f"`{key_format}`" for key_format in KeyFormat),
        values.per_topic(KeyFormat.STRING),
        "string",
    )
    source_envelope: PerTopic[EnvelopeName] = _setting(
        "What stands around a contact in a record, in the same way: "
        + ", ".join(f"`{envelope}`" for envelope in EnvelopeName),
        values.per_topic(EnvelopeName.NATIVE),
        "native",
    )
    source_mapping: dict[str, Any] = _setting(
        "TOML file that says which field becomes which; unset: the ready-made mappings", values.toml
    )
    schema_registry_url: str | None = _setting(
        "Schema registry with Confluent's API; unset: local schemas alone", values.url
    )
    schema_registry_username: str | None = _setting("User name at the registry")
    schema_registry_password: str | None = _setting("Password at the registry", secret=True)
    schema_registry_properties_file: Properties = _setting(
        "File of properties as Confluent's registry clients have them, one `key=value` a line: TLS, tokens",
        values.registry_properties,
    )
    schemas_dir: Path = _setting(
        "Local schemas: `ids.json` maps ids to files, and each file has its fingerprint; unset: the packaged ones",
        values.directory,
    )
    schema_unknown_timeout_s: int = _setting(
        "How long the registry may lag before records of an unknown schema id are rejected",
        values.Integer(0, 86400),
        "60",
    )
    suppress_undecodable: bool = _setting(
        "A record that cannot be decoded may be a withdrawal: the contact that its key names is not callable until a "
        "later change of it, or the record replayed, can be decoded: `true` or `false`",
        values.boolean,
        "false",
    )
    fuse_deletes: int = _setting(
        "More deletes than this among the last 1,000 change events of a topic stop it until somebody releases it; "
        "0: any number passes",
        values.Integer(0, 999),
        "500",
    )
    fuse_releases: dict[str, tuple[int, ...]] = _setting(
        "What a tripped fuse lets through, comma-separated: `topic@2026-11-29T06:00:00Z` for its records up to that "
        "time; also beside that, `topic@1970-01-01T00:00:00Z` for those without a time; the log says what to set",
        values.releases,
    )
    genesys_region: str = _setting("AWS region name or Genesys domain", values.region, "us-east-1")
    genesys_oauth_client_id: str = _setting(
        "Id of the OAuth client (client credentials)", values.name, None, secret=True
    )
    genesys_oauth_client_secret: str = _setting("Secret of the OAuth client", values.name, None, secret=True)
    genesys_contact_list: str = _setting(
        "Contact list, by name or id; a missing name is created", values.list_name, None
    )
    genesys_attribute_columns: tuple[tuple[str, str], ...] = _setting(
        "Attributes that become columns, comma-separated: `source` or `source=column`", values.columns
    )
    genesys_dnc_list: str | None = _setting(
        "Internal do-not-call list, by name or id, for numbers of people who withdrew consent or set do-not-call; "
        "a missing name is created; unset: none",
        values.list_name,
    )
    genesys_dnc_release: bool = _setting(
        "Whether a number is taken off the do-not-call list when its contact grants again, provably later: "
        "only for a list that nobody else uses",
        values.boolean,
        "false",
    )
    genesys_login_url: str = _setting("Login host; unset: from the region", values.genesys_url)
    genesys_api_url: str = _setting("API host; unset: from the region", values.genesys_url)
    genesys_upload_url: str = _setting(
        "Host of file uploads in their older form, for `load`; unset: from the region", values.genesys_url
    )
    genesys_requests_per_minute: int = _setting(
        "Client-side limit of requests; a lower one that Genesys tells takes its place",
        values.Integer(1, 100_000),
        "300",
    )
    genesys_max_in_flight: int = _setting("Requests sent and unanswered at a time", values.Integer(1, 64), "4")
    genesys_request_timeout_s: int = _setting("Total time limit of a request", values.Integer(1, 40), "20")
    batch_max_records: int = _setting("Contacts in a request", values.Integer(1, 1000), "100")
    batch_max_bytes: int = _setting("Bytes in a request's body", values.Integer(1000, 512_000), "500000")
    batch_linger_ms: int = _setting("Longest wait of a change for its batch to fill", values.Integer(0, 60_000), "500")
    read_ahead_records: int = _setting(
        "Records held while Genesys is slower than the stream; withdrawals among them go first",
        values.Integer(100, 10_000_000),
        "50000",
    )
    settle_interval_ms: int = _setting("Longest wait before a transaction", values.Integer(1, 60_000), "200")
    state_dir: Path = _setting("Directory of the RocksDB stores", values.path, "./state")
    state_retention_days: int = _setting(
        "Days after which a contact without changes is forgotten; 0: never", values.Integer(0, 36_500), "0"
    )
    pseudonym_key: str | None = _setting(
        "Key of the pseudonyms in audit events, 16 characters or more; unset: random, kept in the state directory",
        values.key,
        secret=True,
    )
    http_address: tuple[str | None, int] = _setting(
        "Probes, metrics and status page; `*:8080`: at all addresses, of IPv4 and of IPv6",
        values.http_address,
        "0.0.0.0:8080",
    )
    drain_timeout_s: int = _setting("Time for finishing what is in flight at the end", values.Integer(1, 3600), "25")
    log_format: str | None = _setting(
        "`json` or `console`; unset: json off a terminal", values.one_of("json", "console")
    )
    log_level: str = _setting(
        "`debug`, `info`, `warning` or `error`; `debug` adds only what `debug=…` makes the Kafka clients say",
        values.one_of("debug", "info", "warning", "error"),
        "info",
    )

    @property
    def forgets(self) -> bool:
        """Whether contacts are forgotten when nothing was settled of them for some time."""
        return self.state_retention_days > 0


def _changelog(known: Mapping[str, object]) -> str:
    """The changelog of a group."""
    try:
        return values.topic(f"{known['kafka_group_id']}-dedupe-changelog")
    except values.BadValueError as error:
        raise values.BadValueError(f"must be set, since it would be named after the group: {error}") from None


_DERIVED: dict[str, Callable[[Mapping[str, object]], object]] = {
    "kafka_changelog_topic": _changelog,
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
    config_file = _read_config(config, problems)
    below = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in config_file.items()
    }
    known: dict[str, object] = {}
    for name, rule in rules().items():
        try:
            raw = _raw(name, rule, environ, below)
            if not raw and rule.default is None and not name.startswith(unneeded):
                problems.append(f"{name}: required ({rule.help}){_slip_of(name, environ)}")
            known[name.lower()] = rule.parse(raw) if raw else _DERIVED.get(name.lower(), _unset)(known)
        except _BAD as error:
            problems.append(f"{name}: {_reason(error)}")
            known[name.lower()] = None
    problems += _unknown(below) + _of_another_type(config_file, known) + conflicts(known)
    if problems:
        raise SettingsError([*map(_on_one_line, problems)])
    return Settings(**known)  # type: ignore[arg-type]  # each value came from the field's own parser


def _reason(error: Exception) -> str:
    """What to say of a value, without the name of a file: it may be what should stand in the file, and a secret."""
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror}"
    return "is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _on_one_line(problem: str) -> str:
    """The sentence with whatever a terminal would not show as a character spelt out."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in problem)


def _raw(name: str, rule: _Rule, environ: Mapping[str, str], below: Mapping[str, str]) -> str:
    """The text of a setting: environment, its file, configuration file, default."""
    for source in (environ, below):
        if source.get(name):
            return values.whole(source[name])
        if rule.secret and source.get(f"{name}_FILE"):
            # Editors of Windows begin a file with a mark (BOM) that is no part of the secret.
            content = Path(values.whole(source[f"{name}_FILE"])).read_text(encoding="utf-8-sig")
            return values.name(values.whole(content.strip()))
    return rule.default or ""


def _read_config(config: Path | None, problems: list[str]) -> dict[str, object]:
    if config is None:
        return {}
    try:
        return _flatten("", values.toml(str(config)))
    except _BAD as error:
        problems.append(f"--config {config}: {_reason(error)}")
        return {}


def _flatten(prefix: str, table: Mapping[str, object]) -> dict[str, object]:
    """The values of all tables, by name of the setting."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        name = f"{prefix}{key.upper()}"
        if isinstance(value, dict):
            flat |= _flatten(f"{name}_", value)
        else:
            flat[name] = value
    return flat


def misspelt(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Names in the environment that are no settings, with the unset setting that each nearly is.

    A configuration file can have no other names; the environment is full of them, so that a slip there does not show.
    """
    near = {name: _nearest(name.upper(), environ) for name in environ.keys() - _names()}
    return {_on_one_line(name): meant for name, meant in sorted(near.items()) if meant is not None}


def _slip_of(name: str, environ: Mapping[str, str]) -> str:
    """What to say of a missing setting that is there under another name."""
    slips = [slip for slip, meant in misspelt(environ).items() if meant in {name, f"{name}_FILE"}]
    return f"; {', '.join(slips)} in the environment is no setting: is it meant?" if slips else ""


def _nearest(name: str, environ: Mapping[str, str]) -> str | None:
    """The setting that was left out for this name: the shortest that goes on where it ends, or one nearly as it is.

    One word is the beginning of many a name, and a likely variable of something else.
    """
    longer = [each for each in sorted(_names()) if "_" in name and each.startswith(f"{name}_")]
    nearest = [min(longer, key=len)] if longer else get_close_matches(name, _names() - environ.keys(), 1, _NEAR)
    return next((each for each in nearest if each not in environ), None)


def _names() -> set[str]:
    """Of settings, and of the files that may hold them."""
    return {*rules(), *(f"{name}_FILE" for name, rule in rules().items() if rule.secret)}


def _unknown(below: Mapping[str, str]) -> list[str]:
    return [f"{name}: no such setting (in the configuration file)" for name in below.keys() - _names()]


def _of_another_type(config_file: Mapping[str, object], known: Mapping[str, object]) -> list[str]:
    """Numbers and the like where a text is meant: `7` as a name may be a slip, and means something else elsewhere."""
    return [
        f"{name}: must be text, in quotation marks (in the configuration file)"
        for name, value in config_file.items()
        if not isinstance(value, str | list)
        and known.get(name.lower()) is not None
        and type(known[name.lower()]) is not type(value)
    ]
