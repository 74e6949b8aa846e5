"""How results are printed: aligned columns for people, one JSON document for programs. Touches standard output."""

import sys
from collections.abc import Sequence

import orjson

from consumer.core import moments


def line(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def document(result: object) -> None:
    """Print a JSON document on a line."""
    line(orjson.dumps(result).decode())


def moment(time_ms: int | None) -> str:
    """A time as ISO 8601 in UTC; a dash for none."""
    if time_ms is None:
        return "-"
    return moments.iso(time_ms, "seconds")
