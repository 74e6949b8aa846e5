"""The whole job on real Kafka, program by program: events and contacts per second, CPU per event, memory.

Every program finds the same topic, full. The clock is not its own: it runs from when the broker has given it the
partitions to the sink's last answer or the broker's last audit event, whichever is later. Should its first request come
later than the linger explains, because it restores its state first, then the clock starts the linger before that. A run
counts only if every record has one audit event, as many are duplicates and rejected as there are, and the sink has of
each contact what the last valid event says.
"""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from bench import events, machine, process, sink
from bench.programs import FLOOR, Program
from tests.kafka_clients import read
from tests.kafka_cluster import KafkaCluster

PARTITIONS = 4
AT_ONCE = 8
MOST_IN_A_REQUEST = 100
LINGER_MS = 500
WITHIN_S = 600.0
ASK_S = 10.0


class Loaded(NamedTuple):
    """A workload on a topic.

    Attributes:
        workload: Of which events.
        records: How many.
        topic: Where they are.
        contacts: Phone and consent of each contact in the end.
        unsent: How many records must end with an outcome that sends nothing.
    """

    workload: events.Workload
    records: int
    topic: str
    contacts: Mapping[str, tuple[str, str]]
    unsent: Mapping[str, int]


class Seen(NamedTuple):
    """What was seen of a run.

    Attributes:
        watch: The program's process.
        assigned_at: When it had its partitions, seconds since the epoch.
        requests: With contacts, in order; at least one.
        told: The messages of its audit topic.
    """

    watch: process.Watched
    assigned_at: float
    requests: Sequence[sink.Request]
    told: Sequence[Message]


@dataclass(frozen=True)
class Run:
    """One run, or the medians of some.

    Attributes:
        workload: Which events.
        program: That did it.
        events: How many.
        events_per_s: By that clock.
        contacts_per_s: That the sink took.
        contacts_per_request: Of all requests with contacts.
        requests_times_ideal: Requests with contacts as a multiple of as few as could take them.
        in_flight: Requests that the sink had at once, on average from the first to the last.
        cpu_us_per_event: User and system time of the program, by that clock.
        cpu_times_floor: The same as a multiple of what the bare library calls take.
        peak_rss_mb: Of the program.
        outcomes: How the records ended.
        each_events_per_s: Of the runs that this is the median of.
    """

    workload: str
    program: str
    events: int
    events_per_s: int
    contacts_per_s: int
    contacts_per_request: float
    requests_times_ideal: float
    in_flight: float
    cpu_us_per_event: float
    cpu_times_floor: float
    peak_rss_mb: int
    outcomes: Mapping[str, int]
    each_events_per_s: Sequence[int]


def measure(
    kafka: KafkaCluster, programs: Sequence[Program], workload: events.Workload, count: int, runs: int
) -> list[Run]:
    """The programs take turns, so that each meets the noise of all times."""
    loaded = _load(kafka, workload, count)
    turns = [[_run(kafka, loaded, program) for program in programs] for _ in range(runs)]
    return _beside_the_floor([_median(each) for each in zip(*turns, strict=True)])


def _load(kafka: KafkaCluster, workload: events.Workload, count: int) -> Loaded:
    topic = kafka.create_topic("bench", partitions=PARTITIONS)
    events.produce(kafka.bootstrap, topic, workload.events(count))
    contacts, unsent = events.contacts_after(workload.events(count)), events.unsent_of(workload.events(count))
    return Loaded(workload, count, topic, contacts, unsent)


def _run(kafka: KafkaCluster, loaded: Loaded, program: Program) -> Run:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "requests.log")
        with machine.sink(log=log, delay_ms=loaded.workload.delay_ms) as server:
            given = task(kafka, server, directory, loaded.topic, loaded.workload.attributes)
            with process.watched(program, given, Path(directory, "program.log")) as watch:
                group = Group(given)
                watch.until(group.assigned, WITHIN_S)
                assigned_at = time.time()
                watch.until(lambda: group.committed(loaded.topic) == loaded.records, WITHIN_S)
                group.close()
        requests = sorted(sink.requests(log))
    told = read(kafka.bootstrap, given["KAFKA_AUDIT_TOPIC"], partitions=PARTITIONS)
    return _figures(loaded, program, Seen(watch, assigned_at, requests, told))


