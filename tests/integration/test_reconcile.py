"""`reconcile` as a command, on real Kafka, real RocksDB and the simulator: drift of each kind is found, then mended."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer import reconcile_app
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.history import KafkaHistory
from consumer.adapters.kafka.topics import ensure
from consumer.core.contact_id import contact_id
from consumer.errors import FatalError
from consumer.model import TopicPartition
from consumer.settings import load, packaged_schemas
from consumer.simulator.app import Simulator
from tests import commands, harvest
from tests.kafka_clients import commit, delete_records, produce, read, settings, transactional
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

PARTITIONS = 4
CONTACTS = 3_000
WITHDRAWN, GONE, SUPPRESSED = (f"contact-{n}" for n in (5, 6, 7))


def _events() -> list[Event]:
    first = [Event(f"contact-{n}", 1, phone=f"+1555{n:06d}") for n in range(CONTACTS)]
    conflict = ("consent_conflicts_with_do_not_call",)
    later = [
        Event(WITHDRAWN, 2, consent=False),
        Event(GONE, 2, delete=True),
        Event(SUPPRESSED, 2, do_not_call=True, reasons=conflict),
    ]
    return first + later


def _partition(external_id: str) -> int:
    return int(external_id.rpartition("-")[2]) % PARTITIONS


def _produce(bootstrap: str, topic: str, events: list[Event]) -> None:
    producer = harvest.producer(bootstrap)
    for event in events:
        producer.produce(topic, event.value(), event.external_id.encode(), _partition(event.external_id))
    assert producer.flush(30) == 0


def _environ(kafka: KafkaCluster, topic: str, simulator: Simulator, state: Path) -> dict[str, str]:
    return commands.environ(kafka.bootstrap, topic, simulator, state, GENESYS_REQUESTS_PER_MINUTE="100000")


async def _reconcile(environ: Mapping[str, str], *arguments: str) -> tuple[int | None, dict[str, Any]]:
    code, out, error = await commands.ended(environ, "reconcile", "--output", "json", *arguments)
    assert code in {0, 3}, error
    return code, orjson.loads(out)


async def _deliver(environ: Mapping[str, str]) -> None:
    code, _, error = await commands.ended(environ, "run", "--until-caught-up")
    assert code == 0, error


def _plant(simulator: Simulator) -> None:
    """What people do in Genesys: 20 deletes, 30 edits, 10 contacts of their own, three that may be called again."""
    contacts = simulator._lists.look_up("list").contacts

    def edit(name: str, *, callable_: bool | None = None, data: Mapping[str, str] | None = None) -> None:
        has = contacts.get(contact_id(name))
        before = has["data"] if has else dict.fromkeys(contacts._columns, "") | {"external_id": name}
        contacts.put(contact_id(name), {"data": before | dict(data or {}), "callable": callable_}, afresh=False)

    for n in range(20):
        contacts.remove(contact_id(f"contact-{100 + n}"))
    for n in range(30):
        edit(f"contact-{200 + n}", data={"phone_number": "+15559"} if n % 2 else {"email": "x@example.org"})
    for n in range(10):
        data = dict.fromkeys(contacts._columns, "") | {"external_id": f"own-{n}" if n % 2 else ""}
        contacts.put(f"own.{n}", {"data": data, "callable": True}, afresh=False)
    for name in (WITHDRAWN, GONE, SUPPRESSED):
        edit(name, callable_=True)
    edit("contact-300", callable_=False)


async def test_drift_is_found_mended_and_then_there_is_none(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Of 3,000 contacts exactly the planted ones; --apply and --delete-extra bring them into step, and nothing else."""
    topic = kafka.create_topic("reconcile", partitions=PARTITIONS)
    _produce(kafka.bootstrap, topic, _events())
    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path)
        await _deliver(environ)
        right = simulator.contacts("list")
        code, report = await _reconcile(environ)
        assert (code, report["drift"], report["rows"]) == (0, 0, CONTACTS - 1)

        _plant(simulator)
        code, report = await _reconcile(environ)
        expected = {
            "callable": 3,
            "missing": 20,
            "drifted": 30,
            "deleted": 0,
            "foreign": 10,
            "unnamed": 5,
            "heldBack": 1,
        }
        assert code == 3
        assert {name: report[name] for name in expected} == expected
        assert report["columns"] == {"phone_number": 15, "email": 15}

        code, report = await _reconcile(environ, "--apply", "--delete-extra")
        done = {"suppressed": 2, "redelivered": 50, "deleted": 11, "inUse": 0, "refused": 0}
        assert (code, report["mended"]) == (3, done)
        code, report = await _reconcile(environ)
        assert (code, report["drift"]) == (0, 0)
        right[contact_id("contact-300")]["callable"] = False
        assert simulator.contacts("list") == right
    events = [
        orjson.loads(message.value() or b"")
        for message in read(kafka.bootstrap, f"{topic}-audit", partitions=PARTITIONS)
    ]
    batches = [event for event in events if event.get("operation") == "reconcile"]
    assert sum(event["recordsOut"] for event in batches) == 63
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]  # noqa: PTH208 -- nothing is awaited here


