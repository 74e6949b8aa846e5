"""Records that tell of no contact, or of several: how they end, and what a crash leaves."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from consumer.core.audit import Auditor
from consumer.core.decode import Decoded
from consumer.core.validate import validate
from consumer.errors import SinkUnavailable
from consumer.model import ChangeEvent, Record, TopicPartition
from consumer.pipeline import back_pressure, intake, told as told_by
from consumer.pipeline.quarantine import Quarantine
from tests.envelopes import COLUMNS, MAPPING, ROW, TIME_MS, TOPIC, encoded, record_type
from tests.lives import Life, in_life, live, survive
from tests.memory_ports import MemorySchemas, MemorySink, World, outage
from tests.virtual_time import passes, until

PARTITION = TopicPartition(TOPIC, 0)
HEARTBEAT = record_type("Heartbeat", {"ts_ms": "long"}, namespace="io.debezium.connector.common")
SALESFORCE = record_type(
    "LeadChangeEvent",
    {
        "ChangeEventHeader": record_type(
            "Header",
            {
                "recordIds": {"type": "array", "items": "string"},
                "changeType": "string",
                "commitTimestamp": "long",
                "sequenceNumber": "int",
            },
        ),
        "MobilePhone": ["null", "string"],
        "Email": ["null", "string"],
        "DoNotCall": ["null", "boolean"],
        "Call_Consent__c": ["null", "boolean"],
    },
)
ROWS = record_type(
    "Envelope",
    {
        "before": ["null", record_type("Value", COLUMNS)],
        "after": ["null", "Value"],
        "source": record_type("Source", {"ts_ms": "long", "lsn": "long"}),
        "op": "string",
    },
)
SCHEMAS = {1: SALESFORCE, 2: HEARTBEAT, 3: ROWS}
QUICK: dict[str, Any] = {"batch_linger_ms": 20, "settle_interval_ms": 10}


def lead(change_type: str, *ids: str, at: int = 1, **fields: object) -> tuple[int, dict[str, object]]:
    """A record of Salesforce about these contacts."""
    header = {"recordIds": ids, "changeType": change_type, "commitTimestamp": TIME_MS + at, "sequenceNumber": 1}
    body = {"MobilePhone": "+15550100", "Email": None, "DoNotCall": False, "Call_Consent__c": True}
    if change_type != "CREATE":
        body = dict.fromkeys(body)
    return 1, {"ChangeEventHeader": header, **body, **fields}


def row(op: str, before: object, after: object, lsn: int, at: int = 0) -> tuple[int, dict[str, object]]:
    """A record of Debezium."""
    return 3, {"before": before, "after": after, "source": {"ts_ms": TIME_MS + at, "lsn": lsn}, "op": op}


def told(*values: tuple[int, dict[str, object]]) -> World:
    """A world with these records."""
    world = World()
    world.log[PARTITION] = []
    tell(world, *values)
    return world


def tell(world: World, *values: tuple[int, dict[str, object]]) -> None:
    """Append records."""
    start = len(world.log[PARTITION])
    for offset, (schema_id, fields) in enumerate(values, start):
        value = b"\0" + schema_id.to_bytes(4, "big") + encoded(SCHEMAS[schema_id], fields)
        world.append([Record(*PARTITION, offset, TIME_MS, b"key", value)])


def schemas() -> MemorySchemas:
    """All that the records were written with."""
    return MemorySchemas({key: [json.dumps(schema)] for key, schema in SCHEMAS.items()})


def run(world: World, envelope: str = "salesforce", **changed: Any) -> Life:
    """One whole life."""
    return live(world, schemas(), source_envelope=envelope, **QUICK, **changed)


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, str]:
    """Settings for rows of Debezium."""
    values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in MAPPING.items() if isinstance(value, str))
    flags = '[default.consent]\npath = "consent"\nvalues = { granted = true, denied = false }\n'
    path = tmp_path / "mapping.toml"
    path.write_text(f'[default]\n{values}\ndo_not_call = {{ path = "dnc", values = {{ N = false }} }}\n{flags}')
    return {"envelope": "debezium", "source_mapping": str(path)}


def outcomes(world: World) -> list[Any]:
    """Outcomes in the order of the audit topic."""
    return [event["outcome"] for event in world.events()]


def pseudonyms(*external_ids: str) -> list[str]:
    """As audit events name these contacts."""
    auditor = Auditor(MemorySink.contact_list_id, b"key")
    return [auditor.pseudonym(external_id) for external_id in external_ids]


def assert_whole(world: World, records: int) -> None:
    """One audit event for each offset, the chain unbroken, everything committed."""
    assert [event["source"]["offset"] for event in world.events()] == [*range(records)]
    assert world.committed == {PARTITION: records}
    prev = "0" * 64
    for _, value in world.audit:
        event = orjson.loads(value)
        if event["type"] == "record":
            body, _, _ = value.rpartition(b',"hash":"')
            assert event["prev"] == prev
            prev = event["hash"]
            assert hashlib.sha256(body + b"}").hexdigest() == prev


def test_records_about_no_contact_are_ignored() -> None:
    """Their offsets are settled; nothing is sent, and nothing is a dead letter."""
    world = told((2, {"ts_ms": 1}), (2, {"ts_ms": 2}))
    life = run(world, "debezium")
    assert_whole(world, 2)
    assert outcomes(world) == ["ignored"] * 2
    assert (world.requested, world.dead_letters) == ([], [])
    assert [record.outcome for record in life.telemetry.settled_records] == ["ignored"] * 2


def test_a_record_of_several_contacts_delivers_each_and_ends_once() -> None:
    """One audit event names them all, as its parts."""
    world = told(lead("CREATE", "a", "b", "c"))
    run(world)
    assert_whole(world, 1)
    assert {*world.list} == {"a", "b", "c"}
    (event,) = world.events()
    assert (event["outcome"], event["operation"], event["contactRef"]) == ("delivered", "upsert", None)
    assert [part["contactRef"] for part in event["parts"]] == pseudonyms("a", "b", "c")
    assert {part["outcome"] for part in event["parts"]} == {"delivered"}
    assert event["batchId"] == world.events("batch")[0]["batchId"]


def test_the_same_record_again_is_a_duplicate() -> None:
    """The states of all its contacts were settled."""
    world = told(lead("CREATE", "a", "b"), lead("CREATE", "a", "b", at=2))
    run(world, batch_max_records=2, genesys_max_in_flight=1)
    tell(world, lead("CREATE", "a", "b", at=3))
    run(world)
    assert outcomes(world)[-1] == "duplicate"
    assert {*world.list} == {"a", "b"}


def test_the_weightiest_part_decides() -> None:
    """One contact was there already, one is new, one is refused: the record is undeliverable, a dead letter once."""
    world = told(lead("CREATE", "a"))
    run(world)
    world.poison = {"c"}
    tell(world, lead("CREATE", "a", "b", "c", at=2))
    run(world)
    assert_whole(world, 2)
    event = world.events()[-1]
    assert (event["outcome"], event["reasons"]) == ("undeliverable", ["genesys:contact.datum.length.limit.exceeded"])
    assert [part["outcome"] for part in event["parts"]] == ["duplicate", "delivered", "undeliverable"]
    assert len(world.dead_letters) == 1
    assert {*world.list} == {"a", "b"}


def test_every_part_breaks_the_rules_and_withdraws() -> None:
    """A bad phone beside a withdrawn consent: those that are there are suppressed, and the record is rejected once."""
    world = told(lead("CREATE", "a", "b"))
    run(world)
    tell(world, lead("CREATE", "a", "b", "new", at=2, MobilePhone="?", Call_Consent__c=False))
    run(world)
    assert_whole(world, 2)
    event = world.events()[-1]
    assert (event["outcome"], event["reasons"]) == ("rejected", ["phone_not_e164"])
    assert {contact["callable"] for contact in world.list.values()} == {False}
    assert [reason for _, reason in world.dead_letters] == ["phone_not_e164"]


def test_after_a_gap_a_contact_is_not_called() -> None:
    """Nobody knows what changed: it is suppressed, and the dead letter asks for it to be sent again."""
    world = told(lead("CREATE", "a", "b"))
    run(world)
    tell(world, lead("GAP_UPDATE", "a", at=2))
    run(world)
    assert {name: contact["callable"] for name, contact in world.list.items()} == {"a": False, "b": True}
    assert (world.events()[-1]["outcome"], world.events()[-1]["operation"]) == ("rejected", "suppress")
    assert [reason for _, reason in world.dead_letters] == ["resync_needed"]
    tell(world, lead("CREATE", "a", at=3))
    run(world)
    assert world.list["a"]["callable"] is True


def test_a_changed_id_deletes_and_creates(rows: dict[str, str]) -> None:
    """The two are in requests of their own, with batches of their own; the withdrawn consent goes along."""
    world = told(row("c", None, ROW | {"id": 6}, 1))
    run(world, **rows)
    tell(world, row("u", ROW | {"id": 6}, ROW | {"consent": "denied"}, 2))
    run(world, **rows)
    assert_whole(world, 2)
    assert {name: contact["callable"] for name, contact in world.list.items()} == {"7": False}
    parts = world.events()[-1]["parts"]
    assert [(part["operation"], part["outcome"]) for part in parts] == [
        ("delete", "delivered"),
        ("upsert", "delivered"),
    ]
    batches = [event["batchId"] for event in world.events("batch")]
    assert len(batches) == len(set(batches)) == 3


def test_a_withdrawal_after_a_failover_applies_and_a_grant_waits(rows: dict[str, str]) -> None:
    """The log begins anew: who withdraws is not called; a grant needs a position above all that were known."""
    world = told(row("c", None, ROW, 1000))
    run(world, **rows)
    tell(world, row("u", None, ROW | {"consent": "denied"}, 5, at=1), row("u", None, ROW, 6, at=2))
    with capture_logs() as logs:
        run(world, **rows)
    assert outcomes(world) == ["delivered", "delivered", "stale"]
    assert world.list["7"]["callable"] is False
    assert [entry["record"] for entry in logs if entry["event"] == "source_order_went_back"] == [f"{TOPIC}/0/1"]
    tell(world, row("u", None, ROW, 1001, at=3))
    run(world, **rows)
    assert outcomes(world)[-1] == "delivered"
    assert world.list["7"]["callable"] is True


def test_a_withdrawal_of_several_is_told_as_one() -> None:
    """Telemetry learns how long it took, once."""
    world = told(lead("CREATE", "a", "b"))
    run(world)
    tell(world, lead("DELETE", "a", "b", at=2))
    life = run(world)
    assert world.list == {}
    assert [(record.outcome, record.withdrawal) for record in life.telemetry.settled_records] == [("delivered", True)]
    assert life.telemetry.settled_records[0].applied_at is not None


STORY = [
    lead("CREATE", "a", "b", "c"),
    lead("CREATE", "b", "c", "d", at=2, MobilePhone="+15550111"),
    lead("DELETE", "a", "d", at=3),
    lead("GAP_UPDATE", "b", at=4),
]


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_crash_anywhere_loses_no_part(after_effect: bool) -> None:
    """Wherever the process dies, each offset ends once and the list is what the records say."""
    step, died = 0, True
    while died:
        step += 1
        world = told(*STORY)
        settings = {"source_envelope": "salesforce", "batch_max_records": 1, **QUICK}
        died = survive(world, step, after_effect=after_effect, schemas=schemas(), **settings)
        world.die_at = None
        run(world)
        assert_whole(world, len(STORY))
        assert {name: (contact["phone"], contact["callable"]) for name, contact in world.list.items()} == {
            "b": ("+15550111", False),
            "c": ("+15550111", True),
        }
    assert step > 8


def test_parts_of_a_partition_that_moves_are_forgotten() -> None:
    """Those that are not sent yet are sent by the next owner; the record has one audit event."""
    world = told(lead("CREATE", *"abcdef"))
    world.answer = outage(3, SinkUnavailable("no answer"))

    async def move(life: Life) -> None:
        await until(lambda: len(world.requested) > 0)
        await life.source.revoke([PARTITION])
        life.source.assign([PARTITION])
        await until(lambda: world.committed.get(PARTITION) == 1)

    in_life(world, move, schemas(), source_envelope="salesforce", batch_max_records=2, **QUICK)
    assert_whole(world, 1)
    assert {*world.list} == {*"abcdef"}


def _names(events: Sequence[dict[str, Any]]) -> set[str]:
    return {name for event in events for name in event}


def test_an_event_of_one_contact_has_no_parts() -> None:
    """Readers that know nothing of parts read on."""
    world = told(lead("CREATE", "a"))
    run(world)
    assert "parts" not in _names(world.events())
    assert world.events()[0]["contactRef"] == pseudonyms("a")[0]


def test_contacts_are_judged_a_few_at_a_time_however_few_records_tell_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes and requests have their turn between; a record is never torn."""
    monkeypatch.setattr(told_by, "CONTACTS_AT_ONCE", 25)
    judged: list[int] = []

    def validated(events: Sequence[ChangeEvent], columns: Sequence[tuple[str, str]]) -> list[Any]:
        judged.append(len(events))
        return validate(events, columns)

    decode = Quarantine.decode
    decoded: list[int] = []

    def noted(subject: Quarantine, records: Sequence[Record], *more: Any) -> Decoded:
        done = decode(subject, records, *more)
        decoded.append(sum(len(each) for each in done.results if isinstance(each, tuple)))
        return done

    monkeypatch.setattr(intake, "validate", validated)
    monkeypatch.setattr(Quarantine, "decode", noted)
    ids = [[f"0030000000{record:05}{n:03}" for n in range(10)] for record in range(20)]
    many = lead("CREATE", *(f"0030000009{n:05}AAA" for n in range(60)))
    world = told(*(lead("CREATE", *each) for each in ids), many, lead("CREATE", "003000000000001AAA"))
    world.poll_records = 100
    run(world)
    assert len(world.list) == 261
    assert outcomes(world) == ["delivered"] * 22
    assert [count for count in judged if count] == [20] * 10 + [60, 1]
    assert sum(decoded) <= 2 * (20 * 10 + 60 + 1) + 20 * 10 + 60
    assert world.committed == {PARTITION: 22}


def test_records_about_many_contacts_hold_their_partition_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contact takes room while it is under way, however short the record."""
    monkeypatch.setattr(back_pressure, "READ_AHEAD_BYTES", 100_000)
    world = told(*(lead("CREATE", *(f"0030000000{record:05}{n:03}" for n in range(50))) for record in range(20)))
    world.poll_records = 1
    world.latency = 100.0
    held: list[int] = []

    async def look(life: Life) -> None:
        await until(lambda: bool(world.requested))
        await passes(10)
        held.append(life.pipeline.partitions.unsettled)
        world.latency = 0.01
        await until(lambda: len(world.list) == 1000)

    in_life(world, look, schemas(), source_envelope="salesforce", **QUICK)
    assert held[0] <= 6
