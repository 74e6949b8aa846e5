"""Settings: where they come from, what they default to, what is refused, and that no secret is shown."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.columns import OWN
from consumer.errors import SettingsError
from consumer.formats import Framing, KeyFormat
from consumer.setting_values import OWN_PROPERTIES, REGIONS
from consumer.settings import Settings, load, misspelt, packaged_schemas, rules

REQUIRED = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker:9092",
    "GENESYS_OAUTH_CLIENT_ID": "the-id",
    "GENESYS_OAUTH_CLIENT_SECRET": "the-secret",
    "GENESYS_CONTACT_LIST": "People",
}

DEFAULTS: dict[str, object] = {
    "KAFKA_SOURCE_TOPICS": ("crm.contacts.changes",),
    "KAFKA_GROUP_ID": "genesys-consumer",
    "KAFKA_AUDIT_TOPIC": "crm.contacts.audit",
    "KAFKA_DEAD_LETTER_TOPIC": "crm.contacts.dead-letters",
    "KAFKA_CHANGELOG_TOPIC": "genesys-consumer-dedupe-changelog",
    "KAFKA_PROPERTIES_FILE": {},
    "KAFKA_START": "earliest",
    "KAFKA_GROUP_INSTANCE_ID": None,
    "KAFKA_GUARANTEE": "exactly_once",
    "SCHEMA_REGISTRY_URL": None,
    "SCHEMA_REGISTRY_USERNAME": None,
    "SCHEMA_REGISTRY_PASSWORD": None,
    "SCHEMA_REGISTRY_PROPERTIES_FILE": {},
    "SCHEMAS_DIR": packaged_schemas(),
    "GENESYS_REGION": "mypurecloud.com",
    "GENESYS_ATTRIBUTE_COLUMNS": (),
    "GENESYS_DNC_LIST": None,
    "GENESYS_LOGIN_URL": "https://login.mypurecloud.com",
    "GENESYS_API_URL": "https://api.mypurecloud.com",
    "GENESYS_UPLOAD_URL": "https://apps.mypurecloud.com",
    "GENESYS_REQUESTS_PER_MINUTE": 300,
    "GENESYS_MAX_IN_FLIGHT": 4,
    "BATCH_MAX_RECORDS": 100,
    "BATCH_MAX_BYTES": 500_000,
    "BATCH_LINGER_MS": 500,
    "READ_AHEAD_RECORDS": 50_000,
    "SETTLE_INTERVAL_MS": 200,
    "STATE_DIR": Path("state"),
    "PSEUDONYM_KEY": None,
    "HTTP_ADDRESS": ("0.0.0.0", 8080),  # noqa: S104 -- as documented
    "DRAIN_TIMEOUT_S": 25,
    "LOG_FORMAT": None,
    "LOG_LEVEL": "info",
}
"""What others rely on."""

SECRETS = ("GENESYS_OAUTH_CLIENT_ID", "GENESYS_OAUTH_CLIENT_SECRET", "SCHEMA_REGISTRY_PASSWORD", "PSEUDONYM_KEY")

FILES = ("KAFKA_PROPERTIES_FILE", "SCHEMA_REGISTRY_PROPERTIES_FILE", "SOURCE_MAPPING")
TOPICS = ("KAFKA_SOURCE_TOPICS", "KAFKA_AUDIT_TOPIC", "KAFKA_DEAD_LETTER_TOPIC", "KAFKA_CHANGELOG_TOPIC")
URLS = ("SCHEMA_REGISTRY_URL", "GENESYS_LOGIN_URL", "GENESYS_API_URL", "GENESYS_UPLOAD_URL")

UNPRINTABLE = [
    ("pod-1\n", "the end of a line"),
    ("pod\r\n1", "the end of a line"),
    ("pod-\u00e4", r"'\xe4', which is not ASCII"),
    ("pod\u00a0-1", r"'\xa0', which is not ASCII"),
    ("\u65e5\u672c", r"'\u65e5', which is not ASCII"),
    ("a\tb", r"'\t', which is a control character"),
    ("a\x7fb", r"'\x7f', which is a control character"),
    ("a\x1b[31mb", r"'\x1b', which is a control character"),
]
"""Names that nothing is settled under, with what is said of them."""


def read(config: Path | None = None, /, **environ: str) -> Settings:
    """Settings of the required ones and these."""
    return load(REQUIRED | environ, config)


def value(name: str, config: Path | None = None, /, **environ: str) -> object:
    """One setting, by the name of its variable."""
    return getattr(read(config, **environ), name.lower())


def problems(config: Path | None = None, required: Mapping[str, str] = REQUIRED, /, **environ: str) -> list[str]:
    """What is wrong with these, and with those of the required ones that there are."""
    with pytest.raises(SettingsError) as caught:
        load({**required, **environ}, config)
    return list(caught.value.problems)


def toml(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "consumer.toml"
    path.write_text(text, encoding="utf-8")
    return path


def secret_file(folder: Path, content: str | bytes) -> str:
    """A file that holds a secret."""
    path = folder / "secret"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def properties(folder: Path, *lines: str) -> str:
    """A file of Kafka properties."""
    path = folder / "kafka.properties"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


# -- defaults


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_interface(name: str) -> None:
    """What is not set has the documented default."""
    assert value(name) == DEFAULTS[name]


def test_the_required_ones_are_those_of_the_interface() -> None:
    """Nothing else must be set, and each of these must."""
    assert {name for name, rule in rules().items() if rule.default is None} == set(REQUIRED)
    told = problems(None, {})
    assert [problem.partition(":")[0] for problem in told] == [name for name in rules() if name in REQUIRED]
    assert all(": required (" in problem for problem in told)


def test_every_setting_of_the_interface_exists() -> None:
    """Charts and scripts use these names; those that are not in the interface are few and known."""
    beside = {"SOURCE_FRAMING", "SOURCE_KEY", "SCHEMA_UNKNOWN_TIMEOUT_S", "GENESYS_REQUEST_TIMEOUT_S"}
    beside |= {
        "STATE_RETENTION_DAYS",
        "SUPPRESS_UNDECODABLE",
        "FUSE_DELETES",
        "FUSE_RELEASES",
        "GENESYS_DNC_RELEASE",
        "SOURCE_ENVELOPE",
        "SOURCE_MAPPING",
    }
    assert set(rules()) - beside == set(DEFAULTS) | set(REQUIRED)
    assert all(rule.help for rule in rules().values())


def test_an_empty_variable_is_not_set() -> None:
    """Charts pass on empty values: they mean the default, and do not satisfy what is required."""
    assert value("KAFKA_GROUP_ID", KAFKA_GROUP_ID="") == "genesys-consumer"
    assert value("SCHEMA_REGISTRY_URL", SCHEMA_REGISTRY_URL="") is None
    assert [told.partition(":")[0] for told in problems(GENESYS_CONTACT_LIST="")] == ["GENESYS_CONTACT_LIST"]


def test_settings_that_a_command_does_not_need_may_be_missing() -> None:
    """Sample events go to Kafka alone; what is set is checked all the same."""
    only_kafka = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092"}
    assert load(only_kafka, unneeded=("GENESYS_",)).kafka_bootstrap_servers == "broker:9092"
    with pytest.raises(SettingsError, match="GENESYS_REGION"):
        load(only_kafka | {"GENESYS_REGION": "mars"}, unneeded=("GENESYS_",))
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
        load({}, unneeded=("GENESYS_",))


def test_settings_do_not_change() -> None:
    """Whoever holds them reads what was checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().kafka_group_id = "other"  # type: ignore[misc]


