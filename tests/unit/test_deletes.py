"""Whom deletes are about: nobody else than the rows before them, whatever this process has seen of those."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from consumer.core.connect_json import JsonReader
from consumer.core.decode import decode
from consumer.core.envelopes.choice import Envelopes
from consumer.core.framing import JSON, KeySchema
from consumer.errors import DecodeError
from consumer.formats import EnvelopeName, PerTopic
from consumer.model import ChangeEvent, ChangeType, Reason, Record, TopicPartition
from consumer.pipeline.readers import without_registry
from consumer.settings import ready_made_mappings
from tests.envelopes import MAPPING, ROW, TIME_MS, TOPIC, envelopes
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC as SOURCE_TOPIC

PARTITION = TopicPartition(SOURCE_TOPIC, 0)
SOURCE = {"ts_ms": TIME_MS, "lsn": 5}
LIST = MAPPING | {"external_id": ["customer_id", "id"]}
CUSTOMER = ROW | {"id": 42, "customer_id": 7}
KEY_ALONE = dict.fromkeys(CUSTOMER) | {"id": 42}
"""As `before` of a delete with the usual REPLICA IDENTITY."""


def read(envelope: str, fields: object, mapping: dict[str, Any] = LIST) -> Sequence[ChangeEvent]:
    """What a record in JSON without a schema tells."""
    value = json.dumps(fields).encode()
    events = JsonReader(envelopes(envelope, mapping).of_topic(TOPIC))(value, Record(TOPIC, 0, 0, TIME_MS, b"7", value))
    return (events,) if isinstance(events, ChangeEvent) else events


def named(key: object, *, topic: str = TOPIC, made: Envelopes | None = None, **mapping: object) -> str | None:
    """Whom a tombstone deletes; None if it is rejected."""
    chosen = made or envelopes("flattened", MAPPING | mapping)
    reader = without_registry(chosen.of_topic(topic))[KeySchema(JSON)]
    tombstone = Record(topic, 0, 0, TIME_MS, json.dumps(key).encode(), None)
    (result,) = decode([tombstone], {1: reader}, lambda record: (1, record.key or b"")).results
    if isinstance(result, DecodeError):
        assert "not for sure the external id" in result.detail
        return None
    assert isinstance(result, ChangeEvent)
    return str(result.external_id)


@pytest.mark.parametrize(
    ("paths", "key", "expected"),
    [
        (["customer_id", "id"], {"id": 42}, None),
        (["customer_id", "id"], {"customer_id": 7}, "7"),
        (["id", "customer_id"], {"id": 42}, "42"),
        (["customer_id", "_id.$oid"], {"id": '{"$oid": "a1"}'}, None),
        (["_id.$oid", "_id", "customer_id"], {"id": '{"$oid": "a1"}'}, "a1"),
        (["_id.$oid", "_id", "customer_id"], {"customer_id": 7}, None),
        ("@header.customer", {"id": 42}, None),
        ("@key", {"id": 42}, "42"),
        (["customer_id", "id"], 42, "42"),
    ],
)
def test_of_a_list_a_key_names_somebody_by_the_first_path_alone(
    paths: object, key: object, expected: str | None
) -> None:
    """A table with both columns has its rows named by `customer_id`: its row 42 is not customer 42."""
    assert named(key, external_id=paths) == expected


def test_the_tables_that_may_be_for_a_topic_have_to_be_of_one_mind() -> None:
    """Those of other topics are not for it, nor is the ready-made one where there are others."""

    def made(*tables: str) -> Envelopes:
        ids = {"b": "id", "Row": "id", "Other": "customer_id"}
        chosen = {name: MAPPING | {"external_id": ids[name]} for name in tables}
        return Envelopes.of(PerTopic(EnvelopeName.FLATTENED, {}), chosen, ready_made_mappings(), ["a", "b"])

    def told(*tables: str) -> list[str | None]:
        return [named({name: 42}, topic="a", made=made(*tables)) for name in ("id", "customer_id")]

    assert told() == told("Row") == told("b") == ["42", None]
    assert told("Other") == told("Other", "b") == [None, "42"]
    assert told("Row", "Other") == [None, None]


@pytest.mark.parametrize("lives", [1, 3])
@pytest.mark.parametrize("ids", ['["customer_id", "id"]', None], ids=["a list", "ready-made"])
def test_a_tombstone_of_one_row_deletes_nobody_else(tmp_path: Path, ids: str | None, lives: int) -> None:
    """However many records the process has seen before it, none at all in a compacted topic.

    What names nobody for sure is a dead letter that says why.
    """
    changed: dict[str, Any] = {"source_envelope": "flattened", "source_framing": "json", "source_key": "json"}
    if ids:
        path = tmp_path / "mapping.toml"
        path.write_text(f'[default]\nexternal_id = {ids}\nphone = "phone"\nconsent = "consent"\ndo_not_call = "dnc"\n')
        changed["source_mapping"] = str(path)

    def row(key: int, customer: int) -> dict[str, object]:
        told = {"phone": "+14155550142", "consent": True, "dnc": False, "do_not_call": False}
        return {"id": key, "customer_id": customer, **told}

    told = [(42, None), (42, row(42, 7)), (99, row(99, 42)), (42, None)]
    world = World()
    records = [
        Record(*PARTITION, offset, TIME_MS + offset, b'{"id":%d}' % key, json.dumps(value).encode() if value else None)
        for offset, (key, value) in enumerate(told)
    ]
    for part in [records] if lives == 1 else [records[:1], records[1:3], records[3:]]:
        world.append(part)
        live(world, MemorySchemas({}), batch_linger_ms=20, settle_interval_ms=10, **changed)
    if ids:
        assert [reason for _, reason in world.dead_letters] == ["not_decodable"] * 2
        assert {*world.list} == {"7", "42"}
    else:
        assert {*world.list} == {"99"}


def test_a_delete_in_json_without_a_schema_names_whom_creates_name() -> None:
    """`before` has the columns, and nothing in the one that names customers: the row's key is somebody else."""
    created = {"before": None, "after": CUSTOMER, "source": SOURCE, "op": "c"}
    assert read("debezium", created)[0].external_id == "7"
    with pytest.raises(DecodeError, match="REPLICA IDENTITY") as caught:
        read("debezium", {"before": KEY_ALONE, "after": None, "source": SOURCE, "op": "d"})
    assert caught.value.reasons == (Reason.EXTERNAL_ID_MISSING,)
    (gone,) = read("debezium", {"before": CUSTOMER, "after": None, "source": SOURCE, "op": "d"})
    assert gone.external_id == "7"


