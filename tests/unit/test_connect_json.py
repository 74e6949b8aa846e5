import base64
import json

import pytest
from hypothesis import given, settings, strategies as st

from consumer.core.connect_json import MAX_VALUES, JsonReader
from consumer.core.connect_schema import MAX_DEPTH, MAX_TYPES
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, ChangeType, Reason, Record

RECORD = Record("crm.contacts.changes", 0, 0, 1_700_000_000_000, b"c-1", b"")
EMAIL = "jane.doe@example.com"


class Seen:
    """A mapping that keeps what it is given.

    Attributes:
        definitions: One for each time that a mapping was made.
        fields: Of each record.
    """

    def __init__(self):
        self.definitions = []
        self.fields = []
        self.reader = JsonReader(self._make)

    def _make(self, definition):
        self.definitions.append(definition)
        return self._map

    def _map(self, fields, record):
        self.fields.append(fields)
        return ChangeEvent(ChangeType.UPDATE, "c-1", record.timestamp_ms, None, None, None, None, None, {})

    def read(self, document):
        """The fields of a document, which is JSON or shall be."""
        self.reader(document if isinstance(document, bytes) else json.dumps(document).encode(), RECORD)
        return self.fields[-1]


def struct(*fields, **properties):
    """A schema of Kafka Connect with these (name, type) fields."""
    listed = [{"field": name} | (kind if isinstance(kind, dict) else {"type": kind}) for name, kind in fields]
    return {"type": "struct", "fields": listed, "optional": False} | properties


def optional(kind, **properties):
    """A type whose values may be null."""
    return {"type": kind, "optional": True} | properties


def refusal(document):
    """The detail of the error, which quotes nothing."""
    with pytest.raises(DecodeError) as caught:
        Seen().read(document)
    assert caught.value.reasons == (Reason.NOT_DECODABLE,)
    assert caught.value.__context__ is None
    assert EMAIL not in caught.value.detail
    return caught.value.detail


# ---- with a schema ----

ROW = struct(("id", "int32"), ("email", optional("string")), name="shop.customers.Value", optional=True)
ENVELOPE = struct(
    ("before", ROW),
    ("after", ROW),
    ("source", struct(("ts_ms", "int64"), ("snapshot", optional("string", name="io.debezium.data.Enum")))),
    ("op", "string"),
    ("ts_us", optional("int64", name="io.debezium.time.MicroTimestamp")),
    name="shop.customers.Envelope",
)
CHANGE = {
    "before": None,
    "after": {"id": 1001, "email": EMAIL},
    "source": {"ts_ms": 1_700_000_000_000, "snapshot": "false"},
    "op": "c",
    "ts_us": 1_700_000_000_000_000,
}


def test_a_change_of_debezium_is_read_as_its_avro_would_be():
    """The fields are the payload's; the definition names each record once, and has the logical names."""
    seen = Seen()
    assert seen.read({"schema": ENVELOPE, "payload": CHANGE}) == CHANGE
    (definition,) = seen.definitions
    row = [{"name": "id", "type": "int"}, {"name": "email", "type": ["null", "string"]}]
    named = {"connect.name": "shop.customers.Value"}
    assert definition == {
        "type": "record",
        "name": "shop.customers.Envelope",
        "connect.name": "shop.customers.Envelope",
        "fields": [
            {
                "name": "before",
                "type": ["null", {"type": "record", "name": "shop.customers.Value", "fields": row} | named],
            },
            {"name": "after", "type": ["null", {"type": "record", "name": "struct_2", "fields": row} | named]},
            {
                "name": "source",
                "type": {
                    "type": "record",
                    "name": "struct_3",
                    "fields": [
                        {"name": "ts_ms", "type": "long"},
                        {
                            "name": "snapshot",
                            "type": ["null", {"type": "string", "connect.name": "io.debezium.data.Enum"}],
                        },
                    ],
                },
            },
            {"name": "op", "type": "string"},
            {"name": "ts_us", "type": ["null", {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}]},
        ],
    }


