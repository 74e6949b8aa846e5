"""`load` on real Kafka, real RocksDB and the simulator: killed half way, interrupted, and followed by the stream."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from consumer import settings as consumer_settings
from consumer.adapters.kafka import bounded
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.sampling import PER_PARTITION, newest_records
from consumer.core.partitioner import PARTITIONERS, fitting
from consumer.errors import ConsumerError
from consumer.first_fill.patience import insist
from consumer.model import Record, TopicPartition
from consumer.operate import load as loading
from consumer.operate.load import Loading
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault
from tests import commands
from tests.kafka_clients import QUIET, WITHIN_S, committed, properties, read, settings, watched
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITIONS = 3
ROWS = 12_000
OF_LIBRDKAFKA = {"murmur2": "murmur2", "crc32": "consistent_random", "fnv1a": "fnv1a"}


def keyed(bootstrap: str, topic: str, events: Iterator[Event], partitioner: str = "murmur2") -> None:
    """Put events where a producer with this partitioner puts them."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": OF_LIBRDKAFKA[partitioner], **QUIET})
    for event in events:
        producer.produce(topic, event.value(), event.external_id.encode())
        producer.poll(0)
    assert producer.flush(WITHIN_S) == 0


def contacts(folder: Path, rows: int = ROWS) -> Path:
    """A CSV file in which one row in ten is not to be called, and one in a hundred has a bad phone number."""
    path = folder / "contacts.csv"
    lines = ["externalId,phone,consent,doNotCall"]
    for n in range(rows):
        phone = "bad" if n % 100 == 7 else "+15550100"
        lines.append(f"contact-{n},{phone},{'false' if n % 10 == 3 else 'true'},false")
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def _environ(kafka: KafkaCluster, topic: str, simulator: Simulator, state: Path) -> dict[str, str]:
    """Settings for both commands."""
    return commands.environ(
        kafka.bootstrap,
        topic,
        simulator,
        state,
        KAFKA_PROPERTIES_FILE=properties(state.parent, session_timeout_ms=6000),  # a killed member is noticed soon
        GENESYS_UPLOAD_URL=simulator.url,
        GENESYS_REQUESTS_PER_MINUTE="100000",
        GENESYS_REQUEST_TIMEOUT_S="5",
    )


def audit(kafka: KafkaCluster, topic: str) -> dict[str, list[dict[str, Any]]]:
    """Record events by source topic, each in the order of its chain."""
    events: dict[str, list[dict[str, Any]]] = {}
    for message in read(kafka.bootstrap, f"{topic}-audit", partitions=PARTITIONS):
        event = orjson.loads(message.value() or b"")
        if event["type"] == "record":
            events.setdefault(event["source"]["topic"], []).append(event)
    for chain in events.values():
        chain.sort(key=lambda event: event["seq"])
    return events


def check_rows(events: dict[str, list[dict[str, Any]]], topic: str) -> Counter[str]:
    """One event for each row, in one unbroken chain; how many have which outcome."""
    (name,) = events.keys() - {topic}
    chain = events[name]
    assert [event["source"]["offset"] for event in chain] == list(range(1, ROWS + 1))
    assert all(event["prev"] == before["hash"] for before, event in pairwise(chain))
    return Counter(event["outcome"] for event in chain)


BAD = sum(1 for n in range(ROWS) if n % 100 == 7)


def check_list(simulator: Simulator) -> None:
    """Every good row is in the list, callable as it says."""
    held = {contact["data"]["external_id"]: contact["callable"] for contact in simulator.contacts("list").values()}
    assert held == {f"contact-{n}": n % 10 != 3 for n in range(ROWS) if n % 100 != 7}


