"""The output topics on a real Kafka: made to fit the sources, left alone where they are, refused with the remedy."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # missing in __all__
from confluent_kafka.cimpl import NewTopic

from consumer.adapters.kafka import topics
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import Wanted, changelog_id, ensure, wanted
from consumer.errors import FatalError, SourceUnavailable, Unauthorized
from consumer.settings import Settings
from tests.kafka_clients import QUIET, WITHIN_S, delete, grow, properties, settings
from tests.kafka_cluster import LOCKED_PASSWORD, LOCKED_USER, KafkaCluster

pytestmark = pytest.mark.kafka

TOOL = "kafka-topics.sh --bootstrap-server"


def admin(kafka: KafkaCluster) -> AdminClient:
    """A client that looks from outside."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})


def partitions(kafka: KafkaCluster, *names: str) -> list[int]:
    """Partition counts of topics, 0 where there is none."""
    known = admin(kafka).list_topics(timeout=WITHIN_S).topics
    return [len(known[name].partitions) if name in known else 0 for name in names]


def config(kafka: KafkaCluster, name: str) -> Mapping[str, str]:
    """Settings of a topic."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    client = admin(kafka)
    described = client.describe_configs([resource])[resource].result(WITHIN_S)
    return {key: entry.value for key, entry in described.items()}


def make(kafka: KafkaCluster, name: str, count: int = 1, **config: str) -> None:
    """A topic that is there before the program is; `cleanup_policy` is `cleanup.policy`."""
    client = admin(kafka)
    entries = {key.replace("_", "."): entry for key, entry in config.items()}
    client.create_topics([NewTopic(name, count, 1, config=entries)])[name].result(WITHIN_S)


def outputs(chosen: Settings) -> list[str]:
    """The output topics."""
    return [chosen.kafka_audit_topic, chosen.kafka_dead_letter_topic, chosen.kafka_changelog_topic]


def for_sources(kafka: KafkaCluster, *counts: int, **more: str) -> Settings:
    """Settings for fresh source topics of these partition counts; nothing else exists."""
    names = [kafka.create_topic("source", partitions=count) for count in counts]
    return settings(kafka.bootstrap, names[0], KAFKA_SOURCE_TOPICS=",".join(names), **more)


async def ensured(chosen: Settings) -> Mapping[str, int]:
    """What the program does at its start."""
    return await ensure(Connection.of(chosen), chosen)


# -- what is made


async def test_missing_topics_are_made_to_fit_the_source(kafka: KafkaCluster) -> None:
    """Each has as many partitions as the source, the changelog is compacted, dead letters may be large."""
    chosen = for_sources(kafka, 3)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 3}
    assert partitions(kafka, *outputs(chosen)) == [3, 3, 3]
    assert config(kafka, chosen.kafka_changelog_topic)["cleanup.policy"] == "compact"
    assert config(kafka, chosen.kafka_dead_letter_topic)["max.message.bytes"] == "2000000"
    assert config(kafka, chosen.kafka_audit_topic)["cleanup.policy"] == "delete"


async def test_a_changelog_made_anew_has_another_id(kafka: KafkaCluster) -> None:
    """Its offsets begin again and mean other entries: the id is what tells, since the name does not."""
    chosen = for_sources(kafka, 1)
    await ensured(chosen)
    first, again = [await changelog_id(Connection.of(chosen), chosen) for _ in range(2)]
    delete(kafka.bootstrap, chosen.kafka_changelog_topic)
    await ensured(chosen)
    assert first == again != await changelog_id(Connection.of(chosen), chosen)


async def test_several_sources_share_what_fits_the_largest(kafka: KafkaCluster) -> None:
    """The changelog has a partition for every number that a source partition has, and all counts are told."""
    chosen = for_sources(kafka, 1, 4, 2)
    assert await ensured(chosen) == dict(zip(chosen.kafka_source_topics, (1, 4, 2), strict=True))
    assert partitions(kafka, *outputs(chosen)) == [4, 4, 4]


async def test_a_second_start_changes_nothing(kafka: KafkaCluster) -> None:
    """What the first start made is what the second one finds."""
    chosen = for_sources(kafka, 2)
    first = await ensured(chosen)
    before = config(kafka, chosen.kafka_changelog_topic)
    assert await ensured(chosen) == first
    assert partitions(kafka, *outputs(chosen)) == [2, 2, 2]
    assert config(kafka, chosen.kafka_changelog_topic) == before


async def test_only_what_is_missing_is_made(kafka: KafkaCluster) -> None:
    """Topics that somebody made keep their partitions and their settings, also where these are not ours."""
    chosen = for_sources(kafka, 2)
    make(kafka, chosen.kafka_audit_topic, 5, retention_ms="12345")
    make(kafka, chosen.kafka_dead_letter_topic, 1)
    await ensured(chosen)
    assert partitions(kafka, *outputs(chosen)) == [5, 1, 2]
    assert config(kafka, chosen.kafka_audit_topic)["retention.ms"] == "12345"
    assert config(kafka, chosen.kafka_dead_letter_topic)["max.message.bytes"] != "2000000"


async def test_a_larger_changelog_is_left_alone(kafka: KafkaCluster) -> None:
    """Partitions that no source has do no harm."""
    chosen = for_sources(kafka, 2)
    make(kafka, chosen.kafka_changelog_topic, 6, cleanup_policy="compact")
    await ensured(chosen)
    assert partitions(kafka, chosen.kafka_changelog_topic) == [6]


async def test_the_changelog_grows_with_its_source(kafka: KafkaCluster) -> None:
    """A source that got more partitions gets more of the changelog, and of nothing else."""
    chosen = for_sources(kafka, 2)
    await ensured(chosen)
    grow(kafka.bootstrap, chosen.kafka_source_topics[0], 5)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 5}
    assert partitions(kafka, *outputs(chosen)) == [2, 2, 5]


# -- what is refused


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
async def test_a_changelog_that_forgets_is_refused(kafka: KafkaCluster, policy: str) -> None:
    """The dedupe state is rebuilt from it: the message has the command that mends it."""
    chosen = for_sources(kafka, 1)
    make(kafka, chosen.kafka_changelog_topic, cleanup_policy=policy)
    with pytest.raises(FatalError) as refused:
        await ensured(chosen)
    name = chosen.kafka_changelog_topic
    told, command = str(refused.value).split("\n")
    assert told.startswith(f"{name} has cleanup.policy=")
    assert set(told.split("=")[1].split(":")[0].split(",")) == set(policy.split(","))
    assert command.strip() == (
        f"kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter --entity-type topics "
        f"--entity-name {name} --add-config cleanup.policy=compact"
    )


async def test_a_missing_source_is_fatal_and_nothing_is_made(kafka: KafkaCluster) -> None:
    """The ones that are missing are named, and only they; whoever mistyped a name gets no empty topics for it."""
    there = kafka.create_topic("source")
    chosen = settings(kafka.bootstrap, f"{there}-no", KAFKA_SOURCE_TOPICS=f"{there}-no,{there},{there}-neither")
    with pytest.raises(FatalError, match=rf": {there}-no, {there}-neither \(KAFKA_SOURCE_TOPICS\)$"):
        await ensured(chosen)
    assert partitions(kafka, *outputs(chosen), f"{there}-no") == [0, 0, 0, 0]


async def test_topics_that_may_not_be_made_are_told_with_their_commands(kafka: KafkaCluster) -> None:
    """Every refused topic has its command, those that could be made are made, and the brokers' reason is given."""
    # Brokers may have rules that settings do not know.
    chosen = replace(for_sources(kafka, 2), kafka_audit_topic="not a name!", kafka_changelog_topic="nor this!")
    with pytest.raises(FatalError) as refused:
        await ensured(chosen)
    first, *commands = str(refused.value).split("\n")
    assert first.startswith("cannot create topics (TOPIC_EXCEPTION: ")
    assert first.endswith("; somebody who may must run:")
    assert [command.strip() for command in commands] == [
        f"{TOOL} {kafka.bootstrap} --create --topic not a name! --partitions 2",
        f"{TOOL} {kafka.bootstrap} --create --topic nor this! --partitions 2 --config cleanup.policy=compact",
    ]
    assert partitions(kafka, chosen.kafka_dead_letter_topic) == [2]


