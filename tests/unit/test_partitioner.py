"""Partitioners against those of librdkafka, and what can be told from a topic."""

import pytest
from confluent_kafka import Message, Producer
from hypothesis import given, strategies as st

from consumer.core.partitioner import PARTITIONERS, fitting
from consumer.errors import FatalError
from consumer.first_fill.placement import choose
from tests.kafka_clients import QUIET, WITHIN_S, mock_cluster

OF_LIBRDKAFKA = {"murmur2": "murmur2", "crc32": "consistent", "fnv1a": "fnv1a"}
KEYS = [f"003{number:015d}"[: 1 + number % 18].encode() for number in range(300)] + ["Zoë-ü".encode(), b"\xff\xfe\x80"]


@pytest.mark.parametrize("name", PARTITIONERS)
def test_keys_go_where_librdkafka_puts_them(name: str) -> None:
    """Keys of every length, over the partitions that a mock cluster gives a topic."""
    found: dict[bytes, int] = {}

    def note(error: object, message: Message) -> None:
        assert error is None
        found[message.key() or b""] = message.partition() or 0

    with mock_cluster() as bootstrap:
        producer = Producer({"bootstrap.servers": bootstrap, "partitioner": OF_LIBRDKAFKA[name], **QUIET})
        partitions = len(producer.list_topics("topic", timeout=WITHIN_S).topics["topic"].partitions)
        for key in KEYS:
            producer.produce("topic", b"", key, on_delivery=note)
        assert producer.flush(WITHIN_S) == 0
    assert partitions > 1
    assert found == {key: PARTITIONERS[name](key, partitions) for key in KEYS}


def test_murmur2_is_the_java_client_s() -> None:
    """Hashes of Apache Kafka's own tests, which mask the sign as its partitioner does."""
    hashes = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for key, hashed in hashes.items():
        assert PARTITIONERS["murmur2"](key, 1_000_003) == (hashed & 0x7FFF_FFFF) % 1_000_003


@given(st.binary(), st.integers(1, 500))
def test_there_is_always_such_a_partition(key: bytes, partitions: int) -> None:
    """Whatever the key is."""
    assert all(0 <= of(key, partitions) < partitions for of in PARTITIONERS.values())


def _samples(name: str, count: int, partitions: int = 6) -> list[tuple[bytes, int]]:
    return [(key, PARTITIONERS[name](key, partitions)) for key in KEYS[:count]]


@pytest.mark.parametrize("name", PARTITIONERS)
def test_a_topic_tells_by_what_it_was_filled(name: str) -> None:
    """Some dozen records leave one."""
    assert fitting(_samples(name, 40), 6) == [name]
    assert choose(_samples(name, 40), 6, None) is PARTITIONERS[name]
    assert choose(_samples(name, 40), 6, name) is PARTITIONERS[name]


def test_an_empty_topic_needs_to_be_told() -> None:
    """The message names the option."""
    with pytest.raises(FatalError, match=r"no record with a key.*--partitioner \(murmur2, crc32, fnv1a\)"):
        choose([], 6, None)
    assert choose([], 6, "crc32") is PARTITIONERS["crc32"]


def test_too_few_records_need_to_be_told() -> None:
    """One key that two of them put in the same partition."""
    key = next(key for key in KEYS if PARTITIONERS["murmur2"](key, 6) == PARTITIONERS["crc32"](key, 6))
    with pytest.raises(FatalError, match=r"too few records with keys \(1\).*--partitioner"):
        choose([(key, PARTITIONERS["crc32"](key, 6))], 6, None)


def test_a_topic_that_contradicts_is_refused() -> None:
    """What the option says, or every known way."""
    with pytest.raises(FatalError, match="not filled by fnv1a: its records fit murmur2"):
        choose(_samples("murmur2", 40), 6, "fnv1a")
    mixed = [*_samples("murmur2", 40), (KEYS[0], (PARTITIONERS["murmur2"](KEYS[0], 6) + 1) % 6)]
    for named in (None, "murmur2"):
        with pytest.raises(FatalError, match="in no known way"):
            choose(mixed, 6, named)


def test_one_partition_needs_no_partitioner() -> None:
    """Whatever stands in it."""
    assert choose([], 1, None)(b"key", 1) == 0
