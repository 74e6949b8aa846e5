"""A rolling restart of three consumers under load: how long each partition stands still, by way of membership.

Records come in at a steady rate, each partition several in a second. One consumer after the other gets SIGTERM, ends,
is started again with its state directory, and is ready before the next one's turn, as in a Kubernetes rollout. A pause
is the time between two settlements of a partition, read from its audit events.
"""

import math
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import orjson
from confluent_kafka import Producer

from bench import events, machine, process
from bench.programs import OURS
from consumer.model import TopicPartition
from consumer.settings import load
from tests.kafka_clients import committed, read
from tests.kafka_cluster import KafkaCluster

CONSUMERS = 3
PARTITIONS = 12
EVENTS_PER_S = 300
STEADY_S = 10.0
LOOK_EVERY_S = 0.05
WITHIN_S = 60.0

MEMBERSHIPS = tuple((protocol, static) for protocol in ("classic", "consumer") for static in (False, True))


@dataclass(frozen=True)
class Rolling:
    """One rolling restart.

    Attributes:
        protocol: `group.protocol`.
        static: Whether members have a `group.instance.id`.
        restart_s: All three, one after the other.
        steady_pause_s: The longest pause of any partition before.
        longest_pause_s: The longest pause of any partition from the first signal on.
        median_pause_s: The median of the partitions' longest pauses.
        records: All of them, each settled once.
    """

    protocol: str
    static: bool
    restart_s: float
    steady_pause_s: float
    longest_pause_s: float
    median_pause_s: float
    records: int


class _Member:
    """One consumer; its state directory and its port outlive the process."""

    def __init__(self, name: str, environ: Mapping[str, str], directory: Path) -> None:
        self._port = machine.free_port()
        self._log = directory / f"{name}.log"
        own = {"STATE_DIR": str(directory / name), "HTTP_ADDRESS": f"127.0.0.1:{self._port}"}
        self._environ = {**environ, **own}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = machine.started(machine.CONSUMER_CORE, OURS, self._environ, log)

    def await_ready(self) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not self._ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"a consumer does not get ready:\n{self._log.read_text()}")
            time.sleep(LOOK_EVERY_S)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5):
                return True  # any other status raises
        except (urllib.error.URLError, TimeoutError):
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()


def measure(kafka: KafkaCluster, sink: str, protocol: str, *, static: bool) -> Rolling:
    """Restart three consumers one after the other while records come in."""
    topic = kafka.create_topic("rolling", partitions=PARTITIONS)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        environ = process.environ(kafka.bootstrap, topic, sink, directory)
        members = _members(environ, Path(directory), protocol, static=static)
        for member in members:
            stack.callback(member.stop)
            member.start()
        for member in members:
            member.await_ready()
        with _load(kafka.bootstrap, topic) as count:
            time.sleep(STEADY_S)
            began = time.time()
            for member in members:
                member.stop()
                member.start()
                member.await_ready()
            ended = time.time()
            time.sleep(STEADY_S)
        _await_settled(environ, topic, count())
    settled = _settled(kafka.bootstrap, topic)
    if (found := sum(map(len, settled.values()))) != count():
        raise RuntimeError(f"{found} audit events for {count()} records")
    before, pauses = longest_pauses(settled, began)
    return Rolling(
        protocol,
        static,
        restart_s=round(ended - began, 2),
        steady_pause_s=round(before[-1], 2),
        longest_pause_s=round(pauses[-1], 2),
        median_pause_s=round(pauses[len(pauses) // 2], 2),
        records=count(),
    )


def _members(environ: Mapping[str, str], directory: Path, protocol: str, *, static: bool) -> list[_Member]:
    properties = directory / "kafka.properties"
    properties.write_text(f"group.protocol={protocol}\n")
    environ = {**environ, "KAFKA_PROPERTIES_FILE": str(properties)}
    names = [f"member-{number}" for number in range(CONSUMERS)]
    return [
        _Member(name, {**environ, "KAFKA_GROUP_INSTANCE_ID": name} if static else environ, directory) for name in names
    ]


@contextmanager
def _load(bootstrap: str, topic: str) -> Iterator[Callable[[], int]]:
    """Records come in; yields how many, which is known at the end."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    stop, produced = threading.Event(), 0

    def produce() -> None:
        nonlocal produced
        for key, value in events.records(events.all_new(10**9)):
            producer.produce(topic, value, key, produced % PARTITIONS)
            producer.poll(0)
            produced += 1
            if stop.wait(1 / EVENTS_PER_S):
                return

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield lambda: produced
    finally:
        stop.set()
        thread.join()
        producer.flush(30)


def _await_settled(environ: Mapping[str, str], topic: str, count: int) -> None:
    settings = load(environ)
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    deadline = time.monotonic() + WITHIN_S
    while sum(committed(settings.kafka_bootstrap_servers, settings, *partitions)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("not all records settle")
        time.sleep(LOOK_EVERY_S)


def _settled(bootstrap: str, topic: str) -> dict[int, list[float]]:
    """When the records of each partition settled, in order, seconds since the epoch."""
    moments: dict[int, list[float]] = defaultdict(list)
    for message in read(bootstrap, f"{topic}.audit", partitions=PARTITIONS):
        event = orjson.loads(message.value() or b"")
        if event["type"] == "record":
            moment = datetime.fromisoformat(event["timestamp"]).timestamp()
            moments[event["source"]["partition"]].append(moment)
    return moments


def longest_pauses(settled: Mapping[int, list[float]], began: float) -> tuple[list[float], list[float]]:
    """Of each partition the longest pause that ended before a moment, and after it, however late; both ascending."""
    before = sorted(_longest(moments, 0, began) for moments in settled.values())
    return before, sorted(_longest(moments, began, math.inf) for moments in settled.values())


def _longest(moments: list[float], begin: float, end: float) -> float:
    """The longest time between two settlements, of those that end in the span."""
    return max(after - before for before, after in pairwise(sorted(moments)) if begin <= after <= end)