async def test_a_file_fills_the_list_and_the_stream_sends_nothing_again(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Records that say the same are duplicates; one that says something later is sent."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    keyed(kafka.bootstrap, topic, (Event(f"contact-{n}", None) for n in range(0, 300, 10)))
    async with Simulator() as simulator:
        chosen = _environ(kafka, topic, simulator, tmp_path / "state")
        code, out, err = await commands.ended(chosen, "load", str(contacts(tmp_path)), "--output", "json")
        assert code == 0, err
        summary = orjson.loads(out)
        assert summary["outcomes"] == {"delivered": ROWS - BAD, "rejected": BAD}
        assert (summary["uploaded"], summary["requested"]) == (ROWS - BAD - ROWS // 10, ROWS // 10)
        check_list(simulator)
        applied = simulator.stats()["contacts"]["applied"]
        keyed(
            kafka.bootstrap, topic, iter([Event("contact-0", None, phone="+15550199", occurred_at=1_700_000_000_001)])
        )
        code, _, err = await commands.ended(chosen, "run", "--until-caught-up")
        assert code == 0, err
        assert simulator.stats()["contacts"]["applied"] == applied + 1
        code, out, err = await commands.ended(chosen, "audit", "verify")
        assert code == 0, out + err
    events = audit(kafka, topic)
    assert check_rows(events, topic) == {"delivered": ROWS - BAD, "rejected": BAD}
    assert Counter(event["outcome"] for event in events[topic]) == {"duplicate": 30, "delivered": 1}
    letters = read(kafka.bootstrap, f"{topic}-dead-letters", partitions=PARTITIONS)
    assert len(letters) == BAD
    assert all((letter.value() or b"").startswith(b"contact-") for letter in letters)
    chosen_settings = settings(kafka.bootstrap, topic)
    offsets = [committed(kafka.bootstrap, chosen_settings, TopicPartition(topic, n))[0] for n in range(PARTITIONS)]
    assert sum(offsets) == 31


@pytest.mark.parametrize("moment", ["upload", "settling"])
async def test_killed_half_way_it_goes_on_when_it_is_started_again(
    kafka: KafkaCluster, tmp_path: Path, moment: str
) -> None:
    """While Genesys takes the file, or between two transactions: one event for each row, and the list complete."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    file = contacts(tmp_path)
    faults = [Fault.parse("slow=10@upload_file")] if moment == "upload" else []
    async with Simulator(script=faults) as simulator:
        chosen = _environ(kafka, topic, simulator, tmp_path / "state")
        arguments = ("load", str(file), "--partitioner", "murmur2", "--output", "json")
        async with commands.started(chosen, *arguments) as first:
            await _until(first, moment)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        code, out, err = await commands.ended(chosen, *arguments)
        assert code == 0, err
        assert (orjson.loads(out)["settled_before"] > 0) is (moment == "settling")
        check_list(simulator)
    assert check_rows(audit(kafka, topic), topic) == {"delivered": ROWS - BAD, "rejected": BAD}


async def _until(process: asyncio.subprocess.Process, moment: str) -> None:
    """Wait until the progress that it tells has come so far."""
    said = {"upload": b"uploading", "settling": b"settling: 5,000"}[moment]
    assert process.stderr is not None
    while said not in (line := await process.stderr.readline()):
        assert line, "it ended before"


async def test_a_signal_stops_it_with_a_sentence(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Exit code 1, the last line says how to go on, and nothing is left behind in the state directory."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    async with Simulator(script=[Fault.parse("slow=20@upload_file")]) as simulator:
        chosen = _environ(kafka, topic, simulator, tmp_path / "state")
        async with commands.started(chosen, "load", str(contacts(tmp_path)), "--partitioner", "crc32") as process:
            await _until(process, "upload")
            process.send_signal(signal.SIGTERM)
            _, err = await process.communicate()
            assert process.returncode == 1
            assert b"load the same file again to go on" in err.splitlines()[-1]
    assert not (tmp_path / "state" / "load~scratch").exists()


def _loading(
    kafka: KafkaCluster, topic: str, simulator: Simulator, folder: Path, rows: int = ROWS, **changed: str
) -> Loading:
    """A load in this process."""
    chosen = consumer_settings.load(_environ(kafka, topic, simulator, folder / "state") | changed)
    return Loading(chosen, contacts(folder, rows), "murmur2", lambda *_: None)


async def _failure(running: Loading) -> str:
    with pytest.raises((ConsumerError, BaseExceptionGroup)) as caught:
        await running.run_until_signal()
    return str(caught.value.exceptions if isinstance(caught.value, BaseExceptionGroup) else caught.value)


async def test_a_group_at_work_is_left_alone(
    kafka: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not even join: the member keeps its partitions, and the message says what to stop."""
    monkeypatch.setattr(loading, "JOINED_WITHIN_S", 0.0)
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    async with Simulator() as simulator, watched(settings(kafka.bootstrap, topic)) as member:
        await member.until(lambda: len(member.positions) == PARTITIONS)
        said = await _failure(_loading(kafka, topic, simulator, tmp_path))
        assert said == f"the group {topic}-group has members (1): stop the consumers of it first"
        assert not member.revoked
        assert simulator.stats()["contacts"].get("applied", 0) == 0


async def test_a_consumer_that_is_started_meanwhile_ends_it(kafka: KafkaCluster, tmp_path: Path) -> None:
    """It gets its partitions, the file is not imported, and nothing of it is settled."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    async with Simulator(faults=[Fault.parse("hang@get_upload_url")]) as simulator:
        running = asyncio.create_task(_failure(_loading(kafka, topic, simulator, tmp_path)))
        await eventually(lambda: "add_contacts" in simulator.stats()["requests"], within_s=40)
        async with watched(settings(kafka.bootstrap, topic)) as member:
            await member.until(lambda: member.positions, within=40)
        assert "stop the consumers of it first" in await running
        assert simulator.stats()["contacts"]["applied"] == ROWS // 10
    assert audit(kafka, topic) == {}


async def test_without_transactions_it_works_too(kafka: KafkaCluster, tmp_path: Path) -> None:
    """One event for each row, and the same file again does nothing."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    async with Simulator() as simulator:
        for settled_before in (0, 200):
            running = _loading(kafka, topic, simulator, tmp_path, 200, KAFKA_GUARANTEE="at_least_once")
            assert (await running.run_until_signal()).settled_before == settled_before
    (chain,) = audit(kafka, topic).values()
    assert [event["source"]["offset"] for event in chain] == list(range(1, 201))


def _in_json(external_id: str) -> bytes:
    """As Kafka Connect writes the key of a row."""
    return b'{"id":"%s"}' % external_id.encode()


def _granted(bootstrap: str, topic: str, placed_by: Callable[[str], bytes]) -> None:
    """Grants with keys in JSON, in the partitions that Java's producer would choose by these bytes."""
    producer = Producer({"bootstrap.servers": bootstrap, **QUIET})
    for n in range(60):
        event = Event(f"contact-{n}", None, occurred_at=1_600_000_000_000)
        place = PARTITIONERS["murmur2"](placed_by(event.external_id), PARTITIONS)
        producer.produce(topic, event.value(), _in_json(event.external_id), partition=place)
    assert producer.flush(WITHIN_S) == 0


def _nobody(folder: Path) -> Path:
    """A file in which nobody has consent."""
    path = folder / "contacts.csv"
    rows = [f"contact-{n},+15550100,false,false" for n in range(60)]
    path.write_text("\n".join(["externalId,phone,consent,doNotCall", *rows]) + "\n")
    return path


async def test_a_topic_that_is_spread_by_other_keys_than_external_ids_is_refused(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """Keys in JSON fit a partitioner, and lead elsewhere than the ids in the file: nothing is sent."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    _granted(kafka.bootstrap, topic, _in_json)
    async with Simulator() as simulator:
        chosen = _environ(kafka, topic, simulator, tmp_path / "state") | {"SOURCE_KEY": "json"}
        code, _, err = await commands.ended(chosen, "load", str(_nobody(tmp_path)), "--partitioner", "murmur2")
        assert code == 1
        assert f"spread over its {PARTITIONS} partitions in no known way" in err.splitlines()[-1]
        assert "columns_missing" in err  # the file has no e-mail addresses
        assert simulator.stats()["contacts"].get("applied", 0) == 0


async def test_older_grants_with_other_keys_do_not_undo_what_the_file_withdraws(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """A topic whose records stand where their external ids lead to is taken, whatever the keys are."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    _granted(kafka.bootstrap, topic, str.encode)
    async with Simulator() as simulator:
        chosen = _environ(kafka, topic, simulator, tmp_path / "state") | {"SOURCE_KEY": "json"}
        for command in (("load", str(_nobody(tmp_path))), ("run", "--until-caught-up")):
            code, _, err = await commands.ended(chosen, *command)
            assert code == 0, err
        held = [contact["callable"] for contact in simulator.contacts("list").values()]
        assert held == [False] * 60


async def _newest(kafka: KafkaCluster, topic: str) -> list[Record]:
    records = newest_records(Connection(kafka.bootstrap), "nobody", topic)
    return [record async for some in records for record in some]


@pytest.mark.parametrize("partitioner", PARTITIONERS)
async def test_the_newest_records_tell_how_a_topic_is_filled(kafka: KafkaCluster, partitioner: str) -> None:
    """As many of each partition as are looked at, as they stand there."""
    topic = kafka.create_topic("sampled", partitions=PARTITIONS)
    keyed(kafka.bootstrap, topic, (Event(f"contact-{n}", None) for n in range(3_000)), partitioner)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **QUIET})
    producer.produce(topic, b"without a key", partition=1, headers={"name": b"value"})
    assert producer.flush(WITHIN_S) == 0
    records = await _newest(kafka, topic)
    assert Counter(record.partition for record in records) == dict.fromkeys(range(PARTITIONS), PER_PARTITION)
    (keyless,) = [record for record in records if record.key is None]
    assert (keyless.partition, keyless.value, keyless.headers) == (1, b"without a key", [("name", b"value")])
    samples = [(record.key, record.partition) for record in records if record.key is not None]
    assert fitting(samples, PARTITIONS) == [partitioner]


async def test_an_empty_topic_has_no_newest_records(kafka: KafkaCluster) -> None:
    """It is no error."""
    topic = kafka.create_topic("sampled", partitions=PARTITIONS)
    assert await insist(lambda: _newest(kafka, topic)) == []  # who leads it may not know that yet


async def test_a_transaction_that_is_open_is_not_waited_for(
    kafka: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before it is shown: a source may always have one."""
    monkeypatch.setattr(bounded, "SILENCE_S", 5.0)
    topic = kafka.create_topic("sampled")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, **QUIET})
    producer.init_transactions(WITHIN_S)
    for value in (b"committed", b"open"):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert producer.flush(WITHIN_S) == 0
        if value == b"committed":
            producer.commit_transaction(WITHIN_S)
    records = await insist(lambda: _newest(kafka, topic))
    assert [record.value for record in records] == [b"committed"]
    producer.abort_transaction(WITHIN_S)
