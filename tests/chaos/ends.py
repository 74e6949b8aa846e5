"""How the lives of consumers end, by exit code; negative ones are signals."""

import signal
from collections.abc import Iterable

USUAL = {0, 1, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
"""The last one is of a second SIGTERM."""

FORGIVEN = {-signal.SIGABRT}
"""librdkafka ends the process by itself where it finds itself wrong, which happens when brokers die."""


def odd_ends(ends: Iterable[int]) -> list[int]:
    """Those that are to be looked at."""
    return sorted({*ends} - USUAL)


def unforgivable(ends: Iterable[int]) -> list[int]:
    """Those with which a round has failed: memory that was read where there is none, above all."""
    return sorted({*ends} - USUAL - FORGIVEN)