def test_the_commands_are_those_of_kafka() -> None:
    """They can be copied into a shell as they are."""
    plain = Wanted("audit", 4)
    assert plain.create_command("b:1,c:2") == f"{TOOL} b:1,c:2 --create --topic audit --partitions 4"
    assert plain.grow_command("b:1,c:2") == f"{TOOL} b:1,c:2 --alter --topic audit --partitions 4"
    with_config = Wanted("log", 1, {"cleanup.policy": "compact", "segment.ms": "1"})
    assert with_config.create_command("b:1") == (
        f"{TOOL} b:1 --create --topic log --partitions 1 --config cleanup.policy=compact --config segment.ms=1"
    )


def test_what_is_wanted_follows_from_settings_and_sources() -> None:
    """Names are those of the settings, counts that of the largest source."""
    chosen = settings("b:1", "s")
    assert wanted(chosen, {"s": 2, "t": 7}) == [
        Wanted("s-audit", 7),
        Wanted("s-dead-letters", 7, {"max.message.bytes": "2000000"}),
        Wanted("s-group-dedupe-changelog", 7, {"cleanup.policy": "compact"}),
    ]


# -- answers that a broker of our own does not give at will


class Answering:
    """An admin client of the real brokers, whose answers to one call are the test's."""

    def __init__(self, kafka: KafkaCluster, call: str, code: int) -> None:
        self._admin = admin(kafka)
        self._call = call
        self._code = code
        self.called = False

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._call else getattr(self._admin, name)

    def _fail(self, asked: list[Any], **_: Any) -> dict[Any, "Future[None]"]:
        self.called = True
        return {self._name(each): self._failed() for each in asked}

    @staticmethod
    def _name(asked: Any) -> Any:
        return asked if isinstance(asked, ConfigResource) else getattr(asked, "topic", None) or asked.new_topic

    def _failed(self) -> "Future[None]":
        future: Future[None] = Future()
        future.set_exception(KafkaException(KafkaError(self._code, "so says the test")))
        return future


