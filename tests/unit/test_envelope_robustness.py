"""Whatever stands in the fields of a record, an envelope answers with change events or a `DecodeError`."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

from consumer.core.envelopes.native import native
from consumer.core.validate import validate
from consumer.errors import DecodeError
from consumer.model import ChangeEvent, Reason, Record
from consumer.pipeline.readers import make_reader
from consumer.settings import packaged_schemas
from tests.envelopes import COLUMNS, MAPPING, TIME_MS, TOPIC, envelopes, record_type, sample

pytestmark = pytest.mark.no_cover  # fields made up reach lines by chance

ANY = ["null", "string", "bytes", "long", "double", "boolean"]
"""What a field may hold, so that nothing of the schema keeps a value out."""

NAMES = st.sampled_from(
    ["c", "u", "d", "r", "CREATE", "UPDATE", "DELETE", "GAP_UPDATE", "insert", "true", "0x1", "3-0x1"]
)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(max_size=8) | NAMES
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
OTHERS = SIMPLE | st.lists(SIMPLE, max_size=3)
"""What may stand in place of a record; one of a schema has all its fields."""


def row(columns):
    """A row with any values."""
    return st.fixed_dictionaries(dict.fromkeys(columns, VALUES))


_SALESFORCE = sample("salesforce_contact_change_event.avsc")
_HEADER = [field["name"] for field in _SALESFORCE["fields"][0]["type"]["fields"]]
_BODY = [field["name"] for field in _SALESFORCE["fields"][1:]]
_FLAT = {**COLUMNS, "__op": ANY, "__deleted": ANY, "__lsn": ANY, "__source_ts_ms": ANY}
_SOURCE = ["ts_ms", "file", "pos", "commit_lsn", "scn", "ord", "lsn"]
_OF_SALESFORCE = {"phone": "MobilePhone", "consent": "Level__c", "do_not_call": "DoNotCall", "email": "Name.FirstName"}
_OUTBOX = MAPPING | {"version": "city", "occurred_at": "email", "external_id": "@key"}

FORMATS = {
    "debezium": (
        record_type(
            "Envelope",
            {
                "before": ["null", record_type("Value", COLUMNS)],
                "after": ["null", "Value"],
                "source": record_type("Source", dict.fromkeys(_SOURCE, "long")),
                "op": "string",
            },
        ),
        MAPPING,
        st.fixed_dictionaries(
            {
                "before": OTHERS | row(COLUMNS),
                "after": OTHERS | row(COLUMNS),
                "source": OTHERS | row(_SOURCE),
                "op": VALUES | NAMES,
            }
        ),
    ),
    "flattened": (record_type("Value", _FLAT), MAPPING, row(_FLAT)),
    "salesforce": (
        _SALESFORCE,
        _OF_SALESFORCE,
        st.builds(lambda header, body: body | {"ChangeEventHeader": header}, OTHERS | row(_HEADER), row(_BODY)),
    ),
    "outbox": (record_type("Value", COLUMNS), _OUTBOX, row(COLUMNS)),
    "dms": (
        {},
        MAPPING,
        st.fixed_dictionaries(
            {
                "data": OTHERS | row(COLUMNS) | row([*COLUMNS, "BI_id", "BI_phone"]),
                "metadata": OTHERS | row(["operation", "timestamp", "record-type"]),
            },
            optional={"before-image": OTHERS | row(COLUMNS)},
        ),
    ),
}


@pytest.mark.parametrize("envelope", FORMATS)
@given(data=st.data())
@settings(max_examples=100)
def test_any_fields_have_an_answer(envelope, data):
    """Types that a schema rules out as well: what a decoder lets through must not stop the program."""
    schema, mapping, fields = FORMATS[envelope]
    mapper = envelopes(envelope, mapping).mapper(TOPIC, schema)
    with suppress(DecodeError):
        events = mapper(data.draw(fields), Record(TOPIC, 0, 0, TIME_MS, b"\xff", b""))
        told = (events,) if isinstance(events, ChangeEvent) else events
        assert len(validate(told, [("city", "city")])) == len(told)


def test_whoever_registers_a_schema_stops_nobody() -> None:
    """What nobody thought of when the schemas of an envelope were checked is the result of its records."""
    schema = json.loads((packaged_schemas() / "crm_contact_change.avsc").read_text(encoding="utf-8"))
    when = next(field for field in schema["fields"] if field["name"] == "occurredAt")
    when["type"] = {"type": "long", "logicalType": ["timestamp-millis"]}
    made = make_reader(json.dumps(schema), native)
    assert isinstance(made, DecodeError)
    assert made.reasons == (Reason.NOT_DECODABLE,)
