"""Debezium's envelope and its flattened rows: what each operation means, and what a row does not tell."""

import io
import json
from decimal import Context, Decimal
from functools import partial
from typing import Any

import fastavro
import pytest
from msgspec.structs import replace

from consumer.core.avro import WriterSchema
from consumer.core.connect_json import JsonReader
from consumer.core.envelopes.debezium import NOT_AVAILABLE
from consumer.core.validate import validate
from consumer.errors import DecodeError, ValidationError
from consumer.model import UNCHANGED, ChangeEvent, ChangeType, Reason, Record
from tests.captured import captured
from tests.envelopes import AVRO, COLUMNS, MAPPING, ROW, TIME_MS, TOPIC, encoded, envelopes, record_type, sample, told

SOURCES: dict[str, dict[str, object]] = {
    "postgresql": {"lsn": ["null", "long"], "sequence": ["null", "string"]},
    "mysql": {"file": "string", "pos": "long", "row": "int"},
    "sqlserver": {
        "commit_lsn": ["null", "string"],
        "change_lsn": ["null", "string"],
        "event_serial_no": ["null", "long"],
    },
    "none": {},
}
PLACEHOLDER = "__debezium_unavailable_value"


def schema(connector="postgresql", columns=COLUMNS):
    """Debezium's envelope of a table."""
    value = record_type("Value", columns)
    source = record_type("Source", {"ts_ms": "long", "snapshot": ["string", "null"]} | SOURCES[connector])
    return record_type(
        "Envelope",
        {"before": ["null", value], "after": ["null", "Value"], "source": source, "op": "string"},
        namespace="crm.public.customers",
    )


def source(connector="postgresql", **position):
    """What a source tells of itself."""
    return {**dict.fromkeys(SOURCES[connector]), "ts_ms": TIME_MS, "snapshot": "false", **position}


def change(op, before=None, after=None, *, connector="postgresql", columns=COLUMNS, mapping=MAPPING, **position):
    """The events of one change."""
    fields = {"before": before, "after": after, "source": source(connector, **position), "op": op}
    return told("debezium", schema(connector, columns), fields, mapping)


WHOLE = ChangeEvent(
    ChangeType.UPDATE, "7", TIME_MS, 500, "+14155550100", "jane@example.com", True, False, {"city": "Zürich"}
)


def test_an_update_is_the_row_after_it():
    """Every mapped column arrives, ids as text, values as the mapping means them; the version is the log's position."""
    assert change("u", None, ROW, lsn=500) == (WHOLE,)


@pytest.mark.parametrize("op", ["c", "r"])
def test_a_row_that_is_created_or_read_is_whole(op):
    """Both are creates; a read counts as just before its position, so that it beats no change that stands there."""
    (event,) = change(op, None, ROW, lsn=500)
    assert (event.change_type, event.version) == (ChangeType.CREATE, 500 if op == "c" else 499)


def test_a_read_without_a_position_beats_nothing():
    """A snapshot of SQL Server has no position: it is older in time than whatever is known."""
    (event,) = change("r", None, ROW, connector="sqlserver")
    assert (event.version, event.occurred_at) == (None, 0)


def test_a_source_without_positions_is_ordered_by_the_partition():
    """No version; the time stays, also of a read."""
    (event,) = change("r", None, ROW, connector="none")
    assert (event.version, event.occurred_at) == (None, TIME_MS)


def test_the_place_in_the_log_is_told_beside_the_version():
    """Of both parts of a changed id, of a delete; a mapped version and time do not change it."""
    place = {"lsn": 500, "sequence": '["490","500"]'}
    mapping = MAPPING | {"version": "phone", "occurred_at": "email"}
    row = ROW | {"phone": "3", "email": "2026-01-01T00:00:00Z"}
    events = [*change("u", ROW | {"id": 6}, ROW, **place), *change("d", ROW, None, **place)]
    events += change("u", None, row, mapping=mapping, **place)
    assert [event.log for event in events] == [(490, TIME_MS, "", False)] * 4
    assert [event.version for event in events] == [500, 500, 500, 3]
    assert [event.log for event in change("r", None, ROW, **place)] == [(None, TIME_MS, "", False)]


