"""`make bench`: the consumer end to end, and stage by stage; a table on the terminal, JSON in bench/results.json."""

import argparse
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from bench import end_to_end, events, machine, stages
from tests.kafka_cluster import KafkaCluster

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Run all benchmarks and tell the medians."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events of each workload (default 200000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each workload (default 5)")
    arguments = parser.parse_args()
    machine.stay_on(machine.CONSUMER_CORE)
    costs = stages.measure(min(arguments.events, 50_000))
    machine.stay_on(machine.OTHER_CORE)
    with KafkaCluster() as kafka, machine.sink() as sink:
        runs = [
            _median([end_to_end.measure(kafka, sink, name, arguments.events) for _ in range(arguments.runs)])
            for name in events.WORKLOADS
        ]
    _tell(runs, costs)
    result = {
        "machine": machine.described(),
        "end_to_end": list(map(asdict, runs)),
        "stages": [s._asdict() for s in costs],
    }
    RESULTS.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


def _median(runs: list[end_to_end.Run]) -> end_to_end.Run:
    """The medians of each figure; the highest peak of memory."""
    return replace(
        runs[0],
        events_per_s=round(statistics.median(run.events_per_s for run in runs)),
        cpu_us_per_event=statistics.median(run.cpu_us_per_event for run in runs),
        peak_rss_mb=max(run.peak_rss_mb for run in runs),
    )


def _tell(runs: list[end_to_end.Run], costs: list[stages.Stage]) -> None:
    console = Console()
    floor = sum(stage.floor_us for stage in costs)
    whole = Table("end to end", "events", "events/s", "CPU µs/event", "times floor", "peak MB", title_justify="left")
    for run in runs:
        figures = f"{run.events:,}", f"{run.events_per_s:,}", f"{run.cpu_us_per_event:.1f}"
        whole.add_row(run.workload, *figures, f"{run.cpu_us_per_event / floor:.1f}", str(run.peak_rss_mb))
    each = Table("stage", "CPU µs/event", "floor µs", "times floor")
    for stage in [*costs, stages.Stage("all stages", sum(stage.us for stage in costs), floor)]:
        ratio = f"{stage.us / stage.floor_us:.1f}" if stage.floor_us else ""
        each.add_row(stage.name, f"{stage.us:.2f}", f"{stage.floor_us:.2f}" if stage.floor_us else "", ratio)
    console.print(whole, each)


if __name__ == "__main__":
    main()
