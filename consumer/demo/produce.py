"""Produces sample change events. Touches the source topic."""

import sys

import orjson
from confluent_kafka import KafkaException, Producer

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import Wanted
from consumer.demo.samples import Expectation, Samples
from consumer.errors import FatalError, SourceUnavailable
from consumer.settings import Settings

FLUSH_S = 60.0
REACH_S = 10.0


def produce(producer: Producer, topic: str, records: int, seed: int) -> Expectation:
    """Produce samples, in their order for each contact.

    Returns:
        What must become of them.

    Raises:
        SourceUnavailable: The brokers did not take them all.
    """
    samples = Samples(seed)
    for sample in samples.take(records):
        while True:
            try:
                producer.produce(topic, value=sample.value, key=sample.key)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(FLUSH_S)
    if left:
        raise SourceUnavailable(f"{left} of {records} sample events were not delivered within {FLUSH_S:.0f} s")
    return samples.expected


def _check(producer: Producer, topic: str, bootstrap: str) -> None:
    try:
        known = producer.list_topics(timeout=REACH_S).topics
    except KafkaException as failure:
        raise SourceUnavailable(
            f"no broker answers at {bootstrap} (KAFKA_BOOTSTRAP_SERVERS): {failure.args[0]}"
        ) from None
    if topic not in known:
        raise FatalError(f"topic {topic} does not exist; create it: {Wanted(topic, 4).create_command(bootstrap)}")


def produce_samples(settings: Settings, records: int, seed: int, output: str) -> None:
    """The command: produce to the first source topic, and say what was produced."""
    topic = settings.kafka_source_topics[0]
    producer = Connection.of(settings).producer({"linger.ms": 20}, {"enable.idempotence": True, "log_level": 0})
    _check(producer, topic, settings.kafka_bootstrap_servers)
    expected = produce(producer, topic, records, seed)
    kinds = {kind.value: count for kind, count in sorted(expected.kinds.items())}
    if output == "json":
        sys.stdout.write(orjson.dumps({"topic": topic, "records": records, "kinds": kinds}).decode() + "\n")
        return
    sys.stdout.write(f"{records} sample events on {topic}:\n")
    sys.stdout.writelines(f"  {count:>8,} {kind}\n" for kind, count in kinds.items())