def test_a_delete_takes_the_id_alone_from_before():
    """Phone and consent in `before` may be fillers: nothing of them is kept."""
    assert change("d", ROW, None, lsn=501) == (
        ChangeEvent(ChangeType.DELETE, "7", TIME_MS, 501, None, None, None, None, {}),
    )


@pytest.mark.parametrize("before", [None, ROW | {"id": 0}])
def test_a_delete_that_does_not_tell_whom_is_rejected(before):
    """REPLICA IDENTITY NOTHING sends no row, DEFAULT a filler for what is no key: nobody is deleted by mistake."""
    with pytest.raises(DecodeError, match="REPLICA IDENTITY") as caught:
        change("d", before, None)
    assert caught.value.reasons == (Reason.EXTERNAL_ID_MISSING,)


def test_a_delete_by_a_column_that_is_no_key_is_rejected():
    """The external id is a text column that is no key: with the usual REPLICA IDENTITY it is empty in `before`."""
    with pytest.raises(DecodeError, match="REPLICA IDENTITY"):
        change("d", ROW | {"city": ""}, None, mapping=MAPPING | {"external_id": "city"})


def test_a_delete_with_a_row_after_it_is_a_gap():
    """Such a record contradicts itself: the contact is not deleted, and not called either."""
    (event,) = change("d", ROW, ROW, lsn=501)
    assert (event.change_type, event.external_id) == (ChangeType.GAP, "7")


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_a_change_without_a_row_is_rejected(op):
    """There is nothing to go by, `before` least of all."""
    with pytest.raises(DecodeError, match="no row after it"):
        change(op, ROW, None)


def test_a_message_is_ignored():
    """A logical message of PostgreSQL is about no row."""
    assert change("m") == ()


def test_a_truncate_is_rejected_with_what_to_do():
    """Everybody is gone at once: nobody is deleted, and the dead letter says so."""
    with pytest.raises(DecodeError, match="truncated") as caught:
        change("t")
    assert caught.value.reasons == (Reason.RESYNC_NEEDED,)


@pytest.mark.parametrize("op", ["", "U", "x", "upsert"])
def test_an_unknown_operation_is_no_update(op):
    """What nobody knows is rejected."""
    with pytest.raises(DecodeError, match="op is not one"):
        change(op, None, ROW)


UNAVAILABLE = pytest.mark.parametrize(
    ("column", "field"), [("phone", "phone"), ("email", "email"), ("consent", "consent"), ("dnc", "do_not_call")]
)


@UNAVAILABLE
def test_a_value_that_is_not_available_is_unchanged(column, field):
    """The placeholder of a large value is no value: the event is partial."""
    (event,) = change("u", None, ROW | {column: PLACEHOLDER}, lsn=500)
    assert event.partial
    assert getattr(event, field) is UNCHANGED


@UNAVAILABLE
def test_nothing_is_said_against_it_beside_what_is_wrong(column, field):
    """The reason is that of the attribute alone."""
    columns, row = COLUMNS | {"city": {"type": "array", "items": "string"}}, ROW | {"city": ["a"], column: PLACEHOLDER}
    (event,) = change("u", None, row, columns=columns)
    assert getattr(event, field) is UNCHANGED
    (error,) = validate([event], ())
    assert isinstance(error, ValidationError)
    assert error.reasons == (Reason.NOT_DECODABLE,)


def test_an_attribute_that_is_not_available_is_left_out():
    """And one that is null is there, as empty: it was cleared."""
    columns = COLUMNS | {"zip": ["null", "string"]}
    mapping = MAPPING | {"attributes": {"city": "city", "zip": "zip"}}
    (event,) = change("u", None, ROW | {"city": PLACEHOLDER, "zip": None}, columns=columns, mapping=mapping)
    assert event.partial
    assert event.attributes == {"zip": ""}