async def test_with_keys_in_avro_contacts_are_found_by_them(kafka: KafkaCluster, tmp_path: Path) -> None:
    """A deleted one that is there again, and one whose first record is gone: its repeat tells what it should be."""
    topic = kafka.create_topic("reconcile", partitions=1)
    (tmp_path / "contact.avsc").write_bytes((packaged_schemas() / "crm_contact_change.avsc").read_bytes())
    (tmp_path / "key.avsc").write_text('"string"')
    (tmp_path / "ids.json").write_text('{"1": "contact.avsc", "2": "key.avsc"}')
    events = [Event("first", None), *[Event(f"contact-{n}", None) for n in range(5)]]
    events += [Event("contact-1", None, tombstone=True), Event("first", None)]
    producer = harvest.producer(kafka.bootstrap)
    for event in events:
        key = b"\0\0\0\0\2" + bytes([2 * len(event.external_id)]) + event.external_id.encode()
        producer.produce(topic, event.value(), key, 0)
    assert producer.flush(30) == 0
    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path / "state")
        environ |= {"SOURCE_KEY": "avro", "SCHEMAS_DIR": str(tmp_path)}
        await _deliver(environ)
        right = simulator.contacts("list")
        assert len(right) == 5
        code, report = await _reconcile(environ)
        assert (code, report["drift"], report["rows"]) == (0, 0, 5)
        delete_records(kafka.bootstrap, TopicPartition(topic, 0), 1)
        contacts = simulator._lists.look_up("list").contacts
        contacts.remove(contact_id("first"))
        data = dict.fromkeys(contacts._columns, "") | {"external_id": "contact-1"}
        contacts.put(contact_id("contact-1"), {"data": data, "callable": True}, afresh=True)
        code, report = await _reconcile(environ, "--apply", "--delete-extra")
        assert (code, report["missing"], report["callable"], report["sourceGone"]) == (3, 1, 1, 0)
        assert (report["mended"]["redelivered"], report["mended"]["deleted"]) == (1, 1)
        assert simulator.contacts("list") == right


async def test_consumers_may_go_on_but_not_while_it_is_mended(kafka: KafkaCluster, tmp_path: Path) -> None:
    """With members in the group --apply ends with one line that says so; comparing works."""
    topic = kafka.create_topic("reconcile", partitions=PARTITIONS)
    _produce(kafka.bootstrap, topic, _events()[:100])
    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path / "consumer")
        async with commands.started(environ, "run") as consumer:
            await eventually(lambda: simulator.stats()["contacts"].get("applied") == 100, within_s=60)
            own = environ | {"STATE_DIR": str(tmp_path / "own")}
            code, out, error = await commands.ended(own, "reconcile", "--apply")
            assert (code, out) == (1, "")
            assert f"stop the consumers of group {topic}-group first" in error.splitlines()[-1]
            code, report = await _reconcile(own)
            assert (code, report["drift"]) == (0, 0)
            assert consumer.returncode is None