# -- what follows from others


def test_the_changelog_is_named_after_the_group() -> None:
    """Two groups on one cluster do not share their state, unless told to."""
    assert value("KAFKA_CHANGELOG_TOPIC", KAFKA_GROUP_ID="mine") == "mine-dedupe-changelog"
    assert value("KAFKA_CHANGELOG_TOPIC", KAFKA_GROUP_ID="mine", KAFKA_CHANGELOG_TOPIC="other") == "other"


@pytest.mark.parametrize(("region", "domain"), [*REGIONS.items(), ("mypurecloud.ie", "mypurecloud.ie")])
def test_a_region_gives_the_hosts(region: str, domain: str) -> None:
    """By AWS name or by Genesys domain, login, API and uploads are those of the region."""
    chosen = read(GENESYS_REGION=region)
    hosts = (chosen.genesys_login_url, chosen.genesys_api_url, chosen.genesys_upload_url)
    assert hosts == (f"https://login.{domain}", f"https://api.{domain}", f"https://apps.{domain}")


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("us-east-1", "mypurecloud.com"),
        ("us-west-2", "usw2.pure.cloud"),
        ("eu-central-1", "mypurecloud.de"),
        ("eu-west-1", "mypurecloud.ie"),
        ("ap-southeast-2", "mypurecloud.com.au"),
        ("ap-northeast-1", "mypurecloud.jp"),
    ],
)
def test_well_known_regions_have_their_domains(region: str, domain: str) -> None:
    """Contact data of one region must not go to another."""
    assert value("GENESYS_REGION", GENESYS_REGION=region) == domain


@pytest.mark.parametrize("region", ["mars", "us-east-9", "MYPURECLOUD.COM", "mypurecloud.com.evil.example", " "])
def test_an_unknown_region_is_refused(region: str) -> None:
    """Nor is it guessed: the ones there are are named, and no host follows from it."""
    (problem,) = problems(GENESYS_REGION=region)
    assert problem.startswith("GENESYS_REGION: ")
    assert "eu-central-1" in problem


# -- what is refused


@pytest.mark.parametrize(
    ("name", "raw", "rule"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", " ", "must not be empty"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://broker:9092", "must be HOST:PORT"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,broker:abc", "broker:abc is no broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:0", "must be HOST:PORT"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:65536", "must be HOST:PORT"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker 9092", "must be HOST:PORT"),
        ("KAFKA_SOURCE_TOPICS", " , ", "at least one"),
        ("KAFKA_GROUP_ID", "  ", "must not be empty"),
        ("KAFKA_START", "middle", "earliest, latest"),
        ("KAFKA_GUARANTEE", "at_most_once", "exactly_once, at_least_once"),
        ("KAFKA_PROPERTIES_FILE", "/nowhere/kafka.properties", "No such file"),
        ("SCHEMA_REGISTRY_URL", "registry:8081", "must be a URL"),
        ("SCHEMA_REGISTRY_URL", "ftp://registry", "must be a URL"),
        ("SCHEMA_REGISTRY_URL", "https://", "must be a URL"),
        ("SCHEMAS_DIR", "/nowhere", "directory that exists"),
        ("GENESYS_REQUESTS_PER_MINUTE", "0", "from 1 to 100000"),
        ("GENESYS_DNC_RELEASE", "yes", "true or false"),
        ("FUSE_DELETES", "1000", "from 0 to 999"),
        ("FUSE_DELETES", "half", "whole number"),
        ("FUSE_RELEASES", "crm.contacts.changes", "topic@time"),
        ("FUSE_RELEASES", "@2026-11-29T06:00:00Z", "topic@time"),
        ("FUSE_RELEASES", "crm.contacts.changes@now", "topic@time"),
        ("FUSE_RELEASES", "crm.contacts.changes@2026-11-29T06:00:00", "topic@time"),
        ("FUSE_RELEASES", ",".join(["crm.contacts.changes@2026-11-29T06:00:00Z"] * 2), "each topic once"),
        ("FUSE_RELEASES", "c@2026-11-29T06:00:00Z,c@2026-11-29T06:00:01Z,c@1970-01-01T00:00:00Z", "each topic once"),
        ("FUSE_RELEASES", ",".join(["crm.contacts.changes@1970-01-01T00:00:00Z"] * 2), "each topic once"),
        ("GENESYS_MAX_IN_FLIGHT", "65", "from 1 to 64"),
        ("GENESYS_REQUEST_TIMEOUT_S", "41", "from 1 to 40"),
        ("BATCH_MAX_RECORDS", "1001", "from 1 to 1000"),
        ("BATCH_MAX_RECORDS", "10.5", "whole number"),
        ("BATCH_MAX_RECORDS", "ten", "whole number"),
        ("BATCH_MAX_RECORDS", " 10", "whole number"),
        ("BATCH_MAX_RECORDS", "\u0661\u0660", "whole number"),
        ("BATCH_MAX_RECORDS", "9" * 5000, "whole number"),
        ("BATCH_MAX_BYTES", "512001", "from 1000 to 512000"),
        ("BATCH_LINGER_MS", "-1", "from 0 to 60000"),
        ("READ_AHEAD_RECORDS", "99", "from 100"),
        ("SETTLE_INTERVAL_MS", "0", "from 1"),
        ("SCHEMA_UNKNOWN_TIMEOUT_S", "86401", "to 86400"),
        ("DRAIN_TIMEOUT_S", "0", "from 1"),
        ("HTTP_ADDRESS", "8080", "HOST:PORT"),
        ("HTTP_ADDRESS", ":8080", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1:", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1:65536", "HOST:PORT"),
        ("HTTP_ADDRESS", "http://0.0.0.0:8080", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1 :8080", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1:http", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1:\u00b2", "HOST:PORT"),
        ("HTTP_ADDRESS", "127.0.0.1:\u0668\u0660", "HOST:PORT"),
        ("HTTP_ADDRESS", f"127.0.0.1:{'9' * 5000}", "HOST:PORT"),
        ("PSEUDONYM_KEY", "fifteen letters", "16 characters or more"),
        ("LOG_FORMAT", "xml", "json, console"),
        ("LOG_LEVEL", "loud", "debug, info, warning, error"),
    ],
)
def test_a_bad_value_is_refused_with_its_rule(name: str, raw: str, rule: str) -> None:
    """The sentence begins with the setting and says what would be right."""
    (problem,) = problems(**{name: raw})
    assert problem.startswith(f"{name}: ")
    assert rule in problem
    assert name not in SECRETS or raw not in problem


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("KAFKA_SOURCE_TOPICS", " a, b ,,c ", ("a", "b", "c")),
        ("KAFKA_START", "LATEST", "latest"),
        ("BATCH_LINGER_MS", "0", 0),
        ("BATCH_LINGER_MS", "60000", 60_000),
        ("HTTP_ADDRESS", "127.0.0.1:0", ("127.0.0.1", 0)),
        ("HTTP_ADDRESS", "[::1]:8080", ("::1", 8080)),
        ("HTTP_ADDRESS", "::1:8080", ("::1", 8080)),
        ("HTTP_ADDRESS", "*:8080", (None, 8080)),
        ("SCHEMA_REGISTRY_URL", "http://registry:8081/", "http://registry:8081"),
        ("STATE_DIR", "/var/lib/consumer", Path("/var/lib/consumer")),
        ("PSEUDONYM_KEY", "sixteen letters!", "sixteen letters!"),
        ("LOG_LEVEL", "Debug", "debug"),
    ],
)
def test_a_good_value_is_read(name: str, raw: str, expected: object) -> None:
    """The least, the most, and other spellings of the same."""
    assert value(name, **{name: raw}) == expected


