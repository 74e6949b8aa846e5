"""`check --explain`: what a record becomes, step by step, and where its way ends."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from consumer import cli
from consumer.cli import output
from consumer.model import Record, TopicPartition
from consumer.operate import explain
from tests.captured import captured
from tests.envelopes import COLUMNS, ROW, TIME_MS, encoded, record_type, sample
from tests.lives import settings
from tests.stories import Event

MAPPING = """
[default]
external_id = "id"
phone = "phone"
email = "email"
consent = { path = "consent", values = { granted = true, denied = false } }
do_not_call = { path = "dnc", values = { Y = true, N = false } }
"""
ENVELOPE = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "lsn": "long"}),
        "op": "string",
    },
    namespace="crm.public.customers",
)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Each command sets logging up, for its own process."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def debezium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings for rows of Debezium; the folder that they are in."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "GENESYS_CONTACT_LIST", "SCHEMA_REGISTRY_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    (tmp_path / "ids.json").write_text('{"5": "envelope.avsc"}')
    (tmp_path / "envelope.avsc").write_text(json.dumps(ENVELOPE))
    for name, value in {"ENVELOPE": "debezium", "MAPPING": str(tmp_path / "mapping.toml")}.items():
        monkeypatch.setenv(f"SOURCE_{name}", value)
    monkeypatch.setenv("SCHEMAS_DIR", str(tmp_path))
    return tmp_path


def written(folder: Path, value: bytes) -> str:
    """A file with a record's value."""
    path = folder / "record"
    path.write_bytes(value)
    return str(path)


def change(folder: Path, op: str = "u", **changes: object) -> str:
    """A file with a change of a row."""
    fields = {"op": op, "before": None, "after": ROW | changes, "source": {"ts_ms": TIME_MS, "lsn": 500}}
    return written(folder, b"\0\0\0\0\5" + encoded(ENVELOPE, fields))


