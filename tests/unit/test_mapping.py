"""Mappings: what a table may say, what is wrong with one, and what becomes of rows."""

import json
import tomllib

import pytest

from consumer.core.changes import suppression
from consumer.core.connect_json import JsonReader
from consumer.core.envelopes.choice import Envelopes, Fitness
from consumer.core.mapping_tables import parse
from consumer.core.validate import validate
from consumer.errors import DecodeError, SettingsError, ValidationError
from consumer.formats import EnvelopeName, PerTopic
from consumer.model import ChangeType, Operation, Reason, Record
from consumer.pipeline.readers import envelopes_of
from consumer.setting_values import per_topic
from consumer.settings import ready_made_mappings
from tests.envelopes import MAPPING, TIME_MS, TOPIC, envelopes, record_type, told
from tests.lives import settings

MINIMAL = {"external_id": "id", "phone": "phone", "consent": {"value": True}, "do_not_call": {"value": False}}


def of(value, mapping, kind=("null", "string"), **more):
    """The event of a row of one column `x`."""
    columns = {"id": "string", "phone": ["null", "string"], "x": list(kind)}
    row = {"id": "c-1", "phone": None, "x": value}
    (event,) = told("outbox", record_type("Row", columns), row, MINIMAL | mapping, **more)
    return event


# -- what is wrong with a table

WRONG = {
    "no table": ("phone", "phone: must be there"),
    "no phone": ({key: value for key, value in MINIMAL.items() if key != "phone"}, "phone: must be there"),
    "an unknown field": (MINIMAL | {"fone": "x"}, "fone: no such field"),
    "an unknown field that is a table": (MINIMAL | {"fone": {"path": "x"}}, "fone: no such field"),
    "no field": ({"fone": {"path": "x"}}, "phone: must be there"),
    "a number as a path": (MINIMAL | {"phone": 1}, "phone: must be a path, or a list of paths"),
    "an empty path": (MINIMAL | {"phone": ""}, "phone: must be a path"),
    "an empty list": (MINIMAL | {"phone": []}, "phone: must be a path"),
    "a list of numbers": (MINIMAL | {"phone": ["a", 1]}, "phone: must be a path"),
    "a path and a constant": (
        MINIMAL | {"phone": {"path": "x", "value": "y"}},
        "phone: must have a path, or a constant",
    ),
    "neither": (MINIMAL | {"phone": {"values": {}}}, "phone: must have a path, or a constant"),
    "something else": (MINIMAL | {"phone": {"path": "x", "default": "y"}}, "phone: must have a path, or a constant"),
    "values in a list": (MINIMAL | {"phone": {"path": "x", "values": []}}, "phone: values must be a table"),
    "a consent that is text": (
        MINIMAL | {"consent": {"value": "yes"}},
        "consent: a value must stand for true or false",
    ),
    "a value of consent that is a number": (
        MINIMAL | {"do_not_call": {"path": "x", "values": {"Y": 1}}},
        "do_not_call: a value must stand for true or false",
    ),
    "a phone that is a number": (MINIMAL | {"phone": {"value": 1}}, "phone: a value must stand for text"),
    "an unknown change": (
        MINIMAL | {"change_type": {"path": "x", "values": {"a": "GAP"}}},
        "change_type: a value must stand for one of CREATE, UPDATE, DELETE, UNDELETE",
    ),
    "attributes in a list": (MINIMAL | {"attributes": ["city"]}, "attributes: must be a table"),
    "an attribute that is no path": (MINIMAL | {"attributes": {"city": 1}}, "attributes.city: must be a path"),
    "only without values": (MINIMAL | {"only": {"path": "x"}}, "only: must be"),
    "only with more": (MINIMAL | {"only": {"path": "x", "values": [], "y": 1}}, "only: must be"),
    "a prefix that is no text": (MINIMAL | {"prefix": 1}, "prefix: must be text"),
}