@pytest.mark.parametrize("name", ["KAFKA_GROUP_ID", "KAFKA_GROUP_INSTANCE_ID"])
@pytest.mark.parametrize(("raw", "kind"), UNPRINTABLE)
def test_a_name_in_the_group_is_printable_ascii(name: str, raw: str, kind: str) -> None:
    """With any other the library joins the group, and settles nothing for ever."""
    assert problems(**{name: raw}) == [f"{name}: must be printable ASCII, and holds {kind}"]
    assert value(name, KAFKA_CHANGELOG_TOPIC="changelog", **{name: ' pod-1 ~!"#$%'}) == ' pod-1 ~!"#$%'
    assert problems(**{name: " "}) == [f"{name}: must not be empty"]


def test_a_group_whose_name_no_topic_can_have_needs_a_name_for_its_changelog() -> None:
    """That is named after the group; the group itself may be called so."""
    (problem,) = problems(KAFKA_GROUP_ID="two words")
    assert problem.startswith("KAFKA_CHANGELOG_TOPIC: must be set, since it would be named after the group: 'two ")
    assert value("KAFKA_CHANGELOG_TOPIC", KAFKA_GROUP_ID="two words", KAFKA_CHANGELOG_TOPIC="two-words") == "two-words"


@pytest.mark.parametrize("name", TOPICS)
@pytest.mark.parametrize("raw", ["a b", "a/b", "\u00e4", ".", "..", "a" * 250, "a\\b", "^crm.*", "a\tb"])
def test_what_no_topic_can_be_called_is_refused(name: str, raw: str) -> None:
    """Brokers would refuse it, and that only after Genesys has been asked for everything."""
    (problem,) = problems(**{name: raw})
    assert problem.startswith(f"{name}: {raw[:100]!r} is no topic: must be 1 to 249 of ")


@pytest.mark.parametrize("name", TOPICS)
def test_what_a_topic_can_be_called_is_taken(name: str) -> None:
    """All letters that there are, and the longest name."""
    for raw in ("...", "_a.B-9", "a" * 249):
        assert value(name, **{name: raw}) in (raw, (raw,))


@pytest.mark.parametrize("name", [name for name in TOPICS if name != "KAFKA_SOURCE_TOPICS"])
def test_white_space_is_no_part_of_a_topic(name: str) -> None:
    """Nobody sees it, and YAML leaves some at the end of a text."""
    for raw in (" ", "a\n", " a"):
        (problem,) = problems(**{name: raw})
        assert problem.startswith(f"{name}: {raw!r} is no topic: ")


@pytest.mark.parametrize("name", ["GENESYS_CONTACT_LIST", "GENESYS_DNC_LIST"])
@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (" ", "must not be empty"),
        ("L ", "must not begin or end with white space"),
        ("\u00a0L", "must not begin or end with white space"),
        ("L\n", "must not begin or end with white space"),
        ("x" * 65, "must have at most 64 characters"),
    ],
)
def test_a_name_that_genesys_refuses_or_nobody_means_is_refused(name: str, raw: str, rule: str) -> None:
    """With a blank behind it, it would be a second list beside the one that campaigns call from."""
    assert problems(**{name: raw}) == [f"{name}: {rule}"]


@pytest.mark.parametrize("name", ["GENESYS_CONTACT_LIST", "GENESYS_DNC_LIST"])
def test_any_other_name_may_be_that_of_a_list(name: str) -> None:
    """Up to Genesys' limit, in any letters."""
    for raw in ("x" * 64, "K\u00e4ufer / 2026 \\ \U0001f600", "ecd27c20-ac36-4866-b476-caed9d839fc5"):
        assert value(name, **{name: raw}) == raw


@pytest.mark.parametrize("name", rules())
def test_what_is_not_utf_8_is_refused(name: str) -> None:
    """No request, file or line of the log could be made of it. Python has such bytes as lone surrogates."""
    assert f"{name}: must be UTF-8" in problems(**{name: "\udcff" * 20})


