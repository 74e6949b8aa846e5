"""`make chaos`: rounds of chaos until told to stop, and what they came to, as JSON.

A round is drawn from its seed: `--seed 17 --rounds 1` plays the seventeenth again. Two lanes play at a time, each a
process with a cluster of its own, since most of a round is waiting. A lane that dies is replaced, and its round is
played again; how often that happened is among the figures. A consumer that crashes (SIGSEGV, say) fails its round; one
that the Kafka library ends by itself (SIGABRT) is told at the end.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench import machine
from tests.chaos.ends import odd_ends, unforgivable
from tests.chaos.round import Round

LANES = 2
LONGEST_ANSWER = 2**20
LANE_DIES_AT_THE_MOST = 3
"""Of one and the same round: then it is the round, and it has failed."""


@dataclass
class Tally:
    """What all rounds came to.

    Attributes:
        rounds: Played to the end without a broken rule.
        failed: Seeds of the others.
        lanes_died: How often a process that plays rounds died.
        events: Source records, each with one audit event.
        applied_again: Writes of contacts repeated between Genesys' answer and the settlement.
        seconds: From the first round to now.
        outcomes: Of the records.
        done: Faults.
        ends: Exit codes of the consumers; negative ones are signals.
        reasons: Why consumers stopped by themselves.
        odd: Where consumers crashed: their exit codes and logs, by seed.
    """

    rounds: int = 0
    failed: list[int] = field(default_factory=list)
    lanes_died: int = 0
    events: int = 0
    applied_again: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    odd: dict[int, str] = field(default_factory=dict)

    def add(self, seed: int, figures: Mapping[str, Any]) -> None:
        """Count a round, among the failed where a consumer crashed and it was not the Kafka library that ended it."""
        ends = [*map(int, figures["ends"])]
        if odd := odd_ends(ends):
            self.odd[seed] = f"exit codes {odd}, logs in {figures['logs']}"
        if unforgivable(ends):
            self.failed.append(seed)
        else:
            self.rounds += 1
        self.events += figures["events"]
        self.applied_again += figures["applied_again"]
        self.outcomes.update(figures["outcomes"])
        self.done.update(figures["done"])
        self.ends.update(figures["ends"])
        self.reasons.update(figures["reasons"])

    def as_json(self) -> bytes:
        """For those who compare runs."""
        body = {
            "machine": machine.described(),
            "rounds": self.rounds,
            "failed": self.failed,
            "consumers_crashed": {str(seed): told for seed, told in sorted(self.odd.items())},
            "lanes_died": self.lanes_died,
            "events": self.events,
            "outcomes": dict(self.outcomes.most_common()),
            "contacts_applied_again": self.applied_again,
            "faults": dict(self.done.most_common()),
            "stopped_by_themselves": dict(self.reasons.most_common()),
            "exit_codes": dict(sorted(self.ends.items(), key=lambda end: int(end[0]))),
            "seconds": round(self.seconds),
        }
        return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"


async def campaign(arguments: argparse.Namespace) -> Tally:
    """Play rounds, two at a time."""
    tally = Tally()
    began = time.monotonic()
    seeds = iter(range(arguments.seed, arguments.seed + arguments.rounds))
    async with asyncio.TaskGroup() as lanes:
        for _ in range(min(LANES, arguments.rounds)):
            lanes.create_task(_lane(seeds, began + arguments.minutes * 60, arguments.events, tally))
    tally.seconds = time.monotonic() - began
    return tally


async def _lane(seeds: Iterator[int], ends_at: float, events: int, tally: Tally) -> None:
    """Have rounds played one after the other."""
    process = await _started(events)
    try:
        while time.monotonic() < ends_at and (seed := next(seeds, None)) is not None:
            print(f"round {seed}: {Round.drawn(seed, '', 1)}", flush=True)
            process = await _round(process, seed, events, tally)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _started(events: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "tests.chaos.lane", str(events))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LONGEST_ANSWER)


async def _round(
    process: asyncio.subprocess.Process, seed: int, events: int, tally: Tally
) -> asyncio.subprocess.Process:
    """Have one round played, and again where the process that plays it dies; the process that lives in the end."""
    for _ in range(LANE_DIES_AT_THE_MOST):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{seed}\n".encode())
        answer = await process.stdout.readline()
        if answer:
            _count(seed, orjson.loads(answer), tally)
            return process
        tally.lanes_died += 1
        print(f"round {seed}: its lane died with exit code {await process.wait()}", flush=True)
        await asyncio.to_thread(_clean_up, seed)
        process = await _started(events)
    tally.failed.append(seed)
    return process


def _count(seed: int, figures: Mapping[str, Any], tally: Tally) -> None:
    if "failed" in figures:
        tally.failed.append(seed)
        print(f"round {seed} FAILED, {figures['failed']}", flush=True)
        return
    tally.add(seed, figures)
    verdict = "FAILED, a consumer crashed," if seed in tally.failed else "ok"
    again = figures["applied_again"]
    print(f"round {seed} {verdict} in {figures['seconds']:.0f} s, {again} contacts applied again", flush=True)


def _clean_up(seed: int) -> None:
    """Remove what a dead lane left of a round; its brokers and consumers died with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"chaos-{seed}-*"):
        subprocess.run(["umount", "--lazy", str(folder / "disk")], check=False)  # noqa: S603, S607 -- ours
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run a campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many at the most (default 200)")
    parser.add_argument("--minutes", type=float, default=600, help="begin no round after this (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each next one has the next seed")
    parser.add_argument("--events", type=int, default=5_000, help="change events in a round (default 5000)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    tally = asyncio.run(campaign(arguments))
    print(tally.as_json().decode())
    if arguments.json:
        arguments.json.write_bytes(tally.as_json())
    for seed, told in sorted(tally.odd.items()):
        print(f"!!! CONSUMERS CRASHED in round {seed}: {told}", flush=True)
    return 1 if tally.failed or not tally.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
