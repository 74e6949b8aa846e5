"""Missing ACLs on a real Kafka: what lacks is named, with the command that allows it, and so is where it lacks."""

import dataclasses
import json
import re
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, but not in the stubs' __all__
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from consumer.adapters.kafka import connection, group_offsets, inspection as inspecting, topics
from consumer.adapters.kafka.bounded import BoundedReader, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.inspection import Inspected, Inspection
from consumer.adapters.kafka.one_record import read_one
from consumer.adapters.kafka.replays import marks_topic
from consumer.adapters.kafka.topics import create, ensure
from consumer.core import dead_letters
from consumer.errors import FatalError, SourceUnavailable, Unauthorized
from consumer.model import DeadLetter, Record, TopicPartition
from consumer.operate.audit import Verification
from consumer.operate.dead_letters import Query
from consumer.operate.listing import list_letters
from consumer.operate.replaying import Replay
from consumer.settings import Settings
from tests.kafka_clients import QUIET, WITHIN_S, commit, produce, properties, settings, watched
from tests.kafka_cluster import LOCKED_PASSWORD, LOCKED_USER, KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

RUN = "kafka-acls.sh --bootstrap-server"


def allow(
    kafka: KafkaCluster,
    kind: ResourceType,
    name: str,
    operations: Iterable[AclOperation] = (),
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> None:
    """Allow the user that logs in these operations on something, and no others; the broker knows when this returns."""
    allowed = {("User:nobody", AclOperation.ALTER), *((f"User:{LOCKED_USER}", operation) for operation in operations)}
    bindings = [
        AclBinding(kind, name, pattern, user, "*", operation, AclPermissionType.ALLOW) for user, operation in allowed
    ]
    client = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    for made in client.create_acls(bindings).values():
        made.result(WITHIN_S)  # the controller has it: the broker hears of one after the other
    deadline = time.monotonic() + WITHIN_S
    anybody: Any = None
    of_it = AclBindingFilter(kind, name, pattern, anybody, anybody, AclOperation.ANY, AclPermissionType.ANY)
    while len(client.describe_acls(of_it).result(WITHIN_S)) < len(bindings):
        assert time.monotonic() < deadline, f"the broker does not know the ACLs of {name}"


@pytest.fixture
async def chosen(kafka: KafkaCluster, tmp_path: Path) -> Settings:
    """Settings of a user that logs in; all topics are there, and open."""
    path = properties(
        tmp_path,
        **{
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": LOCKED_USER,
            "sasl.password": LOCKED_PASSWORD,
        },
    )
    made = settings(kafka.locked_bootstrap, kafka.create_topic("acl"), KAFKA_PROPERTIES_FILE=path)
    await ensure(Connection.of(made), made)
    return made


def _inspection(chosen: Settings) -> Inspection:
    return Inspection(Connection.of(chosen), chosen)


def _topic(chosen: Settings, name: str) -> Inspected:
    return next(each for each in _inspection(chosen).topics() if each.what == name)


def test_where_nothing_is_closed_nothing_lacks(chosen: Settings) -> None:
    """Neither topics nor group nor transactions."""
    inspection = _inspection(chosen)
    assert [
        each for each in [*inspection.topics(), inspection.group(), inspection.transactions()] if each.problem
    ] == []


def test_a_group_that_may_not_be_described_is_told_with_its_command(kafka: KafkaCluster, chosen: Settings) -> None:
    """It could not be joined either."""
    allow(kafka, ResourceType.GROUP, chosen.kafka_group_id)
    problem = _inspection(chosen).group().problem
    assert f"{RUN} {kafka.locked_bootstrap}" in problem
    assert problem.endswith(f"--operation Describe --operation Read --group {chosen.kafka_group_id}")


def test_transactions_that_may_not_be_used_are_told_with_their_command(kafka: KafkaCluster, chosen: Settings) -> None:
    """For all ids of the group: each process has one of its own."""
    prefix = f"{chosen.kafka_group_id}-"
    allow(kafka, ResourceType.TRANSACTIONAL_ID, prefix, pattern=ResourcePatternType.PREFIXED)
    problem = _inspection(chosen).transactions().problem
    operations = "--operation Describe --operation Write"
    assert problem.endswith(f"{operations} --transactional-id {prefix} --resource-pattern-type prefixed")


def test_a_changelog_whose_policy_may_not_be_read_is_told(kafka: KafkaCluster, chosen: Settings) -> None:
    """A start would only warn, and nobody would know that the changelog forgets."""
    name = chosen.kafka_changelog_topic
    allow(kafka, ResourceType.TOPIC, name, [AclOperation.READ, AclOperation.WRITE])
    problem = _topic(chosen, name).problem
    assert problem.startswith("the ACL does not allow DescribeConfigs; run: ")
    assert problem.endswith(f"--operation DescribeConfigs --topic {name}")


def test_a_source_that_may_not_be_described_has_both_remedies(kafka: KafkaCluster, chosen: Settings) -> None:
    """Nobody can tell it from one that is missing."""
    (name,) = chosen.kafka_source_topics
    allow(kafka, ResourceType.TOPIC, name)
    problem = _topic(chosen, name).problem
    assert "kafka-topics.sh" in problem
    assert problem.endswith(f"--operation Describe --operation Read --topic {name}")


async def test_a_start_says_that_sources_may_be_there(kafka: KafkaCluster, chosen: Settings) -> None:
    """And where to find what to do."""
    (name,) = chosen.kafka_source_topics
    allow(kafka, ResourceType.TOPIC, name)
    with pytest.raises(FatalError, match=f"missing, or not to be described, `genesys-consumer check` has .*: {name} "):
        await ensure(Connection.of(chosen), chosen)


@pytest.mark.parametrize("may_create", [True, False])
def test_an_output_that_may_not_be_described_is_not_called_missing(
    kafka: KafkaCluster, chosen: Settings, monkeypatch: pytest.MonkeyPatch, may_create: bool
) -> None:
    """Whoever may create topics is told that it is there; nobody else can tell."""
    name = chosen.kafka_audit_topic
    allow(kafka, ResourceType.TOPIC, name)
    if not may_create:
        monkeypatch.setattr(inspecting, "_refusal", lambda *_: "TOPIC_AUTHORIZATION_FAILED")
    problem = _topic(chosen, name).problem
    assert problem.startswith(
        "it is there" if may_create else "missing, or may not be described, and may not be created"
    )
    assert ("kafka-topics.sh" in problem) is not may_create
    assert problem.endswith(f"--operation Describe --operation Write --topic {name}")


def test_who_reads_a_topic_names_it_and_what_to_allow(kafka: KafkaCluster, chosen: Settings) -> None:
    """`check` asks for what the program needs, and not for what `dead-letters list` and `audit verify` do."""
    name = chosen.kafka_dead_letter_topic
    produce(kafka.bootstrap, name, [b"letter"])
    allow(kafka, ResourceType.TOPIC, name, [AclOperation.WRITE])
    to_brokers = Connection.of(chosen)
    told = rf"cannot read {name}: TOPIC_AUTHORIZATION_FAILED: .* \(allow Read on it\)"
    reader = BoundedReader(to_brokers, "group", spans(Admin(to_brokers), name))
    with closing(reader), pytest.raises(Unauthorized, match=told):
        next(iter(reader))
    with pytest.raises(Unauthorized, match=told):
        read_one(to_brokers, "group", TopicPartition(name, 0), 0)


def _bury(kafka: KafkaCluster, chosen: Settings) -> None:
    """Put a letter of the source on the dead letter topic, and let there be the group that gave it up."""
    (source,) = chosen.kafka_source_topics
    commit(kafka.bootstrap, chosen, TopicPartition(source, 0), 1)
    letter = DeadLetter(Record(source, 0, 0, 0, b"key", b"value"), "phone_not_e164", "phone: text", 0)
    produce(kafka.bootstrap, chosen.kafka_dead_letter_topic, [b"value"], headers=[*dead_letters.headers(letter)])


def _replay(chosen: Settings, *, dry_run: bool = False) -> None:
    Replay(chosen, Query(), max_attempts=3, dry_run=dry_run).run()


@pytest.mark.parametrize(
    ("guarantee", "topics_told"),
    [("exactly_once", "{source}, {source}-group-dead-letters-replayed"), ("at_least_once", "{source}")],
)
def test_who_may_not_put_letters_back_is_told_where_to_write(
    kafka: KafkaCluster, chosen: Settings, guarantee: str, topics_told: str
) -> None:
    """The program itself only reads its sources, so that `check` does not ask for it."""
    (source,) = chosen.kafka_source_topics
    _bury(kafka, chosen)
    allow(kafka, ResourceType.TOPIC, source, [AclOperation.READ])
    told = rf"cannot put dead letters back: .* \(allow Write on {topics_told.format(source=source)}\)"
    with pytest.raises(Unauthorized, match=told):
        _replay(dataclasses.replace(chosen, kafka_guarantee=guarantee))


def test_marks_that_may_not_be_described_are_told_at_once(
    kafka: KafkaCluster, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there: waiting for them to be seen would take half a minute, and tell nobody what to allow."""
    _bury(kafka, chosen)
    marks = marks_topic(chosen)
    create(Connection.of(chosen), marks)
    monkeypatch.setattr(topics, "VISIBLE_WITHIN_S", 0.0)
    allow(kafka, ResourceType.TOPIC, marks.name)
    told = f"{marks.name} may not be described: allow Read and Write on it: {RUN} {kafka.locked_bootstrap} --add"
    with pytest.raises(Unauthorized, match=told) as refused:
        _replay(chosen)
    assert str(refused.value).endswith(f" User:… --operation Read --operation Write --topic {marks.name}")


@pytest.mark.parametrize(
    ("allowed", "told"),
    [([], "{} may not be described: allow Read on it"), ([AclOperation.DESCRIBE], "cannot read {}: TOPIC_AUTH")],
    ids=["closed", "described"],
)
def test_a_list_that_may_not_read_the_marks_does_not_say_that_nothing_was_replayed(
    kafka: KafkaCluster,
    chosen: Settings,
    allowed: list[AclOperation],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The letters may be read. A replay, of which this is the first question, is refused, tried out or not."""
    _bury(kafka, chosen)
    _replay(chosen)
    marks = marks_topic(chosen).name
    allow(kafka, ResourceType.TOPIC, marks, allowed)
    capsys.readouterr()
    list_letters(chosen, Query(), records=True, output="text")
    letter, _, counted, why = capsys.readouterr().out.splitlines()
    assert "  open or replayed  " in letter
    assert counted.split()[2:4] == ["1", "?"]
    assert why.startswith(f"which of them were replayed cannot be told: {told.format(marks)}")
    list_letters(chosen, Query(), records=False, output="json")
    listed = json.loads(capsys.readouterr().out)
    assert ([group["replayed"] for group in listed["groups"]], listed["letters"]) == ([None], 1)
    assert told.format(marks) in listed["replayedUnknown"]
    with pytest.raises(Unauthorized, match=re.escape(told.format(marks))):
        _replay(chosen, dry_run=True)


def test_a_list_needs_no_right_on_the_group(
    kafka: KafkaCluster, chosen: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a group without marks exists it then cannot ask, and nothing speaks against it."""
    _bury(kafka, chosen)
    allow(kafka, ResourceType.GROUP, chosen.kafka_group_id)
    capsys.readouterr()
    list_letters(chosen, Query(), records=False, output="text")
    _, counted = capsys.readouterr().out.splitlines()
    assert counted.split()[2:4] == ["1", "0"]


def test_an_audit_that_may_not_describe_the_group_names_the_right(
    kafka: KafkaCluster, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library asks for the coordinator again and again, and then says that it took too long."""
    monkeypatch.setattr(connection, "ASKED_AGAIN_FOR_S", 0.0)
    monkeypatch.setattr(group_offsets, "OFFSETS_WITHIN_S", 1.0)
    allow(kafka, ResourceType.GROUP, chosen.kafka_group_id)
    with pytest.raises(SourceUnavailable, match=f"allow Describe on the group {chosen.kafka_group_id}"):
        Verification(chosen, None, None).begin()


async def test_a_consumer_that_may_not_read_names_the_topic(kafka: KafkaCluster, chosen: Settings) -> None:
    """Its last line is all that is left of it."""
    (name,) = chosen.kafka_source_topics
    allow(kafka, ResourceType.TOPIC, name, [AclOperation.DESCRIBE])
    produce(kafka.bootstrap, name, [b"record"])
    async with watched(chosen) as watcher:
        with pytest.raises(Unauthorized, match=f"{name}.*`genesys-consumer check` names the ACL"):
            await watcher.until(lambda: False)


async def test_a_start_that_may_not_be_committed_names_the_acl(kafka: KafkaCluster, chosen: Settings) -> None:
    """The topic was made anew: what is committed is to be taken back first, which would be tried for ever."""
    (name,) = chosen.kafka_source_topics
    produce(kafka.bootstrap, name, [b"record"])
    commit(kafka.bootstrap, chosen, TopicPartition(name, 0), 20)
    allow(kafka, ResourceType.TOPIC, name, [AclOperation.DESCRIBE])
    async with watched(chosen) as watcher:
        with pytest.raises(Unauthorized, match=f"cannot commit where {name} begins.*`genesys-consumer check` names"):
            await watcher.until(lambda: False)
