"""A null in JSON is a tombstone: Kafka Connect's converter writes one that has a schema as text.

The bytes are those of its JsonConverter behind ExtractNewRecordState, which makes of a delete a null with a schema.
"""

import json
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from consumer.core import dead_letters
from consumer.formats import Framing
from consumer.model import DeadLetter, Record, TopicPartition
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC

P0 = TopicPartition(TOPIC, 0)
TIME_MS = 1_764_460_800_000
ROW = {"id": 42, "phone": "+14155550142", "consent": True, "do_not_call": False}
ID = {"type": "int32", "optional": False, "field": "id"}
FIELDS = [
    ID,
    {"type": "string", "optional": True, "field": "phone"},
    {"type": "boolean", "optional": True, "field": "consent"},
    {"type": "boolean", "optional": True, "field": "do_not_call"},
]
SCHEMA = {"type": "struct", "fields": FIELDS, "optional": True, "name": "crm.public.customers.Value"}
KEY_SCHEMA = {"type": "struct", "fields": [ID], "optional": False, "name": "crm.public.customers.Key"}
KEY = {"schema": KEY_SCHEMA, "payload": {"id": 42}}
CLOUD_EVENT = [("ce_specversion", b"1.0")]

GONE = {
    "a null": b"null",
    "with a line end": b"null\n",
    "a null with a schema": json.dumps({"schema": SCHEMA, "payload": None}, separators=(",", ":")).encode(),
    "by a writer with spaces": json.dumps({"schema": SCHEMA, "payload": None}, indent=2).encode(),
    "the payload first": json.dumps({"payload": None, "schema": SCHEMA}).encode(),
    "of a converter before Kafka 2.0": b'{"schema":null,"payload":null}',
}


def _comes(world: World, value: bytes | None, key: object = KEY, **changed: object) -> Record:
    """Put a record on the topic, and have it read."""
    offset = len(world.log.get(P0, ()))
    record = Record(*P0, offset, TIME_MS + offset, json.dumps(key).encode(), value)
    world.append([replace(record, **changed)])
    _read(world)
    return world.log[P0][-1]


def _read(world: World, **changed: object) -> None:
    chosen: Mapping[str, object] = {"source_envelope": "flattened", "source_framing": "json", "source_key": "json"}
    live(world, MemorySchemas({}), **{**chosen, **changed})


def _created() -> World:
    world = World()
    _comes(world, json.dumps({"schema": SCHEMA, "payload": ROW}).encode())
    assert world.list["42"]["callable"] is True
    return world


def _ends(world: World) -> list[tuple[object, object]]:
    return [(event["outcome"], event["operation"]) for event in world.events()]


@pytest.mark.parametrize("value", GONE.values(), ids=GONE)
@pytest.mark.parametrize("framing", [Framing.JSON, Framing.AUTO])
def test_a_null_deletes_whom_its_key_names(value: bytes, framing: Framing) -> None:
    """As a null of Kafka does: the person is not called any more."""
    world = _created()
    world.append([Record(*P0, 1, TIME_MS + 1, json.dumps(KEY).encode(), value)])
    _read(world, source_framing=framing.value)
    assert _ends(world)[-1] == ("delivered", "delete")
    assert world.list == {}


@pytest.mark.parametrize("value", [None, b"null", GONE["a null with a schema"]])
def test_the_null_of_a_cloud_event_is_no_tombstone(value: bytes | None) -> None:
    """It is what an event has to say, and may be of another kind."""
    world = _created()
    _comes(world, value, headers=CLOUD_EVENT)
    assert _ends(world)[-1] == ("rejected", None)
    assert world.list["42"]["callable"] is True


