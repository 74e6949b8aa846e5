"""What a mapping asks of a schema that was not seen before: said by name, before the first record."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from consumer.core.envelopes.choice import DEFAULT, Envelopes, Fitness
from consumer.formats import EnvelopeName, PerTopic
from consumer.settings import packaged_schemas, ready_made_mappings
from tests.captured import schema_with_a_default_that_grants
from tests.envelopes import COLUMNS, MAPPING, TOPIC, envelopes, record_type

NATIVE: dict[str, Any] = json.loads((packaged_schemas() / "crm_contact_change.avsc").read_text())
SOURCE = record_type("Source", {"ts_ms": "long"})


def rows(**changed: object) -> dict[str, Any]:
    """A row's schema with columns of other types; None takes one away."""
    columns = {name: kind for name, kind in {**COLUMNS, **changed}.items() if kind is not None}
    return record_type("Row", columns)


def in_debezium(row: dict[str, Any]) -> dict[str, Any]:
    """The same in Debezium's envelope."""
    fields = {"before": ["null", row], "after": ["null", "Row"], "source": SOURCE, "op": "string"}
    return record_type("Envelope", fields)


def flag(kind: str = "boolean", *, default: object) -> list[object]:
    """A column that may be null, with its default as Kafka Connect's converters for Avro note it."""
    return [{"type": kind, "connect.default": default}, "null"]


def fitness(schema: dict[str, Any], envelope: str = "flattened", mapping: Mapping[str, object] = MAPPING) -> Fitness:
    """Of a mapping that was written for the topic, with what is changed in it."""
    return envelopes(envelope, {**MAPPING, **mapping}).fitness(TOPIC, schema)


@pytest.mark.parametrize("envelope", ["flattened", "outbox", "debezium"])
def test_a_schema_that_has_all_fits(envelope: str) -> None:
    """Wherever the rows are."""
    schema = in_debezium(rows()) if envelope == "debezium" else rows()
    assert fitness(schema, envelope) == Fitness(meant=True)


@pytest.mark.parametrize("envelope", ["flattened", "debezium"])
def test_everything_that_every_record_needs_is_named_at_once(envelope: str) -> None:
    """With the paths that were looked for."""
    row = rows(id=None, consent=None, phone=None)
    schema = in_debezium(row) if envelope == "debezium" else row
    (problem,) = fitness(schema, envelope, {"phone": ["mobile", "tel.home"]}).problems
    assert problem == (
        "the schema has none of the fields that SOURCE_MAPPING names for "
        "external_id (id), phone (mobile, tel.home), consent (consent)"
    )


def test_what_stands_within_a_null_is_not_judged() -> None:
    """It may be anything in another record."""
    assert fitness(rows(address="null"), mapping={"consent": "address.consent"}) == Fitness(meant=True)


def test_a_schema_that_can_tell_of_deletes_alone_is_no_schema_of_contacts() -> None:
    """Deletes of it are carried out, but a topic without any other is a mistake in the mapping."""
    changes = {"change_type": {"path": "@header.type", "values": {"gone": "DELETE"}}}
    problems = fitness(rows(phone=None, dnc=None), "outbox", changes).problems
    assert problems == tuple(
        f"[{TOPIC}] {field}: the schema has none of {path}, so it can tell of deletes alone"
        for field, path in (("phone", "phone"), ("do_not_call", "dnc"))
    )


@pytest.mark.parametrize("envelope", ["flattened", "debezium", "salesforce"])
def test_so_it_is_where_any_row_may_delete_or_withdraw(envelope: str) -> None:
    """Rows are looked at one by one then, but none of them can be a contact: the start must not wait for that."""
    header = record_type("Header", {"recordIds": "string", "changeType": "string", "commitTimestamp": "long"})
    more = {"__deleted": "string"} if envelope == "flattened" else {}
    schema = rows(phone=None, ChangeEventHeader=header if envelope == "salesforce" else None, **more)
    mapping = {name: value for name, value in MAPPING.items() if envelope != "salesforce" or name != "external_id"}
    found = envelopes(envelope, mapping).fitness(TOPIC, in_debezium(schema) if envelope == "debezium" else schema)
    assert found.problems == ("the schema has none of the fields that SOURCE_MAPPING names for phone (phone)",)


