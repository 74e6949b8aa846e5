"""Brings the list into step: who must not be called first, then what was delivered again, then what is too many.

Nothing of the state changes by it, since what is sent is what was delivered already; so no partition need be owned. But
a consumer at work could send a newer change of the same contact at the same time. Therefore the group must have no
members, and is asked again before each request, once more where this process stood still since. Whoever came and went
meanwhile, a load or a consumer, has settled what he sent, and may have withdrawn what would be sent again: so the
changelog must end where it did before it was read; mending writes nothing there. Every request that Genesys answered
leaves a batch event on the audit topic.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from consumer.command_ports import History, MendedList
from consumer.core.audit import COMPLIANCE_CHECKS, Auditor
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Gate
from consumer.core.reconcile import Standing
from consumer.errors import (
    FatalError,
    InUse,
    NoRoom,
    RefusedByGenesys,
    SinkUnavailable,
    Throttled,
    TransientError,
    Withheld,
)
from consumer.model import UNCHANGED, Amendment, BatchReport, Change, Settlement, TopicPartition
from consumer.ports import EventTopics, TimeAndChance
from consumer.reconcile.findings import Finding, Findings, Found, of_contact, of_row
from consumer.reconcile.report import Mended, Report
from consumer.reconcile.source import Changes, SourceTopics

log = structlog.get_logger(__name__)

AT_ONCE = 50
"""Contacts in a suppression or a delete: what Genesys reads back at once."""

_RETRY_S = 1.0

IN_USE_RETRY_S = 30.0
"""Seconds until a contact in use is sent again: a call takes minutes."""

ALONE_FOR_S = 40.0
"""For how long a request may be written once the brokers were asked who else is at work: as long as any may take.

