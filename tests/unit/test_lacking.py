"""Rows that lack what makes a contact: what they delete and withdraw counts all the same, and nothing else of them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from consumer.core.changes import suppression
from consumer.core.connect_json import JsonReader
from consumer.core.validate import validate
from consumer.errors import DecodeError, ValidationError
from consumer.model import ChangeEvent, ChangeType, Headers, Operation, Reason, Record, TopicPartition
from tests.envelopes import COLUMNS, MAPPING, ROW, TIME_MS, TOPIC, envelopes, record_type, sample, told
from tests.lives import live
from tests.memory_ports import MemorySchemas, World
from tests.stories import TOPIC as SOURCE_TOPIC

PARTITION = TopicPartition(SOURCE_TOPIC, 0)
CALLED = {"id": 7, "phone": "+14155550100", "consent": True, "do_not_call": False}
DENIED = {"id": 7, "consent": "denied", "dnc": "N"}
SOURCE = record_type("Source", {"ts_ms": "long", "lsn": "long"})
CREATED, UPDATED, UNHEARD = ([("eventType", kind)] for kind in (b"ContactCreated", b"ContactUpdated", b"ContactSeen"))


def without(*columns: str) -> dict[str, object]:
    """The columns of a table that lost some."""
    return {name: kind for name, kind in COLUMNS.items() if name not in columns}


def debezium(op: str, before: object, after: object, *lost: str) -> ChangeEvent:
    """The event of a table that lost columns."""
    value = record_type("Value", without(*lost))
    rows = {"before": ["null", value], "after": ["null", "Value"]}
    schema = record_type("Envelope", {**rows, "source": SOURCE, "op": "string"})
    fields = {"before": before, "after": after, "source": {"ts_ms": TIME_MS, "lsn": 5}, "op": op}
    (event,) = told("debezium", schema, fields, MAPPING)
    return event


def in_json(
    envelope: str, fields: Mapping[str, object], headers: Headers = (), mapping: dict[str, Any] | None = None
) -> ChangeEvent:
    """The event of a record in JSON without a schema, which leaves nulls out."""
    value = json.dumps(fields).encode()
    event = JsonReader(envelopes(envelope, mapping).of_topic(TOPIC))(
        value, Record(TOPIC, 0, 0, TIME_MS, b"7", value, headers)
    )
    assert isinstance(event, ChangeEvent)
    return event


def suppressed(event: ChangeEvent) -> bool:
    """Whether a rejected event still makes its contact not callable."""
    (error,) = validate([event], ())
    assert isinstance(error, ValidationError)
    change = suppression(event, 0, "list", "")
    return change is not None and change.operation is Operation.SUPPRESS


ROWS = {
    "no phone, flattened": lambda: in_json("flattened", {"id": 7, "consent": False, "do_not_call": False}),
    "a flag alone, flattened": lambda: in_json("flattened", {"id": 7, "phone": "+14155550100", "consent": False}),
    "no phone, and told not to be called": lambda: in_json("flattened", {"id": 7, "consent": True, "do_not_call": 1}),
    "no phone, in an outbox": lambda: in_json("outbox", {"consent": False, "doNotCall": True}, UPDATED),
    "a flag alone, in an outbox": lambda: in_json("outbox", {"consent": False}, UPDATED),
    "the other flag alone": lambda: in_json("outbox", {"phone": "+14155550100", "doNotCall": True}, CREATED),
    "a flag that is null": lambda: in_json("outbox", {"consent": None, "doNotCall": False}, UPDATED),
    "an event that nobody knows": lambda: in_json("outbox", {"consent": False, "doNotCall": False}, UNHEARD),
    "an event that does not say what it is": lambda: in_json("outbox", {"phone": None, "consent": False}),
    "a table that lost the phone": lambda: debezium("u", None, DENIED, "phone"),
    "a table that lost a flag": lambda: debezium("u", None, ROW | {"dnc": "Y"}, "consent"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_that_lacks_something_withdraws_all_the_same(row: Any) -> None:
    """It is rejected, with what it lacks, and its contact is not called."""
    event = row()
    assert "SOURCE_MAPPING" in event.flaw
    assert suppressed(event)


PERMITTING = {
    "no phone": lambda: in_json("flattened", {"id": 7, "consent": True, "do_not_call": False}),
    "one flag": lambda: in_json("flattened", {"id": 7, "phone": "+14155550100", "consent": True}),
    "in an outbox": lambda: in_json("outbox", {"consent": True}, CREATED),
    "no flag": lambda: in_json("outbox", {"phone": "+14155550100"}, UPDATED),
}


@pytest.mark.parametrize("row", PERMITTING.values(), ids=PERMITTING)
def test_what_such_a_row_grants_is_rejected(row: Any) -> None:
    """A renamed column must not pass for an empty one."""
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for") as caught:
        row()
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)


def test_an_unknown_event_that_withdraws_nothing_tells_nothing() -> None:
    """It did not happen, as far as anybody knows."""
    with pytest.raises(DecodeError, match="what happened is not one"):
        in_json("outbox", {"phone": "+14155550100", "consent": True, "doNotCall": False}, UNHEARD)


IDS = MAPPING | {"external_id": ["_id", "id"]}
DELETES = {
    "flattened, deleted": lambda: in_json("flattened", {"_id": "7", "__deleted": True}, (), IDS),
    "flattened, op": lambda: in_json("flattened", {"id": 7, "__op": "d"}),
    "debezium": lambda: debezium("d", {"id": 7}, None, "phone", "consent", "dnc"),
    "debezium, the phone is gone": lambda: debezium("d", {"id": 7}, None, "phone"),
    "salesforce": lambda: salesforce("DELETE"),
}


@pytest.mark.parametrize("row", DELETES.values(), ids=DELETES)
def test_a_delete_needs_the_external_id_alone(row: Any) -> None:
    """Whatever else its row lacks."""
    event = row()
    assert (event.change_type, event.external_id) == (ChangeType.DELETE, "7")


IN_ORDER = MAPPING | {"version": "no", "occurred_at": "at", "only": {"path": "kind", "values": ["p"]}}
ORDER = {"id": "int", "total": ["null", "int"]}
SIDES = {"before": ["null", record_type("Order", ORDER)], "after": ["null", "Order"]}
OF_OTHERS = {
    "flattened": ("flattened", record_type("Order", ORDER | {"__deleted": "string"}), MAPPING),
    "flattened, with op": ("flattened", record_type("Order", ORDER | {"__op": "string", "__lsn": "long"}), MAPPING),
    "flattened, columns that many have": (
        "flattened",
        record_type("Order", ORDER | {"no": "int", "at": "long", "kind": "string", "__deleted": "string"}),
        IN_ORDER,
    ),
    "debezium": ("debezium", record_type("Envelope", SIDES | {"source": SOURCE, "op": "string"}), MAPPING),
}


@pytest.mark.parametrize(("envelope", "schema", "mapping"), OF_OTHERS.values(), ids=OF_OTHERS)
def test_rows_of_another_table_delete_nobody(envelope: str, schema: dict[str, Any], mapping: dict[str, Any]) -> None:
    """The order 42 in a topic of several tables is not the contact 42."""
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for phone") as caught:
        envelopes(envelope, mapping).mapper(TOPIC, schema)
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"id": 7, "no": 3, "at": TIME_MS, "kind": "p", "__deleted": "true"}, IN_ORDER),
        ({"id": 7, "city": None, "total": 5, "__deleted": "true"}, MAPPING),
        ({"row": 1, "__deleted": "true"}, MAPPING | {"external_id": "@key"}),
        ({"id": 7, "total": 5, "deleted": "true"}, MAPPING | {"prefix": ""}),
    ],
    ids=["no more than whom and when", "an attribute", "the key names", "no prefix"],
)
def test_a_delete_that_may_be_of_a_contact_deletes(row: dict[str, object], mapping: dict[str, Any]) -> None:
    """Who was deleted must not be called: it is refused where the row is of another table for sure."""
    event = in_json("flattened", row, (), mapping)
    assert (event.change_type, event.external_id) == (ChangeType.DELETE, "7")


@pytest.mark.parametrize("fields", [{"id": 7, "name": "Jo"}, {"phone": "+1", "consent": False, "__deleted": "true"}])
def test_rows_that_can_do_nothing_are_refused_at_once(fields: dict[str, object]) -> None:
    """They neither delete nor withdraw, or name nobody."""
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for"):
        envelopes("flattened").mapper(TOPIC, record_type("Row", dict.fromkeys(fields, "string")))


def salesforce(change_type: str, **fields: object) -> ChangeEvent:
    """The event of a schema that has no field for the consent."""
    schema = sample("salesforce_contact_change_event.avsc")
    header = dict.fromkeys(("entityName", "changeOrigin", "transactionKey", "commitUser"), "")
    marks: dict[str, object] = {"nulledFields": [], "diffFields": [], "changedFields": []}
    order = {"recordIds": ["7"], "sequenceNumber": 1, "commitTimestamp": TIME_MS, "commitNumber": 1}
    row = dict.fromkeys(field["name"] for field in schema["fields"])
    header_ = header | marks | order | {"changeType": change_type}
    (event,) = told("salesforce", schema, row | fields | {"ChangeEventHeader": header_})
    return event


def test_salesforce_withdraws_by_the_other_flag_where_the_field_of_the_consent_is_gone() -> None:
    """And tells nothing else."""
    assert suppressed(salesforce("UPDATE", DoNotCall=True))
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for consent"):
        salesforce("UPDATE", DoNotCall=False)
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for consent"):
        salesforce("UPDATE", MobilePhone="+14155550100")


@pytest.mark.parametrize(
    ("gone", "outcome"),
    [
        ({"id": 7, "consent": False, "do_not_call": False}, ("rejected", "suppress", False)),
        ({"id": 7, "__deleted": "true"}, ("delivered", "delete", None)),
    ],
)
def test_who_was_delivered_is_not_called_any_more(gone: object, outcome: tuple[str, str, bool | None]) -> None:
    """Rows without a schema, which leave nulls out."""
    world = World()
    for offset, row in enumerate((CALLED, gone)):
        world.append([Record(*PARTITION, offset, TIME_MS + offset, b"7", json.dumps(row).encode())])
        quick = {"batch_linger_ms": 20, "settle_interval_ms": 10}
        live(world, MemorySchemas({}), source_envelope="flattened", source_framing="json", **quick)
    event = world.events()[-1]
    assert (event["outcome"], event["operation"], world.list.get("7", {}).get("callable")) == outcome


# -- a time that is not told


@pytest.mark.parametrize("marks", [[], ["When__c"]], ids=["unchanged", "null"])
def test_a_time_that_is_not_told_is_that_of_the_envelope(marks: list[str]) -> None:
    """As it is with a version: the record is none to reject for that."""
    header = {"recordIds": ["7"], "changeType": "UPDATE", "commitTimestamp": TIME_MS, "changedFields": marks}
    table = {"phone": "MobilePhone", "consent": "C", "do_not_call": "D", "occurred_at": "When__c"}
    row = {"MobilePhone": "+14155550100", "C": None, "D": None, "When__c": None}
    event = in_json("salesforce", {"ChangeEventHeader": header, **row}, (), table)
    assert (event.occurred_at, event.flaw, event.phone) == (TIME_MS, "", "+14155550100")
