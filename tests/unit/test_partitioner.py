"""Partitioners against those of librdkafka, and what can be told from a topic."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from confluent_kafka import Message, Producer
from hypothesis import given, strategies as st

from consumer.core import framing
from consumer.core.partitioner import PARTITIONERS, fitting
from consumer.errors import FatalError
from consumer.first_fill.placement import Sample, Samples, choose, sampled
from consumer.formats import Framing, KeyFormat
from consumer.model import Position, Record
from tests.kafka_clients import QUIET, WITHIN_S, mock_cluster
from tests.lives import NATIVE
from tests.memory_ports import MemorySchemas
from tests.stories import TOPIC, Event

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


def _sample(key: bytes, partition: int, offset: int = 0) -> Sample:
    return Sample(key, Position(TOPIC, partition, offset))


def _samples(name: str, count: int, partitions: int = 6) -> list[Sample]:
    return [_sample(key, PARTITIONERS[name](key, partitions), 7) for key in KEYS[:count]]


@pytest.mark.parametrize("name", PARTITIONERS)
def test_a_topic_tells_by_what_it_was_filled(name: str) -> None:
    """Some dozen records leave one."""
    assert fitting([(sample.external_id, sample.place.partition) for sample in _samples(name, 40)], 6) == [name]
    assert choose(_samples(name, 40), 6, None) is PARTITIONERS[name]
    assert choose(_samples(name, 40), 6, name) is PARTITIONERS[name]


def test_an_empty_topic_needs_to_be_told() -> None:
    """The message names the option."""
    with pytest.raises(FatalError, match=r"no record of a contact.*--partitioner \(murmur2, crc32, fnv1a\)"):
        choose([], 6, None)
    assert choose([], 6, "crc32") is PARTITIONERS["crc32"]


def test_too_few_records_need_to_be_told() -> None:
    """One key that two of them put in the same partition."""
    key = next(key for key in KEYS if PARTITIONERS["murmur2"](key, 6) == PARTITIONERS["crc32"](key, 6))
    with pytest.raises(FatalError, match=r"too few records of contacts \(1\).*--partitioner"):
        choose([_sample(key, PARTITIONERS["crc32"](key, 6))], 6, None)


def test_a_topic_that_contradicts_is_refused() -> None:
    """What the option says, or every known way."""
    with pytest.raises(FatalError, match="not filled by fnv1a: its records fit murmur2"):
        choose(_samples("murmur2", 40), 6, "fnv1a")
    mixed = [*_samples("murmur2", 40), _sample(KEYS[17], (PARTITIONERS["murmur2"](KEYS[17], 6) + 1) % 6, 31)]
    odd = rf"murmur2 comes closest, with 40 of the newest 41, and not with {mixed[-1].place} \(check --explain"
    for named in (None, "murmur2"):
        with pytest.raises(FatalError, match="in no known way: " + odd) as refused:
            choose(mixed, 6, named)
        assert KEYS[17].decode() not in str(refused.value)


def test_one_partition_needs_no_partitioner() -> None:
    """Whatever stands in it."""
    assert choose([], 1, None)(b"key", 1) == 0


PARTITIONS = 6
IDS = [f"c-{number}" for number in range(60)]


def _in_json(external_id: str) -> bytes:
    """As Kafka Connect writes the key of a row."""
    return b'{"id":"%s"}' % external_id.encode()


def _record(partition: int, key: bytes | None, value: bytes | None) -> Record:
    return Record(TOPIC, partition, 5, 0, key, value)


def _told(records: Sequence[Record], key: KeyFormat = KeyFormat.STRING) -> Samples:
    """What records of a topic tell, some at a time."""

    async def some() -> AsyncIterator[Sequence[Record]]:
        for start in range(0, len(records), 7):
            yield records[start : start + 7]

    form = framing.form(TOPIC, Framing.CONFLUENT, key)
    return asyncio.run(sampled(some(), form, NATIVE.of_topic(TOPIC), MemorySchemas()))


@pytest.mark.parametrize("key", [KeyFormat.STRING, KeyFormat.JSON])
def test_keys_that_lead_elsewhere_than_external_ids_are_refused(key: KeyFormat) -> None:
    """They are spread well, but the stream looks for a contact where its record stands, whatever the key is."""
    of = PARTITIONERS["murmur2"]
    records = [_record(of(_in_json(each), PARTITIONS), _in_json(each), Event(each, None).value()) for each in IDS]
    assert fitting([(_in_json(each), of(_in_json(each), PARTITIONS)) for each in IDS], PARTITIONS) == ["murmur2"]
    with pytest.raises(FatalError, match="in no known way"):
        choose(_told(records, key), PARTITIONS, "murmur2")


@pytest.mark.parametrize("key", [lambda _: None, _in_json, str.encode], ids=["none", "JSON", "text"])
@pytest.mark.parametrize("name", PARTITIONERS)
def test_external_ids_tell_whatever_the_keys_are(name: str, key: Callable[[str], bytes | None]) -> None:
    """A producer may choose the partition by the external id, and write another key or none."""
    of = PARTITIONERS[name]
    records = [_record(of(each.encode(), PARTITIONS), key(each), Event(each, None).value()) for each in IDS]
    assert choose(_told(records), PARTITIONS, None) is of


def test_a_tombstone_tells_by_its_key() -> None:
    """As it does in the stream."""
    records = [_record(4, _in_json("c-1"), None), _record(3, b"c-2", None)]
    assert _told(records, KeyFormat.JSON) == [_sample(b"c-1", 4, 5)]
    assert _told(records, KeyFormat.STRING) == [_sample(b"c-2", 3, 5)]


def test_records_that_cannot_be_read_say_nothing() -> None:
    """Nor do those of a schema that nobody knows, or without an external id."""
    values = [b"", b"?", b"\0\0\0\0\1cut", b"\0\0\0\0\x63of another schema", Event(" ", None).value()]
    records = [_record(number, b"c-1", value) for number, value in enumerate(values)]
    assert _told([*records, _record(5, b"c-1", Event("c-1", None).value())]) == [_sample(b"c-1", 5, 5)]
