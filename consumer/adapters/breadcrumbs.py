"""Breadcrumbs of the decoder, in the state directory.

It answers for a note outliving the process: what is written stays with the operating system when a process dies,
without a flush. A note that cannot be written is no reason to stop. Touches these alone::

    <state_dir>/decoding          the breadcrumb that is laid: JSON and the end of a line; only that when none is
    <state_dir>/crashes.jsonl     breadcrumbs that were found, oldest first
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from consumer.errors import FatalError
from consumer.ports import Breadcrumb

log = structlog.get_logger(__name__)

_KEPT = 100
"""Breadcrumbs of crashes that are remembered."""

_END = b"\n"
_LONGEST = 4096
"""Bytes of the longest line: the name of a topic has at most 249."""


class FileBreadcrumbs:
    """`consumer.ports.Breadcrumbs` in files.

    Attributes:
        found: What this process and those before it found, at most the last hundred.
    """

    def __init__(self, state_dir: Path) -> None:
        """Take up what the last process left.

        Args:
            state_dir: Where it is; made when missing.

        Raises:
            FatalError: The directory cannot be used.
        """
        crashes = state_dir / "crashes.jsonl"
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._file = os.open(state_dir / "decoding", os.O_RDWR | os.O_CREAT, 0o644)
            left = os.pread(self._file, _LONGEST, 0).partition(_END)[0]
            known = _lines(crashes)
        except OSError as error:
            raise FatalError(f"STATE_DIR cannot be used: {error}") from error
        lines = [*known, *([left] if left else [])][-_KEPT:]
        self.found = list(_crumbs(lines))
        if left:
            with suppress(OSError):
                crashes.write_bytes(_END.join(lines))
            for crumb in _crumbs([left]):
                log.error("decoder_crashed", **msgspec.structs.asdict(crumb))

    def lay(self, crumb: Breadcrumb) -> None:
        self._write(msgspec.json.encode(crumb) + _END)

    def lift(self) -> None:
        self._write(_END)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        with suppress(OSError):  # without a note a crash is only harder to trace
            os.pwrite(self._file, line, 0)


def _lines(crashes: Path) -> list[bytes]:
    return crashes.read_bytes().splitlines() if crashes.exists() else []


def _crumbs(lines: Iterable[bytes]) -> Iterator[Breadcrumb]:
    """What lines say; a damaged one says nothing."""
    for line in lines:
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Breadcrumb)
