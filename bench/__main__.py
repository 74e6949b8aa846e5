"""`make bench`: what the consumer costs, beside its floor and its peers, restores and stands still for.

Tables on the terminal, JSON in results.json, plots. `ARGS="restore rolling"` measures these alone; the others keep the
figures that they had.
"""

import argparse
import asyncio
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import (
    end_to_end,
    envelopes,
    events,
    growth,
    latency,
    layouts,
    load,
    machine,
    memory,
    plots,
    programs,
    reconcile,
    restore,
    rolling,
    spread,
    stages,
    start,
)
from tests.kafka_cluster import KafkaCluster

RESULTS = Path(__file__).with_name("results.json")
PLOTS = Path(__file__).with_name("plots")
RESTORED = ((1_000_000, 4), (1_000_000, 64), (10_000_000, 16))
"""Keys in the changelog, and partitions."""
NOT_IN_TABLES = {"outcomes", "each_events_per_s", "rss_mb"}
WIDTH = 200
"""Columns of a table that goes into a file."""

IN_ONE_PROCESS = 50_000
SPREAD = 240_000
"""Events on each topic."""
LOADED = 1_000_000
"""Rows of a file."""
RECONCILED = 1_000_000
"""Contacts in the list."""


def _stages(_: argparse.Namespace) -> Sequence[Any]:
    machine.stay_on(machine.CONSUMER_CORE)
    return stages.measure(IN_ONE_PROCESS)


def _end_to_end(arguments: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        end_to_end.measure(kafka, programs.ALL, events.WORKLOADS[0], arguments.events, runs=1)  # to warm up
        return [
            run
            for workload in events.WORKLOADS
            for run in end_to_end.measure(
                kafka, programs.ALL, workload, workload.times * arguments.events, arguments.runs
            )
        ]


def _latency(arguments: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [
            latency.measure(kafka, workload, program, arguments.seconds)
            for workload in latency.WORKLOADS
            for program in programs.COMPARED
        ]


def _memory(arguments: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [memory.measure(kafka, arguments.backlog)]


def _restore(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka, machine.sink() as sink:
        return [asyncio.run(restore.measure(kafka, sink.url, keys, partitions)) for keys, partitions in RESTORED]


def _rolling(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka, machine.sink() as sink:
        return [rolling.measure(kafka, sink.url, protocol, static=static) for protocol, static in rolling.MEMBERSHIPS]


def _load(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [load.measure(kafka, LOADED)]


def _reconcile(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [reconcile.measure(kafka, RECONCILED)]


def _start(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return [start.measure(kafka)]


def _layouts(_: argparse.Namespace) -> Sequence[Any]:
    return layouts.measure()


def _growth(_: argparse.Namespace) -> Sequence[Any]:
    machine.stay_on(machine.CONSUMER_CORE)
    return growth.measure(IN_ONE_PROCESS)


def _spread(_: argparse.Namespace) -> Sequence[Any]:
    with KafkaCluster() as kafka:
        return spread.measure(kafka, SPREAD)


def _envelopes(_: argparse.Namespace) -> Sequence[Any]:
    machine.stay_on(machine.CONSUMER_CORE)
    return envelopes.measure(IN_ONE_PROCESS)


PARTS: Mapping[str, Callable[[argparse.Namespace], Sequence[Any]]] = {
    "stages": _stages,
    "envelopes": _envelopes,
    "end_to_end": _end_to_end,
    "latency": _latency,
    "memory": _memory,
    "restore": _restore,
    "rolling": _rolling,
    "reconcile": _reconcile,
    "layouts": _layouts,
    "growth": _growth,
    "spread": _spread,
    "start": _start,
    "load": _load,
}


def main() -> None:
    """Measure what is asked for, tell it, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--events", type=int, default=32_000, help="events of each workload (default 32000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each program on each workload (default 5)")
    parser.add_argument("--seconds", type=int, default=30, help="that each latency is measured for (default 30)")
    parser.add_argument("--backlog", type=int, default=5_000_000, help="events of the backlog (default 5000000)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    where = machine.described() | {"peers": programs.peer_versions()}
    failed = [name for name in arguments.parts if not _measured(name, arguments, where)]
    if failed:
        sys.exit(f"without figures: {', '.join(failed)}")


def _measured(name: str, arguments: argparse.Namespace, where: Mapping[str, str]) -> bool:
    """Measure a part; False where something in it is not as it must be, of which no figures are kept."""
    machine.stay_on(machine.OTHER_CORE)
    try:
        found = PARTS[name](arguments)
    except RuntimeError:
        traceback.print_exc()  # the other parts take an hour, and are not to blame
        return False
    _tell(name, found)
    _keep(name, where, found)
    _draw(name, found)
    return True


def _tell(name: str, found: Sequence[Any]) -> None:
    table = Table(title=name.replace("_", " "), title_justify="left", box=SIMPLE_HEAD)
    columns = [field.name for field in fields(found[0]) if field.name not in NOT_IN_TABLES]
    for column in columns:
        table.add_column(column.replace("_", " "))
    for each in found:
        table.add_row(*(_text(getattr(each, column)) for column in columns))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _text(figure: object) -> str:
    return f"{figure:,}" if isinstance(figure, int | float) and not isinstance(figure, bool) else str(figure)


def _keep(name: str, where: Mapping[str, str], found: Sequence[Any]) -> None:
    kept = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    kept[name] = {"machine": where, "figures": list(map(asdict, found))}
    RESULTS.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n")


def _draw(name: str, found: Sequence[Any]) -> None:
    if name in DRAWN:
        PLOTS.mkdir(exist_ok=True)
        for file, text in DRAWN[name](found).items():
            (PLOTS / file).write_text(text)


def _draw_end_to_end(runs: Sequence[end_to_end.Run]) -> Mapping[str, str]:
    rates: dict[str, dict[str, float]] = {}
    costs: dict[str, dict[str, float]] = {}
    for run in runs:
        rates.setdefault(run.workload, {})[run.program] = run.events_per_s
        costs.setdefault(run.workload, {})[run.program] = run.cpu_us_per_event
    return {
        "throughput.svg": plots.bars("Events per second, more is better", rates),
        "cpu.svg": plots.bars("CPU microseconds per event, less is better", costs),
    }


def _draw_latency(found: Sequence[latency.Latency]) -> Mapping[str, str]:
    mixed, alone = ([each for each in found if each.workload == workload] for workload in latency.WORKLOADS)
    groups = {
        "changes alone, p50": {each.program: each.p50_ms for each in alone},
        "changes alone, p99": {each.program: each.p99_ms for each in alone},
        "among others, p50": {each.program: each.p50_ms for each in mixed},
        "among others, p99": {each.program: each.p99_ms for each in mixed},
        "withdrawals, p50": {each.program: each.withdrawal_p50_ms or 0.0 for each in mixed},
        "withdrawals, p99": {each.program: each.withdrawal_p99_ms or 0.0 for each in mixed},
    }
    return {"latency.svg": plots.bars("Milliseconds from append to applied, less is better", groups)}


def _draw_memory(found: Sequence[memory.Memory]) -> Mapping[str, str]:
    (one,) = found
    return {"memory.svg": plots.line("Memory while a backlog is worked off", one.rss_mb, "s", "MB")}


DRAWN: Mapping[str, Callable[[Sequence[Any]], Mapping[str, str]]] = {
    "end_to_end": _draw_end_to_end,
    "latency": _draw_latency,
    "memory": _draw_memory,
}


if __name__ == "__main__":
    main()