@pytest.mark.parametrize("placeholder", sorted(NOT_AVAILABLE, key=str))
def test_placeholders_come_in_several_kinds(placeholder):
    """As text, as bytes, in hex."""
    columns = COLUMNS | {"phone": ["null", "string", "bytes"]}
    (event,) = change("u", None, ROW | {"phone": placeholder}, columns=columns)
    assert event.phone is UNCHANGED


HSTORE = {
    "a map": {"type": "map", "values": ["null", "string"]},
    "JSON without a schema": record_type("Json", {PLACEHOLDER: "string"}),
}


@pytest.mark.parametrize("kind", HSTORE.values(), ids=HSTORE)
def test_what_stands_in_a_map_that_is_not_available_is_unchanged(kind):
    """PostgreSQL's `hstore`: the map in its place has the placeholder as a key, and none of its own."""
    mapping = MAPPING | {"phone": "more.phone", "attributes": {"city": "more.city"}}
    row = ROW | {"more": {PLACEHOLDER: PLACEHOLDER}, "dnc": "Y"}
    (event,) = change("u", None, row, mapping=mapping, columns=COLUMNS | {"more": kind})
    assert (event.phone, event.attributes, event.do_not_call) == (UNCHANGED, {}, True)
    assert (event.partial, event.flaw) == (True, "")


def test_a_map_as_text_that_is_not_available_is_unchanged():
    """`hstore.handling.mode=json`, the default."""
    (event,) = change("u", None, ROW | {"city": f'{{"{PLACEHOLDER}":"{PLACEHOLDER}"}}'})
    assert (event.partial, event.attributes) == (True, {})


def test_what_stands_in_a_map_that_is_available_is_told():
    """A value in it may be null, or be none of the keys."""
    mapping = MAPPING | {"phone": "more.phone", "attributes": {"city": "more.city", "zip": "more.zip"}}
    row = ROW | {"more": {"phone": "+14155550111", "zip": None}}
    (event,) = change("u", None, row, mapping=mapping, columns=COLUMNS | {"more": HSTORE["a map"]})
    assert (event.partial, event.phone, event.attributes) == (False, "+14155550111", {"city": "", "zip": ""})


def test_a_changed_id_is_a_delete_and_a_create():
    """`before` names somebody else: that contact goes, and the new one gets the whole row, consent included."""
    gone, created = change("u", ROW | {"id": 6}, ROW | {"consent": "denied"}, lsn=500)
    assert (gone.change_type, gone.external_id) == (ChangeType.DELETE, "6")
    assert (created.change_type, created.external_id, created.consent) == (ChangeType.CREATE, "7", False)
    assert (gone.former, created.former) == (None, "6")


KEYS = {
    "json": (b'{"id":6}', "6"),
    "kafka connect": (b'{"schema":{"type":"struct"},"payload":{"id":6}}', "6"),
    "another column": (b'{"row":6}', None),
    "no object": (b"[6]", None),
    "no JSON": (b"\0\0\0\0\1\x0c", None),
    "null": (None, None),
}


@pytest.mark.parametrize("envelope", ["debezium", "flattened"])
@pytest.mark.parametrize(("header", "former"), KEYS.values(), ids=KEYS)
def test_a_create_tells_the_primary_key_that_its_row_had_before(envelope, header, former):
    """Debezium deletes the row under the old key, and says in a header of the new one which that was."""
    headers = [("trace", b"1"), ("__debezium.oldkey", header)]
    if envelope == "debezium":
        fields = {"before": None, "after": ROW, "source": source(lsn=500), "op": "c"}
        (event,) = told(envelope, schema(), fields, MAPPING, headers=headers)
    else:
        row = dict.fromkeys(META) | ROW | {"__op": "c"}
        columns: dict[str, object] = {**COLUMNS, **META}
        (event,) = told(envelope, record_type("Value", columns), row, MAPPING, headers=headers)
    assert (event.external_id, event.former) == ("7", former)


@pytest.mark.parametrize("before", [ROW, ROW | {"id": 0}])
def test_a_before_that_names_nobody_else_changes_nothing(before):
    """The same id, or a filler in its place."""
    assert change("u", before, ROW, lsn=500) == (WHOLE,)