@pytest.mark.parametrize("name", rules())
def test_a_problem_is_one_line_that_a_terminal_shows(name: str) -> None:
    """A value may hold anything, also what clears the screen."""
    told = problems(**{name: "\x1b[2J\n\u202ea", "LOG_LEVEL": "loud"})
    assert all(problem.isprintable() for problem in told)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Whoever sets the program up does not find the next mistake only after mending the last one."""
    told = problems(
        toml(tmp_path, "[kafka]\nstart = 'middle'\nfoo = 1\n"),
        {"GENESYS_CONTACT_LIST": "People", "GENESYS_OAUTH_CLIENT_ID": "the-id"},
        GENESYS_OAUTH_CLIENT_SECRET_FILE=str(tmp_path / "nowhere"),
        GENESYS_REGION="mars",
        GENESYS_API_URL="http://api.example.org",
        KAFKA_PROPERTIES_FILE=properties(tmp_path, "acks=1"),
        KAFKA_AUDIT_TOPIC="same",
        KAFKA_DEAD_LETTER_TOPIC="same",
        BATCH_MAX_RECORDS="many",
    )
    assert [problem.split(":")[0] for problem in told] == [
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_PROPERTIES_FILE",
        "KAFKA_START",
        "GENESYS_REGION",
        "GENESYS_OAUTH_CLIENT_SECRET",
        "GENESYS_API_URL",
        "BATCH_MAX_RECORDS",
        "KAFKA_FOO",
        "topic same",
    ]


def test_the_error_tells_all_of_it_in_its_text() -> None:
    """Also where only the text of the error is seen, nothing is missing."""
    with pytest.raises(SettingsError, match=r"LOG_LEVEL.*; LOG_FORMAT|LOG_FORMAT.*; LOG_LEVEL"):
        read(LOG_LEVEL="loud", LOG_FORMAT="xml")


# -- where they come from


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    """Each level hides the ones below it, setting by setting."""
    config = toml(tmp_path, "[kafka]\ngroup_id = 'from-file'\n[batch]\nlinger_ms = 7\n")
    assert value("KAFKA_GROUP_ID", config, KAFKA_GROUP_ID="from-environment") == "from-environment"
    assert value("KAFKA_GROUP_ID", config) == "from-file"
    assert value("BATCH_LINGER_MS", config) == 7
    assert value("BATCH_MAX_RECORDS", config) == 100


def test_a_variable_that_is_empty_leaves_the_file_its_say(tmp_path: Path) -> None:
    """An empty value in a chart does not hide what the file says."""
    assert value("KAFKA_GROUP_ID", toml(tmp_path, "kafka_group_id = 'mine'"), KAFKA_GROUP_ID="") == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "kafka_source_topics = ['a', 'b']",
        "[kafka]\nsource_topics = ['a', 'b']",
        "[kafka.source]\ntopics = ['a', 'b']",
        "[kafka]\nsource_topics = 'a,b'",
        "[KAFKA]\nSource_Topics = ['a', 'b']",
    ],
)
def test_tables_and_lists_of_the_file_are_read(tmp_path: Path, text: str) -> None:
    """Tables are joined by underscores, in any depth; a list is what the variable has commas for."""
    assert value("KAFKA_SOURCE_TOPICS", toml(tmp_path, text)) == ("a", "b")


def test_the_whole_program_can_be_set_by_the_file(tmp_path: Path) -> None:
    """Numbers are numbers, and required settings may stand there as well."""
    config = toml(
        tmp_path,
        """
        state_dir = "/var/lib/consumer"
        [kafka]
        bootstrap_servers = "broker:9092"
        [genesys]
        contact_list = "People"
        attribute_columns = ["city", "plan=tariff"]
        requests_per_minute = 120
        oauth = { client_id = "the-id", client_secret = "the-secret" }
        """,
    )
    chosen = load({}, config)
    assert chosen.genesys_attribute_columns == (("city", "city"), ("plan", "tariff"))
    assert (chosen.genesys_requests_per_minute, chosen.genesys_oauth_client_secret) == (120, "the-secret")


def test_a_bad_value_of_the_file_is_refused_like_any_other(tmp_path: Path) -> None:
    """The same rules hold, wherever a value comes from."""
    (problem,) = problems(toml(tmp_path, "[batch]\nmax_records = 1.5"))
    assert problem.startswith("BATCH_MAX_RECORDS: must be a whole number")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("state_dir = 5", "STATE_DIR"),
        ("kafka.group_id = 7", "KAFKA_GROUP_ID"),
        ("kafka.group_id = true", "KAFKA_GROUP_ID"),
        ("genesys.requests_per_minute = 2026-01-31", "GENESYS_REQUESTS_PER_MINUTE"),
    ],
)
def test_text_in_the_file_needs_its_quotation_marks(tmp_path: Path, text: str, name: str) -> None:
    """What is no text there is a slip, or means something else than it looks like."""
    (problem,) = problems(toml(tmp_path, text))
    assert problem.startswith(f"{name}: must be ")


def test_numbers_and_truth_in_the_file_may_be_text(tmp_path: Path) -> None:
    """As in the environment."""
    config = toml(tmp_path, "suppress_undecodable = 'true'\ngenesys.requests_per_minute = '120'\nbatch.linger_ms = 5")
    assert value("GENESYS_REQUESTS_PER_MINUTE", config) == 120
    assert value("SUPPRESS_UNDECODABLE", config) is True


@pytest.mark.parametrize(
    "brokers", ["kafka", "kafka:9092", "a.b-c_d:1, [::1]:9092", "SASL_SSL://kafka:9092,10.0.0.1:65535"]
)
def test_addresses_of_brokers_are_taken_as_they_are(brokers: str) -> None:
    """With a port or without, in any form that the library knows."""
    assert read(KAFKA_BOOTSTRAP_SERVERS=brokers).kafka_bootstrap_servers == brokers


@pytest.mark.parametrize(
    "brokers",
    [
        "ann:geheim@kafka:9092",
        "geheim@kafka",
        "a:1,SASL_SSL://ann:geheim@kafka:9092",
        "geheim@kafka:0",
        "ann:geheim,is@kafka:9092",
    ],
)
def test_what_may_hold_a_password_is_not_shown(brokers: str) -> None:
    """No broker has a user in its address: who writes one there writes the password too."""
    (problem,) = problems(KAFKA_BOOTSTRAP_SERVERS=brokers)
    assert problem.startswith("KAFKA_BOOTSTRAP_SERVERS: what holds @, perhaps a password, is no broker: must be HOST")
    assert "geheim" not in problem


@pytest.mark.parametrize("text", ["kafka_grup_id = 'x'", "[kafka]\ngrup_id = 'x'", "[kafka.grup]\nid = 'x'"])
def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path, text: str) -> None:
    """A typing error must not silently leave the default in place."""
    (problem,) = problems(toml(tmp_path, text))
    assert problem.startswith("KAFKA_GRUP_ID: no such setting")


def test_unknown_variables_are_none_of_our_business() -> None:
    """The environment has many others."""
    assert read(KAFKA_GRUP_ID="x", PATH="/bin").kafka_group_id == "genesys-consumer"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"[kafka\n", "line 1"), (b"a = '\xff'", "codec"), (b"a = 1\na = 2", "overwrite")],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """With its name and what is wrong with it, beside whatever else is wrong."""
    path = tmp_path / "consumer.toml"
    if content is not None:
        path.write_bytes(content)
    told = problems(path, LOG_LEVEL="loud")
    assert [problem.split(":")[0] for problem in told] == [f"--config {path}", "LOG_LEVEL"]
    assert reason in told[0]


@pytest.mark.parametrize("name", ["--config", "SOURCE_MAPPING"])
@pytest.mark.parametrize(
    "nested",
    ["a = " + "[" * 5000 + "]" * 5000, "a = " + "{a=" * 5000 + "1" + "}" * 5000],
    ids=["arrays", "tables"],
)
def test_a_file_that_is_nested_too_deeply_is_told(tmp_path: Path, name: str, nested: str) -> None:
    """As any other that cannot be read."""
    path = toml(tmp_path, nested)
    told = problems(path) if name == "--config" else problems(SOURCE_MAPPING=str(path))
    assert told == [f"{name} {path}: is nested too deeply" if name == "--config" else f"{name}: is nested too deeply"]


def test_names_that_are_nested_too_deeply_are_told(tmp_path: Path) -> None:
    """TOML has them without any brackets."""
    path = toml(tmp_path, ".".join("a" * 5000) + " = 1")
    assert problems(path) == [f"--config {path}: is nested too deeply"]


def test_the_mark_of_windows_editors_is_no_part_of_toml(tmp_path: Path) -> None:
    """Nobody sees it, neither in the configuration file nor in a mapping."""
    assert value("KAFKA_GROUP_ID", toml(tmp_path, "\ufeffkafka_group_id = 'mine'")) == "mine"
    mapping = toml(tmp_path, '\ufeff[default]\nexternal_id = "id"\n')
    assert value("SOURCE_MAPPING", SOURCE_MAPPING=str(mapping), SOURCE_ENVELOPE="outbox") == {
        "default": {"external_id": "id"}
    }


# -- secrets


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_come_as_a_file(tmp_path: Path, name: str) -> None:
    """Kubernetes mounts secrets as files; the line end that editors leave there is not part of them."""
    without = {key: text for key, text in REQUIRED.items() if key != name} | {"SCHEMA_REGISTRY_USERNAME": "user"}
    chosen = load(without | {f"{name}_FILE": secret_file(tmp_path, "s3cr3t of a length\n")})
    assert getattr(chosen, name.lower()) == "s3cr3t of a length"


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_without_a_secret_is_said(tmp_path: Path, name: str) -> None:
    """It is not as if nothing was set: a pseudonym key would be made up."""
    without = {key: text for key, text in REQUIRED.items() if key != name}
    with pytest.raises(SettingsError) as caught:
        load(without | {f"{name}_FILE": secret_file(tmp_path, "\n"), "SCHEMA_REGISTRY_USERNAME": "user"})
    assert caught.value.problems == (f"{name}: must not be empty",)


def test_only_secrets_may_come_as_a_file(tmp_path: Path) -> None:
    """For other settings there is no such variable, and none such key of the file."""
    assert value("KAFKA_GROUP_ID", KAFKA_GROUP_ID_FILE=secret_file(tmp_path, "x")) == "genesys-consumer"
    (problem,) = problems(toml(tmp_path, "[kafka]\ngroup_id_file = '/x'"))
    assert problem.startswith("KAFKA_GROUP_ID_FILE: no such setting")


def test_a_secret_that_is_set_twice_is_the_nearer_one(tmp_path: Path) -> None:
    """The variable goes before its file, and the environment's file before the configuration's value."""
    path = secret_file(tmp_path, "from the secret file")
    config = toml(tmp_path, f"pseudonym_key = 'from the config file'\n[genesys.oauth]\nclient_secret_file = '{path}'")
    without = {name: text for name, text in REQUIRED.items() if name != "GENESYS_OAUTH_CLIENT_SECRET"}
    chosen = load(without | {"PSEUDONYM_KEY_FILE": path}, config)
    assert (chosen.pseudonym_key, chosen.genesys_oauth_client_secret) == (
        "from the secret file",
        "from the secret file",
    )
    assert (
        value("PSEUDONYM_KEY", config, PSEUDONYM_KEY_FILE=path, PSEUDONYM_KEY="set in the environment")
        == "set in the environment"
    )


@pytest.mark.parametrize("content", [None, b"\xff\xfe secret", b"\n"], ids=["missing", "not UTF-8", "empty"])
def test_a_secret_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    """The sentence names the setting and not what the file holds."""
    path = str(tmp_path / "nowhere") if content is None else secret_file(tmp_path, content)
    without = {name: text for name, text in REQUIRED.items() if name != "GENESYS_OAUTH_CLIENT_SECRET"}
    (problem,) = problems(None, without, GENESYS_OAUTH_CLIENT_SECRET_FILE=path)
    assert problem.startswith("GENESYS_OAUTH_CLIENT_SECRET: ")
    assert " secret" not in problem.lower().replace("secret of the oauth client", "")


@pytest.mark.parametrize("name", SECRETS)
def test_the_mark_of_windows_editors_is_no_part_of_a_secret(tmp_path: Path, name: str) -> None:
    """Nobody sees it, and Genesys or the registry would refuse the secret."""
    without = {key: text for key, text in REQUIRED.items() if key != name} | {"SCHEMA_REGISTRY_USERNAME": "user"}
    chosen = load(without | {f"{name}_FILE": secret_file(tmp_path, "\ufeffs3cr3t of a length\r\n")})
    assert getattr(chosen, name.lower()) == "s3cr3t of a length"


@pytest.mark.parametrize("name", ["GENESYS_OAUTH_CLIENT_SECRET_FILE", "SOURCE_MAPPING", "STATE_DIR", "KAFKA_GROUP_ID"])
def test_a_null_character_is_refused(tmp_path: Path, name: str) -> None:
    """TOML can spell one, and no path has any."""
    without = {key: text for key, text in REQUIRED.items() if f"{key}_FILE" != name}
    (problem,) = problems(toml(tmp_path, f'{name.lower()} = "a\\u0000b"'), without)
    assert problem == f"{name.removesuffix('_FILE')}: must not hold a null character"


def test_a_secret_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    """UTF-16 is UTF-8 with a null character behind each letter."""
    without = {name: text for name, text in REQUIRED.items() if name != "GENESYS_OAUTH_CLIENT_SECRET"}
    path = secret_file(tmp_path, "s3cr3t".encode("utf-16-le"))
    (problem,) = problems(None, without, GENESYS_OAUTH_CLIENT_SECRET_FILE=path)
    assert problem == "GENESYS_OAUTH_CLIENT_SECRET: must not hold a null character"


def test_no_secret_is_in_the_text_of_settings(tmp_path: Path) -> None:
    """Settings may be logged: neither secrets nor the properties of Kafka show."""
    chosen = read(
        **{name: f"SECRET-{name}" for name in SECRETS},
        SCHEMA_REGISTRY_USERNAME="user",
        KAFKA_PROPERTIES_FILE=properties(tmp_path, "sasl.password=SECRET-1", "ssl.key.password=SECRET-2"),
    )
    assert chosen.kafka_properties_file == {"sasl.password": "SECRET-1", "ssl.key.password": "SECRET-2"}
    assert "SECRET" not in repr(chosen) + str(chosen) + repr(chosen.kafka_properties_file)
    assert "genesys-consumer" in repr(chosen), "other settings show"


@pytest.mark.parametrize("name", [*(f"{name}_FILE" for name in SECRETS), *FILES])
@pytest.mark.parametrize("secret", ["s3cr3t/of+some==", "s3cr3t" * 50_000, "sasl.password=s3cr3t\n"])
def test_a_secret_in_place_of_its_file_is_not_shown(name: str, secret: str) -> None:
    """The name of a file that is not there may be what should stand in it."""
    without = {key: text for key, text in REQUIRED.items() if f"{key}_FILE" != name}
    (problem,) = problems(None, without, **{name: secret})
    assert problem.startswith(f"{name if name in FILES else name.removesuffix('_FILE')}: the file cannot be read: ")
    assert "s3cr3t" not in problem


# -- hosts


@pytest.mark.parametrize("name", ["GENESYS_LOGIN_URL", "GENESYS_API_URL", "GENESYS_UPLOAD_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8090",
        "http://localhost:8090",
        "http://[::1]:8090",
        "https://api.example.org",
        "HTTP://LOCALHOST",
    ],
)
def test_plain_http_goes_to_loopback_and_https_anywhere(name: str, url: str) -> None:
    """The simulator needs no certificate."""
    assert value(name, **{name: url + "/"}) == url


@pytest.mark.parametrize("name", ["GENESYS_LOGIN_URL", "GENESYS_API_URL", "GENESYS_UPLOAD_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.org",
        "http://10.0.0.1:8090",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "http://example.org#localhost",
        "http://127.0.0.2",
        "http://0.0.0.0",
    ],
)
def test_plain_http_goes_nowhere_else(name: str, url: str) -> None:
    """Tokens and contact data must not cross a network in the clear."""
    (problem,) = problems(**{name: url})
    assert problem == f"{name}: plain http goes only to loopback: use https://"


@pytest.mark.parametrize("name", ["GENESYS_LOGIN_URL", "GENESYS_API_URL", "GENESYS_UPLOAD_URL"])
@pytest.mark.parametrize("url", ["https://ann:geheim@api.example.org", "https://geheim@h", "http://:geheim@localhost"])
def test_users_and_passwords_are_no_part_of_an_address_of_genesys(name: str, url: str) -> None:
    """Genesys takes tokens alone, and addresses are no secrets: they show."""
    (problem,) = problems(**{name: url})
    assert problem == f"{name}: must not hold a user or password"


@pytest.mark.parametrize("url", ["api.example.org", "ftp://localhost", "https://", "//localhost", "http:localhost"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """A host alone is not enough."""
    (problem,) = problems(GENESYS_API_URL=url)
    assert problem.startswith("GENESYS_API_URL: must be a URL")


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "url", ["https://h/\n", " https://h", "https://h/a b", "https://h?a=b", "https://h/#", "https://h?"]
)
def test_paths_can_be_appended_to_an_address(name: str, url: str) -> None:
    """Behind a query they would be part of it, and every request would ask for something else."""
    (problem,) = problems(**{name: url})
    assert problem.startswith(f"{name}: must not hold white space, a query (?) or a fragment (#)")
    assert value(name, **{name: "https://proxy:8443/genesys/"}) == "https://proxy:8443/genesys"


# -- attribute columns


@pytest.mark.parametrize("raw", ["=", "a,=b", "x" * 129, "a=" + "x" * 129, "a\\b", "a=b\\c"])
def test_what_genesys_takes_for_no_column_is_refused(raw: str) -> None:
    """A list cannot be created with it, and columns cannot be changed."""
    (problem,) = problems(GENESYS_ATTRIBUTE_COLUMNS=raw)
    assert problem.startswith("GENESYS_ATTRIBUTE_COLUMNS: must be `source` or `source=column`; a column has 1 to 128 ")


def test_the_longest_column_is_taken_from_any_attribute() -> None:
    """Limits are Genesys', of what stands there."""
    for source, column in (("s" * 200 + "\\", "x" * 128), ("K\u00e4ufer", "\u00e4" * 128)):
        told = value("GENESYS_ATTRIBUTE_COLUMNS", GENESYS_ATTRIBUTE_COLUMNS=f"{source}={column}")
        assert told == ((source, column),)


