"""What commands say beside their results: log lines while they work, and complaints.

Touches standard error, and logging.
"""

import argparse
import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.settings import Settings

LAST_LINES_S = 2.0
"""How long the end waits for log lines that a reader does not take."""

_SPELT = {"✓": "ok", "✗": "!!", "–": "--", "…": "..."}  # noqa: RUF001 -- the mark of `check`
"""What is written for characters that an encoding lacks; of any other it is a question mark."""


def stand_in_for_closed() -> None:
    """Have standard streams that were closed lead nowhere: who closed one wants nothing of it.

    Else the next file, store or connection that is opened would get its number, and what is written there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115 -- it stays
            setattr(sys, name, nowhere)


def spell_out() -> None:
    """Let standard output take also what its encoding lacks: what is printed may be a person's name, or the mark ✗."""
    codecs.register_error(__name__, _spelt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=__name__)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """What is written in place of characters, and where those that follow begin."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 -- of a stream that is written
    return "".join(_SPELT.get(each, "?") for each in error.object[error.start : error.end]), error.end


def complain(*lines: str) -> None:
    """Say what is wrong; the first line names the program."""
    sys.stderr.write("".join(f"genesys-consumer: {line}\n" if n == 0 else f"{line}\n" for n, line in enumerate(lines)))


def is_unread() -> bool:
    """Whether nobody reads standard output any more, as behind `head`; what is still to be written is given up then."""
    asked = select.poll()
    asked.register(sys.stdout, 0)
    unread = any(told & select.POLLERR for _, told in asked.poll(0))
    if unread:
        _give_up()
    return unread


def refusal() -> str | None:
    """Why standard output takes not even an empty line, as a file on a full disk; nothing more is written then."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        _give_up()
        return str(error.strerror)
    return None


def _give_up() -> None:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- no path of ours
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def logged(level: str, format_: str | None, *, fd: int = 2) -> Iterator[None]:
    """Log lines from this level on go to the file descriptor, in this format, until the block is left."""
    import structlog

    from consumer.adapters import logs
    from consumer.settings import misspelt

    lines, log = logs.configure(level, format_, fd=fd), structlog.get_logger(__name__)
    try:
        for name, meant in misspelt().items():
            log.warning("setting_misspelt", name=name, remedy=f"is it {meant}?")
        yield
    finally:
        lines.close(deadline_s=LAST_LINES_S)


@contextmanager
def beside(arguments: argparse.Namespace) -> "Iterator[Settings]":
    """Settings of a command that works beside the consumer, on Kafka alone; log lines leave standard output to it."""
    from consumer.settings import load

    settings = load(config=arguments.config, unneeded=("GENESYS_",))
    with logged(settings.log_level, settings.log_format):
        yield settings
