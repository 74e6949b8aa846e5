"""`make bench`: what the consumer costs, restores and stands still for; tables on the terminal, JSON in results.json.

`ARGS="restore rolling"` measures these alone; the others keep the figures that they had.
"""

import argparse
import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import end_to_end, envelopes, events, layouts, load, machine, reconcile, restore, rolling, stages
from tests.kafka_cluster import KafkaCluster

RESULTS = Path(__file__).with_name("results.json")
RESTORED = ((1_000_000, 4), (1_000_000, 64), (10_000_000, 16))
"""Keys in the changelog, and partitions."""

LOADED = 1_000_000
"""Rows of a file."""

RECONCILED = 1_000_000
"""Contacts in the list."""


def _stages(arguments: argparse.Namespace) -> Sequence[Any]:
    machine.stay_on(machine.CONSUMER_CORE)
    costs = stages.measure(min(arguments.events, 50_000))
    us, floor_us = sum(stage.us for stage in costs), sum(stage.floor_us for stage in costs)
    return [*costs, stages.Stage("all stages", round(us, 2), round(floor_us, 2))]


def _end_to_end(arguments: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka, machine.sink() as sink:
        return [
            _median([end_to_end.measure(kafka, sink, name, arguments.events) for _ in range(arguments.runs)])
            for name in events.WORKLOADS
        ]


def _median(runs: list[end_to_end.Run]) -> end_to_end.Run:
    """The medians of each figure; the highest peak of memory."""
    return replace(
        runs[0],
        events_per_s=round(statistics.median(run.events_per_s for run in runs)),
        cpu_us_per_event=statistics.median(run.cpu_us_per_event for run in runs),
        peak_rss_mb=max(run.peak_rss_mb for run in runs),
    )


def _restore(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka, machine.sink() as sink:
        return [asyncio.run(restore.measure(kafka, sink, keys, partitions)) for keys, partitions in RESTORED]


def _rolling(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka, machine.sink() as sink:
        return [rolling.measure(kafka, sink, protocol, static=static) for protocol, static in rolling.MEMBERSHIPS]


def _load(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [load.measure(kafka, LOADED)]


def _reconcile(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [reconcile.measure(kafka, RECONCILED)]


def _layouts(_: argparse.Namespace) -> Sequence[Any]:
    return layouts.measure()


def _envelopes(arguments: argparse.Namespace) -> Sequence[Any]:
    machine.stay_on(machine.CONSUMER_CORE)
    return envelopes.measure(min(arguments.events, 50_000))


PARTS: Mapping[str, Callable[[argparse.Namespace], Sequence[Any]]] = {
    "stages": _stages,
    "envelopes": _envelopes,
    "end_to_end": _end_to_end,
    "restore": _restore,
    "rolling": _rolling,
    "reconcile": _reconcile,
    "layouts": _layouts,
    "load": _load,
}


def main() -> None:
    """Measure what is asked for, tell it, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--events", type=int, default=200_000, help="events of each workload (default 200000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each workload (default 5)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in arguments.parts:
        machine.stay_on(machine.OTHER_CORE)
        found = PARTS[name](arguments)
        _tell(name, found)
        _keep(name, found)


def _tell(name: str, found: Sequence[Any]) -> None:
    table = Table(title=name.replace("_", " "), title_justify="left", box=SIMPLE_HEAD)
    columns = [field.name for field in fields(found[0]) if field.name != "outcomes"]
    for column in columns:
        table.add_column(column.replace("_", " "))
    for each in found:
        table.add_row(*(_text(getattr(each, column)) for column in columns))
    Console().print(table)


def _text(figure: object) -> str:
    return f"{figure:,}" if isinstance(figure, int | float) and not isinstance(figure, bool) else str(figure)


def _keep(name: str, found: Sequence[Any]) -> None:
    kept = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    kept[name] = {"machine": machine.described(), "figures": list(map(asdict, found))}
    RESULTS.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