def test_a_name_with_dots_that_is_not_quoted_is_told_as_such():
    """TOML makes tables within tables of it, of which every field would be missing, and its own names unknown."""
    with pytest.raises(SettingsError) as caught:
        parse({"crm": {"public": {"customers": MINIMAL, "leads": MINIMAL}}, "other": MINIMAL})
    assert caught.value.problems == (
        'SOURCE_MAPPING: [crm.public.customers]: a name with dots is quoted: ["crm.public.customers"]',
        'SOURCE_MAPPING: [crm.public.leads]: a name with dots is quoted: ["crm.public.leads"]',
    )


@pytest.mark.parametrize(("table", "rule"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_with_its_rule(table, rule):
    """The message names the file's setting, the table and the field."""
    with pytest.raises(SettingsError) as caught:
        parse({"crm": table})
    rules = [problem.removeprefix("SOURCE_MAPPING: [crm] ") for problem in caught.value.problems]
    assert any(each.startswith(rule) for each in rules)


def test_all_that_is_wrong_is_told_at_once():
    """In every table."""
    with pytest.raises(SettingsError) as caught:
        parse({"a": MINIMAL | {"phone": 1, "email": 1}, "b": MINIMAL | {"fone": "x"}})
    assert len(caught.value.problems) == 3


def test_the_file_is_checked_with_the_topic_s_envelope():
    """Salesforce's records name their contacts; everywhere else the mapping must."""
    nameless = {key: value for key, value in MINIMAL.items() if key != "external_id"}
    envelopes("salesforce", nameless)
    with pytest.raises(SettingsError, match="external_id: must be there"):
        envelopes("debezium", nameless)
    with pytest.raises(SettingsError, match="external_id: is the id of the Salesforce record"):
        envelopes("salesforce", MINIMAL)


TELLS = MINIMAL | {"change_type": {"path": "kind", "values": {"REMOVED": "DELETE"}}}


@pytest.mark.parametrize("envelope", ["debezium", "flattened", "dms", "salesforce"])
def test_a_key_that_the_envelope_does_not_read_is_refused(envelope):
    """A delete that `change_type` tells would be an update there, and its contact callable."""
    table = TELLS if envelope != "salesforce" else {key: TELLS[key] for key in TELLS if key != "external_id"}
    told = rf"SOURCE_MAPPING: \[{TOPIC}\] change_type: is read with SOURCE_ENVELOPE=outbox alone, not with {envelope}$"
    with pytest.raises(SettingsError, match=told):
        envelopes(envelope, table)
    envelopes("outbox", TELLS)


@pytest.mark.parametrize("envelope", ["debezium", "outbox", "dms"])
def test_a_prefix_is_of_flattened_rows_alone(envelope):
    """Whoever sets one elsewhere takes the rows for flattened ones."""
    with pytest.raises(SettingsError, match="prefix: is read with SOURCE_ENVELOPE=flattened alone"):
        envelopes(envelope, MINIMAL | {"prefix": "cdc_"})
    envelopes("flattened", MINIMAL | {"prefix": "cdc_"})


_NAMES = per_topic(EnvelopeName.NATIVE)
"""The envelopes of topics, as `SOURCE_ENVELOPE` says them."""


@pytest.mark.parametrize(
    ("names", "tables", "refused"),
    [
        ("flattened", ["default"], True),
        ("flattened", ["com.acme.Row"], True),
        ("native,a=outbox", ["default"], False),
        ("native,a=outbox", ["com.acme.Row"], False),
        ("flattened,a=outbox", ["a"], False),
        ("flattened,a=outbox", ["default"], True),
        ("native,a=outbox,b=flattened", ["default"], True),
        ("native,a=outbox,b=flattened", ["default", "b"], False),
    ],
)
def test_a_table_is_checked_with_every_envelope_that_may_take_it(names, tables, refused):
    """A topic with a table of its own takes no other one, and native events take none."""
    told = {table: TELLS if table != "b" else MINIMAL for table in tables}
    if not refused:
        Envelopes.of(_NAMES(names), told, {})
        return
    with pytest.raises(
        SettingsError, match="change_type: is read with SOURCE_ENVELOPE=outbox alone, not with flattened"
    ):
        Envelopes.of(_NAMES(names), told, {})


@pytest.mark.parametrize(("table", "refused"), [("default", False), ("b", True)])
def test_a_table_of_a_source_topic_is_checked_with_its_envelope(table, refused):
    """Also where that has the default one; no other table is for its records then."""
    told = {"b": MINIMAL, "default": MINIMAL, table: TELLS}
    names, topics = "flattened,a=outbox", ["a", "b"]
    if not refused:
        Envelopes.of(_NAMES(names), told, {}, topics)
        return
    with pytest.raises(SettingsError, match=r"\[b\] change_type: is read with SOURCE_ENVELOPE=outbox alone, not with"):
        Envelopes.of(_NAMES(names), told, {}, topics)


@pytest.mark.parametrize(
    ("names", "refused"),
    [("debezium,b=flattened", False), ("flattened,b=debezium", False), ("debezium,b=outbox", True)],
)
def test_a_prefix_may_stand_in_a_table_that_others_take_too(names, refused):
    """They have no use for it. Where nobody has one, somebody took the rows for flattened ones."""
    told, topics = {"default": MINIMAL | {"prefix": "cdc_"}}, ["a", "b"]
    if not refused:
        Envelopes.of(_NAMES(names), told, {}, topics)
        return
    with pytest.raises(SettingsError, match="prefix: is read with SOURCE_ENVELOPE=flattened alone, not with debezium"):
        Envelopes.of(_NAMES(names), told, {}, topics)


def test_every_envelope_but_the_native_one_has_a_ready_made_mapping():
    """And each of them is right."""
    made = ready_made_mappings()
    assert {*made} == {*EnvelopeName} - {EnvelopeName.NATIVE}
    assert all(parse(tables) for tables in made.values())


# -- what becomes of a row


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("granted", ("null", "string"), True),
        ("denied", ("null", "string"), False),
        ("Granted", ("null", "string"), "Granted"),
        (1, ("null", "int"), True),
        (0, ("null", "int"), False),
        (2, ("null", "int"), 2),
        (True, ("null", "boolean"), True),
        (None, ("null", "boolean"), False),
    ],
)
def test_values_are_named_by_their_text(value, kind, expected):
    """Numbers, booleans and null too; what is not named stays."""
    values = {"granted": True, "denied": False, "1": True, "0": False, "null": False}
    assert of(value, {"consent": {"path": "x", "values": values}}, kind).consent == expected