def test_consent_that_nobody_knows_is_left_as_it_is():
    """It is not a boolean, and validation rejects it: never a guess."""
    (event,) = change("u", None, ROW | {"consent": "perhaps"}, lsn=500)
    assert event.consent == "perhaps"


@pytest.mark.parametrize("missing", ["id", "phone", "consent", "dnc"])
def test_a_table_that_lost_a_mapped_column_is_refused(missing):
    """A removed or renamed column must not pass for an empty one."""
    columns = {name: kind for name, kind in COLUMNS.items() if name != missing}
    row = {name: value for name, value in ROW.items() if name != missing}
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for") as caught:
        change("u", None, row, columns=columns)
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)


@pytest.mark.parametrize("missing", ["email", "city"])
def test_a_column_that_is_not_needed_may_go(missing):
    """What was delivered stays: an absent column is not a cleared one. A new contact just does not have it."""
    columns = {name: kind for name, kind in COLUMNS.items() if name != missing}
    row = {name: value for name, value in ROW.items() if name != missing}
    (updated,) = change("u", None, row, columns=columns)
    (created,) = change("c", None, row, columns=columns)
    assert (updated.partial, created.partial) == (True, False)
    assert (created.email, created.attributes) == (row.get("email"), {"city": row.get("city", "")})


ASIDE = {
    "heartbeat": record_type("Heartbeat", {"ts_ms": "long"}, namespace="io.debezium.connector.common"),
    "schema change": record_type("SchemaChangeValue", {"ts_ms": "long"}, namespace="io.debezium.connector.mysql"),
    "transaction": record_type(
        "X", {"ts_ms": "long"}, **{"connect.name": "io.debezium.connector.common.TransactionMetadataValue"}
    ),
}


@pytest.mark.parametrize("envelope", ["debezium", "flattened"])
@pytest.mark.parametrize("aside", ASIDE.values(), ids=ASIDE)
def test_records_about_no_row_are_ignored(envelope, aside):
    """Heartbeats, schema changes and transactions must not fill the dead letter topic."""
    assert told(envelope, aside, {"ts_ms": TIME_MS}, MAPPING) == ()


def read(record, envelope, mapping=None):
    """What the program makes of a record of Debezium in JSON."""
    return JsonReader(partial(envelopes(envelope, mapping).mapper, TOPIC))(record.value, record)


def test_rows_of_a_server_that_is_named_after_debezium_are_rows():
    """A topic's prefix stands in the names of its schemas, and may be anything."""
    rows = {"before": ["null", record_type("Value", COLUMNS)], "after": ["null", "Value"]}
    source = record_type("Source", {"ts_ms": "long", "lsn": "long"})
    schema = record_type("Envelope", {**rows, "source": source, "op": "string"}, namespace="io.debezium.crm.customers")
    fields = {"before": None, "after": ROW, "source": {"ts_ms": TIME_MS, "lsn": 5}, "op": "u"}
    assert [event.external_id for event in told("debezium", schema, fields, MAPPING)] == ["7"]


@pytest.mark.parametrize("envelope", ["debezium", "flattened"])
@pytest.mark.parametrize("name", ["heartbeat", "transaction begins", "transaction ends"])
def test_so_are_they_in_json_without_a_schema(envelope, name):
    """Nothing names them there: what they hold tells what they are."""
    assert read(captured(name), envelope) == ()


NO_ASIDE = {
    "more than a time": {"ts_ms": 1, "id": 7},
    "a time in text": {"ts_ms": "1"},
    "no time": {},
    "an event of a transaction": {"status": "END", "id": "1", "event_count": 3},
    "a status that is none": {"status": 1, "id": "1", "event_count": 3, "data_collections": None},
}


@pytest.mark.parametrize("envelope", ["debezium", "flattened"])
@pytest.mark.parametrize("fields", NO_ASIDE.values(), ids=NO_ASIDE)
def test_what_only_looks_like_them_is_rejected(envelope, fields):
    """It may be a row."""
    with pytest.raises(DecodeError):
        read(replace(captured("heartbeat"), value=json.dumps(fields).encode()), envelope)


