"""`python -m tests.chaos.member`: the program itself, in a hurry, with a wall clock that can be set.

A breaker that stays open for 30 s, a transaction that is given up after 60 s when its producer is gone for good, and a
session of 45 s would be most of a round's time. The clock is the program's alone: the library's waits, which end by the
wall clock of the machine, do not see it.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

CLOCK_VARIABLE = "CHAOS_CLOCK"
"""Environment variable: a file with the seconds that the wall clock is off; it may come, and change, at any time."""

_wall_clock = time.time


def _stepped() -> float:
    with suppress(OSError):
        return _wall_clock() + int(Path(os.environ[CLOCK_VARIABLE]).read_text())
    return _wall_clock()


def run() -> int:
    """The program, changed as said."""
    time.time = _stepped
    from consumer.adapters.kafka import poller, reach, settling_producer  # noqa: PLC0415 -- after the clock is set
    from consumer.cli import main  # noqa: PLC0415
    from consumer.core import delivery  # noqa: PLC0415

    poller.SESSION_TIMEOUT_MS = 6_000  # the brokers', for the `consumer` protocol
    reach.PROBE_EVERY_S, reach.LOST_AFTER_S = 1.0, 8.0
    delivery.BREAKER_OPEN_S = 2.0
    settling_producer.SETTLE_WITHIN_S = 8.0
    settling_producer.HANGS_AFTER_S = 4.0
    settling_producer.TRANSACTION_TIMEOUT_MS = 10_000
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
