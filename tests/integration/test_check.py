"""`check` against a real Kafka and the simulator: what is wrong is told with its remedy, and nothing is changed."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from opentelemetry.trace import NoOpTracer

from consumer.adapters.genesys.sink import GenesysSink
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import ensure
from consumer.core.delivery import Throttle
from consumer.model import TopicPartition
from consumer.operate import check as checking
from consumer.operate.check import check, print_document, print_line
from consumer.operate.line import Line
from consumer.settings import load
from consumer.simulator.app import Simulator
from tests.captured import captured
from tests.kafka_clients import QUIET, WITHIN_S, commit, produce
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

SECRET = "a-secret-that-nobody-shows"  # noqa: S105 -- of the simulator


def _environ(kafka: KafkaCluster, simulator: Simulator, **more: str) -> dict[str, str]:
    topic = kafka.create_topic("checked", partitions=2)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_SOURCE_TOPICS": topic,
        "KAFKA_GROUP_ID": f"{topic}-group",
        "KAFKA_AUDIT_TOPIC": f"{topic}-audit",
        "KAFKA_DEAD_LETTER_TOPIC": f"{topic}-dead-letters",
        "GENESYS_OAUTH_CLIENT_ID": "id",
        "GENESYS_OAUTH_CLIENT_SECRET": SECRET,
        "GENESYS_CONTACT_LIST": "list",
        "GENESYS_DNC_LIST": "numbers",
        "GENESYS_DNC_RELEASE": "true",
        "GENESYS_LOGIN_URL": simulator.url,
        "GENESYS_API_URL": simulator.url,
        **more,
    }


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """An organisation that knows one client."""
    async with Simulator(clients={"id": SECRET}) as running:
        yield running


async def _checked(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Line]:
    """What is found with these settings, by what was looked at."""
    return (await _told_and_checked(environ, monkeypatch))[1]


async def _told_and_checked(
    environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, Line]]:
    """The same, and what was looked at in the order in which it was told."""
    monkeypatch.setattr(checking, "load", lambda config: load(environ, config))
    told: list[Line] = []
    lines = await check(None, told.append)
    assert sorted(told) == sorted(lines)
    return [line.what for line in told], {line.what: line for line in lines}


def _wrong(lines: Mapping[str, Line]) -> dict[str, str]:
    return {line.what: line.detail for line in lines.values() if not line.holds}


async def _set_up(environ: Mapping[str, str]) -> None:
    """Make what a start makes."""
    chosen = load(environ)
    await ensure(Connection.of(chosen), chosen)
    sink = await GenesysSink.open(chosen, on_request=lambda *_: None, tracer=NoOpTracer(), throttle=Throttle(100_000))
    await sink.close()


async def test_where_all_is_well_every_line_says_so(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each thing has a line; the list stays as it is, and no secret is shown."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    produce(kafka.bootstrap, topic, [Event("c-0", 1).value()], partition=1)
    before = simulator.stats()["contacts"]
    lines = await _checked(environ, monkeypatch)
    assert _wrong(lines) == {}
    assert list(lines) == [
        "settings",
        "state directory",
        "brokers",
        f"topic {topic}",
        f"topic {topic}-audit",
        f"topic {topic}-dead-letters",
        f"topic {topic}-group-dedupe-changelog",
        f"group {topic}-group",
        f"transactions {topic}-group-check",
        f"record {topic}/1/0",
        "schemas",
        f"mapping {topic}",
        "token",
        "contact list",
        "permission outbound:contact:add",
        "permission outbound:contact:view",
        "permission outbound:contact:delete",
        "do-not-call list",
        "permission outbound:dnc:add",
        "permission outbound:dnc:edit",
    ]
    assert simulator.stats()["contacts"] == before
    capsys.readouterr()
    for line in lines.values():
        print_line(line)
    print_document(list(lines.values()))
    *text, document = capsys.readouterr().out.splitlines()
    assert all(shown.startswith("✓ ") for shown in text)
    assert json.loads(document)["ok"] is True
    assert SECRET not in "".join([*text, document])


async def test_what_a_start_would_make_is_not_made(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing topics and lists are fine, and are still missing afterwards."""
    environ = _environ(kafka, simulator)
    lines = await _checked(environ, monkeypatch)
    assert _wrong(lines) == {}
    assert "is created at start" in lines["contact list"].detail
    assert "blocks nobody until it is assigned" in lines["do-not-call list"].detail
    assert lines["do-not-call list"].sure
    assert simulator.stats()["contacts"].get("applied", 0) == 0
    known = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET}).list_topics(timeout=WITHIN_S).topics
    assert {name for name in known if name.startswith(environ["KAFKA_SOURCE_TOPICS"])} == {
        environ["KAFKA_SOURCE_TOPICS"]
    }