@pytest.mark.parametrize(
    ("raw", "columns"),
    [
        ("city", (("city", "city"),)),
        (" city , plan = tariff ,, zip=", (("city", "city"), ("plan", "tariff"), ("zip", "zip"))),
        ("city=town,city=place", (("city", "town"), ("city", "place"))),
        (",".join(f"a{n}" for n in range(45)), tuple((f"a{n}", f"a{n}") for n in range(45))),
    ],
)
def test_attribute_columns_are_read(raw: str, columns: tuple[tuple[str, str], ...]) -> None:
    """A source alone is its column's name; one source may fill several columns; forty-five have room."""
    assert value("GENESYS_ATTRIBUTE_COLUMNS", GENESYS_ATTRIBUTE_COLUMNS=raw) == columns


@pytest.mark.parametrize("raw", ["city,city", "a=city,b=city", *OWN, *(f"x={c}" for c in OWN)])
def test_a_column_has_one_meaning(raw: str) -> None:
    """No column is given twice, and none takes the place of one that every list has."""
    (problem,) = problems(GENESYS_ATTRIBUTE_COLUMNS=raw)
    assert problem.startswith("GENESYS_ATTRIBUTE_COLUMNS: column names must be unique and none of external_id, ")


def test_a_list_has_at_most_fifty_columns() -> None:
    """One more than forty-five beside the five that every list has is refused."""
    (problem,) = problems(GENESYS_ATTRIBUTE_COLUMNS=",".join(f"a{n}" for n in range(46)))
    assert problem == "GENESYS_ATTRIBUTE_COLUMNS: a contact list has at most 50 columns"