def task(
    kafka: KafkaCluster, server: machine.Sink, directory: str, topic: str, attributes: Iterable[str]
) -> dict[str, str]:
    """What every program is told: a group and an audit topic of its own, eight requests at once, the linger.

    The times in the audit topic are the broker's.
    """
    audit = kafka.create_topic("audit", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    return {
        **process.environ(kafka.bootstrap, topic, server.url, directory),
        "KAFKA_GROUP_ID": f"{audit}-group",
        "KAFKA_AUDIT_TOPIC": audit,
        "GENESYS_MAX_IN_FLIGHT": str(AT_ONCE),
        "GENESYS_ATTRIBUTE_COLUMNS": ",".join(attributes),
        "BATCH_LINGER_MS": str(LINGER_MS),
    }


class Group:
    """What the broker knows of a program's group."""

    def __init__(self, given: Mapping[str, str]) -> None:
        servers: dict[str, str | int | float | bool] = {"bootstrap.servers": given["KAFKA_BOOTSTRAP_SERVERS"]}
        self._name = given["KAFKA_GROUP_ID"]
        self._admin = AdminClient(servers)
        self._consumer = Consumer({**servers, "group.id": self._name})

    def assigned(self) -> bool:
        """Whether its member has partitions."""
        try:
            group = self._admin.describe_consumer_groups([self._name])[self._name].result(ASK_S)
        except (KafkaException, TimeoutError):  # there is no such group yet, or a loaded broker is late
            return False
        return any(member.assignment and member.assignment.topic_partitions for member in group.members)

    def committed(self, topic: str, count: int = PARTITIONS) -> int:
        """Records of so many partitions, as far as the broker tells: a new group's coordinator may be on its way."""
        partitions = [TopicPartition(topic, number) for number in range(count)]
        try:
            told = self._consumer.committed(partitions, ASK_S)
        except KafkaException:
            return 0
        return sum(max(each.offset, 0) for each in told)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()


def _figures(loaded: Loaded, program: Program, seen: Seen) -> Run:
    audited = [event for message in seen.told if (event := orjson.loads(message.value() or b""))["type"] == "record"]
    _check(loaded, seen.requests, audited)
    begin = max(seen.assigned_at, seen.requests[0].received - LINGER_MS / 1000)
    told_at = (message.timestamp()[1] / 1000 for message in seen.told)
    end = max(*(each.answered for each in seen.requests), *told_at)
    rate = round(loaded.records / (end - begin))
    contacts = sum(len(each.contacts) for each in seen.requests)
    return Run(
        loaded.workload.name,
        program.name,
        loaded.records,
        rate,
        round(contacts / (end - begin)),
        round(contacts / len(seen.requests), 1),
        round(len(seen.requests) / -(-contacts // MOST_IN_A_REQUEST), 3),
        _in_flight(seen.requests),
        round(seen.watch.cpu_s(begin, end) / loaded.records * 1e6, 1),
        0.0,
        round(seen.watch.peak_rss / 2**20),
        dict(Counter(event["outcome"] for event in audited)),
        (rate,),
    )


def _in_flight(requests: Sequence[sink.Request]) -> float:
    """The mean number of requests under way, to a hundredth."""
    span = max(each.answered for each in requests) - requests[0].received
    return round(sum(each.answered - each.received for each in requests) / span, 2)


def _check(loaded: Loaded, requests: Sequence[sink.Request], audited: Sequence[Mapping[str, Any]]) -> None:
    positions = {(event["source"]["partition"], event["source"]["offset"]) for event in audited}
    if not len(positions) == len(audited) == loaded.records:
        raise RuntimeError(f"{len(audited)} audit events of {len(positions)} records for {loaded.records} records")
    outcomes = Counter(event["outcome"] for event in audited)
    if any(outcomes[outcome] != count for outcome, count in loaded.unsent.items()):
        raise RuntimeError(f"{dict(outcomes)} where there are {dict(loaded.unsent)}")
    applied = applied_contacts(requests)
    names = loaded.contacts.keys() | applied.keys()
    if wrong := [name for name in names if loaded.contacts.get(name) != applied.get(name)]:
        raise RuntimeError(f"{len(wrong)} of {len(names)} contacts are not as the last event says")


def applied_contacts(requests: Iterable[sink.Request]) -> dict[str, tuple[str, str]]:
    """Phone and consent that the sink was told last, by external id."""
    data = (contact["data"] for request in requests for contact in request.contacts)
    return {each["external_id"]: (each["phone_number"], each["consent_flag"]) for each in data}


def _median(runs: Sequence[Run]) -> Run:
    """The medians of each figure; the highest peak of memory."""
    return replace(
        runs[0],
        events_per_s=round(statistics.median(run.events_per_s for run in runs)),
        contacts_per_s=round(statistics.median(run.contacts_per_s for run in runs)),
        contacts_per_request=statistics.median(run.contacts_per_request for run in runs),
        requests_times_ideal=statistics.median(run.requests_times_ideal for run in runs),
        in_flight=statistics.median(run.in_flight for run in runs),
        cpu_us_per_event=round(statistics.median(run.cpu_us_per_event for run in runs), 1),
        peak_rss_mb=max(run.peak_rss_mb for run in runs),
        each_events_per_s=[run.events_per_s for run in runs],
    )


def _beside_the_floor(runs: Sequence[Run]) -> list[Run]:
    floor = next(run.cpu_us_per_event for run in runs if run.program == FLOOR.name)
    return [replace(run, cpu_times_floor=round(run.cpu_us_per_event / floor, 2)) for run in runs]