def test_a_row_that_was_taken_out_of_its_envelope_is_read_like_any_other():
    """ExtractField leaves a schema that may be null, as a field of an envelope may."""
    seen = Seen()
    for schema in (ROW, ROW | {"optional": False}):
        assert seen.read({"schema": schema, "payload": CHANGE["after"]}) == CHANGE["after"]
    assert seen.definitions[0] == seen.definitions[1]


@pytest.mark.parametrize("schema", [ROW, ROW | {"optional": False}])
def test_a_payload_of_null_is_refused(schema):
    """Also where the schema would allow it: nothing tells which contact it is about."""
    assert refusal({"schema": schema, "payload": None}) == "the payload is null"


def test_a_mapping_is_made_once_for_each_schema():
    """Each record brings its schema; only a new one costs anything."""
    seen = Seen()
    for _ in range(3):
        seen.read({"schema": ENVELOPE, "payload": CHANGE})
    seen.read({"schema": ROW, "payload": CHANGE["after"]})
    assert len(seen.definitions) == 2


def test_few_mappings_are_kept():
    """Whoever sends a new schema with each record takes up no memory for ever."""
    seen = Seen()
    for number in range(300):
        seen.read({"schema": struct((f"f{number}", "int32")), "payload": {f"f{number}": 1}})
    assert len(seen.reader._known) == 256


def test_large_definitions_are_not_kept_by_the_hundred():
    """A megabyte of ever new fields in each record takes up no more than a few of them."""
    seen = Seen()
    small = {"id": 1}
    seen.read(small)
    for number in range(8):
        large = {f"{number}{field:x}": 1 for field in range(20_000)}
        for _ in range(2):
            seen.read(large)
    assert len(seen.definitions) == 9
    assert 4 <= len(seen.reader._known) <= 7
    seen.read(small)
    assert len(seen.definitions) == 10


def test_a_definition_that_is_larger_than_all_may_be_is_read_all_the_same():
    """Once for each record."""
    seen = Seen()
    large = {f"{field:x}" + "x" * 12: {"a": 1} for field in range(40_000)}
    for number in (1, 2):
        assert seen.read(large) == large
        assert len(seen.definitions) == number
    assert not seen.reader._known


def test_a_mapping_that_cannot_be_made_is_an_error_of_its_records():
    """Nothing that a record brings along ends the process."""

    def make(_):
        raise ValueError(EMAIL)

    reader = JsonReader(make)
    for _ in range(2):
        with pytest.raises(DecodeError, match="cannot be used: ValueError") as caught:
            reader(b"{}", RECORD)
        assert caught.value.__context__ is None


LOGICAL = {
    "org.apache.kafka.connect.data.Date": {"logicalType": "date"},
    "org.apache.kafka.connect.data.Time": {"logicalType": "time-millis"},
    "org.apache.kafka.connect.data.Timestamp": {"logicalType": "timestamp-millis"},
    "io.debezium.time.Date": {},
}


@pytest.mark.parametrize("name", LOGICAL)
def test_logical_types_of_connect_have_their_avro_names(name):
    """The number stays as it is."""
    seen = Seen()
    assert seen.read({"schema": struct(("f", {"type": "int64", "name": name})), "payload": {"f": 7}}) == {"f": 7}
    (field,) = seen.definitions[0]["fields"]
    assert field["type"] == {"type": "long", "connect.name": name} | LOGICAL[name]


def test_bytes_and_decimals_are_the_bytes_that_carry_them():
    """Base64 in JSON, as in Avro afterwards; no decimal is converted, so none can be slow to convert."""
    seen = Seen()
    decimal = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    text = base64.b64encode(b"\x01\xff").decode()
    fields = seen.read({"schema": struct(("raw", "bytes"), ("sum", decimal)), "payload": {"raw": text, "sum": text}})
    assert fields == {"raw": b"\x01\xff", "sum": b"\x01\xff"}
    assert seen.definitions[0]["fields"][1]["type"]["scale"] == 2


DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}


