"""One process that fuzzes one target, guided by the coverage of our code: arguments are the target and libFuzzer's.

An input is a find when it raises, crashes, takes more than a second of CPU time, or makes the process grow by more than
64 MB. libFuzzer writes it to the artifact directory, and the process ends with an exit code that is not zero.
"""

import resource
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["consumer.core"]):
    from tests.fuzz import targets

LONGEST_S = 1.0
MOST_KB = 64_000
PEAK_EVERY = 1_000
"""Inputs after which the peak is measured anew: libFuzzer grows too."""


class Fuzzed:
    """Runs inputs, one after the other, and looks at what they cost."""

    def __init__(self, target: targets.Target) -> None:
        self._target = target
        self._count = 0
        self._base_kb = 0

    def __call__(self, data: bytes) -> None:
        """Run an input.

        Raises:
            Exception: A find.
        """
        if self._count % PEAK_EVERY == 0 or targets.is_repeated(data):
            self._measure_anew()
        self._count += 1
        started = time.thread_time()
        targets.run(self._target, data)
        took = time.thread_time() - started
        grown = _peak_kb() - self._base_kb
        if took > LONGEST_S:
            raise AssertionError(f"took {took:.2f} s")
        if grown > MOST_KB:
            raise AssertionError(f"grew by {grown:,} kB")

    def _measure_anew(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what there is now
        self._base_kb = _peak_kb()


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, Fuzzed(targets.TARGETS[name]))
    atheris.Fuzz()
