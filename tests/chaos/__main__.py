"""`make chaos`: rounds of chaos until told to stop, and what they came to, in a table and as JSON.

A round is drawn from its seed: `--seed 17 --rounds 1` plays the seventeenth again.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bench import machine
from tests.chaos.proxy import Proxy
from tests.chaos.round import Played, Round, play
from tests.kafka_cluster import PROJECT, KafkaCluster

KEPT = PROJECT / ".cache" / "chaos"
BROKERS = 3
LANES = 2


@dataclass
class Tally:
    """What all rounds came to.

    Attributes:
        rounds: Played to the end without a broken rule.
        failed: Seeds of the others.
        events: Source records, each with one audit event.
        applied_again: Writes of contacts repeated between Genesys' answer and the settlement.
        outcomes: Of the records.
        done: Faults.
        ends: Exit codes of the consumers; negative ones are signals.
        reasons: Why consumers stopped by themselves.
    """

    rounds: int = 0
    failed: list[int] = field(default_factory=list)
    events: int = 0
    applied_again: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, played: Played) -> None:
        """Count a round."""
        self.rounds += 1
        self.events += played.reckoning.events
        self.applied_again += played.reckoning.applied_again
        self.seconds += played.seconds
        self.outcomes.update(played.reckoning.outcomes)
        self.done.update(played.done)
        self.ends.update(played.ends)
        self.reasons.update(played.reasons)

    def as_json(self) -> bytes:
        """For those who compare runs."""
        body = {
            "machine": machine.described(),
            "rounds": self.rounds,
            "failed": self.failed,
            "events": self.events,
            "outcomes": dict(self.outcomes.most_common()),
            "contacts_applied_again": self.applied_again,
            "faults": dict(self.done.most_common()),
            "stopped_by_themselves": dict(self.reasons.most_common()),
            "exit_codes": {str(code): count for code, count in sorted(self.ends.items())},
            "seconds": round(self.seconds),
        }
        return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"


async def campaign(arguments: argparse.Namespace) -> Tally:
    """Play rounds, two at a time: most of a round is waiting."""
    tally = Tally()
    ends_at = time.monotonic() + arguments.minutes * 60
    seeds = iter(range(arguments.seed, arguments.seed + arguments.rounds))
    async with asyncio.TaskGroup() as lanes:
        for _ in range(min(LANES, arguments.rounds)):
            lanes.create_task(_lane(seeds, ends_at, arguments.events, tally))
    return tally


async def _lane(seeds: Iterator[int], ends_at: float, events: int, tally: Tally) -> None:
    """Play rounds, one after the other, on one cluster."""
    async with AsyncExitStack() as stack:
        cluster = KafkaCluster(BROKERS)
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await asyncio.to_thread(cluster.start)
        proxies = [await _proxy(stack, port, target) for port, target in cluster.routes.items()]
        while time.monotonic() < ends_at and (seed := next(seeds, None)) is not None:
            await _round(cluster, proxies, seed, events, tally)


async def _proxy(stack: AsyncExitStack, port: int, target: int) -> Proxy:
    proxy = Proxy(target)
    await proxy.start(port)
    stack.push_async_callback(proxy.stop)
    return proxy


async def _round(cluster: KafkaCluster, proxies: list[Proxy], seed: int, events: int, tally: Tally) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    print(f"round {seed}: {Round.drawn(seed, '', 1)}", flush=True)
    try:
        played = await play(cluster, proxies, seed, events, folder)
    except Exception:  # noqa: BLE001 -- whatever it is, the round is to be looked at, and the others go on
        tally.failed.append(seed)
        print(f"round {seed} FAILED, its logs are in {_kept(folder, seed)}\n{traceback.format_exc()}", flush=True)
    else:
        tally.add(played)
        again = played.reckoning.applied_again
        print(f"round {seed} ok in {played.seconds:.0f} s, {again} contacts applied again", flush=True)
    finally:
        shutil.rmtree(folder)


def _kept(folder: Path, seed: int) -> Path:
    """The logs of a round, out of the way of the next one."""
    kept = KEPT / str(seed)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return kept.relative_to(PROJECT)


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
    return 1 if tally.failed or not tally.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
