"""What a campaign of chaos came to: a consumer that crashed must not pass for one that ended as usual."""

import signal
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from tests.chaos.__main__ import Tally


def tally(ends: Mapping[int, int]) -> Tally:
    """Of one round, with the seed 17, in which consumers ended so."""
    figures: dict[str, Any] = {"outcomes": {}, "done": {}, "reasons": {}}
    figures |= {"events": 5, "applied_again": 0, "ends": {str(code): times for code, times in ends.items()}}
    counted = Tally()
    counted.add(17, figures | {"logs": "logs"})
    return counted


@pytest.mark.parametrize("code", [-signal.SIGSEGV, -signal.SIGBUS, 2])
def test_a_consumer_that_crashed_fails_the_round(code: int) -> None:
    """However well the others made up for it."""
    assert (tally({0: 3, code: 1}).failed, tally({0: 3, code: 1}).rounds) == ([17], 0)


@pytest.mark.parametrize("code", [0, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT])
def test_other_ends_do_not(code: int) -> None:
    """The Kafka library's own assertions included, which end a process by SIGABRT."""
    assert (tally({0: 3, code: 1}).failed, tally({0: 3, code: 1}).rounds) == ([], 1)


@pytest.mark.parametrize("code", [-signal.SIGSEGV, -signal.SIGABRT])
def test_crashes_are_among_the_figures(code: int) -> None:
    """With the place where their logs are."""
    told = orjson.loads(tally({0: 3, code: 1}).as_json())
    assert told["consumers_crashed"] == {"17": f"exit codes [{code}], logs in logs"}
    assert orjson.loads(tally({0: 3, -9: 7}).as_json())["consumers_crashed"] == {}
