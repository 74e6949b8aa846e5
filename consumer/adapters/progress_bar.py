"""How far a command is: a bar on a terminal, else a line every few seconds while it moves. Touches standard error."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 5.0


class ProgressBar:
    """A context manager; it shows one phase at a time.

    Args:
        monotonic: Clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("starting", total=None)
        self._phase = ""
        self._next_line = 0.0
        self._said = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, phase: str, done: int, total: int | None) -> None:
        """Show how far a phase is; `total` is None where nobody knows it."""
        if phase != self._phase:
            self._phase, self._next_line = phase, 0.0
            self._bar.reset(self._task, description=phase, total=total)
        self._bar.update(self._task, completed=done, total=total)
        if not self._console.is_terminal:
            self._line(phase, done, total)

    def _line(self, phase: str, done: int, total: int | None) -> None:
        now = self._monotonic()
        line = f"{phase}: {done:,}" + ("" if total is None else f" of {total:,}")
        if (now >= self._next_line or done == total) and line != self._said:
            self._next_line, self._said = now + LINE_EVERY_S, line
            self._console.print(line, soft_wrap=True)