def test_a_value_map_as_toml_has_it():
    """Bare keys are text."""
    table = tomllib.loads('consent = { path = "x", values = { Y = true, N = false, 1 = true } }')
    assert of("Y", table).consent is True


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [("a", "string", "a"), (None, "null", ""), (7, "long", "7"), (True, "boolean", "true"), (1.5, "double", "1.5")],
)
def test_attributes_are_text(value, kind, expected):
    """An absent one is empty."""
    assert of(value, {"attributes": {"a": "x"}}, [kind]).attributes == {"a": expected}


def test_an_attribute_that_is_no_text_is_rejected():
    """A record or list has no text that anybody asked for; a withdrawal beside it is one all the same."""
    table = {"attributes": {"a": "x"}, "consent": {"value": False}}
    event = of(["a"], table, [{"type": "array", "items": "string"}])
    (error,) = validate([event], [("a", "a")])
    assert isinstance(error, ValidationError)
    assert error.reasons == (Reason.NOT_DECODABLE,)
    assert "an attribute is of type list" in error.detail
    change = suppression(event, 0, "list", "")
    assert change is not None
    assert change.operation is Operation.SUPPRESS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000_123_456, 1_700_000_000_123),
        (1_700_000_000_123_456_789, 1_700_000_000_123),
    ],
)
def test_the_size_of_a_time_tells_its_unit(value, expected):
    """Seconds, milli-, micro- and nanoseconds."""
    assert of(value, {"occurred_at": "x"}, ["long"]).occurred_at == expected