def test_a_row_of_such_columns_is_a_row():
    """Where the mapping finds all that it needs in it."""
    never = {"value": False}
    mapping = {"external_id": "ts_ms", "phone": {"value": "+14155550100"}, "consent": never, "do_not_call": never}
    assert read(captured("heartbeat"), "flattened", mapping).external_id == "1796072645990"


def test_a_cloudevent_in_structured_mode_is_told():
    """It has the envelope within, and nobody would see why that does not count."""
    with pytest.raises(DecodeError, match=r"needs op, before, after and source; .*CloudEvent in structured mode"):
        read(captured("cloudevent"), "debezium")


def test_a_payload_of_an_outbox_that_is_text_is_told():
    """As the router writes it by default."""
    with pytest.raises(DecodeError, match=r"table\.expand\.json\.payload=true"):
        read(captured("outbox not expanded"), "outbox")


def test_a_table_that_has_the_name_of_such_a_record_is_no_such_record():
    """Only what is in Debezium's own namespace is ignored: a table may be called Notification."""
    (event,) = told("flattened", record_type("Notification", COLUMNS, namespace="crm.public"), ROW, MAPPING)
    assert event.external_id == "7"


def test_a_schema_that_is_not_debezium_s_is_refused():
    """It says what is missing."""
    with pytest.raises(DecodeError, match="needs op, before, after and source"):
        told("debezium", record_type("Customer", COLUMNS), ROW, MAPPING)


MONGODB = record_type(
    "Envelope",
    {
        "before": ["null", "string"],
        "after": ["null", "string"],
        "source": record_type("Source", {"ts_ms": "long", "ord": "int"}),
        "op": ["null", "string"],
    },
)


def in_document(document, **mapped):
    """The event of a document of MongoDB, whose `after` is a JSON text."""
    fields = {"before": None, "after": document, "source": {"ts_ms": TIME_MS, "ord": 3}, "op": "u"}
    (event,) = told("debezium", MONGODB, fields, MAPPING | mapped)
    return event


def test_a_document_comes_as_json():
    """A placeholder in it is a text like any other."""
    event = in_document(json.dumps(ROW | {"_id": {"$oid": "65"}}), external_id=["_id.$oid", "_id"])
    assert (event.external_id, event.consent, event.attributes) == ("65", True, {"city": "Zürich"})
    assert event.version == TIME_MS // 1000 << 31 | 3
    with pytest.raises(DecodeError, match="not a JSON object"):
        in_document("[1")


@pytest.mark.parametrize(
    ("held", "phone"), [({"reach": {"phone": "+1"}}, "+1"), ({"reach": {}}, None), ({"reach": None}, None), ({}, None)]
)
def test_a_document_is_read_at_places_further_in(held, phone):
    """What is not there is null."""
    event = in_document(json.dumps(ROW | held), phone="reach.phone")
    assert (event.phone, event.consent) == (phone, True)


# -- real samples


def test_a_real_record_of_mysql_is_read():
    """Its schema has before, after, source and op like any other; the row has no consent, so the mapping brings it."""
    raw = bytes.fromhex((AVRO / "debezium_mysql_customers.confluent_framed.hex").read_text().strip())
    definition = sample("debezium_mysql_customers_envelope.avsc")
    fields: Any = fastavro.schemaless_reader(io.BytesIO(raw[5:]), fastavro.parse_schema(definition), None)
    mapping = {
        "external_id": "id",
        "phone": {"value": "+14155550100"},
        "email": "email",
        "consent": {"value": True},
        "do_not_call": {"value": False},
        "attributes": {"name": "first_name"},
    }
    (event,) = told("debezium", definition, fields, mapping)
    assert (event.change_type, event.external_id) == (ChangeType.CREATE, "1001")
    assert event.version == (3 << 32 | fields["source"]["pos"]) - 1