def test_an_envelope_that_does_not_fit_is_said() -> None:
    """A flattened row is none of Debezium's envelopes."""
    (problem,) = fitness(rows(), "debezium").problems
    assert "it needs op, before, after and source" in problem


@pytest.mark.parametrize("envelope", ["flattened", "debezium"])
def test_optional_fields_that_a_schema_lacks_are_named(envelope: str) -> None:
    """Records are read all the same."""
    row = rows(email=None)
    schema = in_debezium(row) if envelope == "debezium" else row
    found = fitness(schema, envelope, {"version": "n.o", "only": {"path": "kind", "values": ["person"]}})
    assert found == Fitness((), (), ("email (email)", "version (n.o)", "only (kind)"), meant=True)


UNSUITED = {
    "a phone that is a number": ({"phone": "long"}, {}, "phone: phone is long, not enum or string"),
    "an e-mail in bytes": ({"email": "bytes"}, {}, "email: email is bytes, not enum or string"),
    "a flag in text": ({"dnc": "string"}, {"do_not_call": "dnc"}, "do_not_call: dnc is string, not boolean"),
    "a flag that may be null": ({}, {"do_not_call": "dnc"}, "do_not_call: dnc is string, not boolean"),
    "an id that is none": ({"id": "double"}, {}, "external_id: id is double, not bytes or enum or fixed or "),
    "a version in fractions": ({"v": "float"}, {"version": "v"}, "version: v is float, not int or long or string"),
    "a time that is none": ({"t": "boolean"}, {"occurred_at": "t"}, "occurred_at: t is boolean, not int or long"),
    "an attribute that is a list": (
        {"city": {"type": "array", "items": "string"}},
        {},
        "attributes.city: city is array, not",
    ),
    "a field of a record": (
        {"a": record_type("A", {"b": ["int", "long"]})},
        {"phone": "a.b"},
        "phone: a.b is int, long, not enum or string",
    ),
    "the first of a list that is there": ({"phone": "int"}, {"phone": ["x", "phone", "email"]}, "phone: phone is int"),
}


@pytest.mark.parametrize(("columns", "mapping", "told"), UNSUITED.values(), ids=UNSUITED)
def test_a_type_that_every_change_would_be_rejected_for_is_a_problem(
    columns: dict[str, object], mapping: dict[str, object], told: str
) -> None:
    """With the table of the mapping."""
    found = fitness(rows(**columns), mapping=mapping)
    (problem,) = found.problems
    assert problem.startswith(f"[{TOPIC}] {told}")
    assert found.doubts == ()


DOUBTS = {
    "a phone that is a number": ({"phone": ["null", "long"]}, {}, "phone: phone is long, not enum or string"),
    "a version in fractions": ({"v": ["null", "float"]}, {"version": "v"}, "version: v is float"),
    "an attribute in bytes": ({"city": ["null", "bytes"]}, {}, "attributes.city: city is bytes"),
    "a field of a record that may be null": (
        {"a": ["null", record_type("A", {"b": "int"})]},
        {"phone": "a.b"},
        "phone: a.b is int, not enum or string",
    ),
}


@pytest.mark.parametrize(("columns", "mapping", "told"), DOUBTS.values(), ids=DOUBTS)
def test_a_field_that_may_be_null_is_a_doubt(columns: dict[str, object], mapping: dict[str, object], told: str) -> None:
    """Records without a value there pass."""
    found = fitness(rows(**columns), mapping=mapping)
    (doubt,) = found.doubts
    assert doubt.startswith(f"[{TOPIC}] {told}")
    assert found.problems == ()


