"""`audit verify`: reads the audit topic and says whether it tells of every record once, in chains that are whole.

Answers for how much is read, for looking into the source topic where offsets have no event, and for the report. The
chains themselves are checked in `core/audit_chain`. Reads the audit topic, the source topics and the group's offsets;
changes nothing; constant memory.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest

from confluent_kafka import Message

from consumer.adapters.kafka.bounded import BoundedReader, Span, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.group_offsets import committed
from consumer.core.audit_chain import AuditCheck, Chain, Gap
from consumer.errors import SourceUnavailable
from consumer.model import TopicPartition
from consumer.operate import printing
from consumer.settings import Settings

GAPS_AT_ONCE = 10_000
"""Gaps that are remembered before the source topic is asked about them."""

NEAR_OFFSETS = 10_000
"""Gaps so close to each other are looked into in one go."""

_Spans = dict[TopicPartition, Span]


class Verification:
    """One reading of the audit topic: first `begin`, then `run`.

    Args:
        settings: Topics and group.
        from_ms: Events from this time on, milliseconds since the epoch; None: all that are still there.
        to_ms: Events before this time; None: to the end, and up to the group's offsets.
    """

    def __init__(self, settings: Settings, from_ms: int | None, to_ms: int | None) -> None:
        self._settings = settings
        self._from_ms = from_ms
        self._to_ms = to_ms
        self._connection = Connection.of(settings)
        self._admin = Admin(self._connection)
        self._sources: _Spans = {}
        self._committed: Mapping[TopicPartition, int] = {}
        self._unsettled: Collection[TopicPartition] = ()
        self._wanted: _Spans = {}
        self._from_zero = False
        self._check = AuditCheck(from_start=False)

    def begin(self) -> None:
        """Find out what there is to read, and up to where.

        Raises:
            SourceUnavailable: The brokers do not answer.
            FatalError: A topic is missing, or may not be read.
        """
        for topic in self._settings.kafka_source_topics:
            self._sources |= spans(self._admin, topic)
        if self._to_ms is None:  # before the ends of the audit topic: what is committed now has its events before them
            self._committed = self._offsets(self._sources)
        self._wanted, from_start = self._to_read()
        self._from_zero = from_start and self._settings.kafka_start == "earliest"
        self._check = AuditCheck(from_start=from_start, from_zero=self._from_zero)

    def _offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """What the group has committed. Who may not describe it gets no answer from the library, as in an outage."""
        group = self._settings.kafka_group_id
        try:
            return committed(self._connection, group, list(partitions))
        except SourceUnavailable as error:
            raise SourceUnavailable(
                f"{error} (if the brokers do answer: allow Describe on the group {group})"
            ) from None

    def run(self) -> bool:
        """Read everything; whether there was something, and nothing is wrong.

        Raises:
            SourceUnavailable: The brokers do not answer.
            FatalError: A topic is missing, or may not be read.
        """
        self._read(self._wanted)
        if self._to_ms is None and self._check.has_holes():
            self._fill_holes()
        self._check.finish()
        self._reach_committed()
        self._look_into(self._check.take_gaps())
        self._unsettled = self._without_offsets()
        return self._whole

    def _without_offsets(self) -> Collection[TopicPartition]:
        """Source partitions that have events, and of which the group has settled nothing: it is another group then.

        Asked again: a new group may have settled for the first time meanwhile.
        """
        lacking = [key for key in self._check.chains if key in self._sources and key not in self._committed]
        return set(lacking) - self._offsets(lacking).keys() if lacking and self._to_ms is None else set()

    @property
    def _whole(self) -> bool:
        return bool(self._check.chains) and self._check.whole and not self._unsettled

    def print_result(self, output: str) -> None:
        """Print what was found."""
        chains = sorted(self._check.chains.values(), key=lambda chain: chain.partition)
        if output == "json":
            unreadable = sum(self._check.unreadable.counts.values())
            result = {"whole": self._whole, "unreadable": unreadable, "withoutOffsets": len(self._unsettled)}
            printing.document({**result, "partitions": [_document(chain) for chain in chains]})
        else:
            self._print_text(chains)

    def _to_read(self) -> tuple[_Spans, bool]:
        """Stretches of the audit topic, and whether they begin with the first event of all."""
        topic = self._settings.kafka_audit_topic
        wanted = spans(self._admin, topic, self._from_ms)
        cut = [key for key, span in wanted.items() if span.first > 0]
        if self._from_ms is not None or not cut:
            return wanted, self._from_ms is None
        # Retention works on each partition by itself: only since the latest of their beginnings nothing is missing.
        since = max(self._first_time(key, wanted[key]) for key in cut)
        return spans(self._admin, topic, since), False

    def _first_time(self, key: TopicPartition, span: Span) -> int:
        with closing(self._reader({key: span})) as reader:
            return next((message.timestamp()[1] for message in reader), 0)

    def _reader(self, wanted: Mapping[TopicPartition, Span]) -> BoundedReader:
        return BoundedReader(self._connection, self._settings.kafka_group_id, wanted)

    def _read(self, wanted: _Spans) -> None:
        with closing(self._reader(wanted)) as reader:
            for message in reader:
                if self._to_ms is not None and message.timestamp()[1] >= self._to_ms:
                    return
                self._take(message)
                if self._check.gaps >= GAPS_AT_ONCE:
                    self._look_into(self._check.take_gaps())

    def _take(self, message: Message) -> None:
        where = f"{message.topic()}/{message.partition()}/{message.offset()}"
        self._check.take(message.value(), where)

    def _fill_holes(self) -> None:
        """Ends are not asked for in one moment: a settlement may have been before one and behind another."""
        self._check.freeze()
        now = spans(self._admin, self._settings.kafka_audit_topic)
        behind = {key: Span(self._wanted[key].end, span.end) for key, span in now.items() if key in self._wanted}
        with closing(self._reader(behind)) as reader:
            for message in reader:
                if not self._check.has_holes():
                    return
                self._take(message)

    def _reach_committed(self) -> None:
        for partition, end in self._committed.items():
            if self._from_zero and end > 0:
                self._check.begin(partition)
            if partition in self._check.chains:
                self._check.chains[partition].reach(end)

    # -- gaps

    def _look_into(self, gaps: Sequence[Gap]) -> None:
        """Ask the source topic which offsets of the gaps have a record."""
        by_partition: dict[TopicPartition, list[Gap]] = {}
        for gap in sorted(gaps, key=lambda gap: gap.first):
            if gap.partition in self._sources:
                by_partition.setdefault(gap.partition, []).append(gap)
        for key, of_partition in by_partition.items():
            low = self._sources[key].first
            self._check.chains[key].unchecked += sum(max(0, min(gap.end, low) - gap.first) for gap in of_partition)
        runs = [[(key, run) for run in _runs(found)] for key, found in by_partition.items()]
        for side_by_side in zip_longest(*runs):
            self._read_gaps(dict(filter(None, side_by_side)))

    def _read_gaps(self, runs: Mapping[TopicPartition, Sequence[Gap]]) -> None:
        wanted = {key: self._there(key, Span(run[0].first, run[-1].end)) for key, run in runs.items()}
        firsts = {key: [gap.first for gap in run] for key, run in runs.items()}
        with closing(self._reader(wanted)) as reader:
            for message in reader:
                key = TopicPartition(message.topic() or "", message.partition() or 0)
                offset = message.offset() or 0
                if offset < runs[key][bisect_right(firsts[key], offset) - 1].end:
                    self._check.chains[key].without_event(offset)

    def _there(self, key: TopicPartition, span: Span) -> Span:
        """What the source topic still has of a stretch."""
        low, high = self._sources[key]
        return Span(max(span.first, low), min(span.end, high))

    # -- the report

    def _print_text(self, chains: Sequence[Chain]) -> None:
        heading = ("source partition", "events", "first", "last", "problems")
        printing.table(heading, [_row(chain) for chain in chains])
        for chain in chains:
            for example in chain.problems.examples:
                printing.line(f"✗ {chain.partition}: {example}")
            if chain.unchecked:
                printing.line(
                    f"  {chain.partition}: {chain.unchecked} offsets without an event are no longer in the source "
                    "topic: whether records stood there cannot be told"
                )
        for example in self._check.unreadable.examples:
            printing.line(f"✗ {example}")
        if self._unsettled:
            printing.line(
                f"✗ group {self._settings.kafka_group_id} has no offsets in {len(self._unsettled)} of them, so whether "
                "events are missing at the end cannot be told: check KAFKA_GROUP_ID"
            )
        if self._whole:
            events = sum(chain.events for chain in chains)
            printing.line(f"✓ whole: {events} events of {len(chains)} source partitions")
        elif chains or not self._check.whole:
            printing.line("✗ not whole: see docs/procedures.md, Checking the chain")
        else:
            printing.line(f"✗ nothing to check: {self._settings.kafka_audit_topic} holds no event of that time")


def _runs(gaps: Sequence[Gap]) -> Iterator[list[Gap]]:
    """Gaps of a partition that are near each other, in their order."""
    run: list[Gap] = []
    for gap in gaps:
        if run and gap.first - run[-1].end > NEAR_OFFSETS:
            yield run
            run = []
        run.append(gap)
    if run:
        yield run


def _row(chain: Chain) -> tuple[str, ...]:
    first = "-" if chain.first_offset is None else str(chain.first_offset)
    last = "-" if chain.first_offset is None else str(chain.next_offset - 1)
    return str(chain.partition), str(chain.events), first, last, str(sum(chain.problems.counts.values()))


def _document(chain: Chain) -> dict[str, object]:
    return {
        "topic": chain.partition.topic,
        "partition": chain.partition.partition,
        "events": chain.events,
        "firstOffset": chain.first_offset,
        "lastOffset": None if chain.first_offset is None else chain.next_offset - 1,
        "problems": {finding.value: count for finding, count in chain.problems.counts.items()},
        "examples": chain.problems.examples,
        "unchecked": chain.unchecked,
    }
