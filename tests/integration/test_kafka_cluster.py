"""The Kafka that other tests rely on is a real one, survives what they do to it, and leaves nothing behind."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests import kafka_cluster
from tests.kafka_cluster import PROJECT, KafkaCluster, KafkaFailedError, launch

pytestmark = pytest.mark.kafka

ANSWER_WITHIN_S = 20.0


def test_what_is_produced_is_read_back(kafka: KafkaCluster) -> None:
    """A topic of a started cluster takes records at once and gives them back in order."""
    topic = kafka.create_topic()
    produce(kafka, topic, "first", "second")
    assert read(kafka, topic) == ["first", "second"]


def test_topics_do_not_collide(kafka: KafkaCluster) -> None:
    """Two topics asked for under one prefix are two topics."""
    assert kafka.create_topic("same") != kafka.create_topic("same")


def test_read_committed_hides_an_aborted_transaction(kafka: KafkaCluster) -> None:
    """Aborted records lie in the topic, and a `read_committed` reader does not see them."""
    topic = kafka.create_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(ANSWER_WITHIN_S)
    for value, end in [("aborted", producer.abort_transaction), ("kept", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(ANSWER_WITHIN_S)
        end(ANSWER_WITHIN_S)
    assert read(kafka, topic, isolation="read_committed") == ["kept"]
    assert read(kafka, topic, isolation="read_uncommitted") == ["aborted", "kept"]


def test_a_killed_broker_comes_back_with_its_data(kafka: KafkaCluster) -> None:
    """After kill -9 and a restart the records are there, at the same address."""
    bootstrap = kafka.bootstrap
    topic = kafka.create_topic()
    produce(kafka, topic, "before")
    kafka.kill(1)
    kafka.restart(1)
    produce(kafka, topic, "after")
    assert kafka.bootstrap == bootstrap
    assert read(kafka, topic) == ["before", "after"]


@pytest.mark.timeout(120)
def test_three_brokers_work_on_without_one() -> None:
    """With three brokers, writes to all in-sync replicas of every partition survive the loss of a broker."""
    partitions = (0, 1, 2)
    with KafkaCluster(brokers=3) as cluster:
        topic = cluster.create_topic(partitions=3)
        cluster.kill(1)
        for partition in partitions:
            produce(cluster, topic, "without 1", partition=partition)
        cluster.restart(1)
        values = [read(cluster, topic, partition=partition) for partition in partitions]
    assert values == [["without 1"]] * 3


def test_a_failed_start_shows_the_broker_s_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that cannot start says why in the error, and its folder is removed."""
    cluster = KafkaCluster()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], *kafka_cluster._free_ports(4)]
        monkeypatch.setattr(kafka_cluster, "_free_ports", lambda _count: iter(ports))
        with pytest.raises(KafkaFailedError, match="Address already in use"):
            cluster.start()
    assert cluster._folder is None


def test_no_process_outlives_the_run(tmp_path: Path) -> None:
    """When the process that launched another is killed, the other ends too."""
    # Not before the other one runs: only then does the kernel know that they are to end together.
    script = """
import os, pathlib, psutil, signal, sys
from tests.kafka_cluster import launch
other = psutil.Process(launch(["sleep", "300"], pathlib.Path(sys.argv[1])).pid)
while other.name() != "sleep":
    pass
print(other.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    parent = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)  # noqa: S603
    eventually(lambda: ended(int(parent.stdout)))


def test_a_process_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    """A broker started from a worker thread stays up when that thread ends."""
    launched: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        launched.append(launch(["sleep", "300"], tmp_path / "log"))
        eventually(lambda: psutil.Process(launched[0].pid).name() == "sleep")  # tied to this run by now

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            launched[0].wait(0.3)
    finally:
        launched[0].kill()
        launched[0].wait()


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_a_machine_without_java_is_named(tmp_path: Path, ci: str, outcome: str) -> None:
    """Without Java a test that needs Kafka is skipped in one line that says so, and fails in CI."""
    this_test = f"{__file__}::{test_what_is_produced_is_read_back.__name__}"
    finished = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", this_test],
        env={**os.environ, "PATH": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    assert outcome in finished.stdout
    assert "Apache Kafka needs java" in finished.stdout


def test_a_machine_without_maven_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Maven is asked for only where the jars are not there yet, and is named when it is lacking."""
    monkeypatch.setattr(shutil, "which", lambda command: None if command == "mvn" else command)
    monkeypatch.setenv(kafka_cluster.JARS_VARIABLE, str(tmp_path))
    assert kafka_cluster.kafka_jars() == tmp_path
    monkeypatch.setenv(kafka_cluster.JARS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(kafka_cluster.KafkaMissingError, match="needs mvn"):
        kafka_cluster.kafka_jars()


def produce(cluster: KafkaCluster, topic: str, *values: str, partition: int = 0) -> None:
    """Produces the values to one partition; every one must be acknowledged by all in-sync replicas."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "log_level": 0})
    errors: list[KafkaError] = []

    def note(error: KafkaError | None, _record: Message) -> None:
        errors.extend([error] if error else [])

    for value in values:
        producer.produce(topic, value, partition=partition, on_delivery=note)
    assert producer.flush(ANSWER_WITHIN_S) == 0
    assert errors == []


def read(cluster: KafkaCluster, topic: str, *, partition: int = 0, isolation: str = "read_committed") -> list[str]:
    """Returns the values of a partition from its beginning to its end."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": topic,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    try:
        return list(values_to_the_end(consumer))
    finally:
        consumer.close()


def values_to_the_end(consumer: Consumer) -> Iterator[str]:
    """Yields values until the broker says that the partition ends."""
    while True:
        record: Message | None = consumer.poll(ANSWER_WITHIN_S)
        assert record is not None, "no answer"
        if error := record.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            return
        value = record.value()
        assert value is not None
        yield value.decode()


def ended(process: int) -> bool:
    """Says whether the process is gone, or a zombie where nobody collects orphans."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)