def test_a_time_may_be_text():
    """ISO 8601, as zoned timestamps are."""
    assert of("2023-11-14T22:13:20.5Z", {"occurred_at": "x"}).occurred_at == 1_700_000_000_500


@pytest.mark.parametrize(("value", "kind"), [(19_675, "int"), (-1, "long"), ("yesterday", "string")])
def test_what_is_no_time_is_rejected(value, kind):
    """Days, for example. The flags are told all the same, with the time of Kafka."""
    event = of(value, {"occurred_at": "x"}, [kind])
    assert "occurred_at" in event.flaw
    assert event.occurred_at == TIME_MS


def test_a_time_that_is_null_is_that_of_the_envelope():
    """Not told, as a version that is null: the record is none to reject for that."""
    event = of(None, {"occurred_at": "x"}, ["null"])
    assert (event.occurred_at, event.flaw) == (TIME_MS, "")


@pytest.mark.parametrize(("value", "kind", "expected"), [(7, "long", 7), ("7", "string", 7), (None, "null", None)])
def test_a_version_is_a_number_or_its_text(value, kind, expected):
    """None where the row has none: the order of the partition, and nothing to reject it for."""
    event = of(value, {"version": "x"}, [kind])
    assert (event.version, event.flaw) == (expected, "")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("v7", "string"),
        (-7, "long"),
        (str(2**63), "string"),
        (True, "boolean"),
        ("\u00b2", "string"),
        ("\u0661\u0660", "string"),
        ("9" * 5000, "string"),
    ],
)
def test_what_is_no_version_is_rejected(value, kind):
    """Nothing is guessed about the order, digits of other scripts included. The flags are told all the same."""
    event = of(value, {"version": "x"}, [kind])
    assert "version is not" in event.flaw
    assert event.version is None


@pytest.mark.parametrize(
    ("value", "kind", "expected"), [(7, "long", "7"), (b"7", "bytes", "7"), (b"\xff", "bytes", b"\xff")]
)
def test_an_external_id_becomes_text(value, kind, expected):
    """Bytes that are none are left to validation."""
    assert of(value, {"external_id": "x"}, [kind]).external_id == expected


def test_a_path_leads_into_records_and_maps():
    """A null on the way is a null."""
    nested = record_type("Nested", {"city": "string"})
    mapping = {"attributes": {"city": "x.city"}}
    assert of({"city": "Bern"}, mapping, ["null", nested]).attributes == {"city": "Bern"}
    assert of({"city": "Bern"}, mapping, [{"type": "map", "values": "string"}]).attributes == {"city": "Bern"}
    assert of(None, mapping, ["null", nested]).attributes == {"city": ""}


@pytest.mark.parametrize("kind", ["null", record_type("Y", {"y": "null"})], ids=["at once", "further in"])
def test_what_stands_within_a_null_is_null(kind):
    """JSON without a schema has a null in place of an object: the record is no other one for that, and may withdraw."""
    path, value = ("x.a", None) if kind == "null" else ("x.y.a", {"y": None})
    columns = {"id": "string", "phone": ["null", "string"], "x": kind}
    row = {"id": "c-1", "phone": "+14155550100", "x": value}

    def read(**mapping):
        (event,) = told("outbox", record_type("Row", columns), row, MINIMAL | {"phone": path} | mapping)
        return event

    assert read().phone is None
    assert read(phone=[path, "phone"]).phone == "+14155550100"
    assert read(attributes={"city": path}).attributes == {"city": ""}


def test_of_a_list_the_first_counts_that_the_schema_has():
    """Not the first that has a value: a cleared phone must not bring back another one."""
    assert of(None, {"phone": ["y", "x", "id"]}).phone is None


