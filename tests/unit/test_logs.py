"""What a log line holds and must not hold, and that nobody waits for who reads it."""

import asyncio
import gc
import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from consumer.adapters.logs import configure
from consumer.errors import SinkUnavailable
from consumer.model import Contact, Outcome, TopicPartition

PHONE = "tel:+15550001111"
CONTACT = Contact("id-1", PHONE, "jane@example.com", consent=True, do_not_call=False, attributes={})

Speak = Callable[[structlog.stdlib.BoundLogger], object]
Line = Callable[[Speak], dict[str, object]]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give `logging` and `structlog` back as they were."""
    root, own = logging.getLogger(), logging.getLogger("consumer")
    levels = root.level, own.level
    yield
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    structlog.reset_defaults()


def said(
    speak: Speak,
    *,
    path: Path,
    level: str = "info",
    format_: str | None = None,
) -> str:
    """What is written while `speak` has its say."""
    with path.open("wb") as file:
        subject = configure(level, format_, fd=file.fileno())
        speak(structlog.get_logger("consumer.subject"))
        subject.close(5)
    return path.read_text()


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """The one JSON line that is written while a function has its say."""

    def one(speak: Speak) -> dict[str, object]:
        found: dict[str, object] = json.loads(said(speak, path=tmp_path / "log"))
        return found

    return one


def fail(message: str) -> None:
    """Raise as a library does, quoting what it choked on, inside an outage of ours."""
    try:
        float(message)
    except ValueError as error:
        raise SinkUnavailable("Genesys did not answer") from error


def test_a_line_is_json(line: Line) -> None:
    """Off a terminal a line must be JSON: time in UTC, level, logger, event, then what was added."""
    found = line(lambda log: log.warning("assigned", partition=TopicPartition("changes", 3), outcome=Outcome.STALE))
    assert list(found)[:4] == ["timestamp", "level", "logger", "event"]
    moment = datetime.fromisoformat(str(found.pop("timestamp")))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert found == {
        "level": "warning",
        "logger": "consumer.subject",
        "event": "assigned",
        "partition": "changes/3",
        "outcome": "stale",
    }


def test_a_terminal_gets_words(tmp_path: Path) -> None:
    """On a terminal the same must come as text, unless JSON is asked for."""
    ours, terminal = pty.openpty()
    subject = configure("info", None, fd=terminal)
    structlog.get_logger("consumer.subject").info("assigned", partition=3)
    subject.close(5)
    assert b"partition" in (text := os.read(ours, 4096))
    assert not text.startswith(b"{")
    os.close(ours)
    os.close(terminal)
    assert said(lambda log: log.info("assigned"), path=tmp_path / "log", format_="json").startswith("{")


def test_values_do_not_tell_contact_data(tmp_path: Path) -> None:
    """A contact, or bytes, that somebody logs by mistake must not show, in neither format."""
    for format_ in ("json", "console"):
        text = said(lambda log: log.info("x", a=CONTACT, b=PHONE.encode()), path=tmp_path / format_, format_=format_)
        assert "<Contact>" in text
        assert PHONE not in text


def test_exceptions_tell_types_and_places(line: Line) -> None:
    """Of an exception: types of the whole chain, where it came from, and words only where they are ours."""

    def speak(log: structlog.stdlib.BoundLogger) -> None:
        try:
            fail(PHONE)
        except SinkUnavailable:
            log.exception("failed")

    found = line(speak)
    assert isinstance(found["exception"], list)
    outer, inner = found["exception"]
    assert (outer["type"], outer["message"]) == ("SinkUnavailable", "Genesys did not answer")
    assert (inner["type"], "message" in inner) == ("ValueError", False)
    assert outer["stack"][-1].startswith("tests/unit/test_logs.py:")
    assert outer["stack"][-1].endswith(" fail")
    assert PHONE not in json.dumps(found)


def test_exceptions_on_a_terminal_tell_no_more(tmp_path: Path) -> None:
    """The console must show the chain without foreign messages as well."""

    def speak(log: structlog.stdlib.BoundLogger) -> None:
        try:
            fail(PHONE)
        except SinkUnavailable:
            log.exception("failed")

    text = said(speak, path=tmp_path / "log", format_="console")
    assert "SinkUnavailable: Genesys did not answer\n  tests/unit/test_logs.py:" in text
    assert "\nValueError\n" in text
    assert PHONE not in text


def test_groups_and_endless_chains_are_told(line: Line) -> None:
    """The exceptions of a group must be told; a chain that retries made endless is cut."""
    error: Exception = ExceptionGroup("group", [OSError(28, PHONE), KeyError(PHONE)])
    for _ in range(50):
        follower = RuntimeError(PHONE)
        follower.__context__ = error
        error = follower
    group = ExceptionGroup("group", [OSError(28, PHONE), error])
    found = line(lambda log: log.error("failed", exc_info=group))
    told = found["exception"]
    assert isinstance(told, list)
    assert [each["type"] for each in told[:3]] == ["ExceptionGroup", "OSError", "RuntimeError"]
    assert told[1]["message"] == "No space left on device"
    assert len(told) == 10
    assert PHONE not in json.dumps(found)


def test_the_current_span_is_named(line: Line) -> None:
    """Inside a span a line must carry its trace id, outside none."""
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))

    def speak(log: structlog.stdlib.BoundLogger) -> None:
        with use_span(span):
            log.info("inside")

    found = line(speak)
    assert found["trace_id"] == f"{0xABC:032x}"
    assert found["span_id"] == f"{0xDEF:016x}"
    assert "trace_id" not in line(lambda log: log.info("outside"))


def test_libraries_are_heard_from_warnings_on(tmp_path: Path) -> None:
    """Libraries must share the handler, not the level; access logs stay off even when debugging."""

    def speak(log: structlog.stdlib.BoundLogger) -> None:
        log.debug("ours")
        logging.getLogger("aiohttp.access").info("GET /livez")
        logging.getLogger("library").info("chatter")
        logging.getLogger("library").warning("trouble at %s", "noon")

    text = said(speak, path=tmp_path / "log", level="debug")
    assert [json.loads(each)["event"] for each in text.splitlines()] == ["ours", "trouble at noon"]
    assert said(speak, path=tmp_path / "log", level="error") == ""


def test_what_asyncio_says_is_cut(tmp_path: Path) -> None:
    """An exception that nobody retrieved must not show its message by way of asyncio's own line."""

    async def choke() -> None:
        raise ValueError(PHONE)

    async def forget() -> None:
        task = asyncio.create_task(choke())
        await asyncio.wait({task})
        del task
        gc.collect()

    found = json.loads(said(lambda _: asyncio.run(forget()), path=tmp_path / "log"))
    assert found["event"] == "Task exception was never retrieved"
    assert found["exception"][0]["type"] == "ValueError"
    assert PHONE not in json.dumps(found)


