"""The order in which a reconciliation is done; it decides what counts as drift, so it is written here and nowhere else.

1. The group's offsets; before them, where it is to be mended, the ends of the changelog, which then must not move any
   more. Whatever is settled by then is in the changelog by the next step.
2. The changelog of all partitions: what was delivered.
3. The export, ordered after that, compared row by row. One that breaks off is begun anew.
4. The ends of the source topics. A change that the list shows and the changelog did not yet, or the other way round, is
   of a record between the offsets of step 1 and these ends: its contact is not compared. So consumers may go on. Where
   it is to be mended they may not, and who must not be called does not wait for what is to be read yet.
5. The source topics, read for the records from which missing and drifted contacts were delivered: the columns that
   differ, and whether the CRM lets them be called.
6. Where it is asked for, mending (`mend`).
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import structlog
from msgspec import structs

from consumer.columns import OWN
from consumer.command_ports import ContactExport, History
from consumer.core import reconcile
from consumer.core.reconcile import Standing
from consumer.errors import FatalError, TransientError
from consumer.model import Change, Record, TopicPartition
from consumer.ports import Store
from consumer.reconcile.compare import Comparison
from consumer.reconcile.delivered import Delivered
from consumer.reconcile.findings import Finding, Findings, Found, of_contact
from consumer.reconcile.mend import Mender
from consumer.reconcile.report import Report
from consumer.reconcile.source import Changes, SourceTopics

log = structlog.get_logger(__name__)

EXPORTS = 5
"""How often an export is begun before it is given up."""

_RETRY_S = 5.0
_FLAG = "callable"


class Reconciliation:
    """One run.

    Args:
        history: Of the source topics, and of what was delivered.
        source: The same, as changes.
        store: A scratch store, empty.
        export: Reads the contact list.
        contact_list_id: Part of each fingerprint.
        attribute_columns: Names, in the order of the settings.
        key: Of the digests of values, up to 64 bytes, another one for each run.
    """

    def __init__(
        self,
        *,
        history: History,
        source: SourceTopics,
        store: Store,
        export: ContactExport,
        contact_list_id: str,
        attribute_columns: Sequence[str],
        key: bytes,
    ) -> None:
        self._history = history
        self._source = source
        self._store = store
        self._export = export
        self._contact_list_id = contact_list_id
        self._columns = (*OWN, *attribute_columns)
        self._attribute_columns = attribute_columns
        self._key = key
        self._delivered = Delivered(store)
        self._differing: Counter[str] = Counter()

    async def run(self, mender: Mender | None) -> Report:
        """Compare, and mend where there is a mender.

        Raises:
            TransientError: Kafka or Genesys cannot tell now.
            FatalError: There is nothing to compare with, or mending would do harm.
        """
        if mender is not None:
            await mender.begin()
        committed = await self._history.committed()
        sources = list(committed)
        known = await self._known(committed)
        if mender is not None:
            self._refuse_while_importing()
        comparison, findings = await self._compare()
        ends = await self._history.ends()
        report = Report(
            self._contact_list_id,
            known,
            comparison.rows,
            unnamed=comparison.unnamed,
            held_back=comparison.alike[Standing.HELD_BACK],
            unknown=comparison.alike[Standing.UNKNOWN],
        )
        report.pending = await self._leave_out_pending(findings, sources, committed, ends, alone=mender is not None)
        await self._look_up(findings, sources, ends)
        await self._tell(report, findings)
        if mender is not None:
            report.mended = await mender.mend(report, findings, sources, ends)
        return report

    async def _known(self, committed: Mapping[TopicPartition, int]) -> int:
        """Gather what was delivered; of how many contacts."""
        known = await self._delivered.load(self._history, list(committed))
        if not known:
            raise FatalError(
                "the changelog holds no contact, so everything in the list would be extra: "
                "check KAFKA_GROUP_ID, KAFKA_CHANGELOG_TOPIC and KAFKA_SOURCE_TOPICS"
            )
        await self._refuse_forgotten(committed)
        log.info("delivered_read", contacts=known, partitions=len(committed))
        return known

    async def _refuse_forgotten(self, committed: Mapping[TopicPartition, int]) -> None:
        """Every record would count as on its way; where there is none, nothing can be, nor will an offset come."""
        lost = {partition for partition in self._delivered.sources if not committed[partition]}
        if lost and (lost := lost.difference(await self._history.empty())):
            raise FatalError(
                f"the group has no offset for {', '.join(map(str, sorted(lost)))}, from which "
                "something was delivered: offsets expire without consumers. Let them catch up first"
            )

    def _refuse_while_importing(self) -> None:
        if self._delivered.is_importing:
            raise FatalError(
                "a load was stopped before its end, and Genesys may be importing its file: load it to its end, or "
                "let consumers catch up, which wait for the import; then run it again"
            )

    async def _compare(self) -> tuple[Comparison, Findings]:
        attempt = 1
        while True:
            findings = Findings(self._store, attempt)
            comparison = Comparison(
                self._delivered, findings, self._contact_list_id, self._attribute_columns, self._key
            )
            try:
                await comparison.run(self._export)
            except TransientError as error:
                if attempt == EXPORTS:
                    raise
                log.warning("export_failed", error=str(error), remedy="another one is made")
                await asyncio.sleep(error.retry_after or _RETRY_S)
                attempt += 1
            else:
                log.info("list_compared", contacts=comparison.rows, alike=comparison.alike.total())
                return comparison, findings

    async def _leave_out_pending(
        self,
        findings: Findings,
        sources: Sequence[TopicPartition],
        committed: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        *,
        alone: bool,
    ) -> int:
        """Drop findings whose contacts have records that were not settled before the comparison; how many.

        Where nobody else is at work the list shows nothing that such a record will not do again once it is read. So who
        must not be called stays, to be made not callable; nothing more is done to him.
        """
        starts = {number: committed[partition] for number, partition in enumerate(sources)}
        dropped = 0
        if not await findings.some():
            return dropped
        async for _, records in self._source.records(sources, starts, ends):
            keys = [of_contact(identity) for identity in await self._source.named(records)]
            kept = _callable(findings.read(keys)) if alone else {}
            await findings.put(list(kept.items()))
            dropped += await findings.drop([key for key in keys if key not in kept])
        return dropped

    async def _look_up(
        self, findings: Findings, sources: Sequence[TopicPartition], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Find the records that tell what missing and drifted contacts should be."""
        starts = dict.fromkeys(range(len(sources)), 0) if findings.first_offsets else {}
        async for number, records in self._source.records(sources, starts, ends):
            concerned = findings.concerned(number, records, await self._source.keyed(records))
            changes = await self._source.changes(concerned)
            found = self._matching(number, changes, findings)
            if found:
                await findings.put(found)

    def _matching(self, number: int, changes: Changes, findings: Findings) -> list[Found]:
        """Findings that these changes explain."""
        keys = [of_contact(change.identity) for _, change in changes]
        open_ = findings.read(keys)
        found: dict[bytes, Finding] = {}
        for key, (record, change) in zip(keys, changes, strict=True):
            finding = None if key in found else open_.get(key)  # another record of the same content explains no more
            if finding is not None and finding.is_open and finding.fingerprint == change.fingerprint:
                found[key] = self._explained(finding, number, record, change)
        return list(found.items())

    def _explained(self, finding: Finding, number: int, record: Record, change: Change) -> Finding:
        standing = finding.standing
        if finding.drifted:
            for column in reconcile.differing(change.whole, finding.digests, self._key):
                self._differing[self._columns[column]] += 1
            withdrawn = finding.callable and not change.whole.callable
            standing = Standing.CALLABLE if withdrawn else Standing.DRIFTED
        return structs.replace(
            finding, standing=standing, source=number, offset=record.offset, found=True, withdrawal=change.withdrawal
        )

    async def _tell(self, report: Report, findings: Findings) -> None:
        tally: Counter[Standing] = Counter()
        async for found in findings.all():
            for _, finding in found:
                tally[finding.standing] += 1
                report.source_gone += finding.is_open
        report.count(tally)
        report.columns = {column: self._differing[column] for column in self._columns if self._differing[column]}


def _callable(known: Mapping[bytes, Finding]) -> dict[bytes, Finding]:
    """Those who must not be called, as findings of that and nothing else."""
    return {
        key: structs.replace(finding, deleted=False, drifted=False)
        for key, finding in known.items()
        if finding.standing is Standing.CALLABLE
    }