def test_in_salesforce_a_flag_of_another_type_is_a_doubt() -> None:
    """An update that does not tell it passes."""
    header = record_type("Header", {"recordIds": "string", "changeType": "string", "commitTimestamp": "long"})
    columns = {"ChangeEventHeader": header, "phone": ["null", "string"], "dnc": ["null", "string"]}
    mapping = {"phone": "phone", "consent": {"value": True}, "do_not_call": "dnc"}
    found = envelopes("salesforce", mapping).fitness(TOPIC, record_type("ChangeEvent", columns))
    assert found.problems == ()
    assert found.doubts == (f"[{TOPIC}] do_not_call: dnc is string, not boolean",)


SUITED = {
    "a flag in text, with values": ({}, {}),
    "one branch of several": ({"phone": ["null", "long", "string"]}, {}),
    "an enum": ({"phone": {"type": "enum", "name": "P", "symbols": ["a"]}}, {}),
    "nothing but null": ({"phone": "null"}, {}),
    "a constant": ({"phone": None}, {"phone": {"value": "+1"}}),
    "the key": ({"id": None}, {"external_id": "@key"}),
    "a field of a map": ({"a": {"type": "map", "values": "long"}}, {"phone": "a.b"}),
}


@pytest.mark.parametrize(("columns", "mapping"), SUITED.values(), ids=SUITED)
def test_what_some_record_may_pass_with_is_fine(columns: dict[str, object], mapping: dict[str, object]) -> None:
    """Nothing is said of what a schema does not tell."""
    found = fitness(rows(**columns), mapping=mapping)
    assert (found.problems, found.doubts) == ((), ())


def test_rows_without_a_schema_are_not_judged() -> None:
    """MongoDB's documents are text."""
    fields = {"before": ["null", "string"], "after": ["null", "string"], "source": SOURCE, "op": "string"}
    assert fitness(record_type("Envelope", fields), "debezium") == Fitness(meant=True)


@pytest.mark.parametrize("envelope", ["flattened", "debezium"])
def test_of_a_heartbeat_in_json_nothing_is_asked(envelope: str) -> None:
    """It is ignored, and nothing about it is a mistake in the mapping."""
    assert fitness(record_type("record_1", {"ts_ms": "long"}), envelope) == Fitness(meant=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ()),
        ({"consent": ["null", "boolean", "string"]}, ()),
        ({"consent": None}, ("the schema has no field consent",)),
        ({"doNotCall": ["null", "string"]}, ("do_not_call: doNotCall is string, not boolean",)),
        ({"externalId": None, "consent": None}, ("the schema has no field externalId",)),
    ],
)
def test_the_native_change_event_needs_its_flags(changed: dict[str, object], told: tuple[str, ...]) -> None:
    """Validation would reject every record without them."""
    fields = [{**each, "type": changed.get(each["name"], each["type"])} for each in NATIVE["fields"]]
    schema = {**NATIVE, "fields": [each for each in fields if each["type"] is not None]}
    assert envelopes("native").fitness(TOPIC, schema).problems == told


def test_a_mapping_for_many_is_not_meant_for_this_one() -> None:
    """A table of all topics may name fields that this one does not have; one for the record's name is meant."""

    def of(tables: dict[str, Any]) -> bool:
        made = Envelopes.of(PerTopic(EnvelopeName.FLATTENED, {}), tables, ready_made_mappings())
        return made.fitness(TOPIC, rows(dnc="boolean", do_not_call="boolean")).meant

    assert [of({DEFAULT: MAPPING}), of({}), of({"Row": MAPPING}), of({TOPIC: MAPPING})] == [False, False, True, True]


def test_a_schema_without_a_mapping_is_said() -> None:
    """As its records would be told."""
    (problem,) = (
        Envelopes.of(PerTopic(EnvelopeName.FLATTENED, {}), {"other": MAPPING}, {}).fitness(TOPIC, rows()).problems
    )
    assert problem.startswith("no table of SOURCE_MAPPING is for the topic, for Row, or the default")


