"""A real Apache Kafka on loopback, for tests, benches and chaos runs.

Answers for: fetching Kafka once with Maven, and starting, killing and restarting brokers that are ready when
the call returns and gone when the process that started them is gone. May touch: `.cache/kafka`, processes of
its own, a temporary folder and loopback ports.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

PROJECT = Path(__file__).resolve().parents[1]
POM = PROJECT / "tests" / "data" / "kafka" / "pom.xml"
JARS_VARIABLE = "TEST_KAFKA_JARS"
"""Environment variable: a folder with Kafka's jars, instead of `.cache/kafka/<version>`."""

CLUSTER_ID = "Z2VuZXN5cy1jb25zdW1lcg"
READY_WITHIN_S = 45.0
STOP_WITHIN_S = 30.0
LOG_LINES_SHOWN = 40
LOCKED_USER, LOCKED_PASSWORD = "consumer", "swordfish"

# Stopping at the first compiler tier halves a start's CPU time, and on two cores a short run is faster for it too.
JAVA = ("java", "-Xmx512m", "-XX:TieredStopAtLevel=1")
JAVA_LOG = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",  # at info, the words of a shutdown push out its reason
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class KafkaMissingError(Exception):
    """This machine lacks what Kafka needs; the text names it."""


class KafkaFailedError(Exception):
    """A broker did not get ready or did not stay up; the text ends with the last lines of its log."""


@dataclass
class Broker:
    """One process that is broker and controller at once.

    Attributes:
        outer_port: Of a second listener, which tells its clients to come to `proxy_port`.
        proxy_port: Where whoever wants to stand between clients and broker listens, and passes on to `outer_port`.
        locked_port: Of a third listener, which asks for `LOCKED_USER` and `LOCKED_PASSWORD` (SASL/PLAIN, no TLS).
    """

    number: int
    port: int
    controller_port: int
    outer_port: int
    proxy_port: int
    locked_port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    def failed(self, why: str) -> KafkaFailedError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return KafkaFailedError("\n".join([f"broker {self.number} {why}; its log ends:", *lines]))