def test_rows_of_mysql_and_mariadb_are_read_by_the_ready_made_mapping():
    """There a BOOLEAN is TINYINT(1), which JSON has as a number; a changed key tells the former one in its header."""
    withdrawn, renamed = (read(captured(name), "debezium") for name in ("mysql, tinyint", "mariadb, key changed"))
    flags = [withdrawn.consent, withdrawn.do_not_call, renamed.consent, renamed.do_not_call]
    assert repr(flags) == "[False, False, True, False]"  # a number would be equal
    assert (withdrawn.external_id, renamed.external_id, renamed.former) == ("1", "30", "3")
    assert (withdrawn.version, renamed.version) == (1 << 32 | 12229, 2 << 32 | 13321)


def _orders():
    """Values of the real sample, as the library reads Avro JSON; None for the tombstone."""
    schemas, *pairs = (AVRO / "debezium_postgres_orders.avrojson.txt").read_text().splitlines()
    definition = json.loads(schemas.split("^")[1])
    parsed = fastavro.parse_schema(json.loads(json.dumps(definition)))
    values = [pair.partition("^")[2] for pair in pairs]
    return definition, [next(fastavro.json_reader(io.StringIO(value), parsed)) if value else None for value in values]


def test_real_records_of_postgres_are_read():
    """Three reads, an update, a delete; versions grow with the log."""
    definition, values = _orders()
    mapping = {
        "external_id": "order_id",
        "phone": {"value": "+14155550100"},
        "consent": {"path": "order_status", "values": {"1": True, "0": False}},
        "do_not_call": {"value": False},
        "attributes": {"product": "product_id"},
    }
    events = [told("debezium", definition, value, mapping)[0] for value in values if value]
    assert [event.change_type.value for event in events] == ["CREATE", "CREATE", "CREATE", "UPDATE", "DELETE"]
    assert [event.external_id for event in events] == ["1", "2", "3", "1", "1"]
    assert [event.version for event in events] == [23911623, 23911623, 23911623, 23911952, 23912488]
    assert events[3].attributes == {"product": "3"}


# -- flattened

META = {"__deleted": ["null", "string"], "__op": ["null", "string"], "__lsn": ["null", "long"]}


def flat(mapping=MAPPING, meta=META, **changes):
    """The events of a flattened row."""
    columns = COLUMNS | meta
    row = dict.fromkeys(meta) | ROW | changes
    return told("flattened", record_type("Value", columns), row, mapping)


def test_a_flattened_row_is_an_update():
    """The columns are those of the row; the version is the added position, the time that of the record."""
    assert flat(__deleted="false", __op="u", __lsn=500) == (WHOLE,)


def test_a_flattened_row_without_metadata_is_an_update_in_the_order_of_the_partition():
    """Nothing was added by the connector: no version."""
    (event,) = flat(meta={})
    assert (event.change_type, event.version, event.occurred_at) == (ChangeType.UPDATE, None, TIME_MS)


@pytest.mark.parametrize("prefix", ["__", "__source_"])
def test_a_flattened_row_has_a_place_if_it_tells_the_source_s_time(prefix):
    """The time of the record is another one whenever the connector sends it again."""
    meta = {f"{prefix}file": "string", f"{prefix}pos": "long", "__source_ts_ms": ["null", "long"]}
    told_ = {f"{prefix}file": "binlog.1", f"{prefix}pos": 9}
    meta = {name: kind for name, kind in META.items() if name != "__lsn"} | meta
    (event,) = flat(meta=meta, __source_ts_ms=TIME_MS + 5, **told_)
    assert (event.version, event.log) == (1 << 32 | 9, (1 << 32 | 9, TIME_MS + 5, "", True))
    (event,) = flat(meta=meta, **told_)
    assert (event.version, event.log) == (1 << 32 | 9, None)


@pytest.mark.parametrize(("prefix", "column", "source"), [("__", "__name", "Jane"), ("", "name", "")])
def test_the_name_of_a_person_is_none_of_a_source(prefix, column, source):
    """Without a prefix nobody can tell metadata from columns, and what a place tells is kept."""
    meta = {f"{prefix}file": "string", f"{prefix}pos": "long", f"{prefix}source_ts_ms": "long", column: "string"}
    told_ = {f"{prefix}file": "binlog.1", f"{prefix}pos": 9, f"{prefix}source_ts_ms": TIME_MS, column: "Jane"}
    (event,) = flat(mapping=MAPPING | {"prefix": prefix}, meta=meta, **told_)
    assert event.log == (1 << 32 | 9, TIME_MS, source, True)