def test_a_row_is_followed_to_the_end(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage has its mark, and says what it saw."""
    assert cli.main(["check", "--explain", change(debezium), "--topic", "customers"]) == 0
    told = capsys.readouterr().out
    assert told == TEXT, told


def test_a_topic_that_is_no_source_is_told(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would be read as a record of any topic, and nobody would know that the name was mistyped."""
    cli.main(["check", "--explain", change(debezium), "--topic", "custommers"])
    assert "topic_is_no_source" in capfd.readouterr().err
    monkeypatch.setenv("KAFKA_SOURCE_TOPICS", "customers")
    cli.main(["check", "--explain", change(debezium), "--topic", "customers"])
    cli.main(["check", "--explain", change(debezium)])
    assert "topic_is_no_source" not in capfd.readouterr().err


TEXT = """\
✓ record         71 bytes, of customers
✓ framing        confluent, schema 5
✓ schema         crm.public.customers.Envelope
✓ envelope       debezium, mapping [default]
✓ fields         before = null
                 after.id = 7
                 after.phone = '+14155550100'
                 after.email = 'jane@example.com'
                 after.consent = 'granted'
                 after.dnc = 'N'
                 after.city = 'Zürich'
                 source.ts_ms = 1700000000000
                 source.lsn = 500
                 op = 'u'
✓ change event   UPDATE of '7'
                 at 2023-11-14T22:13:20.000Z, version 500
                 phone = '+14155550100'
                 email = 'jane@example.com'
                 consent = true
                 do_not_call = false
✓ rules          all kept
✓ in Genesys     upsert
"""


def explained(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> dict[str, Any]:
    """Lines of each step, by name, with its mark in front."""
    assert cli.main(["check", "--output", "json", "--explain", *arguments]) == code
    return {step["name"]: [step["passed"], *step["lines"]] for step in json.loads(capsys.readouterr().out)}


def test_a_key_that_names_the_contact_is_read_as_the_settings_say(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a schema of its own."""
    (debezium / "mapping.toml").write_text(MAPPING.replace('"id"', '"@key"'))
    (debezium / "ids.json").write_text('{"5": "envelope.avsc", "97": "key.avsc"}')
    (debezium / "key.avsc").write_text('"string"')
    monkeypatch.setenv("SOURCE_KEY", "avro")
    steps = explained(capsys, change(debezium), "--key", "\0\0\0\0a\x04c1", code=0)
    assert steps["change event"][1] == "UPDATE of 'c1'"


def test_a_broken_rule_is_named_and_what_is_done_all_the_same(
    debezium: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A withdrawal beside a bad phone number suppresses."""
    steps = explained(capsys, change(debezium, phone="?", consent="denied"), code=1)
    assert steps["rules"] == [False, "rejected: phone_not_e164", "phone: text of 1 characters"]
    assert steps["in Genesys"] == [True, "suppress, goes first: the person must not be called"]


def test_a_null_that_may_have_come_as_a_default_is_told(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the record itself nobody can tell."""
    monkeypatch.delenv("SOURCE_MAPPING")
    monkeypatch.setenv("SOURCE_FRAMING", "json")
    value = captured("null as default").value
    assert value is not None
    steps = explained(capsys, written(debezium, value), code=0)
    assert steps["envelope"][2].endswith("consent may be null, and its default is true: drop the column's default")


def test_headers_that_nobody_looked_at_are_told(debezium: Path) -> None:
    """As in the dead letter of such a record."""
    steps = asyncio.run(explain.explain(captured("bare, with headers of Apicurio"), settings(schemas_dir=debezium)))
    told = "neither the registry nor SCHEMAS_DIR knows it; the record has headers apicurio.value.…: "
    assert list(steps[-1].lines) == ["rejected: schema_unknown", f"{told}SOURCE_FRAMING=apicurio"]


def test_a_record_that_only_breaks_rules_does_nothing(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that it is a dead letter."""
    steps = explained(capsys, change(debezium, phone="?"), code=1)
    assert steps["in Genesys"] == [False, "nothing; the record is a dead letter"]


def test_the_way_ends_at_the_stage_that_refuses(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and nothing after it."""
    steps = explained(capsys, change(debezium, op="x"), code=1)
    assert steps["change event"] == [False, "rejected: not_decodable", "op is not one that Debezium knows"]
    assert "rules" not in steps
    unframed = explained(capsys, written(debezium, b"{}"), code=1)
    assert [*unframed] == ["record", "framing"]


def test_a_truncate_trips_the_fuse(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so before it says that the record is rejected, and which release it needs, or that it has it."""
    rejected = ["rejected: resync_needed", "the table was truncated: whoever is gone must be deleted by the CRM"]
    path = change(debezium, op="t", after=None)
    trips = "trips the fuse: customers stands still until FUSE_RELEASES has "
    steps = explained(capsys, path, "--topic", "customers", code=1)
    assert steps["change event"] == [False, trips + "its topic and time", *rejected]
    record = Record("customers", 0, 4, TIME_MS + 1, b"7", Path(path).read_bytes())
    monkeypatch.setattr(explain, "read_one", lambda *_: record)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:9092")
    monkeypatch.setenv("KAFKA_SOURCE_TOPICS", "customers")
    steps = explained(capsys, "customers/0/4", code=1)
    assert steps["change event"] == [False, trips + "customers@2023-11-14T22:13:21Z", *rejected]
    monkeypatch.setenv("FUSE_RELEASES", "customers@2023-11-14T22:13:21Z")
    steps = explained(capsys, "customers/0/4", code=1)
    assert steps["change event"] == [False, "passes the fuse: it was released", *rejected]


def test_a_truncate_without_a_time_is_not_released_unless_that_is_said(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is released by default, and a release of a time is not one of what has none."""
    record = Record("customers", 0, 4, -1, b"7", Path(change(debezium, op="t", after=None)).read_bytes())
    monkeypatch.setattr(explain, "read_one", lambda *_: record)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:9092")
    monkeypatch.setenv("KAFKA_SOURCE_TOPICS", "customers")
    said = [explained(capsys, "customers/0/4", code=1)["change event"][1]]
    for released in ("2023-11-14T22:13:21Z", "1970-01-01T00:00:00Z"):
        monkeypatch.setenv("FUSE_RELEASES", f"customers@{released}")
        said.append(explained(capsys, "customers/0/4", code=1)["change event"][1])
    trips = "trips the fuse: customers stands still until FUSE_RELEASES has customers@1970-01-01T00:00:00Z"
    assert said == [trips, trips, "passes the fuse: it was released"]


def test_a_schema_that_nobody_knows_is_said(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is looked for where the program looks."""
    steps = explained(capsys, written(debezium, b"\0\0\0\0\6x"), code=1)
    assert steps["schema"] == [
        False,
        "rejected: schema_unknown",
        "neither the registry nor SCHEMAS_DIR knows it",
    ]


def test_a_record_about_nobody_is_ignored(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is no failure."""
    steps = explained(capsys, change(debezium, op="m"), code=0)
    assert steps["change event"][1].endswith("ignored")


def test_each_of_several_change_events_is_told(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a number."""
    fields = {"op": "u", "before": ROW | {"id": 6}, "after": ROW, "source": {"ts_ms": TIME_MS, "lsn": 500}}
    steps = explained(capsys, written(debezium, b"\0\0\0\0\5" + encoded(ENVELOPE, fields)), code=0)
    assert steps["in Genesys 1"] == [True, "delete, goes first: the person must not be called"]
    assert steps["in Genesys 2"] == [True, "upsert"]


def test_json_is_followed_like_avro(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record of AWS' service, whose names Avro would not take."""
    monkeypatch.setenv("SOURCE_FRAMING", "json")
    monkeypatch.setenv("SOURCE_ENVELOPE", "dms")
    metadata = {"timestamp": "2023-11-14T22:13:20Z", "record-type": "data", "operation": "update"}
    record = written(debezium, json.dumps({"data": ROW, "metadata": metadata}).encode())
    steps = explained(capsys, record, code=0)
    assert steps["envelope"] == [True, "dms, mapping [default]"]
    assert "metadata.record-type = 'data'" in steps["fields"]
    assert steps["change event"][1] == "UPDATE of '7'"


@pytest.mark.parametrize("envelope", ["dms", "flattened", "debezium"])
def test_mapped_fields_that_a_record_does_not_have_are_named(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], envelope: str
) -> None:
    """A path may be mistyped, and an optional field would be told of nobody; in JSON nothing else says so."""
    typos = MAPPING.replace('"email"', '"e_mial"') + 'attributes = { city = "town", segment = ["kind", "city"] }\n'
    (debezium / "mapping.toml").write_text(typos)
    monkeypatch.setenv("SOURCE_FRAMING", "json")
    monkeypatch.setenv("SOURCE_ENVELOPE", envelope)
    metadata = {"timestamp": "2023-11-14T22:13:20Z", "record-type": "data", "operation": "update"}
    fields = {
        "dms": {"data": ROW, "metadata": metadata},
        "flattened": ROW,
        "debezium": {"op": "u", "before": None, "after": ROW, "source": {"ts_ms": TIME_MS, "lsn": 500}},
    }
    steps = explained(capsys, written(debezium, json.dumps(fields[envelope]).encode()), code=0)
    chosen = f"{envelope}, mapping [default]"
    assert steps["envelope"] == [True, chosen, "not there: email (e_mial)", "not there: attributes.city (town)"]


@pytest.mark.usefixtures("debezium")
def test_a_tombstone_deletes_whom_its_key_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no file of one: it is read from Kafka, here from a topic that is played."""
    monkeypatch.setattr(explain, "read_one", lambda *_: Record("customers", 0, 4, TIME_MS, b"7", None))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:9092")
    steps = explained(capsys, "customers/0/4", code=0)
    assert steps["framing"] == [True, "of the key, schema none:text"]
    assert steps["in Genesys"] == [True, "delete, goes first: the person must not be called"]


def test_a_record_is_read_under_the_name_of_the_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No ACL knows another name."""
    asked: list[object] = []

    def read_one(_: object, *place: object) -> Record:
        asked.extend(place)
        return Record("customers", 0, 4, TIME_MS, b"7", Event("c-1", 7).value())

    monkeypatch.setattr(explain, "read_one", read_one)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "nowhere:9092")
    monkeypatch.setenv("KAFKA_GROUP_ID", "ours")
    explained(capsys, "customers/0/4", code=0)
    assert asked == ["ours", TopicPartition("customers", 0), 4]


def test_a_native_event_needs_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The packaged schema and envelope are the default."""
    steps = explained(capsys, written(tmp_path, Event("c-1", 7).value() or b""), code=0)
    assert steps["envelope"] == [True, "native"]
    assert steps["change event"][1] == "UPDATE of 'c-1'"


@pytest.mark.parametrize(
    "record", ["nowhere", "topic/x/1", "topic/0/99999999999999999999", "topic/9999999999/0", f"topic/0/{'9' * 5000}"]
)
def test_a_record_that_is_not_there_is_exit_code_1(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be one."""
    assert cli.main(["check", "--explain", record]) == 1
    assert "neither a file nor topic/partition/offset" in capsys.readouterr().err


def test_a_record_of_kafka_needs_brokers_and_a_file_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so at once; a file may have a name like a place in a topic."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "--explain", "t/0/4"]) == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: required" in capsys.readouterr().err
    (tmp_path / "t" / "0").mkdir(parents=True)
    (tmp_path / "t" / "0" / "4").write_bytes(Event("c-1", 7).value() or b"")
    assert cli.main(["check", "--explain", "t/0/4"]) == 0


def test_a_wrong_mapping_is_exit_code_2(debezium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when the program starts."""
    (debezium / "mapping.toml").write_text('[default]\nphone = "phone"\n')
    assert cli.main(["check", "--explain", change(debezium)]) == 2
    assert "SOURCE_MAPPING: [default] consent: must be there" in capsys.readouterr().err


def test_the_real_sample_of_salesforce_asks_for_a_consent_field(
    debezium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the ready-made mapping, which says what is missing."""
    schema = sample("salesforce_contact_change_event.avsc")
    (debezium / "envelope.avsc").write_text(json.dumps(schema))
    header = {field["name"]: "" for field in schema["fields"][0]["type"]["fields"]}
    lists: dict[str, object] = {name: [] for name in ("recordIds", "nulledFields", "diffFields", "changedFields")}
    numbers = dict.fromkeys(["sequenceNumber", "commitTimestamp", "commitNumber"], 1)
    fields = dict.fromkeys(field["name"] for field in schema["fields"])
    event = fields | {"ChangeEventHeader": header | lists | numbers | {"changeType": "CREATE"}}
    monkeypatch.setenv("SOURCE_ENVELOPE", "salesforce")
    monkeypatch.delenv("SOURCE_MAPPING")
    steps = explained(capsys, written(debezium, b"\0\0\0\0\5" + encoded(schema, event)), code=1)
    assert "SOURCE_MAPPING names for consent" in steps["envelope"][2]


@pytest.mark.parametrize("option", [["--topic", "customers"], ["--key", ""]])
def test_what_only_a_file_needs_is_refused_beside_a_position(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be ignored: the record of Kafka has its own."""
    assert cli.main(["check", "--explain", "customers/0/4", *option]) == 2
    assert "--topic and --key say what a file does not" in capsys.readouterr().err


def test_log_lines_have_the_form_of_the_settings(debezium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to standard error, as those of the other commands."""
    formats: list[str | None] = []

    @contextmanager
    def logged(_: str, format_: str | None, *, fd: int = 2) -> Iterator[None]:
        formats.append(format_)
        assert fd == 2
        yield

    monkeypatch.setattr(output, "logged", logged)
    monkeypatch.setenv("LOG_FORMAT", "json")
    assert cli.main(["check", "--explain", change(debezium), "--topic", "customers"]) == 0
    assert formats == ["json"]
