"""`make faults`: a hundred thousand changes through a Genesys that fails in every way it can, over a real socket.

Kafka and RocksDB are in memory, everything else is as it runs. 5 % of the requests are struck by faults of every kind,
3 % are carried out and their answers lost. Afterwards the list is compared with the model, every rule is checked, and
the simulator's journal must show no contact in two requests at once. `ARGS="--events 6000"` is the integration test.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import structlog
from opentelemetry.trace import NoOpTracer

from bench import machine
from consumer.adapters.genesys.sink import GenesysSink
from consumer.core.delivery import Throttle
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault, FaultKind
from tests.checker import check_without_outcomes
from tests.lives import REQUIRED, Life, settings, world_of
from tests.memory_ports import World
from tests.stories import random_story

LIST = REQUIRED["GENESYS_CONTACT_LIST"]
CHANGES_PER_CONTACT = 3
BATCH = 20
REQUESTS_PER_MINUTE = 100_000
FAULTS = 0.05
LOST = 0.03
JOURNAL = 1_000_000

_SECONDS = {FaultKind.SLOW: 0.05, FaultKind.DRIP: 0.005, FaultKind.THROTTLED: 1, FaultKind.UNAVAILABLE: 1}

UNFELT = {FaultKind.LAG}
"""No request fails by it: what is read is another thing, and a delete that shows it waits for 30 s."""

PERSISTENT = {FaultKind.BULK_JOB, FaultKind.IMPORTING, FaultKind.CLEARING}
"""Each asks for five seconds of patience: one of them stands for all, or a run would only wait."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run came to.

    Attributes:
        events: Change events told.
        contacts: Contacts that they are about.
        in_the_list: Contacts in Genesys at the end, as the model has them.
        requests: Requests to the simulator, tokens among them.
        faults: How often each kind struck.
        retries: Requests that were made again, by reason.
        outcomes: Of the records.
        overlapping: Contacts that were in two requests at once.
        seconds: From the first record to the last settlement.
    """

    events: int
    contacts: int
    in_the_list: int
    requests: int
    faults: dict[str, int]
    retries: dict[str, int]
    outcomes: dict[str, int]
    overlapping: int
    seconds: float


def every_kind(share: float = FAULTS, lost: float = LOST) -> list[Fault]:
    """Faults that strike such shares of the requests: of every kind together, and by losing the answer."""
    kinds = [kind for kind in FaultKind if kind not in {FaultKind.LOST_REPLY, *PERSISTENT, *UNFELT}]
    faults = [Fault(kind, share / len(kinds), _SECONDS.get(kind)) for kind in kinds]
    return [*faults, Fault(FaultKind.LOST_REPLY, lost)]


async def survive(events: int, seed: int) -> Figures:
    """Tell so many changes and let the pipeline bring them to a failing Genesys.

    Raises:
        AssertionError: A rule is broken.
    """
    contacts = events // CHANGES_PER_CONTACT
    story, _ = random_story(seed, contacts=contacts, events=events, partitions=4)
    world = world_of(story)
    world.poll_records = 50
    async with Simulator(journal_limit=JOURNAL, seed=seed) as simulator:
        began = time.monotonic()
        life = await _live(world, simulator)
        seconds = time.monotonic() - began
    for contact in simulator.contacts(LIST).values():
        data = contact["data"]
        world.list[data["external_id"]] = {"phone": data["phone_number"], "callable": contact["callable"]}
    outcomes = check_without_outcomes(world, story, set())
    stats = simulator.stats()
    return Figures(
        events=len(outcomes),
        contacts=contacts,
        in_the_list=len(world.list),
        requests=len(simulator.journal),
        faults=stats["faults"],
        retries=dict(life.telemetry.retries),
        outcomes=dict(Counter(event["outcome"] for event in outcomes.values())),
        overlapping=len(simulator.journal.overlapping_contacts()),
        seconds=round(seconds, 1),
    )


async def _live(world: World, simulator: Simulator) -> Life:
    """One life until everything is settled."""
    chosen = settings(
        genesys_login_url=simulator.url,
        genesys_api_url=simulator.url,
        genesys_request_timeout_s=2,
        genesys_requests_per_minute=REQUESTS_PER_MINUTE,
        batch_max_records=BATCH,
    )
    throttle = Throttle(REQUESTS_PER_MINUTE)
    sink = await GenesysSink.open(chosen, on_request=lambda *_: None, tracer=NoOpTracer(), throttle=throttle)
    simulator.faults.set_rates(every_kind())
    simulator.faults.inject(*map(Fault, PERSISTENT))
    life = Life(world, sink=sink, genesys_requests_per_minute=REQUESTS_PER_MINUTE, batch_max_records=BATCH)
    await life.run()
    await sink.close()
    return life


def faults_of(figures: Figures) -> list[str]:
    """What is wrong with a run in which every rule holds; nothing, if all is well."""
    unseen = sorted({*FaultKind} - UNFELT - figures.faults.keys())
    overlapping = [f"{figures.overlapping} contacts were in two requests at once"] if figures.overlapping else []
    return [*overlapping, *(f"{kind} never struck: tell more events" for kind in unseen)]


def main() -> int:
    """Run once, and tell the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="change events (default 100000)")
    parser.add_argument("--seed", type=int, default=7, help="of the story and of the faults (default 7)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures = asyncio.run(survive(arguments.events, arguments.seed))
    told = orjson.dumps({"machine": machine.described(), **asdict(figures)}, option=orjson.OPT_INDENT_2) + b"\n"
    print(told.decode())
    if arguments.json:
        arguments.json.write_bytes(told)
    for fault in (found := faults_of(figures)):
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
