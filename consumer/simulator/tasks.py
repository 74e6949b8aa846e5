"""Answers for what goes on in a list, of contacts or do-not-call entries, after its request was answered. No I/O.

The clock is an argument. Nothing runs by itself: whoever looks at a list first lets happen what is due by then
(`Tasks.catch_up`), so that a test with a clock of its own sees every moment of it.
"""

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

from consumer.simulator.errors import ApiError

JOBS_SHOWN = 10


class Pace(NamedTuple):
    """How long things take.

    Attributes:
        clock: Seconds that only grow.
        job_seconds: The least that a clear, an import, an export or a bulk operation takes.
        rows_per_second: Records that they handle in a second.
    """

    clock: Callable[[], float] = time.monotonic
    job_seconds: float = 0.0
    rows_per_second: float = math.inf


AT_ONCE = Pace()


class Task:
    """Records that are handled evenly over some time.

    Attributes:
        total: How many records there are.
        done: How many of them have been handled.
    """

    def __init__(self, work: Iterator[object], total: int, starts: float, seconds: float) -> None:
        self._work = work
        self._starts = starts
        self._seconds = seconds
        self.total = total
        self.done = 0

    @property
    def ends(self) -> float:
        """When the last record is handled."""
        return self._starts + self._seconds

    def catch_up(self, now: float) -> None:
        """Handle the records that are due."""
        share = 1.0 if now >= self.ends else max(0.0, now - self._starts) / self._seconds
        due = int(self.total * share)
        self.done += sum(1 for _ in islice(self._work, max(0, due - self.done)))

    def runs(self, now: float) -> bool:
        """Whether it is still to end."""
        return now < self.ends

    def percent(self, now: float) -> int:
        """Share of the work that is done."""
        if not self.runs(now):
            return 100
        return self.done * 100 // self.total if self.total else 0


@dataclass(slots=True)
class Import:
    """A file on its way into the list.

    Attributes:
        task: Its rows.
        failure: Why nothing of it is imported, in capitals as Genesys writes it, or nothing.
    """

    task: Task
    failure: str = ""


@dataclass(slots=True)
class Job:
    """A bulk operation.

    Attributes:
        kind: BulkDelete or BulkEdit.
        task: The contacts.
    """

    kind: str
    task: Task
    id: str = field(default_factory=lambda: str(uuid4()))


@dataclass(slots=True)
class Export:
    """A file to be downloaded.

    Attributes:
        chunks: Makes the file, as the list was when it was asked for.
        ready_at: When it can be downloaded.
        made: When it was asked for, as a client reads it.
        signature: What the URL of the file is signed with.
    """

    chunks: Callable[[], Iterator[bytes]]
    ready_at: float
    made: str
    id: str = field(default_factory=lambda: uuid4().hex)
    signature: str = field(default_factory=lambda: secrets.token_hex(32))


class Tasks:
    """The clear, imports, bulk jobs and export of one list.

    Args:
        pace: How long they take.
        subject: What the list is called in the codes of refusals.

    Attributes:
        imports: The last one that is over, and those that are not.
        jobs: The latest bulk operations, oldest first.
        export: The latest export.
    """

    def __init__(self, pace: Pace, subject: str = "contact.list") -> None:
        self._pace = pace
        self._subject = subject
        self._clear: Task | None = None
        self.imports: deque[Import] = deque()
        self.jobs: deque[Job] = deque(maxlen=JOBS_SHOWN)
        self.export: Export | None = None

    @property
    def now(self) -> float:
        """The time."""
        return self._pace.clock()

    def end_of(self, total: int) -> float:
        """When so many records that begin now are handled."""
        return self.now + self._lasts(total)

    def _lasts(self, total: int) -> float:
        return max(self._pace.job_seconds, total / self._pace.rows_per_second)

    def catch_up(self) -> float:
        """Let happen what is due; the time until which it was."""
        now = self.now
        if self._clear is not None:
            self._clear.catch_up(now)
        for each in self.imports:
            each.task.catch_up(now)
        for job in self.jobs:
            job.task.catch_up(now)
        while len(self.imports) > 1 and not self.imports[0].task.runs(now):
            self.imports.popleft()
        return now

    def begin(self, work: Iterator[object], total: int, *, after: float = 0.0) -> Task:
        """A task that begins now, or later."""
        return Task(work, total, max(self.now, after), self._lasts(total))

    def begin_clear(self, clear: Callable[[], Any]) -> None:
        """Empty the list in a while."""
        self._clear = self.begin((clear() for _ in range(1)), 1)

    def begin_import(self, work: Iterator[object], total: int, failure: str) -> None:
        """Import rows, one file after the other, and none into a list that is being cleared."""
        ends = [task.ends for task in (self._clear, *(each.task for each in self.imports)) if task is not None]
        self.imports.append(Import(self.begin(work, total, after=max(ends, default=0.0)), failure))

    @property
    def exporting(self) -> bool:
        """Whether an export is being made."""
        return self.export is not None and self.now < self.export.ready_at

    @property
    def importing(self) -> bool:
        """Whether a file is on its way into the list."""
        return any(each.task.runs(self.now) for each in self.imports)

    def refuse_while_clearing(self) -> None:
        """Refuse what cannot be done while the list is being emptied."""
        if self._clear is not None and self._clear.runs(self.now):
            raise ApiError(400, "contact.list.clear.in.progress", "The contact list is being cleared.")

    def refuse_while_importing(self) -> None:
        """Refuse what cannot be done during an import."""
        if self.importing:
            raise ApiError(400, f"{self._subject}.import.in.progress", "An import of the list is in progress.")

    def refuse_while_exporting(self) -> None:
        """Refuse a second export."""
        if self.exporting:
            raise ApiError(400, f"{self._subject}.export.in.progress", "An export of the list is in progress.")

    def refuse_while_editing(self) -> None:
        """Refuse a second bulk operation."""
        if any(job.task.runs(self.now) for job in self.jobs):
            message = "A bulk operation of the contact list is in progress."
            raise ApiError(400, "contact.bulk.operation.in.progress", message)

    def import_status(self) -> dict[str, Any]:
        """The import that goes on, or else the last one, as Genesys describes it: when it is done it has no state."""
        now = self.catch_up()
        if not self.imports:
            return {"totalRecords": 0, "completedRecords": 0, "percentComplete": 0}
        shown = self.imports[0]
        task = shown.task
        status: dict[str, Any] = {"totalRecords": task.total, "completedRecords": task.done}
        status["percentComplete"] = task.percent(now)
        if task.runs(now):
            return {"state": "IN_PROGRESS"} | status
        return {"state": "FAILED"} | status | {"failureReason": shown.failure} if shown.failure else status