def test_no_value_makes_a_line_impossible(line: Line) -> None:
    """A lone surrogate or a huge integer must not lose the line, nor tell what else was in it."""
    assert (
        line(lambda log: log.info("x", a="\ud800", n=2**70, c=CONTACT)).items()
        >= {
            "a": "\ud800",
            "n": 2**70,
            "c": "<Contact>",
        }.items()
    )


def test_an_impossible_line_is_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A line whose arguments do not fit must be counted, and nothing of it printed."""
    with (tmp_path / "log").open("wb") as file:
        subject = configure("info", None, fd=file.fileno())
        subject._intake.handle(logging.LogRecord("library", logging.WARNING, __file__, 1, "%d", (PHONE,), None))
        subject.close(5)
    assert subject.dropped == 1
    assert PHONE not in "".join(capfd.readouterr())


@pytest.fixture
def blocked() -> Iterator[tuple[int, int]]:
    """A pipe that is full: who writes to it waits until somebody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"-" * 512)
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(writer)
    with suppress(OSError):
        os.close(reader)


def test_nobody_waits_for_a_reader(blocked: tuple[int, int]) -> None:
    """With a pipe that nobody reads, logging must go on, drop and count; once read again, it says how many."""
    reader, writer = blocked
    subject = configure("info", None, fd=writer, capacity=10)
    for number in range(100):
        structlog.get_logger("consumer.subject").info("line", number=number)
    dropped = subject.dropped
    assert 89 <= dropped <= 90  # the writer has one in hand, or not yet
    text = b""
    while text.count(b'"line"') < 100 - dropped:
        text += os.read(reader, 65536)
    told = re.findall(rb"log_lines_dropped: (\d+)", text)
    assert sum(map(int, told)) == dropped
    subject.close(5)


def test_a_blocked_reader_does_not_hold_the_exit(blocked: tuple[int, int]) -> None:
    """With stdout blocked the process must end in time, and with its own exit code."""
    code = """
import structlog
from consumer.adapters.logs import configure
logs = configure("info", None, capacity=10)
for number in range(100):
    structlog.get_logger("consumer.x").info("line")
logs.close(0.2)
raise SystemExit(7)
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, stdout=blocked[1], stderr=subprocess.PIPE, check=False, timeout=30)  # noqa: S603 -- our own text
    assert (process.returncode, process.stderr) == (7, b"")


def test_closing_ends_at_its_deadline(blocked: tuple[int, int]) -> None:
    """Closing with a blocked reader must return when its time is over."""
    reader, writer = blocked
    subject = configure("info", None, fd=writer)
    structlog.get_logger("consumer.subject").info("line")
    started = time.monotonic()
    subject.close(0.3)
    assert 0.25 < time.monotonic() - started < 30
    os.close(reader)
    subject._writer.join(5)
    assert subject.dropped == 1


def test_a_reader_who_left_is_survived() -> None:
    """Once the reader of the pipe is gone, lines must be counted as dropped, and nothing raised."""
    reader, writer = os.pipe()
    os.close(reader)
    subject = configure("info", None, fd=writer)
    structlog.get_logger("consumer.subject").info("unheard")
    subject.close(5)
    os.close(writer)
    assert subject.dropped == 1