So a process that was stopped or slept in between asks them again.
"""

REMOVED_AGAIN = 2
"""How often a contact is deleted once more that Genesys shows yet: it is in use, or what is read lags behind."""

WITHHELD_TRIES = 3
"""How often the do-not-call list is asked to take numbers, before who waits for it is left as not callable."""

T = TypeVar("T")
_Resend = tuple[Change, Finding]


class Mender:
    """Mends what a comparison found.

    Args:
        sink: The contact list.
        source: What was delivered, as changes.
        history: Asked for the group's members, and for the ends of its changelog.
        topics: Where audit events go.
        auditor: Writes them.
        gate: Decides when a request may start, and how many contacts it may hold.
        group: Name of the consumer group.
        delete_extra: Whether what is too many is deleted.
        times: Clocks, and dice for jitter.
    """

    def __init__(
        self,
        *,
        sink: MendedList,
        source: SourceTopics,
        history: History,
        topics: EventTopics,
        auditor: Auditor,
        gate: Gate,
        group: str,
        delete_extra: bool,
        times: TimeAndChance,
    ) -> None:
        self._sink = sink
        self._source = source
        self._history = history
        self._topics = topics
        self._auditor = auditor
        self._gate = gate
        self._group = group
        self._delete_extra = delete_extra
        self._clock, self._now, self._dice = times.clock, times.now, times.dice
        self._started = times.now()
        self._batches = 0
        self._mended = Mended()
        self._ends: Mapping[TopicPartition, int] = {}
        self._asked_at = -math.inf
        self._withheld: str | None = None

    async def begin(self) -> None:
        """Note where the changelog ends, before anything is read: what is settled from now on is not judged.

        Raises:
            FatalError: The group has members.
        """
        await self._refuse_members()
        self._ends = await self._history.changelog_ends()

    async def _check_alone(self) -> None:
        """Refuse to go on while others could send changes of the same contacts, or after they did.

        The changelog is looked at last: whoever comes and goes between the two questions has written into it.

        Raises:
            FatalError: The group has members, or had some since the beginning.
        """
        await self._refuse_members()
        ends = await self._history.changelog_ends()
        if any(ends.get(key, 0) != self._ends.get(key, 0) for key in ends.keys() | self._ends.keys()):
            raise FatalError(
                f"the changelog of group {self._group} has moved on since it was read: a consumer or a load was at "
                "work meanwhile, whose changes must not be undone. Nothing more is changed: "
                "keep them stopped, and run it again"
            )

    async def _refuse_members(self) -> None:
        members = await self._history.members()
        if members:
            raise FatalError(
                f"group {self._group} has members ({members}): "
                f"stop the consumers of group {self._group} first, or run without --apply; one that was killed, or had "
                "a static name, counts until its session is over (45 s unless set): then wait, and run it again"
            )

    async def mend(
        self, report: Report, findings: Findings, sources: Sequence[TopicPartition], ends: Mapping[TopicPartition, int]
    ) -> Mended:
        """Mend everything that can be.

        Raises:
            FatalError: It would delete more than half of the list; somebody else was at work meanwhile; or the
                do-not-call list takes no numbers, and then all who must not be called are not callable.
        """
        if self._delete_extra:
            await self._refuse_to_empty(report, findings)
        await self._suppress(findings)
        await self._redeliver(findings, sources, ends, withdrawals=True)
        if self._withheld is not None:
            raise FatalError(f"who must not be called is not callable, and the rest is left as it is: {self._withheld}")
        await self._redeliver(findings, sources, ends, withdrawals=False)
        if self._delete_extra:
            await self._remove(findings)
        return self._mended

    @staticmethod
    async def _refuse_to_empty(report: Report, findings: Findings) -> None:
        removed = 0
        async for found in _picked(findings, _is_removed):
            removed += len(found)
        if removed * 2 > report.rows:
            raise FatalError(
                f"--delete-extra would remove {removed:,} of {report.rows:,} contacts, more than half of the list: "
                "check GENESYS_CONTACT_LIST, KAFKA_GROUP_ID and KAFKA_CHANGELOG_TOPIC. Nothing was changed"
            )

    # -- what must not be called

    async def _suppress(self, findings: Findings) -> None:
        """Make not callable what the CRM withdrew or deleted, as Genesys has it: its record is not needed for that."""
        async for found in _picked(findings, self._is_suppressed):
            names = [finding.name for _, finding in found]
            self._mended.suppressed += await self._send(names, self._suppressed, self._withdraw_by_delete)

    def _is_suppressed(self, finding: Finding) -> bool:
        removed = finding.deleted and self._delete_extra
        return finding.standing is Standing.CALLABLE and not finding.found and not removed

    async def _suppressed(self, names: Sequence[str]) -> None:
        flags_as_they_are = [Amendment(name, UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, {}) for name in names]
        await self._sink.amend(flags_as_they_are, withheld=names, number_refused=_number_refused, sure=self._is_alone)

    async def _withdraw_by_delete(self, name: str, code: str) -> None:
        log.error("mending_refused", code=code, remedy="it must not be called: the contact is deleted instead")
        await self._send([contact_id(name)], self._removed, self._refused)

    # -- what was delivered

    async def _redeliver(
        self,
        findings: Findings,
        sources: Sequence[TopicPartition],
        ends: Mapping[TopicPartition, int],
        *,
        withdrawals: bool,
    ) -> None:
        """Send again what was delivered and has been found in the source topics."""
        waiting: list[_Resend] = []
        async for number, records in self._source.records(sources, findings.first_offsets, ends):
            concerned = findings.concerned(number, records, await self._source.keyed(records))
            changes = await self._source.changes(concerned)
            waiting += _due(number, changes, findings, withdrawals=withdrawals)
            while len(waiting) >= self._gate.limit:
                batch, waiting = waiting[: self._gate.limit], waiting[self._gate.limit :]
                await self._send_again(batch, findings)
        if waiting:
            await self._send_again(waiting, findings)

    async def _send_again(self, batch: Sequence[_Resend], findings: Findings) -> None:
        self._mended.redelivered += await self._send(batch, self._upserted, self._upsert_refused, COMPLIANCE_CHECKS)
        # Whatever else was in the place of these contacts is gone now, and must not be deleted under their ids.
        await findings.drop([of_row(contact_id(change.contact.external_id)) for change, _ in batch])

    async def _upserted(self, batch: Sequence[_Resend]) -> None:
        """Send contacts. One that Genesys made not callable stays so: that is not ours to undo."""
        payloads = [
            self._sink.encode(change.whole, callable_=change.whole.callable and finding.callable)
            for change, finding in batch
        ]
        withdrawn = [change.whole for change, _ in batch if change.withdrawal]
        left_out = await self._sink.upsert(
            payloads, withdrawn=withdrawn, number_refused=_number_refused, sure=self._is_alone
        )
        if left_out:
            raise SinkUnavailable("the answer leaves contacts out")

    async def _upsert_refused(self, resend: _Resend, code: str) -> None:
        change, _ = resend
        if change.withdrawal:
            await self._withdraw_by_delete(change.contact.external_id, code)
        else:
            await self._refused(resend, code)

    # -- what is too many

    async def _remove(self, findings: Findings) -> None:
        """Delete it; who shows yet is deleted once more later, and is not callable meanwhile."""
        left = await self._remove_all(findings, again=False)
        for _ in range(REMOVED_AGAIN):
            if left:
                await asyncio.sleep(IN_USE_RETRY_S)
                left = await self._remove_all(findings, again=True)
        self._mended.in_use += left

    async def _remove_all(self, findings: Findings, *, again: bool) -> int:
        """Delete all that is left of it; how many are still there."""
        left = 0
        async for found in _picked(findings, _is_removed):
            left += await self._remove_some(findings, found, again=again)
        return left

    async def _remove_some(self, findings: Findings, found: Sequence[Found], *, again: bool) -> int:
        """Delete some, and forget the findings of those that are gone or refused; how many are still there."""
        keys = {finding.contact_id: key for key, finding in found}
        left: set[str] = set()

        async def remove(ids: Sequence[str]) -> None:
            left.update(await self._sink.remove(ids, self._is_alone, held=ids if again else ()))

        removed = await self._send([*keys], remove, self._refused)
        self._mended.deleted += removed - len(left)
        await findings.drop([key for id_, key in keys.items() if id_ not in left])
        return len(left)

    async def _removed(self, ids: Sequence[str]) -> None:
        self._mended.in_use += len(await self._sink.remove(ids, self._is_alone))

    async def _refused(self, _: object, code: str) -> None:
        log.error("mending_refused", code=code, remedy="look at the contact in Genesys, and run it again")
        self._mended.refused += 1

    # -- requests

    async def _send(
        self,
        batch: Sequence[T],
        send: Callable[[Sequence[T]], Awaitable[None]],
        refused: Callable[[T, str], Awaitable[None]],
        checks: Sequence[str] = (),
    ) -> int:
        """Send a batch, by halves where Genesys blames its data or has no room; how many contacts it accepted."""
        report = BatchReport(self._batch_id(), len(batch), self._now(), len(batch), checks=checks)
        try:
            await self._insist(lambda: send(batch), report)
        except Withheld as error:
            self._withheld = str(error)  # others have to be made not callable too, before anybody looks at the list
            await self._audit(report)
            return 0
        except (RefusedByGenesys, NoRoom) as error:  # nobody may make room in the time of a command
            if len(batch) > 1:
                middle = len(batch) // 2
                return sum([await self._send(half, send, refused, checks) for half in (batch[:middle], batch[middle:])])
            await self._audit(report)
            await refused(batch[0], error.code)
            return 0
        report.records_out = len(batch)
        await self._audit(report)
        return len(batch)

    async def _insist(self, request: Callable[[], Awaitable[None]], report: BatchReport) -> None:
        """Make a request until Genesys answers it; of one contact in use, until the contact is free.

        Raises:
            RefusedByGenesys: It blames the data, or one of several contacts is in use.
            NoRoom: It takes no contact that it does not have.
            Withheld: The do-not-call list takes no numbers, also after a few tries; who waits for it is not callable.
            FatalError: Somebody else was at work meanwhile, or Genesys refuses for good.
        """
        while True:
            await self._turn()
            report.attempts += 1
            try:
                await request()
            except (RefusedByGenesys, NoRoom) as error:
                self._gate.succeeded()
                if not isinstance(error, InUse) or report.records_in > 1:
                    raise
                log.warning("contact_in_use", operation="reconcile", remedy="none needed: it is tried again by itself")
                await asyncio.sleep(IN_USE_RETRY_S)
            except TransientError as error:
                if isinstance(error, Withheld) and self._is_given_up(error, report.attempts):
                    self._gate.succeeded()
                    raise
                self._hold_back(error)
                log.warning("genesys_retry", operation="reconcile", contacts=report.records_in, error=str(error))
            else:
                self._gate.succeeded()
                return

    def _hold_back(self, error: TransientError) -> None:
        if isinstance(error, Throttled):
            self._gate.throttled(self._clock(), error.retry_after, self._dice())
        else:
            self._gate.failed(self._clock(), self._dice(), error.retry_after)

    def _is_given_up(self, error: Withheld, attempts: int) -> bool:
        return error.for_good or self._withheld is not None or attempts >= WITHHELD_TRIES

    async def _turn(self) -> None:
        """Wait until a request may start; then make sure that nobody else is at work, or was."""
        while wait := self._gate.wait(self._clock()):  # noqa: ASYNC110 -- the gate says how long
            await asyncio.sleep(wait)
        self._asked_at = self._clock()
        await self._check_alone()
        self._gate.started(self._clock())

    def _is_alone(self) -> bool:
        return self._clock() - self._asked_at < ALONE_FOR_S

    def _batch_id(self) -> str:
        self._batches += 1
        return f"reconcile/{self._sink.contact_list_id}/{int(self._started * 1000)}/{self._batches}"

    async def _audit(self, report: BatchReport) -> None:
        """Tell of an answer, for as long as it takes: what was done to people's contacts must not go untold."""
        event = self._auditor.batch(report, self._now(), "reconcile")
        while True:
            try:
                await self._topics.settle(Settlement(audit=[event], dead_letters=[], changelog=[], offsets={}))
            except TransientError as error:
                log.error("settle_failed", error=str(error), remedy="tried again until it works")  # noqa: TRY400 -- ours
                await asyncio.sleep(error.retry_after or _RETRY_S)
            else:
                return