# -- topics


@pytest.mark.parametrize(
    "topics",
    [
        {"KAFKA_AUDIT_TOPIC": "same", "KAFKA_DEAD_LETTER_TOPIC": "same"},
        {"KAFKA_SOURCE_TOPICS": "a,same", "KAFKA_AUDIT_TOPIC": "same"},
        {"KAFKA_SOURCE_TOPICS": "same", "KAFKA_CHANGELOG_TOPIC": "same"},
        {"KAFKA_SOURCE_TOPICS": "same", "KAFKA_DEAD_LETTER_TOPIC": "same"},
        {"KAFKA_GROUP_ID": "a", "KAFKA_CHANGELOG_TOPIC": "same", "KAFKA_AUDIT_TOPIC": "same"},
        {"KAFKA_SOURCE_TOPICS": "same,b", "KAFKA_AUDIT_TOPIC": "same"},
    ],
    ids=str,
)
def test_every_topic_has_one_purpose(topics: dict[str, str]) -> None:
    """A topic that is read and written, or written for two purposes, would feed the program its own output."""
    assert problems(**topics) == ["topic same: named by two settings; each needs its own"]


def test_a_source_topic_is_named_once() -> None:
    """It is one setting that is wrong, not two."""
    assert problems(KAFKA_SOURCE_TOPICS="b,a,b,a,c") == [
        "KAFKA_SOURCE_TOPICS: a is named more than once",
        "KAFKA_SOURCE_TOPICS: b is named more than once",
    ]


def test_a_topic_that_is_shared_by_default_is_told_too() -> None:
    """The changelog's name follows from the group's."""
    told = problems(KAFKA_GROUP_ID="g", KAFKA_AUDIT_TOPIC="g-dedupe-changelog")
    assert told == ["topic g-dedupe-changelog: named by two settings; each needs its own"]


# -- the properties file


def test_properties_are_read(tmp_path: Path) -> None:
    """One `key=value` a line, with blanks around, equals signs in the value, empty lines and comments."""
    path = properties(
        tmp_path, "# comment", "", " security.protocol = SASL_SSL ", "sasl.jaas.config=a=b=c", "  #x=y", "ssl.ca.pem="
    )
    assert value("KAFKA_PROPERTIES_FILE", KAFKA_PROPERTIES_FILE=path) == {
        "security.protocol": "SASL_SSL",
        "sasl.jaas.config": "a=b=c",
        "ssl.ca.pem": "",
    }


@pytest.mark.parametrize("bad", ["sasl.password SECRET", "SECRET", "=SECRET"])
def test_a_bad_line_is_named_by_its_number_and_not_shown(tmp_path: Path, bad: str) -> None:
    """It may be half of a secret."""
    path = properties(tmp_path, "# first", "", "security.protocol=SSL", bad)
    (problem,) = problems(KAFKA_PROPERTIES_FILE=path)
    assert problem.startswith("KAFKA_PROPERTIES_FILE: line 4: must be `key=value`")
    assert "SECRET" not in problem


@pytest.mark.parametrize("name", OWN_PROPERTIES)
def test_the_programs_own_properties_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    """What the guarantees rest on cannot be set there, and the sentence says where to turn."""
    (problem,) = problems(KAFKA_PROPERTIES_FILE=properties(tmp_path, f"{name}=SECRET"))
    assert problem == f"KAFKA_PROPERTIES_FILE: line 1: {name} is not for this file: {OWN_PROPERTIES[name]}"