@pytest.mark.parametrize(
    ("number", "scale", "unscaled"),
    [
        ("19.90", 2, 1990),
        ("-19.9", 2, -1990),
        ("42.00", 2, 4200),
        ("42", 0, 42),
        ("42", 2, 4200),
        ("0", 2, 0),
        ("-128", 0, -128),
        ("1E-9", 10, 10),
        ("18446744073709551615", 0, 2**64 - 1),
        ("9999999999999.99", 2, 999999999999999),
    ],
)
def test_a_decimal_may_be_a_number(number, scale, unscaled):
    """As `decimal.format=NUMERIC` writes it; what comes out is what Avro would have."""
    schema = struct(("d", DECIMAL | {"parameters": {"scale": str(scale)}}))
    fields = Seen().read(b'{"schema": %s, "payload": {"d": %s}}' % (json.dumps(schema).encode(), number.encode()))
    assert int.from_bytes(fields["d"], "big", signed=True) == unscaled


@pytest.mark.parametrize(
    ("number", "scale"),
    [
        ("20000000000000000001", 0),
        ("12345678901234567890.12", 2),
        ("10000000000000.00", 2),
        ("0.001", 2),
        ("1e300", 9),
    ],
)
def test_a_decimal_that_may_have_lost_digits_is_no_whole_number(number, scale):
    """Taken for an id, it could be somebody else's. An attribute has what is left of it."""
    schema = struct(("d", DECIMAL | {"parameters": {"scale": str(scale)}}))
    fields = Seen().read(b'{"schema": %s, "payload": {"d": %s}}' % (json.dumps(schema).encode(), number.encode()))
    assert type(fields["d"]) is float


@pytest.mark.parametrize("value", [True, "not base64", [], None])
def test_a_decimal_is_nothing_else(value):
    """Base64 or a number."""
    schema = struct(("d", DECIMAL | {"parameters": {"scale": "2"}}))
    assert refusal({"schema": schema, "payload": {"d": value}}) == "the payload does not fit its schema, at d"


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_texts(kind, text):
    """In one column of a table, they are no reason to reject its rows."""
    fields = Seen().read({"schema": struct(("f", kind)), "payload": {"f": text}})
    assert repr(fields["f"]) == repr(float(text))


@pytest.mark.parametrize("text", ["nan", "1.5", "inf", "", "+Infinity"])
def test_no_other_text_is_a_number(text):
    """Java writes three."""
    assert refusal({"schema": struct(("f", "double")), "payload": {"f": text}}).endswith("at f")


def test_a_map_by_other_keys_than_strings_is_a_list_of_which_nothing_is_told():
    """It is written as pairs; the other columns are read."""
    by_number = {"type": "map", "keys": {"type": "int32"}, "values": {"type": "string"}, "optional": True}
    seen = Seen()
    schema = struct(("m", by_number), ("n", by_number), ("id", "int32"))
    assert seen.read({"schema": schema, "payload": {"m": [[1, EMAIL]], "n": None, "id": 7}}) == {
        "m": [],
        "n": None,
        "id": 7,
    }
    assert seen.definitions[0]["fields"][0]["type"] == ["null", {"type": "array", "items": "null"}]
    assert refusal({"schema": schema, "payload": {"m": {"1": EMAIL}, "n": None, "id": 7}}).endswith("at m")


def test_a_map_may_have_keys_that_are_null():
    """Kafka Connect writes those of optional strings as an object, too."""
    kind = {"type": "map", "keys": optional("string"), "values": {"type": "string"}}
    assert Seen().read({"schema": struct(("m", kind)), "payload": {"m": {"a": "x"}}}) == {"m": {"a": "x"}}


def test_what_the_schema_does_not_have_is_dropped():
    """Nobody checked it, and Java does not see it either: within records, lists and maps."""
    row = struct(("a", "string"))
    kinds = {
        "row": row,
        "rows": {"type": "array", "items": row},
        "map": {"type": "map", "keys": {"type": "string"}, "values": row},
    }
    fields = {"row": {"a": "x"}, "rows": [{"a": "x"}], "map": {"k": {"a": "x"}}}
    more = {"row": {"a": "x", "b": 1}, "rows": [{"b": {}, "a": "x"}], "map": {"k": {"a": "x", "": []}}, "version": "7"}
    assert Seen().read({"schema": struct(*kinds.items()), "payload": more}) == fields