DELETES = [
    ({}, {"__deleted": "true"}, ChangeType.DELETE),
    ({}, {"__deleted": "true", "__op": "d"}, ChangeType.DELETE),
    ({"__deleted": "boolean"}, {"__deleted": True}, ChangeType.DELETE),
    ({}, {"__deleted": "false", "__op": "d"}, ChangeType.GAP),
    ({}, {"__deleted": "true", "__op": "u"}, ChangeType.GAP),
]


@pytest.mark.parametrize(("meta", "changes", "expected"), DELETES)
def test_a_flattened_delete_must_not_contradict_itself(meta, changes, expected):
    """Text or boolean; where `deleted` and `op` disagree it is a gap."""
    (event,) = flat(meta=META | meta, **changes)
    assert (event.change_type, event.external_id) == (expected, "7")


def test_a_flattened_delete_is_told_by_op_alone():
    """Where the connector adds no `deleted`."""
    (event,) = flat(meta={"__op": "string"}, __op="d")
    assert event.change_type is ChangeType.DELETE


@pytest.mark.parametrize(("changes", "match"), [({"__deleted": "yes"}, "neither"), ({"__op": "z"}, "__op is not one")])
def test_flattened_metadata_that_nobody_knows_is_rejected(changes, match):
    """It is never an update."""
    with pytest.raises(DecodeError, match=match):
        flat(**changes)


def test_flattened_metadata_may_have_another_prefix():
    """The mapping says so; renamed positions and times are named one by one."""
    meta = {"cdc_deleted": "string", "cdc_op": "string", "cdc_source_ts_ms": "long", "cdc_log": "long"}
    mapping = MAPPING | {"prefix": "cdc_", "version": "cdc_log"}
    (event,) = flat(mapping, meta, cdc_deleted="false", cdc_op="c", cdc_source_ts_ms=5, cdc_log=9)
    assert (event.change_type, event.occurred_at, event.version) == (ChangeType.CREATE, 5, 9)
    (event,) = flat(mapping, meta, cdc_deleted="true", cdc_op="d", cdc_source_ts_ms=5, cdc_log=9)
    assert event.change_type is ChangeType.DELETE


def test_a_flattened_position_may_be_added_as_a_part_of_the_source():
    """`source.lsn` among the connector's `add.fields` becomes `__source_lsn`."""
    (event,) = flat(meta={"__source_lsn": "long"}, __source_lsn=500)
    assert event.version == 500


def test_a_flattened_read_beats_no_change():
    """As in the envelope."""
    (event,) = flat(__op="r", __lsn=500)
    assert event.version == 499


@pytest.mark.parametrize("meta", [{}, {"__deleted": ["null", "string"]}])
def test_a_flattened_row_that_does_not_tell_what_happened_is_whole(meta):
    """It may be the first of its contact: a column that the table does not have is none that did not change."""
    mapping = MAPPING | {"email": "mail", "attributes": {"city": "town"}}
    (event,) = flat(mapping, meta)
    assert (event.partial, event.email, event.attributes) == (False, None, {"city": ""})
    (event,) = flat(mapping, meta, phone=PLACEHOLDER)
    assert (event.partial, event.phone, event.email) == (True, UNCHANGED, None)


def test_of_a_flattened_update_a_column_that_is_gone_did_not_change():
    """The contact was made by a row that was told as such."""
    (event,) = flat(MAPPING | {"email": "mail"}, __op="u")
    assert (event.partial, event.email) == (True, UNCHANGED)


def test_flattened_placeholders_are_unchanged():
    """As in the envelope."""
    (event,) = flat(__op="u", phone=PLACEHOLDER)
    assert event.partial
    assert event.phone is UNCHANGED


def test_a_flattened_truncate_and_message_are_told_apart():
    """As in the envelope."""
    with pytest.raises(DecodeError, match="truncated"):
        flat(__op="t")
    assert flat(__op="m") == ()