def test_a_field_of_one_of_several_records_is_not_found():
    """Which of them a row is would be a guess: the schema is refused."""
    kinds = [record_type("A", {"a": "string"}), record_type("B", {"b": "string"})]
    with pytest.raises(DecodeError, match="names for phone"):
        of({"a": "1"}, {"phone": "x.a"}, kinds)


# -- what stands around a row


def test_the_key_and_headers_have_paths():
    """As text; a header that is not there is null."""
    mapping = {"external_id": "@key", "attributes": {"type": "@header.eventType", "no": "@header.no"}}
    event = of(None, mapping, key="Zürich-1".encode(), headers=[("id", b"5"), ("eventType", b"Created")])
    assert (event.external_id, event.attributes) == ("Zürich-1", {"type": "Created", "no": ""})


def test_a_key_that_is_no_text_is_rejected():
    """It would name nobody."""
    with pytest.raises(DecodeError, match="@key is not UTF-8"):
        of(None, {"external_id": "@key"}, key=b"\0\xff")


CHANGE = {"change_type": {"path": "@header.eventType", "values": {"Made": "CREATE", "Gone": "DELETE"}}}


@pytest.mark.parametrize(("said", "expected"), [(b"Made", ChangeType.CREATE), (b"Gone", ChangeType.DELETE)])
def test_the_mapping_says_what_happened(said, expected):
    """A delete tells the external id, time and version alone."""
    event = of("7", CHANGE | {"version": "x"}, headers=[("eventType", said)])
    assert (event.change_type, event.external_id, event.version, event.occurred_at) == (expected, "c-1", 7, TIME_MS)


@pytest.mark.parametrize("headers", [[], [("eventType", b"Merged")]])
def test_what_nobody_knows_did_not_happen(headers):
    """It is rejected, and no update."""
    with pytest.raises(DecodeError, match="what happened is not one"):
        of(None, CHANGE, headers=headers)


@pytest.mark.parametrize("envelope", ["outbox", "flattened"])
def test_rows_that_are_not_meant_are_ignored(envelope):
    """`only` names the values that count."""
    columns = {"id": "string", "phone": "string", "kind": "int"}
    mapping = MINIMAL | {"only": {"path": "kind", "values": [1, 2]}}
    rows = [
        told(envelope, record_type("Row", columns), {"id": "1", "phone": "+1", "kind": kind}, mapping)
        for kind in (1, 3)
    ]
    assert [len(events) for events in rows] == [1, 0]


@pytest.mark.parametrize(
    ("kind", "happened", "events"),
    [(None, "DELETE", 1), ("person", "DELETE", 1), ("pet", "DELETE", 0), (None, "UPDATE", 0), (None, "unheard of", 0)],
)
def test_a_delete_that_does_not_say_of_what_kind_it_is_counts(kind, happened, events):
    """It may come with the ids alone: ignored, the contact would be called on."""
    columns = {"id": "string", "phone": ["null", "string"], "kind": ["null", "string"], "type": "string"}
    changes = {"path": "type", "values": {"DELETE": "DELETE", "UPDATE": "UPDATE"}}
    mapping = MINIMAL | {"only": {"path": "kind", "values": ["person"]}, "change_type": changes}
    row = {"id": "1", "phone": None, "kind": kind, "type": happened}
    assert len(told("outbox", record_type("Row", columns), row, mapping)) == events


# -- which table is for a record

NATIVE = record_type("Row", {"id": "string", "phone": "string"})


@pytest.mark.parametrize("name", [TOPIC, "Row", "default"])
def test_a_table_is_for_a_topic_a_schema_or_all(name):
    """A table of one's own goes before every ready-made one."""
    Envelopes.of(PerTopic(EnvelopeName.OUTBOX, {}), {name: MINIMAL}, {}).mapper(TOPIC, NATIVE)
    with pytest.raises(DecodeError, match="names for phone"):
        envelopes("outbox", MINIMAL | {"phone": "no"}).mapper(TOPIC, NATIVE)


