"""Schemas and what they refer to become one schema, or are refused."""

import json
from typing import Any

import pytest

from consumer.adapters.schema_registry.inlining import inlined
from consumer.core.avro import WriterSchema
from consumer.errors import DecodeError


def record(name: str, *kinds: Any, **properties: Any) -> str:
    """A record with a field of each of these types, as text."""
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    return json.dumps({"type": "record", "name": name, "fields": fields, **properties})


def refusal(*texts: str) -> str:
    """Why they do not fit."""
    with pytest.raises(DecodeError) as caught:
        inlined(texts, 7)
    return caught.value.detail


def test_a_type_within_a_record_can_be_referred_to() -> None:
    """The subject defines it, although its schema is another type's."""
    address = json.loads(record("Address", "string"))
    common = record("Common", address, namespace="com.acme")
    text = inlined([common, record("Contact", "com.acme.Address", "Address", namespace="com.acme")], 7)
    assert WriterSchema(text).read(b"\2x\2y") == {"f0": {"f0": "x"}, "f1": {"f0": "y"}}


def test_the_outer_record_may_come_behind_the_type_within_it() -> None:
    """Each type is defined where it is used first, and named from there on."""
    common = record("a.Common", json.loads(record("a.Address", "string")))
    text = inlined([common, record("a.Contact", "a.Address", "a.Common", ["null", "a.Address"])], 7)
    assert WriterSchema(text).read(b"\2x\2y\2\2z") == {"f0": {"f0": "x"}, "f1": {"f0": {"f0": "y"}}, "f2": {"f0": "z"}}


def test_a_diamond_is_defined_once() -> None:
    """As in Java, where a second definition is an error."""
    sides = [record(name, "Bottom") for name in ("Left", "Right")]
    text = inlined(
        [record("Bottom", "int"), *sides, record("Top", "Left", "Right", {"type": "map", "values": "Left"})], 7
    )
    assert text.count('"Bottom"') == 2
    assert WriterSchema(text).read(b"\2\4\0") == {"f0": {"f0": {"f0": 1}}, "f1": {"f0": {"f0": 2}}, "f2": {}}


def test_a_long_chain_is_one_schema() -> None:
    """Whether it may be read with is not decided here."""
    texts = [record("N0", "int"), *(record(f"N{number}", f"N{number - 1}") for number in range(1, 60))]
    whole = json.loads(inlined(texts, 7))
    for number in reversed(range(60)):
        assert whole["name"] == f"N{number}"
        whole = whole["fields"][0]["type"]


def test_what_is_not_used_is_left_out_and_all_else_stays() -> None:
    """Envelopes need what a writer says of its types."""
    enum = {"type": "enum", "name": "b.Kind", "symbols": ["A"], "connect.name": "x"}
    fixed = {"type": "fixed", "name": "b.Id", "size": 2, "logicalType": "duration"}
    main = record(
        "a.Main", "b.Kind", {"type": "array", "items": "b.Id"}, {"type": "long", "connect.name": "t"}, doc="d"
    )
    whole = json.loads(inlined([json.dumps(enum), json.dumps(fixed), record("Unused"), main], 7))
    assert [field["type"] for field in whole["fields"]] == [
        enum,
        {"type": "array", "items": fixed},
        {"type": "long", "connect.name": "t"},
    ]
    assert (whole["name"], whole["doc"]) == ("a.Main", "d")


def test_the_schema_may_be_no_more_than_a_name() -> None:
    """That of what it refers to."""
    assert WriterSchema(inlined([record("A", "string"), '"A"'], 7)).read(b"\2x") == {"f0": "x"}


def test_a_type_called_like_a_primitive_one_is_not_it() -> None:
    """A name in full without dots."""
    whole = json.loads(inlined([record("string", "int"), record("A", "string")], 7))
    assert whole["fields"][0]["type"] == "string"


def test_of_two_versions_the_first_counts() -> None:
    """Java parses the deeper one first, and no other of its name."""
    used = [record("C", "int"), record("A", "C"), record("C", "string")]
    assert WriterSchema(inlined([*used, record("X", "A", "C")], 7)).read(b"\2\4") == {
        "f0": {"f0": {"f0": 1}},
        "f1": {"f0": 2},
    }


@pytest.mark.parametrize(
    "texts",
    [
        [record("A", "int"), record("B", json.loads(record("A", "string"))), record("X", "A", "B")],
        [record("A", "int"), record("A", "string")],
        [record("A", "int"), record("X", json.loads(record("A", "string")))],
    ],
    ids=["within another", "the schema itself", "within the schema"],
)
def test_a_name_of_two_types_is_refused(texts: list[str]) -> None:
    """The records would be read with one of them, and nobody knows which."""
    assert refusal(*texts) == "references of schema 7 do not fit: A is defined in two ways"


def test_the_same_type_may_be_defined_twice() -> None:
    """Copies are common."""
    copy = json.loads(record("A", "int"))
    text = inlined([record("A", "int"), record("B", copy), record("X", copy, "B", "A")], 7)
    assert WriterSchema(text).read(b"\2\4\6") == {"f0": {"f0": 1}, "f1": {"f0": {"f0": 2}}, "f2": {"f0": 3}}


@pytest.mark.parametrize(
    "texts",
    [
        [record("B", ["null", "A"]), record("A", "B")],
        [record("A", "B"), record("B", ["null", "A"]), record("A", "B")],
        [record("C", "B"), record("A", "B")],
    ],
    ids=["a circle", "a circle that is walked to its end", "another type than is referred to"],
)
def test_what_is_not_defined_before_is_refused(texts: list[str]) -> None:
    """The parser in C went round such a circle until the process died."""
    assert "nothing defines " in refusal(*texts)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "5",
        "null",
        "[" * 200 + "]" * 200,
        "[" * 100_000,
        '{"type": "record", "name": "A", "fields": 5}',
        '{"type": "record", "name": [], "fields": []}',
        '{"type": "array", "items": 1e999}',
        '{"__fastavro_parsed": true, "__named_schemas": {"A": 5}, "type": "record", "name": "B", "fields": []}',
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_junk_is_refused(text: str, *, last: bool) -> None:
    """Whoever registers a schema must not be able to stop the program."""
    refusal(*([record("A"), text] if last else [text, record("X", "A")]))