@pytest.mark.parametrize(
    "value",
    [
        b"nullable",
        b'"null"',
        b'{"payload":null}',
        b'{"schema":{},"payload":null,"more":1}',
        b'{"schema":{"payload":null}}',
        b'{"schema":{},"payload":{"payload":null}}',
        b'{"payload":null,"schema":',
        b'[{"payload":null}]',
    ],
)
def test_what_only_looks_like_a_null_deletes_nobody(value: bytes) -> None:
    """Nobody is deleted for a row that holds a null, or for junk."""
    world = _created()
    _comes(world, value)
    assert world.list["42"]["callable"] is True


def test_a_null_right_behind_a_delete_is_that_delete() -> None:
    """Debezium sends both: the second has the time and version of the first, so a row made at once is there."""
    world = World()
    envelope = {"before": None, "source": {"ts_ms": TIME_MS, "lsn": 7}}
    created = {**envelope, "after": ROW, "op": "c"}
    deleted = {**envelope, "before": {"id": 42}, "after": None, "source": {"ts_ms": TIME_MS + 5, "lsn": 8}, "op": "d"}
    again = {**envelope, "after": ROW, "source": {"ts_ms": TIME_MS + 5, "lsn": 9}, "op": "c"}
    values = [json.dumps(each).encode() for each in (created, deleted)] + [b"null", json.dumps(again).encode()]
    records = [Record(*P0, n, TIME_MS + 1000 * n, b'{"id":42}', value) for n, value in enumerate(values)]
    world.append(records)
    _read(world, source_envelope="debezium")
    world.append([replace(record, offset=record.offset + 4) for record in records[1:3]])
    _read(world, source_envelope="debezium")
    assert world.list["42"]["callable"] is True


@pytest.mark.parametrize("gone", [None, b"null", GONE["a null with a schema"]])
def test_a_null_has_the_time_of_kafka_alone(gone: bytes | None) -> None:
    """What is known of a contact keeps its time: a row that is made at once is not older than the delete."""
    world = World()
    row = {**ROW, "__op": "c", "__lsn": 7, "__source_ts_ms": TIME_MS}
    again = {**row, "__lsn": 8, "__source_ts_ms": TIME_MS + 1}
    for number, value in enumerate([json.dumps(row).encode(), gone, json.dumps(again).encode()]):
        world.append([Record(*P0, number, TIME_MS + 1000 * number, b'{"id":42}', value)])
        _read(world)
    assert [operation for _, operation in _ends(world)] == ["upsert", "delete", "upsert"]


@pytest.mark.parametrize("gone", [None, b"null", GONE["a null with a schema"]])
def test_pairs_of_a_delete_and_its_null_count_once_at_the_fuse(gone: bytes | None) -> None:
    """As pairs with a null of Kafka."""
    world = World()
    values: list[bytes | None] = [json.dumps({**ROW, "__deleted": "true"}).encode(), gone]
    world.append([Record(*P0, n, TIME_MS, b'{"id":%d}' % (n // 2), values[n % 2]) for n in range(6)])
    _read(world, fuse_deletes=3)
    assert len(world.events()) == 6


def test_a_null_that_nobody_could_read_comes_back_as_it_was() -> None:
    """Its dead letter has the bytes, and put back it deletes: by then the key can be read."""
    world = _created()
    value = GONE["a null with a schema"]
    letter = _comes(world, value, key={"id": 42, "region": "eu"})
    assert _ends(world)[-1] == ("rejected", None)
    assert world.dead_letters[-1][0].value == value
    headers = dead_letters.headers(DeadLetter(letter, "not_decodable", "", 0))
    read = dead_letters.read(headers)
    assert read is not None
    _comes(world, value, headers=dead_letters.replayed(headers, read))
    assert _ends(world)[-1] == ("delivered", "delete")


def test_a_null_under_any_key_names_whom_a_null_of_kafka_would() -> None:
    """Text, too."""
    world = World()
    world.append([Record(*P0, 0, TIME_MS, b"42", json.dumps(ROW).encode())])
    _read(world, source_key="string")
    world.append([Record(*P0, 1, TIME_MS + 1, b"42", b"null")])
    _read(world, source_key="string")
    assert world.list == {}
