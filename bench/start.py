"""How long the command takes to start: from the process' start to the first contact that is delivered, and its import.

The topic has ten batches, which nobody has to wait for to fill; the group, the state directory and the contact list are
new.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import events, machine, process, sink
from bench.end_to_end import PARTITIONS, task
from bench.programs import OURS
from tests.kafka_cluster import KafkaCluster

RUNS = 5
RECORDS = 1_000
WITHIN_S = 60.0
_IMPORT = "import time; began = time.perf_counter(); import consumer.cli; print(time.perf_counter() - began)"


@dataclass(frozen=True)
class Start:
    """Medians of some starts.

    Attributes:
        first_contact_s: From the start of the process to the sink's first answer.
        import_ms: Of the command line alone, in a process that has imported nothing.
    """

    first_contact_s: float
    import_ms: int


def measure(kafka: KafkaCluster) -> Start:
    """Start several times, each with a group of its own."""
    topic = kafka.create_topic("start", partitions=PARTITIONS)
    events.produce(kafka.bootstrap, topic, events.all_new(RECORDS))
    first = statistics.median(_first_contact_s(kafka, topic) for _ in range(RUNS))
    imports = statistics.median(_import_s() for _ in range(RUNS))
    return Start(round(first, 2), round(imports * 1000))


def _first_contact_s(kafka: KafkaCluster, topic: str) -> float:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "requests.log")
        with machine.sink(log=log) as server:
            given = task(kafka, server, directory, topic, events.WORKLOADS[0].attributes)
            began = time.time()
            with process.watched(OURS, given, Path(directory, "program.log")) as watch:
                watch.until(lambda: log.exists() and log.read_bytes().endswith(b"\n"), WITHIN_S)
        return next(sink.requests(log)).answered - began


def _import_s() -> float:
    command = (sys.executable, "-c", _IMPORT)
    return float(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603 -- our own module
