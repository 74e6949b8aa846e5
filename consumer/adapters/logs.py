"""Logging: everything that is said goes through here, one line each, and never holds up who says it.

Answers for what a line holds and for keeping contact data out of it: messages of exceptions that are not the
project's own are dropped, as they may quote what they choked on. Touches the file descriptor that it is given, the
clock, and the global state of `logging` and `structlog`.
"""

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from itertools import islice
from logging.handlers import QueueHandler
from pathlib import PurePath
from types import FrameType
from typing import Any

import orjson
import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger

from consumer.errors import ConsumerError
from consumer.model import TopicPartition

_QUEUE_LINES = 10_000
_CHAIN = 10
"""Exceptions of a chain that are told: retries can make it endless."""

_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


class Logs:
    """Logging as configured, until it is closed. A full queue drops lines and counts them.

    Args:
        formatter: Makes the line.
        fd: File descriptor that lines are written to.
        capacity: Lines that may wait for a reader who does not keep up.

    Attributes:
        dropped: Lines that were lost.
    """

    def __init__(self, formatter: logging.Formatter, fd: int, capacity: int) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(capacity)
        self._intake = _Intake(self._waiting)
        self._intake.setFormatter(formatter)
        self._writer = threading.Thread(target=self._write_all, args=(fd,), name="log-writer", daemon=True)
        self._writer.start()
        logging.getLogger().addHandler(self._intake)

    @property
    def dropped(self) -> int:
        return self._intake.dropped

    def _write_all(self, fd: int) -> None:
        """Run in the thread that may be blocked by whoever reads the lines."""
        lines = _Lines(fd, self._intake)
        while (record := self._waiting.get()) is not None:
            lines.write(record)

    def close(self, deadline_s: float) -> None:
        """Write what waits, for no longer than the deadline."""
        logging.getLogger().removeHandler(self._intake)
        deadline = time.monotonic() + deadline_s
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=deadline_s)
            self._writer.join(max(0.0, deadline - time.monotonic()))


def configure(level: str, format_: str | None, *, fd: int = 1, capacity: int = _QUEUE_LINES) -> Logs:
    """Send all logging to a file descriptor: the project's own from `level` on, that of libraries from warnings on.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        format_: `json` or `console`; None: console on a terminal.
        fd: File descriptor that lines are written to.
        capacity: Lines that may wait for a reader who does not keep up.
    """
    own_level = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(own_level, logging.WARNING))
    logging.getLogger("consumer").setLevel(own_level)
    common: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return Logs(_formatter(common, format_, terminal=os.isatty(fd)), fd, capacity)


def _formatter(common: list[Processor], format_: str | None, *, terminal: bool) -> logging.Formatter:
    console = format_ == "console" or (format_ is None and terminal)
    render = _console(colors=terminal and "NO_COLOR" not in os.environ) if console else [_as_json]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*common, _keep_first_line],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _tell_exception, *render],
    )


class _Intake(QueueHandler):
    """Makes the line where it is said, and never waits."""

    def __init__(self, waiting: queue.Queue[Any]) -> None:
        super().__init__(waiting)
        self.dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]  # typing has it from 3.12
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def handleError(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]  # noqa: N802 -- logging's name
        """Count a line that cannot be made; logging itself would print its arguments."""
        self.dropped += 1


class _Lines:
    """Writes lines past `sys.stdout` and `logging`, both of which wait at exit for locks that a blocked writer holds.

    Args:
        fd: File descriptor.
        intake: Knows how many lines were lost, which is told with the next that is not.
    """

    def __init__(self, fd: int, intake: _Intake) -> None:
        self._fd = fd
        self._intake = intake
        self._told = 0

    def write(self, record: logging.LogRecord) -> None:
        """Write a record whose message is the line; a reader who left makes it one more that is dropped."""
        try:
            if self._told != self._intake.dropped:
                self._tell_dropped()
            self._write(record.getMessage())
        except OSError:
            self._intake.dropped += 1

    def _tell_dropped(self) -> None:
        lost, self._told = self._intake.dropped - self._told, self._intake.dropped
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "log_lines_dropped: %d", (lost,), None)
        self._write(self._intake.format(record))

    def _write(self, line: str) -> None:
        rest = line.encode(errors="backslashreplace") + b"\n"
        while rest:
            rest = rest[os.write(self._fd, rest) :]


def _add_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Name the current span, if there is one."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event


def _keep_first_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut what libraries say: asyncio shows exceptions with their messages from the second line on."""
    event["event"] = event["event"].partition("\n")[0]
    return event


def _tell_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by types and places, outermost exception first."""
    event.pop("stack_info", None)
    error = _error(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = _chain(error)
    return event


def trace(error: BaseException) -> str:
    """What may be said of an exception, as text: types and places, outermost first, words where they are the project's.

    Returns:
        A line for each type, and one, indented, for each place.
    """
    return _as_text(_chain(error))


def _chain(error: BaseException) -> list[dict[str, Any]]:
    return [_told(each) for each in islice(_with_causes(error), _CHAIN)]


def _error(exc_info: object) -> BaseException | None:
    """The exception behind any of the forms that `exc_info` may have."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exception()
    return exc_info if isinstance(exc_info, BaseException) else None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, then those of its group and the one that it came from."""
    waiting = deque([error])
    while waiting:
        error = waiting.popleft()
        yield error
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            waiting.append(cause)


def _told(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__qualname__}
    if isinstance(error, ConsumerError):
        told["message"] = str(error)
    elif isinstance(error, OSError) and error.errno is not None:
        told["message"] = os.strerror(error.errno)
    told["stack"] = [_place(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return told


def _place(frame: FrameType, line: int) -> str:
    path = PurePath(*PurePath(frame.f_code.co_filename).parts[-3:])
    return f"{path}:{line} {frame.f_code.co_qualname}"


def _as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """The line as JSON, what every line has first."""
    line = {key: event.pop(key) for key in ("timestamp", "level", "logger", "event") if key in event}
    line.update(event)
    try:
        return orjson.dumps(line, _stand_in, _JSON).decode()
    except orjson.JSONEncodeError:  # lone surrogates, integers past 64 bits
        plain = (str, int, float, bool)
        return json.dumps({key: value if isinstance(value, plain) else _stand_in(value) for key, value in line.items()})


def _stand_in(value: object) -> str:
    """What stands for a value that JSON does not know: never its own text, it could be a contact's."""
    if isinstance(value, TopicPartition | PurePath):
        return str(value)
    return f"<{type(value).__qualname__}>"


def _console(*, colors: bool) -> list[Processor]:
    """Coloured lines for people, holding the same as the JSON."""
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return [lambda logger, name, event: json.loads(_as_json(logger, name, event)), _exception_as_text, renderer]


def _exception_as_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if told := event.get("exception"):
        event["exception"] = _as_text(told)
    return event


def _as_text(told: list[dict[str, Any]]) -> str:
    return "\n".join(
        "\n  ".join((": ".join(filter(None, (each["type"], each.get("message")))), *each["stack"])) for each in told
    )
