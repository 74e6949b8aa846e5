"""The pipeline against a Genesys that fails in every way it can, over a real socket; `make faults` is larger."""

import asyncio

import pytest

from consumer.simulator.faults import FaultKind
from tests.faults import PERSISTENT, survive


@pytest.mark.timeout(300)  # a breaker that opens takes half a minute
async def test_five_percent_faults_of_every_kind_leave_the_right_list() -> None:
    """6,000 changes of 2,000 contacts in small batches: every rule holds, and no contact is in two requests at once."""
    async with asyncio.timeout(240):
        figures = await survive(6_000, seed=7)
    assert figures.events >= 6_000
    assert figures.overlapping == 0
    assert {FaultKind.LOST_REPLY, *PERSISTENT} < {FaultKind(kind) for kind in figures.faults}