def test_what_does_not_fit_is_named_and_not_quoted():
    """By its fields, from without; what a map calls its entries is data."""
    row = struct(("email", "int32"))
    kinds = struct(("map", {"type": "map", "keys": {"type": "string"}, "values": {"type": "array", "items": row}}))
    document = {"schema": struct(("outer", kinds)), "payload": {"outer": {"map": {EMAIL: [{"email": EMAIL}]}}}}
    assert refusal(document) == "the payload does not fit its schema, at outer.map.email"


def test_every_type_is_read():
    """Whatever Connect can write."""
    kinds = struct(
        ("b", "boolean"),
        ("i8", "int8"),
        ("i64", "int64"),
        ("f", "float"),
        ("d", "double"),
        ("list", {"type": "array", "items": {"type": "string"}}),
        ("map", {"type": "map", "keys": {"type": "string"}, "values": optional("int32")}),
    )
    payload = {"b": True, "i8": -128, "i64": 2**63 - 1, "f": 1, "d": 0.5, "list": ["x"], "map": {"k": None}}
    assert Seen().read({"schema": kinds, "payload": payload}) == payload


def test_absent_fields_are_null_but_not_in_lists():
    """A mapping finds every field of the record; in lists a few bytes would ask for thousands of values."""
    row = struct(("a", optional("string")), ("b", optional("string")))
    schema = struct(("row", row), ("rows", {"type": "array", "items": row}))
    fields = Seen().read({"schema": schema, "payload": {"row": {"a": "x"}, "rows": [{"a": "x"}]}})
    assert fields == {"row": {"a": "x", "b": None}, "rows": [{"a": "x"}]}


UNFIT = {
    "string for int": ("int32", "7"),
    "boolean for int": ("int32", True),
    "fraction for int": ("int32", 7.5),
    "int8 of 9 bits": ("int8", 128),
    "int32 of 33 bits": ("int32", 2**31),
    "int64 of 65 bits": ("int64", 2**63),
    "boolean for double": ("double", True),
    "int for boolean": ("boolean", 1),
    "int for string": ("string", 1),
    "null where none may be": ("string", None),
    "no base64": ("bytes", "a"),
    "dict for array": ({"type": "array", "items": {"type": "string"}}, {}),
    "list for map": ({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}, []),
    "list for struct": (struct(("a", "string")), []),
    "bad item": ({"type": "array", "items": {"type": "string"}}, ["x", 1]),
}


@pytest.mark.parametrize(("kind", "value"), UNFIT.values(), ids=UNFIT)
def test_a_payload_that_does_not_fit_is_refused(kind, value):
    """What the mapping was told of a field holds for each of its values."""
    document = {"schema": struct(("f", kind), ("email", "string")), "payload": {"f": value, "email": EMAIL}}
    assert "does not fit its schema" in refusal(document)


def nested(depth):
    """A schema whose innermost type stands so deep."""
    kind: object = {"type": "string"}
    for _ in range(depth - 2):
        kind = {"type": "array", "items": kind}
    return struct(("f", kind))


