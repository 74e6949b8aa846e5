"""Dead letters on a real Kafka: listed by what their headers say, replayed once each whatever happens meanwhile."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka import replays
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.topics import Wanted, create, exists
from consumer.core import dead_letters
from consumer.errors import FatalError, SettingsError
from consumer.model import DeadLetter, Headers, Record, TopicPartition
from consumer.operate.dead_letters import Query
from consumer.operate.listing import list_letters
from consumer.operate.replaying import PORTION_RECORDS, Replay
from consumer.settings import Settings
from tests.kafka_clients import QUIET, WITHIN_S, commit, delete, forget, read, settings, transactional
from tests.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

NOON_MS = 1_767_268_800_000
"""2026-01-01T12:00:00Z."""

CANARY = b"+15550199"


def _settings(kafka: KafkaCluster, partitions: int = 1, **more: str) -> Settings:
    """Settings whose source and dead letter topics exist, and whose group has settled something."""
    topic = kafka.create_topic("letters", partitions=partitions)
    letters = kafka.create_topic(partitions=partitions)
    chosen = settings(kafka.bootstrap, topic, KAFKA_DEAD_LETTER_TOPIC=letters, **more)
    commit(kafka.bootstrap, chosen, TopicPartition(topic, 0), 0)
    return chosen


def _letter(
    chosen: Settings,
    offset: int,
    reason: str = "phone_not_e164",
    *,
    partition: int = 0,
    topic: str | None = None,
    headers: Headers = (),
    hours: int = 0,
) -> DeadLetter:
    """The letter of a source record, given up so many hours after noon."""
    topic = topic or chosen.kafka_source_topics[0]
    record = Record(topic, partition, offset, 0, CANARY, b"value %d %b" % (offset, CANARY), headers)
    return DeadLetter(record, reason, "phone: text of 3 characters", NOON_MS + hours * 3_600_000)


def _bury(chosen: Settings, letters: Iterable[DeadLetter], producer: Producer | None = None) -> None:
    """Put letters on their topic, as settling does."""
    own = producer or Producer({"bootstrap.servers": chosen.kafka_bootstrap_servers, **QUIET})
    for letter in letters:
        headers: list[tuple[str, str | bytes | None]] = [*dead_letters.headers(letter)]
        own.produce(chosen.kafka_dead_letter_topic, letter.record.value, letter.record.key, headers=headers)
        own.poll(0)
    assert own.flush(WITHIN_S) == 0


def _replay(chosen: Settings, *, max_attempts: int = 3, dry_run: bool = False, **query: Any) -> Replay:
    replay = Replay(chosen, Query(**query), max_attempts=max_attempts, dry_run=dry_run)
    replay.run()
    return replay


def _told(capsys: pytest.CaptureFixture[str], replay: Replay) -> dict[str, Any]:
    capsys.readouterr()
    replay.print_result("json")
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def _returned(chosen: Settings, partitions: int = 1) -> list[Message]:
    """What is on the source topic."""
    return read(chosen.kafka_bootstrap_servers, chosen.kafka_source_topics[0], partitions=partitions)


def _offsets(messages: Sequence[Message]) -> list[int]:
    """Where these records stood first."""
    found: list[dict[str, bytes]] = [dict(message.headers() or ()) for message in messages]  # type: ignore[arg-type]
    return [int(headers["dead-letter.origin"].rpartition(b"/")[2]) for headers in found]


# -- list


def _listed(chosen: Settings, capsys: pytest.CaptureFixture[str], *, records: bool = False, **query: Any) -> list[Any]:
    list_letters(chosen, Query(**query), records=records, output="json")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_letters_are_counted_by_reason_and_topic(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """With the times of the oldest and the newest; what a transaction has taken back does not count."""
    chosen = _settings(kafka, partitions=2)
    _bury(chosen, [_letter(chosen, n, hours=n) for n in range(3)])
    _bury(chosen, [_letter(chosen, 7, "email_invalid", topic="another", hours=5)])
    aborted = transactional(kafka.bootstrap, chosen.kafka_group_id)
    aborted.begin_transaction()
    _bury(chosen, [_letter(chosen, 8, "email_invalid")], aborted)
    aborted.abort_transaction(WITHIN_S)
    (result,) = _listed(chosen, capsys)
    assert result == {
        "letters": 4,
        "unreadable": 0,
        "groups": [
            {
                "reason": "email_invalid",
                "topic": "another",
                "letters": 1,
                "replayed": 0,
                "oldest": "2026-01-01T17:00:00Z",
                "newest": "2026-01-01T17:00:00Z",
            },
            {
                "reason": "phone_not_e164",
                "topic": chosen.kafka_source_topics[0],
                "letters": 3,
                "replayed": 0,
                "oldest": "2026-01-01T12:00:00Z",
                "newest": "2026-01-01T14:00:00Z",
            },
        ],
    }


def test_each_letter_has_a_line_without_what_it_holds(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Position, reason, attempt and detail, in the order of time; the limit counts letters that are meant."""
    chosen = _settings(kafka)
    headers = [("dead-letter.attempt", b"2"), ("dead-letter.origin", b"t/0/1"), ("note", CANARY)]
    _bury(chosen, [_letter(chosen, 4, "email_invalid"), *(_letter(chosen, n, headers=headers) for n in range(5, 9))])
    list_letters(chosen, Query(reason="phone_not_e164", limit=2), records=True, output="text")
    first, second, *table = capsys.readouterr().out.splitlines()
    topic = chosen.kafka_source_topics[0]
    assert first.split()[1:6] == [f"{topic}/0/5", "phone_not_e164", "attempt", "2", "open"]
    assert second.split()[1] == f"{topic}/0/6"
    assert table[1].split()[:3] == ["phone_not_e164", topic, "2"]
    list_letters(chosen, Query(), records=True, output="json")
    assert CANARY.decode() not in capsys.readouterr().out


