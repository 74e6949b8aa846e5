"""Decodes records so that one on which the decoder crashes does not take the consumer down for good.

What is about to be decoded is noted where the note outlives the process, and the note is taken back afterwards. A
process that finds the note of one that died decodes those records one by one; if it dies too, the next one knows the
record, and rejects it undecoded. So a record brings down two processes that share a state directory, and no third.
"""

from collections.abc import Mapping, Sequence

from consumer.core.dead_letters import as_told_first
from consumer.core.decode import Decoded, Reader, ReaderName, decode
from consumer.core.framing import Form
from consumer.core.results import Result
from consumer.errors import DecodeError, undecodable
from consumer.model import Record
from consumer.ports import Breadcrumb, Breadcrumbs

_CRASHED = undecodable("the decoder crashed on it")


class Quarantine:
    """Decodes, and remembers on what others died.

    Args:
        breadcrumbs: Where notes are kept.
    """

    def __init__(self, breadcrumbs: Breadcrumbs) -> None:
        self._breadcrumbs = breadcrumbs
        self._suspects = breadcrumbs.found
        self._convicted = {crumb for crumb in breadcrumbs.found if crumb.alone}

    def decode(
        self, records: Sequence[Record], readers: Mapping[ReaderName, Reader | DecodeError], form: Form
    ) -> Decoded:
        """As `consumer.core.decode.decode` does, for records of one partition that follow on."""
        if not records:
            return Decoded([], None)
        crumb = _breadcrumb(records)
        if not any(crumb.overlaps(suspect) for suspect in self._suspects):
            return self._noted(crumb, records, readers, form)
        results: list[Result] = []
        for record in records:
            decoded = self._alone(record, readers, form)
            results += decoded.results
            if decoded.missing is not None:
                return Decoded(results, decoded.missing)
        return Decoded(results, None)

    def _alone(self, record: Record, readers: Mapping[ReaderName, Reader | DecodeError], form: Form) -> Decoded:
        crumb = _breadcrumb([record], alone=True)
        return Decoded([_CRASHED], None) if crumb in self._convicted else self._noted(crumb, [record], readers, form)

    def _noted(
        self,
        crumb: Breadcrumb,
        records: Sequence[Record],
        readers: Mapping[ReaderName, Reader | DecodeError],
        form: Form,
    ) -> Decoded:
        self._breadcrumbs.lay(crumb)
        decoded = decode([as_told_first(record) for record in records], readers, form)
        self._breadcrumbs.lift()  # not after an exception: where memory runs out, it ends the process as well
        return decoded


def _breadcrumb(records: Sequence[Record], *, alone: bool = False) -> Breadcrumb:
    first, last = records[0], records[-1]
    return Breadcrumb(first.topic, first.partition, first.offset, last.offset, first.timestamp_ms, alone)