def answering(monkeypatch: pytest.MonkeyPatch, kafka: KafkaCluster, call: str, code: int) -> Answering:
    """Let the brokers answer this call with this code."""
    client = Answering(kafka, call, code)
    monkeypatch.setattr(Connection, "admin", lambda *_: client)
    return client


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_REPLICATION_FACTOR,
    ],
)
async def test_a_refusal_lists_every_command(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Without the right to create topics, whoever has it gets all three command lines at once."""
    chosen = for_sources(kafka, 2)
    answering(monkeypatch, kafka, "create_topics", code)
    with pytest.raises(FatalError, match="so says the test") as refused:
        await ensured(chosen)
    commands = [line.strip() for line in str(refused.value).split("\n")[1:]]
    made = wanted(chosen, {"any": 2})
    assert commands == [topic.create_command(kafka.bootstrap) for topic in made]


async def test_topics_that_are_there_need_no_right_to_make_them(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an administrator made them all, nothing is asked for."""
    chosen = for_sources(kafka, 2)
    await ensured(chosen)
    client = answering(monkeypatch, kafka, "create_topics", KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 2}
    assert not client.called


async def test_a_changelog_that_another_instance_grew_meanwhile_is_taken(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and asking it got its partitions: the brokers refuse them a second time, which is fine."""
    chosen = for_sources(kafka, 1)
    await ensured(chosen)
    grow(kafka.bootstrap, chosen.kafka_source_topics[0], 3)
    grown = topics._grow

    def late(*asked: Any) -> None:
        grow(kafka.bootstrap, chosen.kafka_changelog_topic, 3)
        grown(*asked)

    monkeypatch.setattr(topics, "_grow", late)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 3}


async def test_a_changelog_that_may_not_grow_is_told_with_its_command(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of the new partitions could not be settled: the program does not begin."""
    chosen = for_sources(kafka, 2)
    await ensured(chosen)
    grow(kafka.bootstrap, chosen.kafka_source_topics[0], 3)
    answering(monkeypatch, kafka, "create_partitions", KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    with pytest.raises(FatalError) as refused:
        await ensured(chosen)
    first, command = str(refused.value).split("\n")
    assert first.startswith(f"cannot add partitions to {chosen.kafka_changelog_topic} (CLUSTER_AUTHORIZATION_FAILED: ")
    assert command.strip() == f"{TOOL} {kafka.bootstrap} --alter --topic {chosen.kafka_changelog_topic} --partitions 3"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("create_topics", KafkaError._TIMED_OUT),
        ("create_topics", KafkaError.NOT_CONTROLLER),
        ("create_topics", KafkaError.THROTTLING_QUOTA_EXCEEDED),
        ("create_partitions", KafkaError._TRANSPORT),
        ("create_partitions", KafkaError.REQUEST_TIMED_OUT),
        ("describe_configs", KafkaError._TIMED_OUT),
    ],
)
async def test_no_answer_is_no_refusal(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """What the brokers did not decide is asked again, not given up."""
    chosen = for_sources(kafka, 1)
    if call != "create_topics":
        await ensured(chosen)
        grow(kafka.bootstrap, chosen.kafka_source_topics[0], 2)
    client = answering(monkeypatch, kafka, call, code)
    with pytest.raises(SourceUnavailable, match="so says the test"):
        await ensured(chosen)
    assert client.called


async def test_an_instance_that_was_quicker_is_no_refusal(kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances that start together find each other's topics made."""
    chosen = for_sources(kafka, 2)
    client = answering(monkeypatch, kafka, "create_topics", KafkaError.TOPIC_ALREADY_EXISTS)
    fail = client._fail

    def quicker(asked: list[Any], **how: Any) -> dict[Any, "Future[None]"]:
        for future in client._admin.create_topics(asked).values():
            future.result(WITHIN_S)
        return fail(asked, **how)

    monkeypatch.setattr(client, "_fail", quicker)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 2}


async def test_a_changelog_whose_policy_is_not_told_is_trusted(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right to describe configurations is not needed to run."""
    chosen = for_sources(kafka, 1)
    await ensured(chosen)
    client = answering(monkeypatch, kafka, "describe_configs", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert await ensured(chosen) == {chosen.kafka_source_topics[0]: 1}
    assert client.called


async def test_brokers_that_do_not_answer_are_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start waits for them."""
    monkeypatch.setattr("consumer.adapters.kafka.topics.TOPICS_WITHIN_S", 0.2)
    with pytest.raises(SourceUnavailable, match="cannot list topics"):
        await ensured(settings("127.0.0.1:1", "any"))


# -- why they do not answer


def logging_in(kafka: KafkaCluster, topic: str, folder: Path, **more: str) -> Settings:
    """Settings of a client at the listener that asks for a password, with these properties."""
    security = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": LOCKED_USER}
    path = properties(folder, **security, **more)
    return settings(kafka.locked_bootstrap, topic, KAFKA_PROPERTIES_FILE=path)


async def test_whoever_has_the_password_is_let_in(kafka: KafkaCluster, tmp_path: Path) -> None:
    """As at any other listener."""
    topic = kafka.create_topic("source")
    assert await ensured(logging_in(kafka, topic, tmp_path, **{"sasl.password": LOCKED_PASSWORD})) == {topic: 1}


async def test_a_wrong_password_ends_the_start_and_is_named(kafka: KafkaCluster, tmp_path: Path) -> None:
    """The question itself runs into its time limit; to wait would be in vain."""
    chosen = logging_in(kafka, "any", tmp_path, **{"sasl.password": "hunter2"})
    with pytest.raises(Unauthorized, match="Invalid username or password") as refused:
        await ensured(chosen)
    assert "hunter2" not in str(refused.value)


async def test_tls_at_a_port_without_it_is_told(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may pass, as while certificates are exchanged: the start waits, and says for what."""
    monkeypatch.setattr("consumer.adapters.kafka.topics.TOPICS_WITHIN_S", 2)
    path = properties(tmp_path, **{"security.protocol": "SSL"})
    # The library says it in one of two ways, under load at times in the second alone; either names the handshake.
    with pytest.raises(SourceUnavailable, match=r"SSL handshake failed|SSL connection closed by peer .* SSL_HANDSHAKE"):
        await ensured(settings(kafka.bootstrap, "any", KAFKA_PROPERTIES_FILE=path))
