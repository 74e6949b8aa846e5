"""What a comparison found, and what was mended: counts alone, no contact data. Touches nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence

import orjson
from msgspec import Struct, field, to_builtins

from consumer.core.reconcile import Standing


class Mended(Struct, rename="camel"):
    """What `--apply` did.

    Attributes:
        suppressed: Contacts made not callable.
        redelivered: Contacts sent again.
        deleted: Contacts removed from the list.
        in_use: Contacts to be removed that a campaign uses: they are not callable any more.
        refused: Contacts whose data Genesys refuses.
    """

    suppressed: int = 0
    redelivered: int = 0
    deleted: int = 0
    in_use: int = 0
    refused: int = 0


class Report(Struct, rename="camel"):
    """The result.

    Attributes:
        contact_list_id: Genesys' id of the list.
        delivered: Contacts of which something was delivered, those deleted since included.
        rows: Contacts in the list.
        callable: May be dialled although the CRM withdrew or deleted them, or, where that is not known, against their
            flags in Genesys.
        missing: Were delivered, and are not in the list.
        drifted: Have another value in a managed column.
        deleted: Were deleted by the CRM, and are still there.
        foreign: Were never delivered under their id.
        unnamed: Of those, the ones without an external id.
        columns: Contacts that differ in a column, by column; `callable` are those that the CRM does not let be called.
        source_gone: Missing or with another value in a managed column, and the source topic no longer has the record
            from which they came, or that was sent to another list.
        pending: Differ, and a change of them is on its way or was when the list was exported: not compared.
        held_back: As delivered, and not callable in Genesys although the CRM permits it: left alone.
        unknown: Nobody knows what was delivered last: not compared.
        mended: What was done; None when nothing was to be.
    """

    contact_list_id: str
    delivered: int
    rows: int
    callable: int = 0
    missing: int = 0
    drifted: int = 0
    deleted: int = 0
    foreign: int = 0
    unnamed: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    source_gone: int = 0
    pending: int = 0
    held_back: int = 0
    unknown: int = 0
    mended: Mended | None = None

    @property
    def drift(self) -> int:
        """Contacts that differ."""
        return self.callable + self.missing + self.drifted + self.deleted + self.foreign

    def count(self, tally: Counter[Standing]) -> None:
        """Take over how many contacts differ in which way."""
        self.callable, self.missing, self.drifted, self.deleted, self.foreign = (
            tally[standing]
            for standing in (
                Standing.CALLABLE, Standing.MISSING, Standing.DRIFTED, Standing.DELETED, Standing.FOREIGN,
            )
        )  # fmt: skip

    def as_json(self) -> str:
        """One line."""
        return orjson.dumps({"inStep": not self.drift, "drift": self.drift, **to_builtins(self)}).decode()

    def as_text(self) -> str:
        """For people, worst first."""
        return "\n".join([self._verdict(), *map(_line, self._lines())])

    def _verdict(self) -> str:
        what = f"{self.drift:,} contacts differ from what was delivered" if self.drift else "in step"
        return f"{what}: {self.rows:,} contacts in list {self.contact_list_id}, {self.delivered:,} known by their state"

    def _lines(self) -> Iterator[tuple[int, str]]:
        yield self.callable, "callable, although the CRM withdrew or deleted them, or so their flags say"
        yield self.missing, "missing"
        yield self.drifted, "drifted: another value in a managed column"
        yield from ((count, f"  differ in {column}") for column, count in self.columns.items() if count)
        yield self.deleted, "extra: deleted by the CRM, and still there (not callable)"
        yield self.foreign, "extra: never delivered"
        yield from _told((self.unnamed, "  of them without an external id"))
        yield from _told(
            (
                self.source_gone,
                "missing or drifted, their record gone or of another list: have the CRM send them again",
            ),
            (self.pending, "changed meanwhile, or with a change on its way: not compared"),
            (self.held_back, "as delivered, but made not callable in Genesys: left alone"),
            (self.unknown, "of unknown content since a change was refused: not compared"),
        )
        if self.mended is not None:
            yield self.mended.suppressed, "made not callable"
            yield self.mended.redelivered, "sent again"
            yield self.mended.deleted, "removed"
            yield from _told(
                (self.mended.in_use, "not removed, since a campaign uses them: not callable any more, run it again"),
                (self.mended.refused, "refused by Genesys: see the log"),
            )


def _told(*lines: tuple[int, str]) -> Sequence[tuple[int, str]]:
    """Those that count something."""
    return [line for line in lines if line[0]]


def _line(line: tuple[int, str]) -> str:
    return f"{line[0]:>12,}  {line[1]}"
