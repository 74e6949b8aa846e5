"""The pipeline against a Genesys that fails in every way it can, over a real socket."""

import asyncio

import pytest
from opentelemetry.trace import NoOpTracer

from consumer.adapters.genesys.sink import GenesysSink
from consumer.core.delivery import Throttle
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault, FaultKind
from tests.checker import check_without_outcomes
from tests.lives import REQUIRED, Life, settings, world_of
from tests.stories import random_story

LIST = REQUIRED["GENESYS_CONTACT_LIST"]
EVENTS, CONTACTS, BATCH = 6_000, 2_000, 20
FAULTS = 0.05
LOST = 0.03

_SECONDS = {FaultKind.SLOW: 0.05, FaultKind.DRIP: 0.005, FaultKind.THROTTLED: 1, FaultKind.UNAVAILABLE: 1}
_PERSISTENT = {FaultKind.BULK_JOB, FaultKind.IMPORTING, FaultKind.CLEARING}
"""Each asks for five seconds of patience: one of them stands for all, or the test would only wait."""


def _every_kind() -> list[Fault]:
    kinds = [kind for kind in FaultKind if kind not in {FaultKind.LOST_REPLY, *_PERSISTENT}]
    faults = [Fault(kind, FAULTS / len(kinds), _SECONDS.get(kind)) for kind in kinds]
    return [*faults, Fault(FaultKind.LOST_REPLY, LOST)]


@pytest.mark.timeout(300)  # a breaker that opens takes half a minute
async def test_five_percent_faults_of_every_kind_leave_the_right_list() -> None:
    """6,000 changes of 2,000 contacts in small batches: every rule holds, and no contact is in two requests at once."""
    story, _ = random_story(7, contacts=CONTACTS, events=EVENTS, partitions=4)
    world = world_of(story)
    simulator = Simulator(journal_limit=100_000)
    async with simulator:
        chosen = settings(
            genesys_login_url=simulator.url,
            genesys_api_url=simulator.url,
            genesys_request_timeout_s=2,
            genesys_requests_per_minute=100_000,
            batch_max_records=BATCH,
        )
        throttle = Throttle(chosen.genesys_requests_per_minute)
        sink = await GenesysSink.open(chosen, on_request=lambda *_: None, tracer=NoOpTracer(), throttle=throttle)
        simulator.faults.set_rates(_every_kind())
        simulator.faults.inject(*map(Fault, _PERSISTENT))
        life = Life(world, sink=sink, genesys_requests_per_minute=100_000, batch_max_records=BATCH)
        async with asyncio.timeout(240):
            await life.run()
        await sink.close()
    for contact in simulator.contacts(LIST).values():
        data = contact["data"]
        world.list[data["external_id"]] = {"phone": data["phone_number"], "callable": contact["callable"]}
    check_without_outcomes(world, story, set())
    assert simulator.journal.overlapping_contacts() == set()
    assert {FaultKind.LOST_REPLY, *_PERSISTENT} < {FaultKind(kind) for kind in simulator.stats()["faults"]}