async def test_a_load_that_came_and_went_meanwhile_ends_the_mending(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It withdraws once everything has been read: what was delivered before is not sent again, which granted."""
    topic = kafka.create_topic("reconcile", partitions=1)
    for event in _events()[:5]:
        produce(kafka.bootstrap, topic, [event.value()], key=event.external_id.encode())
    rows = tmp_path / "contacts.csv"
    rows.write_text("externalId,phone,consent,doNotCall,occurredAt\ncontact-3,+15550100,false,false,1900000000000\n")
    ends = KafkaHistory.ends

    async def loaded_meanwhile(history: KafkaHistory) -> Mapping[TopicPartition, int]:
        found = await ends(history)
        code, _, error = await commands.ended(environ, "load", str(rows))
        assert code == 0, error
        return found

    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path / "state") | {"GENESYS_UPLOAD_URL": simulator.url}
        await _deliver(environ)
        contacts = simulator._lists.look_up("list").contacts
        granted = contacts.get(contact_id("contact-3"))
        assert granted is not None
        edited = {"data": granted["data"] | {"phone_number": "+15559"}}
        contacts.put(contact_id("contact-3"), edited, afresh=False)
        monkeypatch.setattr(KafkaHistory, "ends", loaded_meanwhile)
        with pytest.raises(FatalError, match="has moved on since it was read"):
            await reconcile_app.reconcile(load(environ), apply=True, delete_extra=False)
        assert not simulator.contacts("list")[contact_id("contact-3")]["callable"]
        code, report = await _reconcile(environ, "--apply")
        assert (code, report["drift"]) == (0, 0)


async def test_a_wrong_group_or_list_is_refused_and_makes_nothing(kafka: KafkaCluster, tmp_path: Path) -> None:
    """No topic, no list: whoever mistypes a name is told, with exit code 1."""
    topic = kafka.create_topic("reconcile", partitions=PARTITIONS)
    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path)
        code, _, error = await commands.ended(environ, "reconcile")
        assert (code, simulator.lists()) == (1, [])
        assert "GENESYS_CONTACT_LIST" in error
        await _deliver(environ)
        for arguments in ([], ["--apply"]):
            other = environ | {"KAFKA_GROUP_ID": f"{topic}-other"}
            code, _, error = await commands.ended(other, "reconcile", *arguments)
            assert code == 1
            assert "KAFKA_GROUP_ID" in error
    assert (
        f"{topic}-other-dedupe-changelog"
        not in Connection.of(settings(kafka.bootstrap, topic)).admin().list_topics(timeout=10).topics
    )


async def test_history_has_what_a_partition_still_holds(kafka: KafkaCluster) -> None:
    """What retention removed is left out, what was aborted too; it ends past the markers of transactions."""
    topic = kafka.create_topic("history", partitions=2)
    chosen = settings(kafka.bootstrap, topic)
    tp = TopicPartition(topic, 0)
    produce(kafka.bootstrap, topic, [b"0", b"1", b"2"], headers=[("h", b"1")])
    producer = transactional(kafka.bootstrap, f"{topic}-aborted")
    producer.begin_transaction()
    producer.produce(topic, b"aborted", partition=0)
    producer.flush(10)
    producer.abort_transaction()
    delete_records(kafka.bootstrap, tp, 1)
    history = KafkaHistory(Connection.of(chosen), chosen)
    ends = await history.ends()
    assert ends == {tp: 5, TopicPartition(topic, 1): 0}
    assert await history.empty() == [TopicPartition(topic, 1)]
    found = [record async for records in history.read(tp, 0, ends[tp]) for record in records]
    assert [(record.offset, record.value, list(record.headers)) for record in found] == [
        (1, b"1", [("h", b"1")]),
        (2, b"2", [("h", b"1")]),
    ]
    assert [record.offset async for records in history.read(tp, 0, 2) for record in records] == [1]
    delete_records(kafka.bootstrap, tp, 5)
    assert set(await history.empty()) == {tp, TopicPartition(topic, 1)}


async def test_history_sees_what_is_written_into_the_changelog(kafka: KafkaCluster) -> None:
    """Also by a transaction that is open yet; where there is no changelog, none is made."""
    topic = kafka.create_topic("history", partitions=2)
    chosen = settings(kafka.bootstrap, topic)
    history = KafkaHistory(Connection.of(chosen), chosen)
    assert await history.changelog_ends() == {}
    await ensure(Connection.of(chosen), chosen)
    first, second = (TopicPartition(chosen.kafka_changelog_topic, number) for number in range(2))
    for partition, values in ((first, [b"0", b"1"]), (second, [b"0"])):
        produce(kafka.bootstrap, first.topic, values, partition=partition.partition)
    assert await history.changelog_ends() == {first: 2, second: 1}
    producer = transactional(kafka.bootstrap, f"{topic}-open")
    producer.begin_transaction()
    producer.produce(second.topic, b"1", b"key", second.partition)
    producer.flush(10)
    assert await history.changelog_ends() == {first: 2, second: 2}
    producer.abort_transaction()


async def test_history_knows_the_group(kafka: KafkaCluster) -> None:
    """Offsets, 0 where there are none; no members where there is no group."""
    topic = kafka.create_topic("history", partitions=2)
    chosen = settings(kafka.bootstrap, topic)
    history = KafkaHistory(Connection.of(chosen), chosen)
    assert await history.members() == 0
    produce(kafka.bootstrap, topic, [b"0", b"1"])
    commit(kafka.bootstrap, chosen, TopicPartition(topic, 0), 2)
    assert await history.committed() == {TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 0}
    elsewhere = replace(chosen, kafka_group_id=f"{topic}-unknown")
    assert await KafkaHistory(Connection.of(elsewhere), elsewhere).members() == 0