@pytest.mark.parametrize(
    "name",
    ["group.id", "bootstrap.servers", "enable.auto.commit", "isolation.level", "acks", "transactional.id"],
)
def test_what_the_guarantees_rest_on_is_the_programs_own(tmp_path: Path, name: str) -> None:
    """Two owners of offsets, or uncommitted reads, would break exactly-once."""
    assert "is not for this file" in problems(KAFKA_PROPERTIES_FILE=properties(tmp_path, f"{name}=1"))[0]


def test_every_bad_line_is_told(tmp_path: Path) -> None:
    """Also a property that stands there twice: which one would count is anybody's guess."""
    path = properties(tmp_path, "acks=1", "linger.ms=1", "nonsense", "linger.ms=2")
    (problem,) = problems(KAFKA_PROPERTIES_FILE=path)
    assert [part[:7] for part in problem.removeprefix("KAFKA_PROPERTIES_FILE: ").split("; ")] == [
        "line 1:",
        "line 3:",
        "line 4:",
    ]
    assert problem.endswith("linger.ms is given twice")


@pytest.mark.parametrize(("raw", "kind"), [(raw, kind) for raw, kind in UNPRINTABLE if "\n" not in raw])
def test_the_name_of_the_client_is_printable_ascii(tmp_path: Path, raw: str, kind: str) -> None:
    """The brokers make the name of a member of it."""
    path = properties(tmp_path, f"client.id={raw}")
    assert problems(KAFKA_PROPERTIES_FILE=path) == [
        f"KAFKA_PROPERTIES_FILE: client.id must be printable ASCII, and holds {kind}"
    ]


@pytest.mark.parametrize(
    "name",
    ["session.timeout.ms", "max.poll.interval.ms", "linger.ms", "fetch.max.bytes", "queued.max.messages.kbytes"],
)
@pytest.mark.parametrize("raw", ["45s", "0xAFC8", "", "ten", "1_000", "+5", "1.5.0", "\u0665"])
def test_a_property_that_is_a_number_is_one(tmp_path: Path, name: str, raw: str) -> None:
    """The library would take what the text begins with."""
    (problem,) = problems(KAFKA_PROPERTIES_FILE=properties(tmp_path, "client.id=ours", f"{name}={raw}"))
    assert problem.startswith(f"KAFKA_PROPERTIES_FILE: {name} must be a ")
    assert problem.endswith("number, in digits alone")


def test_numbers_and_what_is_no_number_are_taken(tmp_path: Path) -> None:
    """Also below nothing, and with a fraction where the library has one."""
    given = {
        "topic.metadata.refresh.interval.ms": "-1",
        "session.timeout.ms": "45000",
        "linger.ms": "0.5",
        "client.id": "",
        "group.protocol": "classic",
    }
    path = properties(tmp_path, *(f"{name}={text}" for name, text in given.items()))
    assert value("KAFKA_PROPERTIES_FILE", KAFKA_PROPERTIES_FILE=path) == given


def test_a_properties_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    """A keystore in its place is not decoded, nor shown."""
    (problem,) = problems(KAFKA_PROPERTIES_FILE=secret_file(tmp_path, b"\xfe\xed\xfe\xed SECRET"))
    assert problem.startswith("KAFKA_PROPERTIES_FILE: ")
    assert "SECRET" not in problem


@pytest.mark.parametrize(
    ("session_ms", "limit_s", "refused"),
    [(19_999, 20, True), (20_000, 20, False), (6000, 5, False), ("9" * 5000, 20, False)],
)
def test_a_request_is_over_before_its_partition_can_be_lost(
    tmp_path: Path, session_ms: object, limit_s: int, *, refused: bool
) -> None:
    """A session that ends sooner than a request could let a late one land after the next owner's."""
    path = properties(tmp_path, f"session.timeout.ms={session_ms}")
    environ = {"KAFKA_PROPERTIES_FILE": path, "GENESYS_REQUEST_TIMEOUT_S": str(limit_s)}
    if refused:
        (problem,) = problems(**environ)
        assert problem.startswith(
            f"GENESYS_REQUEST_TIMEOUT_S: {limit_s} s is longer than session.timeout.ms={session_ms}"
        )
    else:
        assert read(**environ).genesys_request_timeout_s == limit_s


# -- the do-not-call list


def test_a_release_needs_a_list() -> None:
    """Whoever wants numbers taken off must say off which list; without the setting none is."""
    (problem,) = problems(GENESYS_DNC_RELEASE="true")
    assert problem.startswith("GENESYS_DNC_RELEASE: ")
    assert "GENESYS_DNC_LIST" in problem
    assert value("GENESYS_DNC_RELEASE", GENESYS_DNC_LIST="Nobody", GENESYS_DNC_RELEASE="True") is True
    assert value("GENESYS_DNC_RELEASE", GENESYS_DNC_LIST="Nobody") is False


# -- schemas


@pytest.mark.parametrize(
    ("raw", "changes", "other"),
    [
        ("glue", Framing.GLUE, Framing.GLUE),
        ("Changes=json", Framing.CONFLUENT, Framing.CONFLUENT),
        ("changes=JSON", Framing.JSON, Framing.CONFLUENT),
        ("auto, changes = confluent-header", Framing.CONFLUENT_HEADER, Framing.AUTO),
    ],
)
def test_a_topic_may_have_a_framing_of_its_own(raw: str, changes: Framing, other: Framing) -> None:
    """One for all topics, and others for some."""
    chosen = read(KAFKA_SOURCE_TOPICS="changes,Changes,other", SOURCE_FRAMING=raw).source_framing
    assert (chosen.of("changes"), chosen.of("other")) == (changes, other)


def test_framing_and_keys_are_confluents_and_text_unless_told() -> None:
    """What was the only way is the default."""
    assert read().source_framing.of("any") is Framing.CONFLUENT
    assert read().source_key.of("any") is KeyFormat.STRING
    assert read(SOURCE_KEY="avro").source_key.of("any") is KeyFormat.AVRO


@pytest.mark.parametrize("raw", ["thrift", "crm.contacts.changes=", "json,glue"])
def test_a_framing_that_is_none_is_refused(raw: str) -> None:
    """With all that there are."""
    (problem,) = problems(SOURCE_FRAMING=raw)
    assert problem.startswith("SOURCE_FRAMING: must be one of confluent, confluent-header, apicurio,")


def test_a_choice_for_a_topic_that_is_no_source_is_told() -> None:
    """It is a slip of the pen, and the topic that was meant has the wrong framing."""
    (problem,) = problems(SOURCE_KEY="crm.contact.changes=avro")
    assert problem == "SOURCE_KEY: crm.contact.changes is not in KAFKA_SOURCE_TOPICS"


def test_the_packaged_schemas_are_there() -> None:
    """Without a registry and a directory, the native change event is known."""
    assert (packaged_schemas() / "ids.json").is_file()
    assert (packaged_schemas() / "crm_contact_change.avsc").is_file()


def test_a_directory_of_schemas_may_be_given(tmp_path: Path) -> None:
    """It takes the place of the packaged one."""
    assert value("SCHEMAS_DIR", SCHEMAS_DIR=str(tmp_path)) == tmp_path


