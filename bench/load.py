"""The first fill of a million contacts: rows per second from start to end of the command, and its memory.

The command is the real one, in a process of its own on a core of its own, on real Kafka; Genesys is the simulator in a
process of its own, which takes the file as it streams and imports 50,000 contacts a second. The time is that of the
whole process, start and import included. Every row is valid, new and callable, but for one in fifty that has no
consent.
"""

import csv
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench import machine, process
from bench.programs import Program
from tests.kafka_cluster import KafkaCluster

PARTITIONS = 4
WITHOUT_CONSENT = 50
"""One row in so many."""

LOOK_EVERY_S = 0.05
READY_WITHIN_S = 30.0
HEADER = ("externalId", "phone", "email", "consent", "doNotCall", "version", "segment", "language")


@dataclass(frozen=True)
class Load:
    """One file.

    Attributes:
        rows: Of the file.
        file_mb: Its size.
        partitions: Of the source topic.
        seconds: From the start of the process to its end.
        rows_per_s: The same as a rate.
        cpu_us_per_row: User and system time of the whole process.
        peak_rss_mb: At any time.
        again_s: The same file once more, when all of it is settled.
    """

    rows: int
    file_mb: int
    partitions: int
    seconds: float
    rows_per_s: int
    cpu_us_per_row: float
    peak_rss_mb: int
    again_s: float


def measure(kafka: KafkaCluster, rows: int) -> Load:
    """Load a file of so many rows, twice."""
    topic = kafka.create_topic("load", partitions=PARTITIONS)
    with tempfile.TemporaryDirectory() as directory, _simulator() as genesys:
        file = Path(directory) / "contacts.csv"
        _write(file, rows)
        own = {"GENESYS_UPLOAD_URL": genesys, "GENESYS_ATTRIBUTE_COLUMNS": "segment,language"}
        environ = process.environ(kafka.bootstrap, topic, genesys, str(Path(directory) / "state")) | own
        seconds, cpu_s, peak, summary = _run(environ, file)
        again_s, _, _, _ = _run(environ, file)
        size = file.stat().st_size
    if summary["outcomes"] != {"delivered": rows}:
        raise RuntimeError(f"not all rows were delivered: {summary}")
    return Load(
        rows,
        round(size / 2**20),
        PARTITIONS,
        round(seconds, 1),
        round(rows / seconds),
        round(cpu_s / rows * 1e6, 1),
        round(peak / 2**20),
        round(again_s, 1),
    )


def _write(file: Path, rows: int) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(HEADER)
        for n in range(rows):
            consent = "false" if n % WITHOUT_CONSENT == 0 else "true"
            phone, email = f"+1415{n % 10_000_000:07d}", f"person.{n}@example.org"
            writer.writerow((f"003{n:015d}", phone, email, consent, "false", 1, "gold", "en"))


def _run(environ: Mapping[str, str], file: Path) -> tuple[float, float, int, Mapping[str, object]]:
    """Seconds, CPU seconds, bytes at the peak, and what the command says."""
    started = time.monotonic()
    command = Program("load", ("consumer", "load", str(file), "--partitioner", "murmur2", "--output", "json"))
    loading = machine.started(machine.CONSUMER_CORE, command, environ, subprocess.PIPE)
    usage = process.Watched(loading)
    while loading.poll() is None:
        usage.look()
        time.sleep(LOOK_EVERY_S)
    seconds = time.monotonic() - started
    said = loading.stdout.read() if loading.stdout else b""
    if loading.returncode:
        raise RuntimeError(f"the load failed with {loading.returncode}")
    return seconds, usage.samples[-1].cpu_s, usage.peak_rss, orjson.loads(said)


@contextmanager
def _simulator() -> Iterator[str]:
    """The simulator as the command that it is, at its address."""
    port = machine.free_port()
    command = Program("simulator", ("consumer", "simulate-genesys", "--port", str(port)))
    simulating = machine.started(machine.OTHER_CORE, command, stdout=subprocess.PIPE)
    try:
        if simulating.stdout is None or not simulating.stdout.readline():  # it tells its address once it listens
            raise RuntimeError("the simulator did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        simulating.kill()
        simulating.wait()