class KafkaCluster:
    """Apache Kafka in KRaft mode: brokers numbered from 1, each of them also a controller.

    A context manager; `start` and `restart` return when the broker answers, `stop` removes all data.
    """

    def __init__(self, brokers: int = 1) -> None:
        self._size = brokers
        self._brokers: dict[int, Broker] = {}
        self._folder: Path | None = None
        self._topics = itertools.count(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """What goes into `bootstrap.servers`."""
        return ",".join(broker.address for broker in self._brokers.values())

    @property
    def locked_bootstrap(self) -> str:
        """The same for clients that log in."""
        return ",".join(f"127.0.0.1:{broker.locked_port}" for broker in self._brokers.values())

    @property
    def proxied_bootstrap(self) -> str:
        """The same for clients that come through proxies."""
        return ",".join(f"127.0.0.1:{port}" for port in self.routes)

    @property
    def routes(self) -> dict[int, int]:
        """Where proxies have to listen, with the ports of the brokers behind them."""
        return {broker.proxy_port: broker.outer_port for broker in self._brokers.values()}

    def start(self) -> None:
        """Formats the storage, starts every broker and waits until each knows all of them."""
        jars = kafka_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        try:
            self._brokers = _lay_out(self._size, self._folder)
            _format(self._brokers.values(), jars)
            for broker in self._brokers.values():
                _run(broker, jars)
            for broker in self._brokers.values():
                _await_ready(broker, lambda known: set(known.brokers) == set(self._brokers))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every broker and removes its data."""
        for number in self._brokers:
            self.kill(number)
        self._brokers = {}
        if self._folder:
            shutil.rmtree(self._folder)
            self._folder = None

    def kill(self, broker: int) -> None:
        """Ends the broker as `kill -9` does; its data stays."""
        if process := self._brokers[broker].process:
            process.kill()
            process.wait(STOP_WITHIN_S)

    def restart(self, broker: int) -> None:
        """Starts the broker again, after an orderly end if it runs, and waits until it is in step."""
        chosen = self._brokers[broker]
        if chosen.process and chosen.process.poll() is None:
            chosen.process.send_signal(signal.SIGTERM)
            chosen.process.wait(STOP_WITHIN_S)
        _run(chosen, kafka_jars())
        _await_ready(chosen, lambda known: _in_step(known, broker))

    def create_topic(
        self, prefix: str = "topic", *, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        """Creates a topic that no one else uses, waits until it can be used, and returns its name."""
        name = f"{prefix}-{next(self._topics)}"
        admin = _admin(self.bootstrap)
        replicas = min(self._size, 3)
        created = admin.create_topics([NewTopic(name, partitions, replicas, config=dict(config or {}))])
        created[name].result(READY_WITHIN_S)
        for broker in self._brokers.values():
            if broker.process and broker.process.poll() is None:
                _await_ready(broker, lambda known: _has_leaders(known, name, partitions))
        return name


def kafka_jars() -> Path:
    """Returns the folder with Kafka's jars; Maven fetches them the first time.

    Raises:
        KafkaMissingError: Java or, for the first time, Maven is not installed.
    """
    _require("java", "setpriv")
    folder = Path(os.environ.get(JARS_VARIABLE) or PROJECT / ".cache" / "kafka" / _version())
    if not folder.is_dir():
        _fetch(folder)
    return folder


def launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a process that the kernel kills when this one ends, however it ends."""
    return _LAUNCHER.submit(_launch, command, log).result()


# The kernel's "parent" is the thread that forked: this one lives as long as the interpreter does.
_LAUNCHER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-launcher")


def _launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    tether = ["setpriv", "--pdeathsig", "KILL"]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  our own command
            [*tether, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the tests, which then stop the brokers
        )


def _require(*commands: str) -> None:
    missing = [command for command in commands if not shutil.which(command)]
    if missing:
        raise KafkaMissingError(f"Apache Kafka needs {' and '.join(missing)}, not found on this machine")


def _version() -> str:
    found = re.search(r"<kafka\.version>(.+)</kafka\.version>", POM.read_text())
    assert found, f"{POM} names no kafka.version"
    return found[1]


def _fetch(folder: Path) -> None:
    _require("mvn")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    maven = ["mvn", "-B", "-q", "--strict-checksums", "-f", str(POM)]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    try:
        done = subprocess.run(  # noqa: S603  our own command
            [*maven, *goal],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise KafkaFailedError(f"Maven could not fetch Apache Kafka:\n{done.stdout}{done.stderr}")
        move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def move_into_place(fresh: Path, folder: Path) -> None:
    """Keep what was fetched, unless another run was quicker."""
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _lay_out(size: int, root: Path) -> dict[int, Broker]:
    ports = _free_ports(5 * size)
    brokers = {
        number: Broker(number, next(ports), next(ports), next(ports), next(ports), next(ports), root / str(number))
        for number in range(1, size + 1)
    }
    voters = ",".join(f"{broker.number}@127.0.0.1:{broker.controller_port}" for broker in brokers.values())
    for broker in brokers.values():
        broker.folder.mkdir()
        lines = [f"{name}={value}\n" for name, value in _settings(broker, voters, size).items()]
        broker.properties.write_text("".join(lines))
    return brokers


def _settings(broker: Broker, voters: str, size: int) -> dict[str, object]:
    replicas = min(size, 3)
    in_sync = min(replicas, 2)
    return {
        "process.roles": "broker,controller",
        "node.id": broker.number,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": (
            f"PLAINTEXT://{broker.address},OUTER://127.0.0.1:{broker.outer_port},"
            f"LOCKED://127.0.0.1:{broker.locked_port},CONTROLLER://127.0.0.1:{broker.controller_port}"
        ),
        "advertised.listeners": (
            f"PLAINTEXT://{broker.address},OUTER://127.0.0.1:{broker.proxy_port},"
            f"LOCKED://127.0.0.1:{broker.locked_port}"
        ),
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,OUTER:PLAINTEXT,LOCKED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.locked.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{LOCKED_USER}="{LOCKED_PASSWORD}";'
        ),
        # What no ACL names is open to everybody; what one names is closed to whoever logs in and is not named there.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS",
        "log.dirs": broker.folder / "data",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 4,
        "log.retention.ms": -1,  # records of tests carry times of years ago
        "log.index.size.max.bytes": 262_144,  # by default each replica of each partition sets aside 20 MB
        # Tests wait for these. A killed broker may come back only after its session has run out.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "group.consumer.heartbeat.interval.ms": 1000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    }


_given: set[int] = set()
"""Ports of this process' clusters: one that has just got them may not listen yet."""
_giving = threading.Lock()


def _free_ports(count: int) -> Iterator[int]:
    """Finds ports below the ephemeral range, where no client's own socket can sit while a broker is down."""
    with _giving:
        ports = _find_ports(count)
        _given.update(ports)
    return iter(ports)


def _find_ports(count: int) -> list[int]:
    start = 20_000 + os.getpid() * 64 % 12_000
    held: list[socket.socket] = []
    for port in itertools.chain(range(start, 32_000), range(20_000, start)):
        if port in _given:
            continue
        probe = socket.socket()
        held.append(probe)
        # As a broker does, so that a port with connections left over from the last one counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            held.pop().close()
        if len(held) == count:
            break
    ports = [probe.getsockname()[1] for probe in held]
    for probe in held:
        probe.close()
    return ports


def _java(jars: Path, main: str, *arguments: str | Path) -> list[str]:
    return [*JAVA, *JAVA_LOG, "-cp", f"{jars}/*", main, *map(str, arguments)]


def _format(brokers: Iterable[Broker], jars: Path) -> None:
    tool = "kafka.tools.StorageTool"
    running = [
        (broker, launch(_java(jars, tool, "format", "-t", CLUSTER_ID, "-c", broker.properties), broker.log))
        for broker in brokers
    ]
    for broker, process in running:
        if process.wait(READY_WITHIN_S):
            raise broker.failed("could not format its storage")


def _run(broker: Broker, jars: Path) -> None:
    broker.process = launch(_java(jars, "kafka.Kafka", broker.properties), broker.log)


def _await_ready(broker: Broker, ready: Callable[[ClusterMetadata], bool]) -> None:
    """Asks this very broker until its answer is `ready`."""
    admin = _admin(broker.address)
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if broker.process is None or broker.process.poll() is not None:
            raise broker.failed("ended")
        with contextlib.suppress(KafkaException):
            if ready(admin.list_topics(timeout=1.0)):
                return
        time.sleep(0.05)
    raise broker.failed(f"was not ready within {READY_WITHIN_S:.0f} s")


def _admin(bootstrap: str) -> AdminClient:
    quiet = {"log_level": 0, "reconnect.backoff.max.ms": 100, "allow.auto.create.topics": False}
    return AdminClient({"bootstrap.servers": bootstrap, **quiet})


def _in_step(known: ClusterMetadata, broker: int) -> bool:
    """Says whether the broker is known and in sync with every leader there is."""
    partitions = [partition for topic in known.topics.values() for partition in topic.partitions.values()]
    followed = [p for p in partitions if broker in p.replicas and p.leader >= 0]
    return broker in known.brokers and all(broker in p.isrs for p in followed)


def _has_leaders(known: ClusterMetadata, topic: str, partitions: int) -> bool:
    found = known.topics[topic].partitions if topic in known.topics else {}
    return len(found) == partitions and all(p.leader >= 0 for p in found.values())
