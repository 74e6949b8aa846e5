"""Reports of batches: begun with the first request, ended by the answer for the last contact; then an audit event."""

import uuid
from collections.abc import Callable, Sequence

from consumer.core.audit import CHECKS_OF_PARTS, COMPLIANCE_CHECKS, AuditEvent, Auditor, event_id
from consumer.core.lane import Effect, Lane
from consumer.model import BatchReport, Work

BATCH_NAMESPACE = uuid.UUID("5f0f5a4e-55d2-5a53-8a7c-6f3d8f8f3f2a")
"""Namespace of batch ids, which are derived from the positions of the batch's records."""


class Reports:
    """Keeps account of batches, however many requests each takes.

    Args:
        auditor: Writes the event of each batch.
        now: Seconds since the epoch.

    Attributes:
        events: Of ended batches, for the next settlement; there until `settled`.
    """

    def __init__(self, auditor: Auditor, now: Callable[[], float]) -> None:
        self._auditor = auditor
        self._now = now
        self.events: list[AuditEvent] = []

    def sent(self, lanes: Sequence[Lane], effect: Effect) -> str:
        """A request with these contacts starts; the id of its batch, or of the one that it is a part of."""
        fresh = [lane for lane in lanes if lane.report is None]
        if fresh:
            positions = ",".join(_name(lane.work) for lane in fresh)
            batch_id = str(uuid.uuid5(BATCH_NAMESPACE, positions))
            checks = COMPLIANCE_CHECKS if effect is Effect.UPSERT else CHECKS_OF_PARTS
            report = BatchReport(batch_id, len(fresh), self._now(), len(fresh), checks=checks)
            for lane in fresh:
                lane.report = report
        reports = dict.fromkeys(lane.report for lane in lanes if lane.report is not None)
        for report in reports:
            report.attempts += 1
        for lane in lanes:
            lane.work.batch_id = lane.report.batch_id if lane.report else None
        return next(iter(reports)).batch_id

    def answered(self, lane: Lane, *, accepted: bool) -> None:
        """Genesys has answered for a contact."""
        if lane.report is not None:
            lane.report.records_out += accepted
            self._decided(lane.report)

    def abandoned(self, lane: Lane) -> None:
        """A contact left its batch without an answer: whoever owns its partition now sends it in another one."""
        if lane.report is not None:
            lane.report.records_in -= 1
            self._decided(lane.report)

    def settled(self, count: int) -> None:
        """The first so many events are settled."""
        del self.events[:count]

    def _decided(self, report: BatchReport) -> None:
        report.undecided -= 1
        if report.undecided == 0 and report.records_in > 0:
            self.events.append(self._auditor.batch(report, self._now()))


def _name(work: Work) -> str:
    """What tells a work from all others: two parts of one record may be in two batches."""
    return f"{event_id(work.record)}#{work.part}" if work.part else event_id(work.record)
