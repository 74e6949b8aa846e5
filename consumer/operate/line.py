"""A line of `check`: what was found of one thing. Values only."""

from typing import NamedTuple


class Line(NamedTuple):
    """What was found of one thing.

    Attributes:
        what: The thing.
        holds: Whether it is as it must be.
        detail: What was found, or what is wrong and the remedy.
        sure: False where it could not be found out whether it holds, or where it may be meant.
    """

    what: str
    holds: bool
    detail: str
    sure: bool = True

    @property
    def mark(self) -> str:
        """What stands before it for people."""
        return "✗" if not self.holds else "✓" if self.sure else "–"  # noqa: RUF001 -- a dash as wide as the other marks