def deleted(envelope: str, row: Mapping[str, object]) -> object:
    """The record of a delete with this row."""
    match envelope:
        case "debezium":
            return {"before": row, "after": None, "source": SOURCE, "op": "d"}
        case "flattened":
            return {**row, "__deleted": "true"}
        case _:
            return {"data": row, "metadata": {"operation": "delete", "timestamp": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize("envelope", ["debezium", "flattened", "dms"])
def test_a_delete_that_holds_ids_alone_names_nobody_by_a_later_path(envelope: str) -> None:
    """Nothing tells whether the table has an earlier one. By the first path, or the only one, it does."""
    with pytest.raises(DecodeError, match="first path of external_id") as caught:
        read(envelope, deleted(envelope, {"id": 42}))
    assert caught.value.reasons == (Reason.EXTERNAL_ID_MISSING,)
    for row, mapping in (({"customer_id": 7, "id": 42}, LIST), ({"id": 7}, MAPPING)):
        (event,) = read(envelope, deleted(envelope, row), mapping)
        assert (event.change_type, event.external_id) == (ChangeType.DELETE, "7")


@pytest.mark.parametrize("envelope", ["debezium", "flattened", "dms"])
def test_a_delete_that_holds_the_whole_row_names_whom_creates_name(envelope: str) -> None:
    """By a later path too: no column goes before that, where the row has those of a contact."""
    mapping = LIST | {"consent": {"path": "consent", "values": {"null": False, "granted": True}}}
    (event,) = read(envelope, deleted(envelope, ROW), mapping)
    assert (event.change_type, event.external_id) == (ChangeType.DELETE, "7")
    with pytest.raises(DecodeError, match="first path of external_id"):
        read(envelope, deleted(envelope, {"id": 7}), mapping)


def test_a_delete_of_a_table_that_lost_a_column_names_whom_its_rows_do() -> None:
    """It tells the other columns, so the one that goes before in the list is none of them."""
    row = {name: value for name, value in ROW.items() if name != "phone"}
    (event,) = read("debezium", deleted("debezium", row))
    assert event.external_id == "7"


@pytest.mark.parametrize(
    ("before", "former"),
    [({"id": 42}, None), ({"customer_id": 6, "id": 42}, "6"), ({"customer_id": 7}, None), ({"phone": "+1"}, None)],
)
@pytest.mark.parametrize("in_row", [False, True])
def test_what_was_before_a_change_of_dms_names_nobody_by_another_column(
    before: dict[str, object], former: str | None, *, in_row: bool
) -> None:
    """It may hold the primary key alone: the row's other columns did not change."""
    metadata = {"operation": "update", "timestamp": "2026-01-01T00:00:00Z"}
    row = CUSTOMER | {f"BI_{column}": value for column, value in before.items()}
    told: dict[str, object] = {"data": row} if in_row else {"data": CUSTOMER, "before-image": before}
    events = read("dms", {**told, "metadata": metadata})
    assert [event.external_id for event in events] == ([former] if former else []) + ["7"]


@pytest.mark.parametrize("before", [{}, {"phone": "+1"}, {"id": 42}])
def test_what_was_before_an_update_may_have_some_columns_alone(before: object) -> None:
    """It is nobody else's row for that, and the process goes on."""
    events = read("debezium", {"before": before, "after": CUSTOMER, "source": SOURCE, "op": "u"})
    assert [(event.external_id, event.former) for event in events] == [("7", None)]


def test_a_delete_beside_a_row_may_have_some_columns_alone() -> None:
    """Such a record contradicts itself, and names nobody."""
    with pytest.raises(DecodeError, match="does not tell the external id"):
        read("debezium", {"before": {"phone": "+1"}, "after": CUSTOMER, "source": SOURCE, "op": "d"})