def test_topics_with_mappings_by_record_may_mix_schemas() -> None:
    """Unless the topic has a table of its own, which comes first."""

    def may_mix(envelope: str, *tables: str) -> bool:
        made = Envelopes.of(PerTopic(EnvelopeName(envelope), {}), dict.fromkeys(tables, MAPPING), {}, [TOPIC, "other"])
        return made.may_mix(TOPIC)

    assert may_mix("flattened", "Row")
    assert not may_mix("flattened", DEFAULT, "other")
    assert not may_mix("flattened", "Row", TOPIC)
    assert not may_mix("native", "Row")


GRANTING = {
    "consent": (
        {"consent": flag(default=True)},
        {"consent": "consent"},
        "consent: consent may be null, and its default is true",
    ),
    "the other flag": (
        {"dnc": flag(default=False)},
        {"do_not_call": "dnc"},
        "do_not_call: dnc may be null, and its default is false",
    ),
    "in text": ({"dnc": flag("string", default="N")}, {}, "do_not_call: dnc may be null, and its default is N"),
    "within a record": (
        {"a": ["null", record_type("A", {"b": flag(default=True)})]},
        {"consent": "a.b"},
        "consent: a.b may be null, and its default is true",
    ),
}


@pytest.mark.parametrize("envelope", ["flattened", "debezium"])
@pytest.mark.parametrize(("columns", "mapping", "told"), GRANTING.values(), ids=GRANTING)
def test_a_null_that_may_come_as_a_default_that_grants_is_told(
    envelope: str, columns: dict[str, object], mapping: dict[str, object], told: str
) -> None:
    """Kafka Connect's converters write the default: somebody would be called of whom nobody knows any more."""
    schema = in_debezium(rows(**columns)) if envelope == "debezium" else rows(**columns)
    found = fitness(schema, envelope, mapping)
    assert found.granted == (f"[{TOPIC}] {told}: drop the column's default",)
    assert (found.problems, found.doubts) == ((), ())


def test_a_null_that_did_come_as_a_default_was_told_by_its_schema() -> None:
    """As Debezium and a converter for Avro registered it, with the ready-made mapping."""
    found = envelopes("debezium").fitness("oa.public.opts", schema_with_a_default_that_grants())
    table, remedy = "[default] (ready-made)", "drop the column's default"
    assert found.granted == (
        f"{table} consent: consent may be null, and its default is true: {remedy}",
        f"{table} do_not_call: do_not_call may be null, and its default is false: {remedy}",
    )


def test_the_default_of_the_field_alone_is_enough() -> None:
    """Converters may be told to leave out what they note for themselves."""
    row = rows()
    row["fields"].append({"name": "ok", "type": ["boolean", "null"], "default": True})
    assert fitness(row, mapping={"consent": "ok"}).granted != ()


HARMLESS = {
    "a default that withdraws": ({"consent": flag(default=False)}, {"consent": "consent"}),
    "a column that may not be null": (
        {"consent": {"type": "boolean", "connect.default": True}},
        {"consent": "consent"},
    ),
    "no default": ({"consent": ["boolean", "null"]}, {"consent": "consent"}),
    "a default that is neither": ({"dnc": flag("string", default="?")}, {}),
    "a null that is meant to grant": (
        {"dnc": flag(default=False)},
        {"do_not_call": {"path": "dnc", "values": {"null": False}}},
    ),
    "a default of what is no flag": ({"phone": flag("string", default="+14155550100")}, {}),
}


@pytest.mark.parametrize(("columns", "mapping"), HARMLESS.values(), ids=HARMLESS)
def test_other_defaults_are_no_doubt(columns: dict[str, object], mapping: dict[str, object]) -> None:
    """They let nobody be called who would not be."""
    assert fitness(rows(**columns), mapping=mapping) == Fitness(meant=True)


@pytest.mark.parametrize(("scale", "fits"), [(0, True), (2, True)])
def test_a_decimal_is_read_as_a_number(scale: int, *, fits: bool) -> None:
    """So it suits an id and an attribute; a flag it does not."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}
    assert (fitness(rows(id=decimal, city=["null", decimal])) == Fitness(meant=True)) is fits
    assert fitness(rows(consent=decimal), mapping={"consent": "consent"}).problems
