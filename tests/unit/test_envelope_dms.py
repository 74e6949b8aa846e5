"""Records of AWS' Database Migration Service: rows in JSON, each telling all there is."""

import pytest

from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, Record
from tests.envelopes import MAPPING, ROW, TIME_MS, TOPIC, envelopes

RECORD = Record(TOPIC, 0, 0, 0, None, b"")
METADATA = {
    "timestamp": "2023-11-14T22:13:25.000000Z",
    "commit-timestamp": "2023-11-14T22:13:20.000000Z",
    "record-type": "data",
    "operation": "update",
    "partition-key-type": "primary-key",
    "schema-name": "crm",
    "table-name": "customers",
    "transaction-id": 1,
}


def read(data=ROW, mapping=MAPPING, before=None, **metadata):
    """What a record tells."""
    fields = {"data": data, "metadata": METADATA | metadata} | ({"before-image": before} if before else {})
    return envelopes("dms", mapping).mapper(TOPIC, {})(fields, RECORD)


def test_an_update_is_a_whole_row():
    """Without a version: the order of the partition."""
    assert read() == ChangeEvent(
        ChangeType.UPDATE, "7", TIME_MS, None, "+14155550100", "jane@example.com", True, False, {"city": "Zürich"}
    )


@pytest.mark.parametrize("operation", ["load", "insert"])
def test_loads_and_inserts_are_creates(operation):
    """Both bring a row that was not there."""
    assert read(operation=operation).change_type is ChangeType.CREATE


def test_a_column_that_is_not_there_is_empty():
    """By default null and empty columns are left out: the phone was cleared, and is not unchanged."""
    event = read({"id": 7, "consent": "denied", "dnc": "N"})
    assert (event.phone, event.consent, event.attributes, event.partial) == (None, False, {"city": ""}, False)


def test_a_delete_needs_the_id_alone():
    """Whatever else the row holds."""
    event = read(operation="delete")
    assert (event.change_type, event.external_id, event.phone) == (ChangeType.DELETE, "7", None)


@pytest.mark.parametrize("operation", ["create-table", "drop-table", "update"])
def test_records_of_control_are_ignored(operation):
    """They are about tables."""
    assert read(**{"record-type": "control", "operation": operation}) == ()


@pytest.mark.parametrize("operation", [None, "upsert", "UPDATE", 1, []])
def test_an_unknown_operation_is_rejected(operation):
    """And no update."""
    with pytest.raises(DecodeError, match="operation is not one"):
        read(operation=operation)


def test_rows_that_are_not_meant_are_ignored():
    """`only` names the values that count."""
    mapping = MAPPING | {"only": {"path": "city", "values": ["Bern"]}}
    assert read(mapping=mapping) == ()
    assert read(ROW | {"city": "Bern"}, mapping).external_id == "7"


def test_a_changed_id_is_a_delete_and_a_create():
    """Where the task sends what was before."""
    gone, event = read(before={"id": 6}, operation="update")
    assert (gone.change_type, gone.external_id, event.external_id, event.former) == (ChangeType.DELETE, "6", "7", "6")
    assert read(before={"city": "Bern"}, operation="update").external_id == "7"


def test_what_was_before_may_stand_in_the_row_itself():
    """A task may add it as columns beside the others."""
    gone, event = read(ROW | {"BI_id": 6, "BI_consent": "granted"})
    assert (gone.change_type, gone.external_id, event.external_id, event.former) == (ChangeType.DELETE, "6", "7", "6")
    for same in ({"BI_id": 7}, {"BI_city": "Bern"}, {"BI_id": None}):
        assert read(ROW | same).external_id == "7"


def test_an_object_of_what_was_before_goes_before_columns_of_it():
    """Such a column may then be the table's own."""
    gone, _ = read(ROW | {"BI_id": 5}, before={"id": 6})
    assert gone.external_id == "6"
    assert read(ROW | {"BI_id": 5}, before={"city": "Bern"}).external_id == "7"


@pytest.mark.parametrize("operation", ["update", "insert"])
def test_what_was_before_is_no_value(operation):
    """A column that is not there was cleared, whatever it held before."""
    before = {"BI_phone": "+14155550199", "BI_email": "old@example.com", "BI_consent": "granted", "BI_city": "Bern"}
    event = read({"id": 7, "dnc": "N"} | before, operation=operation)
    assert (event.phone, event.email, event.consent, event.attributes) == (None, None, None, {"city": ""})


@pytest.mark.parametrize(("name", "fields"), [("metadata", {"data": ROW}), ("data", {"metadata": METADATA})])
def test_what_has_no_row_or_metadata_is_rejected(name, fields):
    """It is no record of the service."""
    with pytest.raises(DecodeError, match=f"{name} is not an object"):
        envelopes("dms", MAPPING).mapper(TOPIC, {})(fields, RECORD)


def test_a_record_without_a_time_has_a_flaw():
    """Where versions cannot be compared a grant needs a later time."""
    assert read(**{"timestamp": "now", "commit-timestamp": None}).flaw == "metadata holds no timestamp"
    assert "time" in read(**{"commit-timestamp": "0001-01-01T00:00:00Z"}).flaw


def test_of_several_columns_the_first_with_a_value_counts():
    """There is no schema that would say which of them exist."""
    event = read({"id": 9, "mobile": "+1", "consent": "Y", "do_not_call": 0}, None)
    assert (event.external_id, event.phone) == ("9", "+1")


def test_a_row_before_the_change_may_be_named_by_the_key():
    """The key stands around both rows, and so nobody was renamed."""
    record = Record(TOPIC, 0, 0, 0, b"7", b"")
    mapper = envelopes("dms", MAPPING | {"external_id": "@key"}).mapper(TOPIC, {})
    event = mapper({"data": ROW, "metadata": METADATA, "before-image": {"id": 7}}, record)
    assert isinstance(event, ChangeEvent)
    assert (event.change_type, event.external_id) == (ChangeType.UPDATE, "7")