def _due(number: int, changes: Changes, findings: Findings, *, withdrawals: bool) -> list[_Resend]:
    """Those of the changes that are to be sent now: each is the one that was found before, at its place."""
    keys = [of_contact(change.identity) for _, change in changes]
    known = findings.read(keys)
    due = []
    for key, (record, change) in zip(keys, changes, strict=True):
        finding = known.get(key)
        if (
            finding is not None
            and finding.found
            and finding.withdrawal is withdrawals
            and (finding.source, finding.offset, finding.fingerprint) == (number, record.offset, change.fingerprint)
        ):
            due.append((change, finding))
    return due


def _number_refused(_: str, code: str) -> None:
    log.error("number_refused", code=code, remedy="compare who is not callable with the do-not-call list")


def _is_removed(finding: Finding) -> bool:
    return finding.standing in {Standing.DELETED, Standing.FOREIGN} or (
        finding.standing is Standing.CALLABLE and finding.deleted
    )


async def _picked(findings: Findings, wanted: Callable[[Finding], bool]) -> AsyncIterator[list[Found]]:
    """Those that are wanted, as many at a time as a request may have."""
    waiting: list[Found] = []
    async for found in findings.all():
        waiting += [(key, finding) for key, finding in found if wanted(finding)]
        while len(waiting) >= AT_ONCE:
            yield waiting[:AT_ONCE]
            waiting = waiting[AT_ONCE:]
    if waiting:
        yield waiting