@pytest.mark.parametrize(("text", "expected"), [("", False), ("true", True), ("TRUE", True), ("false", False)])
def test_a_switch_is_true_or_false(text: str, expected: object) -> None:
    """In any case of the letters, as charts and TOML write them; unset it is off."""
    assert value("SUPPRESS_UNDECODABLE", SUPPRESS_UNDECODABLE=text) is expected


def test_anything_else_is_no_switch(tmp_path: Path) -> None:
    """`yes` may mean it, and is not taken for it."""
    assert problems(SUPPRESS_UNDECODABLE="yes") == ["SUPPRESS_UNDECODABLE: must be true or false"]
    assert value("SUPPRESS_UNDECODABLE", toml(tmp_path, "suppress_undecodable = true")) is True


# -- the fuse


def test_a_mass_is_more_than_half_unless_told_otherwise() -> None:
    """And 0 is no limit."""
    assert value("FUSE_DELETES") == 500
    assert value("FUSE_DELETES", FUSE_DELETES="0") == 0


def test_releases_are_times_of_topics(tmp_path: Path) -> None:
    """In any zone, from the environment or from the file; none unless set."""
    assert value("FUSE_RELEASES") == {}
    topics = {"KAFKA_SOURCE_TOPICS": "a,b.c"}
    told = value("FUSE_RELEASES", **topics, FUSE_RELEASES="a@2026-11-29T06:00:00Z, b.c@2026-11-29T08:00:01.123+02:00")
    assert told == {"a": (1_795_932_000_000,), "b.c": (1_795_932_001_123,)}
    path = toml(tmp_path, '[fuse]\nreleases = ["a@2026-11-29T06:00:00Z"]')
    assert value("FUSE_RELEASES", path, **topics) == {"a": (1_795_932_000_000,)}


@pytest.mark.parametrize("order", [1, -1])
def test_a_topic_may_have_a_release_for_records_without_a_time_beside_the_other(order: int) -> None:
    """A mass may have both."""
    times = [("2026-11-29T06:00:00Z", 1_795_932_000_000), ("1970-01-01T00:00:00Z", 0)][::order]
    told = value("FUSE_RELEASES", FUSE_RELEASES=",".join(f"crm.contacts.changes@{text}" for text, _ in times))
    assert told == {"crm.contacts.changes": tuple(each for _, each in times)}


def test_a_release_of_a_topic_that_is_no_source_is_refused() -> None:
    """It would release nothing, and nobody would notice."""
    told = problems(FUSE_RELEASES="crm.contact@2026-11-29T06:00:00Z,crm.contacts.changes@2026-11-29T06:00:00Z")
    assert told == ["FUSE_RELEASES: crm.contact is not in KAFKA_SOURCE_TOPICS"]


@pytest.mark.parametrize("url", ["https://[::1", "https://host:abc", "https://host:99999", "https://"])
@pytest.mark.parametrize("name", ["GENESYS_API_URL", "GENESYS_LOGIN_URL", "SCHEMA_REGISTRY_URL"])
def test_what_cannot_be_a_url_is_said(name: str, url: str) -> None:
    """Nobody else could make anything of it."""
    assert problems(**{name: url}) == [f"{name}: must be a URL that begins with https:// (or http://)"]


def test_a_password_needs_a_user() -> None:
    """One in the registry's URL will do."""
    password = {"SCHEMA_REGISTRY_PASSWORD": "s3cr3t"}
    (problem,) = problems(**password, SCHEMA_REGISTRY_URL="https://r")
    assert problem.startswith("SCHEMA_REGISTRY_PASSWORD: there is no user")
    assert read(**password, SCHEMA_REGISTRY_URL="https://user@r").schema_registry_url == "https://user@r"


def test_a_mapping_needs_an_envelope_that_is_mapped(tmp_path: Path) -> None:
    """Of a topic at least."""
    (tmp_path / "mapping.toml").write_text('[default]\nexternal_id = "id"\n')
    chosen = {"SOURCE_MAPPING": str(tmp_path / "mapping.toml")}
    (problem,) = problems(**chosen)
    assert problem.startswith("SOURCE_MAPPING: native events are not mapped")
    assert "outbox for flat records" in problem
    assert read(**chosen, SOURCE_ENVELOPE="crm.contacts.changes=debezium").source_mapping


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GENESYS_DNC_LISTS", "GENESYS_DNC_LIST"),
        ("SUPPRESS_UNDECODEABLE", "SUPPRESS_UNDECODABLE"),
        ("log_level", "LOG_LEVEL"),
        ("GENESYS_OAUTH_CLIENT_SECRETS_FILE", "GENESYS_OAUTH_CLIENT_SECRET_FILE"),
        ("GENESYS_DNC", "GENESYS_DNC_LIST"),
        ("SCHEMA_REGISTRY", "SCHEMA_REGISTRY_URL"),
        ("kafka_group", "KAFKA_GROUP_ID"),
    ],
)
def test_a_slip_in_the_environment_is_found(name: str, meant: str) -> None:
    """It would be left out without a word, since the environment is full of names that are no settings."""
    assert misspelt({**REQUIRED, name: "x"}) == {name: meant}


@pytest.mark.parametrize(
    ("slip", "missing"),
    [
        ("KAFKA_BOOTSTRAP", "KAFKA_BOOTSTRAP_SERVERS"),
        ("GENESYS_OAUTH_CLIENT_SECRETS_FILE", "GENESYS_OAUTH_CLIENT_SECRET"),
    ],
)
def test_a_required_setting_under_a_wrong_name_is_told_with_it(slip: str, missing: str) -> None:
    """Nothing else would tell of the name: the program does not come so far."""
    given = {name: value for name, value in REQUIRED.items() if name != missing}
    with pytest.raises(SettingsError) as ended:
        load({**given, slip: "x"})
    (problem,) = ended.value.problems
    assert problem.startswith(f"{missing}: required (")
    assert problem.endswith(f"; {slip} in the environment is no setting: is it meant?")


def test_a_slip_that_is_not_utf_8_can_be_told() -> None:
    """Neither the log nor JSON has such characters."""
    assert misspelt({"KAFKA_GROUP_ID\udcff": "x"}) == {r"KAFKA_GROUP_ID\udcff": "KAFKA_GROUP_ID"}


def test_other_names_in_the_environment_are_no_slips() -> None:
    """Those of other programs, those that Kubernetes makes for services, and one beside the setting itself."""
    links = {"KAFKA_PORT": "tcp://10.0.0.1:9092", "GENESYS_CONSUMER_SERVICE_HOST": "10.0.0.1", "KAFKA_OPTS": "-Xmx1g"}
    both = {
        "LOG_LEVEL": "info",
        "LOG_LEVELS": "info",
        "KAFKA_BOOTSTRAP": "x",
        "KAFKA_GROUP": "x",
        "KAFKA_GROUP_ID": "x",
    }
    words = {"KAFKA": "x", "GENESYS": "x", "STATE": "x", "LOG": "x", "HTTP": "x", "GENESYS_D": "x", "LOG_": "x"}
    others = {"PATH": "/bin", "OTEL_SERVICE_NAME": "x"}
    assert misspelt({**REQUIRED, **links, **both, **words, **others}) == {}