@pytest.mark.parametrize("envelope", ["debezium", "flattened"])
def test_the_ready_made_mapping_reads_the_usual_columns(envelope):
    """Without a mapping of one's own."""
    columns = {"id": "long", "mobile": "string", "consent": "boolean", "do_not_call": "int"}
    row = {"id": 7, "mobile": "+14155550100", "consent": True, "do_not_call": 0}
    if envelope == "flattened":
        (event,) = told(envelope, record_type("Value", columns), row)
    else:
        fields = {"before": None, "after": row, "source": source(), "op": "c"}
        (event,) = told(envelope, schema(columns=columns), fields)
    assert (event.external_id, event.phone, event.consent, event.do_not_call) == ("7", "+14155550100", True, False)


def decimal_of(scale, kind="bytes"):
    """A column as Debezium has NUMERIC ones by default."""
    size = {"name": "Number", "size": 4} if kind == "fixed" else {}
    return {"type": kind, "logicalType": "decimal", "precision": 7, "scale": scale} | size


@pytest.mark.parametrize("kind", ["bytes", "fixed"])
@pytest.mark.parametrize("number", [42, 12345, 200, -7, 0])
def test_a_decimal_id_is_its_number(kind, number):
    """The bytes that carry it may read as text: 42 as an asterisk."""
    columns = COLUMNS | {"id": decimal_of(0, kind)}
    (event,) = change("c", None, ROW | {"id": Decimal(number)}, columns=columns)
    assert event.external_id == str(number)


def test_a_decimal_with_a_fraction_is_text():
    """As people write it."""
    columns = COLUMNS | {"city": ["null", decimal_of(2)]}
    (event,) = change("c", None, ROW | {"city": Decimal("-12.50")}, columns=columns)
    assert event.attributes == {"city": "-12.50"}


def test_a_decimal_is_no_larger_than_databases_have_it():
    """What is longer is no number of anybody, and would take long to be written."""
    columns = COLUMNS | {"id": "bytes"}
    body = encoded(
        schema(columns=columns), {"before": None, "after": ROW | {"id": b"1" * 65}, "source": source(), "op": "c"}
    )
    definition = schema(columns=COLUMNS | {"id": decimal_of(0)})
    mapper = envelopes("debezium", MAPPING).mapper(TOPIC, definition)
    fields = WriterSchema(json.dumps(definition)).read(body)
    with pytest.raises(DecodeError, match="more than 64 bytes"):
        mapper(fields, Record(TOPIC, 0, 0, TIME_MS, None, body))


@pytest.mark.parametrize("scale", [151, 10**9])
def test_a_decimal_of_a_scale_that_no_database_has_is_refused(scale):
    """It would be written with as many digits."""
    columns = COLUMNS | {"city": ["null", decimal_of(scale) | {"precision": scale}]}
    with pytest.raises(DecodeError, match="whose scale is not one from 0 to 150"):
        change("c", None, ROW | {"city": None}, columns=columns)


def test_a_decimal_of_the_largest_scale_is_exact():
    """With all its digits."""
    columns = COLUMNS | {"city": decimal_of(150) | {"precision": 154}}
    (event,) = change("c", None, ROW | {"city": Decimal(-(2**500)).scaleb(-150, Context(prec=200))}, columns=columns)
    assert event.attributes == {"city": f"{Decimal(-(2**500)).scaleb(-150, Context(prec=200)):f}"}


def test_a_delete_in_json_without_a_schema_names_whom_it_deletes():
    """There is no row after it that could tell what columns are."""
    deleted = {"before": ROW, "after": None, "source": {"ts_ms": TIME_MS, "lsn": 5}, "op": "d"}
    value = json.dumps(deleted).encode()
    event = JsonReader(envelopes("debezium", MAPPING).of_topic(TOPIC))(value, Record(TOPIC, 0, 0, TIME_MS, None, value))
    assert isinstance(event, ChangeEvent)
    assert (event.change_type, event.external_id, event.version) == (ChangeType.DELETE, "7", 5)