def test_a_topic_of_which_nobody_knows_is_refused(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """It is misspelt, which must not pass for none being left; letters of a former source topic are listed as any."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 1, topic="former")])
    for output in ("text", "json"):
        with pytest.raises(SettingsError, match=r"misspelt is not in KAFKA_SOURCE_TOPICS \("):
            list_letters(chosen, Query(topic="misspelt"), records=False, output=output)
        assert capsys.readouterr().out == ""
    list_letters(chosen, Query(topic=chosen.kafka_source_topics[0]), records=False, output="text")
    assert capsys.readouterr().out.splitlines() == ["no dead letters"]
    list_letters(chosen, Query(topic="former"), records=False, output="text")
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["phone_not_e164", "former", "1"]


def test_a_group_that_nobody_knows_is_not_said_to_have_replayed_nothing(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt KAFKA_GROUP_ID has no marks: whatever was replayed would look as if it never was."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 0)])
    _replay(chosen)
    misspelt = dataclasses.replace(chosen, kafka_group_id="misspelt")
    capsys.readouterr()
    list_letters(misspelt, Query(), records=False, output="text")
    _, counted, why = capsys.readouterr().out.splitlines()
    assert counted.split()[2:4] == ["1", "?"]
    assert why.startswith("which of them were replayed cannot be told: there is no group misspelt")
    (result,) = _listed(misspelt, capsys)
    assert result["groups"][0]["replayed"] is None
    assert "misspelt" in result["replayedUnknown"]
    empty = dataclasses.replace(misspelt, kafka_dead_letter_topic=kafka.create_topic())
    list_letters(empty, Query(), records=False, output="text")
    assert capsys.readouterr().out == "no dead letters\n"


def test_letters_are_chosen_by_time(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """From a moment on, and up to another."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, n, hours=n) for n in range(5)])
    hour = 3_600_000
    *records, result = _listed(chosen, capsys, records=True, since_ms=NOON_MS + hour, until_ms=NOON_MS + 3 * hour)
    assert [record["source"].rpartition("/")[2] for record in records] == ["1", "2"]
    assert result["letters"] == 2


def test_what_is_no_letter_is_counted_apart(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else wrote it."""
    chosen = _settings(kafka)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **QUIET})
    producer.produce(chosen.kafka_dead_letter_topic, b"not ours")
    _bury(chosen, [_letter(chosen, 1)], producer)
    (result,) = _listed(chosen, capsys)
    assert (result["letters"], result["unreadable"]) == (1, 1)
    assert _told(capsys, _replay(chosen))["skipped"]["unreadable"] == 1


def test_a_topic_that_is_missing_is_named(kafka: KafkaCluster) -> None:
    """With exit code 1 for the command."""
    chosen = settings(kafka.bootstrap, "nowhere")
    with pytest.raises(FatalError, match="nowhere-dead-letters"):
        list_letters(chosen, Query(), records=False, output="text")


# -- replay


def test_a_replayed_record_is_as_it_came(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Key, value, headers and partition; our headers are gone, the attempt is there. It is put back once."""
    chosen = _settings(kafka, partitions=3)
    headers = [("traceparent", b"00-1"), ("empty", None)]
    _bury(chosen, [_letter(chosen, 5, partition=2, headers=headers)])
    assert _told(capsys, _replay(chosen))["replayed"] == 1
    assert _told(capsys, _replay(chosen))["skipped"]["replayed_before"] == 1
    (message,) = _returned(chosen, partitions=3)
    assert (message.partition(), message.key(), message.value()) == (2, CANARY, b"value 5 " + CANARY)
    origin = f"{chosen.kafka_source_topics[0]}/2/5".encode()
    assert message.headers() == [
        *headers,
        ("dead-letter.attempt", b"1"),
        ("dead-letter.origin", origin),
        ("dead-letter.timestamp", b"1970-01-01T00:00:00.000Z"),
    ]
    (result,) = _listed(chosen, capsys)
    assert [group["replayed"] for group in result["groups"]] == [1]


def test_a_tombstone_goes_back_as_one(kafka: KafkaCluster) -> None:
    """A null value stays null."""
    chosen = _settings(kafka)
    letter = _letter(chosen, 1)
    record = Record(letter.record.topic, 0, 1, 0, b"\0key", None)
    _bury(chosen, [DeadLetter(record, "not_decodable", "", NOON_MS)])
    _replay(chosen)
    assert [message.value() for message in _returned(chosen)] == [None]


def test_filters_and_limits_leave_nothing_out_for_later(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """One reason, then a few of the rest, then all: each letter is put back once."""
    chosen = _settings(kafka)
    reasons = ("email_invalid", "phone_not_e164")
    _bury(chosen, [_letter(chosen, n, reasons[n % 2]) for n in range(20)])
    _replay(chosen, reason="phone_not_e164", limit=3)
    assert _offsets(_returned(chosen)) == [1, 3, 5]
    _replay(chosen, limit=4)
    assert _offsets(_returned(chosen)) == [1, 3, 5, 0, 2, 4, 6]
    assert _told(capsys, _replay(chosen))["replayed"] == 13
    assert sorted(_offsets(_returned(chosen))) == list(range(20))


def test_a_letter_that_died_too_often_stays(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """So that no record goes round for ever; a higher limit still takes it."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, n, headers=[("dead-letter.attempt", b"%d" % n)]) for n in range(4)])
    told = _told(capsys, _replay(chosen))
    assert (told["replayed"], told["skipped"]["too_many_attempts"]) == (3, 1)
    assert _told(capsys, _replay(chosen, max_attempts=4))["replayed"] == 1


def test_only_source_topics_are_written_to(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever topic a header names."""
    chosen = _settings(kafka, KAFKA_AUDIT_TOPIC=kafka.create_topic())
    _bury(chosen, [_letter(chosen, 1, topic=chosen.kafka_audit_topic), _letter(chosen, 2)])
    told = _told(capsys, _replay(chosen))
    assert (told["replayed"], told["skipped"]["no_source_topic"]) == (1, 1)
    assert read(kafka.bootstrap, chosen.kafka_audit_topic) == []


def test_a_partition_that_is_gone_is_replaced_by_the_keys(kafka: KafkaCluster) -> None:
    """The topic was made anew with fewer."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 1, partition=7)])
    _replay(chosen)
    assert len(_returned(chosen)) == 1


def test_a_dry_run_does_nothing(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells what a replay would do, and no topic is made."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, n) for n in range(3)])
    told = _told(capsys, _replay(chosen, dry_run=True, limit=2))
    assert (told["dryRun"], told["replayed"]) == (True, 2)
    assert _returned(chosen) == []
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    assert replays.marks_topic(chosen).name not in admin.list_topics(timeout=WITHIN_S).topics


@pytest.mark.parametrize(
    ("dry_run", "heading", "column"),
    [(True, "1 dead letter would be replayed", "would be"), (False, "1 dead letter was replayed", "replayed")],
)
def test_people_are_told_what_a_replay_did_or_would_do(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str], dry_run: bool, heading: str, column: str
) -> None:
    """What was not put back does not stand in a column of what was."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 1)])
    _replay(chosen, dry_run=dry_run).print_result("text")
    *_, first, columns, _ = capsys.readouterr().out.splitlines()
    assert first == heading
    assert re.split(r"  +", columns) == ["reason", "topic", "letters", column, "oldest", "newest"]


def test_without_a_dead_letter_topic_nothing_is_made(kafka: KafkaCluster) -> None:
    """Its name may be mistyped."""
    chosen = settings(kafka.bootstrap, kafka.create_topic("letters"), KAFKA_DEAD_LETTER_TOPIC="no-such-topic")
    with pytest.raises(FatalError, match="there is no topic no-such-topic"):
        _replay(chosen)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    assert replays.marks_topic(chosen).name not in admin.list_topics(timeout=WITHIN_S).topics


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_group_that_nobody_knows_puts_nothing_back(kafka: KafkaCluster, *, dry_run: bool) -> None:
    """What the right one replayed before would go back once more; nor is a topic made for the marks of a slip."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 0)])
    misspelt = dataclasses.replace(chosen, kafka_group_id=f"{chosen.kafka_group_id}-misspelt")
    with pytest.raises(FatalError, match=f"no group {misspelt.kafka_group_id}, .*: check KAFKA_GROUP_ID"):
        _replay(misspelt, dry_run=dry_run)
    assert (_returned(chosen), exists(Connection.of(chosen), replays.marks_topic(misspelt).name)) == ([], False)


def test_a_group_that_the_brokers_forgot_is_known_by_its_marks(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a week without members it has no offsets, and replays go on where they ended."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, n) for n in range(2)])
    _replay(chosen, limit=1)
    forget(kafka.bootstrap, chosen)
    capsys.readouterr()
    (result,) = _listed(chosen, capsys)
    assert result["groups"][0]["replayed"] == 1
    _replay(chosen)
    assert _offsets(_returned(chosen)) == [0, 1]


def test_letters_of_a_topic_that_was_made_anew_are_others(kafka: KafkaCluster) -> None:
    """Its offsets begin again, and what was replayed of the old one does not count."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, 1)])
    _replay(chosen)
    delete(kafka.bootstrap, chosen.kafka_dead_letter_topic)
    create(Connection.of(chosen), Wanted(chosen.kafka_dead_letter_topic, 1))
    _bury(chosen, [_letter(chosen, 2)])
    _replay(chosen)
    assert _offsets(_returned(chosen)) == [1, 2]


def test_without_transactions_a_replay_works_the_same(kafka: KafkaCluster) -> None:
    """`at_least_once`: records first, marks after them."""
    chosen = _settings(kafka, KAFKA_GUARANTEE="at_least_once")
    _bury(chosen, [_letter(chosen, n) for n in range(3)])
    _replay(chosen, limit=2)
    _replay(chosen)
    assert _offsets(_returned(chosen)) == [0, 1, 2]


def test_a_second_replay_locks_the_first_out(kafka: KafkaCluster) -> None:
    """Both have read the same marks: only one of them may put the letters back."""
    chosen = _settings(kafka)
    _bury(chosen, [_letter(chosen, n) for n in range(3)])
    first = Replay(chosen, Query(), max_attempts=3, dry_run=False)
    assert first._replays is not None
    first._replays.open()
    _replay(chosen)
    record = replays.Returned(chosen.kafka_source_topics[0], 0, b"key", b"too late", ())
    with pytest.raises(FatalError):
        first._replays.put_back([record], [])
    assert _offsets(_returned(chosen)) == [0, 1, 2]


def _environ(chosen: Settings) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_"))}
    return kept | {
        "KAFKA_BOOTSTRAP_SERVERS": chosen.kafka_bootstrap_servers,
        "KAFKA_SOURCE_TOPICS": chosen.kafka_source_topics[0],
        "KAFKA_GROUP_ID": chosen.kafka_group_id,
        "KAFKA_DEAD_LETTER_TOPIC": chosen.kafka_dead_letter_topic,
    }


DYING = """
import os, signal, sys
from consumer import cli
from consumer.adapters.kafka.replays import Replays
commit, portions = Replays._commit, []

def dying(self):
    portions.append(None)
    if len(portions) == 2 and before:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self)
    if len(portions) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Replays._commit = dying
sys.exit(cli.main(["dead-letters", "replay"]))
"""
"""A replay that is killed in its second portion: before or after the commit."""


def _run(chosen: Settings, *command: str) -> "subprocess.CompletedProcess[str]":
    ours = [sys.executable, *command]
    return subprocess.run(ours, env=_environ(chosen), capture_output=True, text=True, check=False)  # noqa: S603 -- ours


def test_killed_replays_put_each_letter_back_once(kafka: KafkaCluster) -> None:
    """`kill -9` with a transaction open, with one just committed, and once more; the last replay runs to its end."""
    chosen = _settings(kafka)
    letters = 6 * PORTION_RECORDS
    _bury(chosen, [_letter(chosen, n) for n in range(letters)])
    seen = []
    for before in (True, False, True):
        assert _run(chosen, "-c", f"before = {before}{DYING}").returncode == -signal.SIGKILL
        seen.append(len(_returned(chosen)) // PORTION_RECORDS)
    assert seen == [1, 3, 4]
    ended = _run(chosen, "-m", "consumer", "dead-letters", "replay", "--output", "json")
    assert json.loads(ended.stdout)["replayed"] == 2 * PORTION_RECORDS
    assert Counter(_offsets(_returned(chosen))) == Counter(range(letters))