@pytest.mark.parametrize("spelt", [{"name": "com.acme.Row"}, {"name": "Row", "namespace": "com.acme"}])
@pytest.mark.parametrize("name", ["com.acme.Row", "Row"])
def test_a_table_is_found_however_the_name_of_a_schema_is_spelt(name, spelt):
    """A version that refers to other schemas, or JSON of Kafka Connect, has it in full: `default` is not for those."""
    chosen = Envelopes.of(
        PerTopic(EnvelopeName.OUTBOX, {}), {name: MINIMAL, "default": MINIMAL | {"consent": "other"}}, {}
    )
    assert chosen.chosen(TOPIC, NATIVE | spelt) == f"outbox, mapping [{name}]"
    assert chosen.fitness(TOPIC, NATIVE | spelt) == Fitness(meant=True)


def test_the_name_in_full_goes_before_the_other():
    """Two schemas may differ by their namespaces alone."""
    tables = {"Row": MINIMAL | {"phone": "no"}, "com.acme.Row": MINIMAL}
    chosen = Envelopes.of(PerTopic(EnvelopeName.OUTBOX, {}), tables, {})
    assert chosen.chosen(TOPIC, NATIVE | {"namespace": "com.acme"}) == "outbox, mapping [com.acme.Row]"
    assert chosen.chosen(TOPIC, NATIVE | {"namespace": "org.acme"}) == "outbox, mapping [Row]"


def test_keys_are_read_for_the_tables_that_may_be_for_a_topic_alone():
    """The ready-made one of outboxes takes the key, and is for no topic that has a table of its own."""
    assert envelopes("outbox").of_topic(TOPIC).by_key
    assert not envelopes("outbox", MINIMAL).of_topic(TOPIC).by_key
    assert envelopes("outbox", MINIMAL).of_topic("other").by_key


def test_a_record_without_a_table_is_refused():
    """It says which names would do."""
    with pytest.raises(DecodeError, match="no table of SOURCE_MAPPING is for the topic, for Row") as caught:
        Envelopes.of(PerTopic(EnvelopeName.OUTBOX, {}), {"other": MAPPING}, {}).mapper(TOPIC, NATIVE)
    assert caught.value.reasons == (Reason.ENVELOPE_UNKNOWN,)
    assert caught.value.detail.endswith("; it has other")


def test_a_record_that_names_no_schema_needs_a_table_for_its_topic():
    """Names that are made up for it are nobody's business."""
    value = json.dumps({"id": "c-1"}).encode()
    with pytest.raises(DecodeError) as caught:
        JsonReader(envelopes("salesforce").of_topic(TOPIC))(value, Record(TOPIC, 0, 0, 0, None, value))
    needed = (
        f"the record tells no schema's name: SOURCE_MAPPING needs a table for {TOPIC}, or the default; it is not set"
    )
    assert caught.value.detail == needed
    struct = {"type": "struct", "fields": [{"field": "id", "type": "string"}]}
    value = json.dumps({"schema": struct, "payload": {"id": "c-1"}}).encode()
    with pytest.raises(DecodeError, match="tells no schema's name"):
        JsonReader(envelopes("salesforce").of_topic(TOPIC))(value, Record(TOPIC, 0, 0, 0, None, value))


def test_a_topic_may_have_an_envelope_of_its_own():
    """The others have the default."""
    chosen = Envelopes.of(PerTopic(EnvelopeName.NATIVE, {TOPIC: EnvelopeName.OUTBOX}), {TOPIC: MINIMAL}, {})
    chosen.mapper(TOPIC, NATIVE)
    with pytest.raises(DecodeError, match="has no field eventId"):
        chosen.mapper("other", NATIVE)


def test_a_topic_may_be_called_default():
    """Its envelope is that of no other topic."""
    topics = {"kafka_source_topics": "crm,default", "source_envelope": "native,default=debezium"}
    chosen = envelopes_of(settings(**topics))
    assert [chosen.of_topic(topic).keyed for topic in ("crm", "default")] == [True, False]