async def test_a_list_that_is_missing_after_another_was_filled_is_told(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with another letter would be created, and whoever withdrew would stay callable in the list of before."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    commit(kafka.bootstrap, load(environ), TopicPartition(environ["KAFKA_SOURCE_TOPICS"], 1), 0)
    assert _wrong(await _checked(environ, monkeypatch)) == {}
    wrong = _wrong(await _checked(environ | {"GENESYS_CONTACT_LIST": "List"}, monkeypatch))
    assert list(wrong) == ["contact list"]
    assert "GENESYS_CONTACT_LIST" in wrong["contact list"]


async def test_a_do_not_call_list_that_is_missing_after_a_list_was_filled_is_told(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a new setting, or a name with another letter: whoever withdrew would stay on the list of before."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    commit(kafka.bootstrap, load(environ), TopicPartition(environ["KAFKA_SOURCE_TOPICS"], 1), 0)
    lines = await _checked(environ | {"GENESYS_DNC_LIST": "Numbers"}, monkeypatch)
    assert _wrong(lines) == {}
    assert not lines["do-not-call list"].sure
    assert "GENESYS_DNC_LIST" in lines["do-not-call list"].detail


async def test_columns_that_may_not_take_what_is_sent_are_told(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types are fixed when a list is made: better told before it is filled."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    (listed,) = simulator._lists.all()
    specified = [{"columnName": name, "columnDataType": "NUMERIC"} for name in ("email", "do_not_call")]
    listed.definition["columnDataTypeSpecifications"] = specified
    lines = await _checked(environ, monkeypatch)
    assert _wrong(lines) == {}
    assert (lines["contact list"].sure, lines["do-not-call list"].sure) == (False, True)
    assert "the columns email, do_not_call are" in lines["contact list"].detail


@pytest.mark.parametrize(
    "permission",
    [
        "outbound:contact:add",
        "outbound:contact:view",
        "outbound:contact:delete",
        "outbound:dnc:add",
        "outbound:dnc:edit",
    ],
)
async def test_a_missing_permission_is_named(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, permission: str
) -> None:
    """It alone; otherwise it would show with the first request that needs it."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    simulator.withheld_permissions.add(permission)
    wrong = _wrong(await _checked(environ, monkeypatch))
    assert list(wrong) == [f"permission {permission}"]
    assert permission in wrong[f"permission {permission}"]


async def test_all_is_asked_although_nothing_answers(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Any
) -> None:
    """Brokers, registry and login host: each is told, with the settings; who takes long holds up no other."""
    nobody = f"127.0.0.1:{unused_tcp_port_factory()}"
    async with Simulator() as gone:
        environ = _environ(kafka, gone)
    told, lines = await _told_and_checked(
        environ | {"KAFKA_BOOTSTRAP_SERVERS": nobody, "SCHEMA_REGISTRY_URL": f"http://{nobody}"}, monkeypatch
    )
    wrong = _wrong(lines)
    assert list(wrong) == ["brokers", "registry", "token"]
    assert [line.what for line in lines.values() if not line.sure] == ["mappings", "contact list", "do-not-call list"]
    assert told[-1] == "brokers"
    assert "KAFKA_BOOTSTRAP_SERVERS" in wrong["brokers"]
    assert "SCHEMA_REGISTRY_URL" in wrong["registry"]


async def test_topics_that_would_end_the_program_are_told(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is missing, and a changelog that forgets; each with its command."""
    forgets = kafka.create_topic(partitions=2, config={"cleanup.policy": "delete"})
    environ = _environ(kafka, simulator, KAFKA_CHANGELOG_TOPIC=forgets)
    environ["KAFKA_SOURCE_TOPICS"] += ",nowhere"
    wrong = _wrong(await _checked(environ, monkeypatch))
    assert list(wrong) == ["topic nowhere", f"topic {forgets}"]
    assert "kafka-topics.sh" in wrong["topic nowhere"]
    assert "kafka-configs.sh" in wrong[f"topic {forgets}"]


async def test_what_cannot_be_asked_without_sources_is_said_with_names_that_are_near(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is left out looks like one that is well."""
    environ = _environ(kafka, simulator)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    environ["KAFKA_SOURCE_TOPICS"] = f"{topic}x"
    lines = await _checked(environ, monkeypatch)
    assert list(_wrong(lines)) == [f"topic {topic}x"]
    assert f", or is it {topic}?" in lines[f"topic {topic}x"].detail
    outputs = [f"topic {topic}-audit", f"topic {topic}-dead-letters", f"topic {topic}-group-dedupe-changelog"]
    assert [what for what, line in lines.items() if not line.sure] == [*outputs, f"record of {topic}x"]


async def test_a_wrong_secret_and_a_list_of_other_columns_are_told(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one hides the other until it is right."""
    environ = _environ(kafka, simulator)
    await _set_up(environ)
    wrong = _wrong(await _checked(environ | {"GENESYS_OAUTH_CLIENT_SECRET": "stale-secret"}, monkeypatch))
    assert list(wrong) == ["token"]
    assert "check the client's id and secret" in wrong["token"]
    wrong = _wrong(await _checked(environ | {"GENESYS_ATTRIBUTE_COLUMNS": "segment"}, monkeypatch))
    assert "GENESYS_ATTRIBUTE_COLUMNS" in wrong["contact list"]


async def test_bad_settings_are_all_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then nothing else can be asked."""
    config = tmp_path / "consumer.toml"
    config.write_text("[kafka]\nstart = 'middle'\n")
    monkeypatch.setattr(checking, "load", lambda config: load({}, config))
    lines = await check(config, lambda _: None)
    assert {line.what for line in lines} == {"settings"}
    assert not any(line.holds for line in lines)
    assert any(line.detail.startswith("KAFKA_START") for line in lines)


GOOD, BAD = Event("c-0", 1).value(), b"{}"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([BAD, *[GOOD] * 5], "✓ it can be read, as all of the newest 5"),
        ([GOOD, BAD], "✓ 1 of the newest 2 would be rejected; {topic}/1/1 is rejected: not_decodable, "),
        ([GOOD, *[BAD] * 5], "✗ all of the newest 5 would be rejected; {topic}/1/5 is rejected: not_decodable, "),
        ([BAD], "✗ {topic}/1/0 is rejected: not_decodable, "),
    ],
    ids=["good", "a bad one", "bad ones", "the only one"],
)
async def test_the_newest_records_are_tried(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, values: list[bytes], told: str
) -> None:
    """A framing that does not fit would make dead letters of a whole topic, withdrawals included, and nothing stops."""
    environ = _environ(kafka, simulator)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    for value in values:
        produce(kafka.bootstrap, topic, [value], partition=1)
    line = (await _checked(environ, monkeypatch))[f"record {topic}/1/{len(values) - 1}"]
    assert f"{line.mark} {line.detail}".startswith(told.format(topic=topic)), line
    assert ("see check --explain" in line.detail) == (BAD in values[-5:])


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ([GOOD, GOOD], "✓ 3 of the newest 5 would be rejected; replayed dead letters, which were rejected before; "),
        ([], "✗ all of the newest 5 would be rejected; replayed dead letters, which were rejected before; "),
        ([*[BAD] * 5], "✗ all of the newest 5 would be rejected; {topic}/1/4 is rejected: "),
    ],
    ids=["beside others", "nothing else", "behind bad ones"],
)
async def test_replayed_letters_are_tried_last_and_said_to_be_such(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, first: list[bytes], told: str
) -> None:
    """A replay of bad records puts them at the end of the topic, and says nothing of how the rest can be read."""
    environ = _environ(kafka, simulator)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    produce(kafka.bootstrap, topic, first, partition=1)
    produce(kafka.bootstrap, topic, [BAD] * 6, partition=1, headers=[("dead-letter.origin", b"x/0/1")])
    (line,) = [line for what, line in (await _checked(environ, monkeypatch)).items() if what.startswith("record ")]
    assert f"{line.mark} {line.detail}".startswith(told.format(topic=topic)), line


CUST_NO = """
[default]
external_id = "cust_no"
phone = "phone"
consent = "consent"
do_not_call = "do_not_call"
"""


@pytest.mark.parametrize(
    ("mapping", "key", "told"),
    [
        (
            CUST_NO,
            "json",
            "it lacks the column of external_id: where that changes, the former contact may stay callable",
        ),
        (
            CUST_NO,
            "string",
            "a tombstone with it would be rejected: not_decodable, the key is not the external id in UTF-8",
        ),
        (CUST_NO.replace("cust_no", "pk"), "json", ""),
    ],
    ids=["another column", "not text", "the external id"],
)
async def test_keys_are_tried_before_the_first_tombstone(
    kafka: KafkaCluster,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    mapping: str,
    key: str,
    told: str,
) -> None:
    """Changes are read without them, so nothing else would tell; no tombstone has to come, so it is no fault."""
    (path := tmp_path / "mapping.toml").write_text(mapping)
    chosen = {"SOURCE_ENVELOPE": "debezium", "SOURCE_FRAMING": "json", "SOURCE_KEY": key, "SOURCE_MAPPING": str(path)}
    environ = _environ(kafka, simulator, **chosen)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    for record in (captured("external id before"), captured("external id after")):
        produce(kafka.bootstrap, topic, [record.value], key=record.key)
    lines = await _checked(environ, monkeypatch)
    assert lines[f"record {topic}/0/1"].mark == "✓"
    assert [(line.mark, line.detail[: len(told)]) for what, line in lines.items() if what.startswith("key ")] == (
        [("–", told)] if told else []  # noqa: RUF001 -- the mark is that dash
    )


async def test_no_contact_data_is_told_of_records(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike `--explain` it may run as a Job, whose log others read."""
    environ = _environ(kafka, simulator)
    topic = environ["KAFKA_SOURCE_TOPICS"]
    produce(kafka.bootstrap, topic, [Event("c-secret", 1, phone="secret").value()])
    line = (await _checked(environ, monkeypatch))[f"record {topic}/0/0"]
    assert line.detail.startswith(f"{topic}/0/0 is rejected: phone_not_e164, ")
    assert "secret" not in line.detail


async def test_records_that_cannot_be_tried_are_no_fault(
    kafka: KafkaCluster, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Any
) -> None:
    """There is none, the topic is missing, or the registry is away: of which other lines speak."""
    environ = _environ(kafka, simulator)
    empty, filled = environ["KAFKA_SOURCE_TOPICS"], kafka.create_topic("checked")
    produce(kafka.bootstrap, filled, [b"\0\0\0\0\7"])
    environ["KAFKA_SOURCE_TOPICS"] += f",nowhere,{filled}"
    environ["SCHEMA_REGISTRY_URL"] = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    lines = await _checked(environ, monkeypatch)
    told = {line.what: line.detail for line in lines.values() if not line.sure}
    assert list(told) == [f"record of {empty}", "record of nowhere", f"record of {filled}", "mappings"]
    assert told[f"record of {empty}"].startswith("none is among its newest offsets: whether they can be read shows")
    assert told["record of nowhere"] == "not asked, since the topic is missing or may not be read"
    assert told[f"record of {filled}"].startswith("could not be tried: ")
    assert list(_wrong(lines)) == ["topic nowhere", "registry"]