BAD_SCHEMAS = {
    "no object": (7, "not one of Kafka Connect"),
    "unknown type": ({"type": "decimal"}, "does not have"),
    "no type": ({}, "does not have"),
    "not of an object": ({"type": "string"}, "not of one"),
    "not of an object, or null": ({"type": "string", "optional": True}, "not of one"),
    "struct without fields": ({"type": "struct"}, "without fields"),
    "field without a name": ({"type": "struct", "fields": [{"type": "string"}]}, "without a name"),
    "same field twice": (struct(("a", "string"), ("a", "int32")), "same name"),
    "map without keys": (struct(("m", {"type": "map", "values": {"type": "string"}})), "keys"),
    "decimal without a scale": (
        struct(("d", {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"})),
        "without a scale",
    ),
    "too deep": (nested(MAX_DEPTH + 1), "deeper than 32"),
    "too many types": (struct(*((f"f{n}", "string") for n in range(MAX_TYPES))), "more than 5,000"),
}


@pytest.mark.parametrize(("schema", "detail"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
def test_a_schema_that_is_none_is_refused(schema, detail):
    """Each of its records gets the same error, and it is checked once."""
    seen = Seen()
    for _ in range(2):
        with pytest.raises(DecodeError, match=detail):
            seen.read({"schema": schema, "payload": {}})
    assert seen.definitions == []
    assert len(seen.reader._known) == 1


def test_a_schema_as_deep_as_allowed_is_used():
    """The limit is the deepest that is read."""
    payload: object = "x"
    for _ in range(MAX_DEPTH - 2):
        payload = [payload]
    assert Seen().read({"schema": nested(MAX_DEPTH), "payload": {"f": payload}}) == {"f": payload}


def test_what_the_mapping_does_not_understand_is_the_result_of_each_record():
    """As for a schema of a registry."""
    error = DecodeError((Reason.ENVELOPE_UNKNOWN,), "not a contact")

    def make(_):
        raise error

    reader = JsonReader(make)
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            reader(b'{"a": 1}', RECORD)
        assert caught.value is error


# ---- without a schema ----


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"schema": None, "payload": it}], ids=["bare", "wrapped"])
def test_without_a_schema_the_values_tell_their_types(wrap):
    """Also where the envelope says that there is none."""
    document = {
        "s": "x",
        "n": None,
        "b": False,
        "i": 7,
        "f": 0.5,
        "o": {"x": 1},
        "l": ["a", "b"],
        "m": [1, None],
        "e": [],
    }
    seen = Seen()
    assert seen.read(wrap(document)) == document
    types = {field["name"]: field["type"] for field in seen.definitions[0]["fields"]}
    assert types == {
        "s": "string",
        "n": "null",
        "b": "boolean",
        "i": "long",
        "f": "double",
        "o": {"type": "record", "name": "record_2", "fields": [{"name": "x", "type": "long"}]},
        "l": {"type": "array", "items": "string"},
        "m": {"type": "array", "items": ["null", "long"]},
        "e": {"type": "array", "items": []},
    }


def test_records_of_one_shape_share_a_mapping():
    """Other values of the same types are no news; a field that is null once is."""
    seen = Seen()
    for document in ({"a": 1}, {"a": 2}, {"a": None}):
        seen.read(document)
    assert len(seen.definitions) == 2


BAD_DOCUMENTS = {
    "no JSON": (b"{" + EMAIL.encode(), "not JSON"),
    "invalid UTF-8": (b'{"a": "\xff"}', "not JSON"),
    "lone surrogate": (b'{"a": "\\ud800"}', "not JSON"),
    "a number without end": (b'{"a": 1e999}', "not JSON"),
    "a list": ([1], "not an object"),
    "a text": ("x", "not an object"),
    "nested beyond the parser": (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "not JSON"),
    "nested beyond a schema": (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, "deeper than 32"),
    "too many values": (b'{"a": [' + b"[]," * MAX_VALUES + b"[]]}", "more than 100,000 values"),
    "a text that may be an outbox's": ("{}", "table.expand.json.payload=true"),
    "the same with a schema": ({"schema": {"type": "string"}, "payload": "{}"}, "table.expand.json.payload=true"),
    "a payload that is none": ({"schema": None, "payload": "x"}, "not an object"),
}


@pytest.mark.parametrize(("document", "detail"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_bad_document_is_refused(document, detail):
    """With a reason that quotes nothing of it."""
    assert detail in refusal(document)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
CONNECT_TYPES = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["int8", "int64", "string", "bytes", "double", "boolean", "?"])}),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.builds(
            lambda kinds: struct(*((f"f{n}", kind) for n, kind in enumerate(kinds))), st.lists(inner, max_size=3)
        )
    ),
    max_leaves=8,
)


@given(JSON_VALUES, st.none() | CONNECT_TYPES | JSON_VALUES)
@settings(max_examples=500)
def test_any_document_is_read_or_refused(payload, schema):
    """Nothing but a `DecodeError` comes out, whatever stands in the payload or the schema."""
    for document in (payload, {"schema": schema, "payload": payload}):
        try:
            assert isinstance(Seen().read(document), dict)
        except DecodeError as error:
            assert error.detail  # noqa: PT017  # raising is not a must


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 260, 1000])
def test_a_schema_of_any_depth_is_refused_as_such(depth):
    """Also one that orjson reads and does not write."""
    value = b'{"schema": ' + b"[" * depth + b"]" * depth + b', "payload": {}}'
    with pytest.raises(DecodeError):
        Seen().read(value)
