"""The consumers of a round: real processes that are started again when they end, as Kubernetes does.

Touches processes, signals, and the state directories on the round's disk.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.chaos.disk import Disk
from tests.chaos.member import CLOCK_VARIABLE

RESTART_AFTER_S = 0.2
CRASHED_RESTART_AFTER_S = 1.0
DRAIN_S = 60.0
TETHER = ("setpriv", "--pdeathsig", "KILL")
"""A consumer whose round has died dies too."""


class Member:
    """One consumer with its state directory and its log.

    Attributes:
        name: Names its files.
        state_dir: Outlives the process.
        log: Of all its lives, one after the other.
        ends: How its lives ended: negative for a signal, else the exit code.
    """

    def __init__(self, name: str, environ: Mapping[str, str], disk: Disk, folder: Path) -> None:
        self.name = name
        self.state_dir = disk.folder / name
        self.log = folder / f"{name}.log"
        self.ends: Counter[int] = Counter()
        self._clock = folder / f"{name}.clock"
        self._environ = {**environ, "STATE_DIR": str(self.state_dir), CLOCK_VARIABLE: str(self._clock)}
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._loses_its_disk = False
        self._lives: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Live, and live again, until `stop`."""
        self._lives = asyncio.create_task(self._live())

    def step_clock(self, seconds: int) -> None:
        """Set the wall clock of the program this much off; the monotonic one goes on."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._clock)

    def signal(self, number: int) -> bool:
        """Send a signal, if there is a process to take it."""
        if self._process is None or self._process.returncode is not None:
            return False
        # Not `send_signal`: that asks first whether the process has ended, and the exit code of one that has is lost.
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        return True

    def lose_disk(self) -> bool:
        """Die, if it lives, and find the state directory gone afterwards; whether it lived."""
        lived = self.signal(signal.SIGKILL)
        self._loses_its_disk |= lived
        return lived

    async def stop(self) -> None:
        """End in an orderly way.

        Raises:
            AssertionError: It did not end by itself, or not well.
        """
        self._stopping = True
        self.signal(signal.SIGTERM)
        assert self._lives is not None
        try:
            await asyncio.wait_for(self._lives, DRAIN_S)
        finally:
            self.signal(signal.SIGKILL)

    async def _live(self) -> None:
        while not self._stopping:
            code = await self._life()
            self.ends[code] += 1
            if self._loses_its_disk:
                self._loses_its_disk = False
                shutil.rmtree(self.state_dir, ignore_errors=True)
            await asyncio.sleep(CRASHED_RESTART_AFTER_S if code > 0 else RESTART_AFTER_S)

    async def _life(self) -> int:
        with self.log.open("ab") as out:
            command = (*TETHER, sys.executable, "-m", "tests.chaos.member", "run")
            self._process = await asyncio.create_subprocess_exec(*command, env=self._environ, stdout=out, stderr=out)
            return await self._process.wait()


def environ(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a member: this one's without settings of the program, and its own."""
    prefixes = ("KAFKA_", "GENESYS_", "OTEL_", "SCHEMA_", "BATCH_", "STATE_")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(prefixes)}, **own}
