"""Metrics in a registry of their own, for Prometheus.

Answers for names, labels and buckets. Touches the clock and /proc. What is only a level is read from callables when
Prometheus asks, so that the flow pays nothing for it.
"""

import math
from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from consumer.core.last_minute import LastMinute
from consumer.model import GIVEN_UP, Outcome, Reason, TopicPartition
from consumer.ports import SettledRecord

_PREFIX = "genesys_consumer_"
UNDECODABLE = frozenset({Reason.NOT_DECODABLE, Reason.SCHEMA_UNKNOWN, Reason.ENVELOPE_UNKNOWN})
"""Reasons of records of which nobody knows what they say."""

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CALLS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
_AGES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400)
_SETTLES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RESTORES = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Where the metrics that are levels are read.

    Attributes:
        breaker_state: 0 closed, 1 half-open, 2 open.
        rate_limit_remaining: Requests that the limit still allows.
        in_flight: Requests sent and unanswered.
        lag: Records between the last settled one and the end, by assigned partition.
        stalled: Seconds for which nothing was settled although something waits, by assigned partition.
        store_size: Keys and bytes of the open stores.
        fuse_tripped: 1 where the fuse has tripped, else 0, by source topic.
    """

    breaker_state: Callable[[], int]
    rate_limit_remaining: Callable[[], float]
    in_flight: Callable[[], int]
    lag: Callable[[], Mapping[TopicPartition, int]]
    stalled: Callable[[], Mapping[TopicPartition, float]]
    store_size: Callable[[], tuple[int, int]]
    fuse_tripped: Callable[[], Mapping[str, int]]


class Metrics:
    """Everything that is counted.

    Args:
        topics: Source topics.
        monotonic: Clock of the last minute, in seconds.

    Attributes:
        slowest_withdrawal_s: The longest that a withdrawal took from append to applied, since the start.
    """

    def __init__(self, topics: Sequence[str], monotonic: Callable[[], float]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._last_minute = LastMinute(monotonic)
        self._totals = Count(dict.fromkeys(Outcome, 0))
        self.slowest_withdrawal_s = 0.0
        ProcessCollector(registry=self._registry)
        self._registry.register(_LevelCollector(lambda: {"error_rate": self.error_rate()}))
        self._records = self._counter("records", "Records settled.", "outcome")
        self._rejected = self._counter("records_rejected", "Reasons of rejected and undeliverable records.", "reason")
        self._batches = self._counter("batches", "Batches answered.", "status")
        self._requests = self._counter("requests", "Requests to Genesys, each attempt counted.", "operation", "status")
        self._retries = self._counter("request_retries", "Requests that will be made again.", "reason")
        self._undecodable = self._counter(
            "undecodable_suppressions", "Contacts made not callable since a record of theirs could not be decoded."
        )
        self._search_requests = self._counter("search_requests", "Requests spent on finding whom Genesys refuses.")
        self._refused_contacts = self._counter("refused_contacts", "Contacts that Genesys refused alone.")
        self._withdrawals_refused = self._counter("withdrawals_refused", "Withdrawals that Genesys refused.", "what")
        self._gaps = self._counter("offset_gaps", "Times that offsets did not follow on.", "topic")
        self._epochs = self._counter("source_epochs", "Times that the log of a source began anew.", "topic")
        self._overtaken = self._counter("source_overtaken", "Times that records went before they were read.", "topic")
        self._batch_size = self._histogram("batch_size", "Contacts in an answered batch.", _SIZES)
        self._deliver = self._histogram("deliver_seconds", "From sending a batch to its answer.", _CALLS)
        self._request = self._histogram("request_seconds", "One attempt of a request to Genesys.", _CALLS, "operation")
        self._end_to_end = _BulkHistogram("end_to_end_seconds", "From append in Kafka to settled.", _AGES)
        self._registry.register(self._end_to_end)
        self._withdrawal = self._histogram("withdrawal_seconds", "From append to applied, withdrawals only.", _AGES)
        self._settle = self._histogram("settle_seconds", "One settlement.", _SETTLES)
        self._restore = self._histogram("restore_seconds", "One restoration of a partition's store.", _RESTORES)
        self._start_at_zero(topics)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, help_, labels, registry=self._registry)

    def _histogram(self, name: str, help_: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, help_, labels, buckets=buckets, registry=self._registry)

    def _start_at_zero(self, topics: Sequence[str]) -> None:
        """Show what is known beforehand: a rate over a series that appears with its first event misses that event."""
        self._outcomes = {outcome: self._records.labels(outcome.value) for outcome in Outcome}
        for reason in Reason:
            self._rejected.labels(reason.value)
        for status in ("success", "failure"):
            self._batches.labels(status)
        for reason_to_retry in ("throttled", "unavailable"):
            self._retries.labels(reason_to_retry)
        for what in ("contact", "number"):
            self._withdrawals_refused.labels(what)
        for topic in topics:
            for of_topic in (self._gaps, self._epochs, self._overtaken):
                of_topic.labels(topic)

    def bind(self, levels: Levels) -> None:
        """Read the levels from there from now on. Call it once."""
        self._registry.register(_LevelCollector(lambda: _read(levels)))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, with its content type: with exemplars if the `Accept` header asks for OpenMetrics."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def outcomes(self) -> dict[str, int]:
        """How many records ended how, since the start."""
        return {outcome.value: count for outcome, count in self._totals.items()}

    def error_rate(self) -> float:
        """Share of the last minute's records that was rejected or undeliverable."""
        return self._last_minute.share()

    def batch_answered(self, size: int, status: str, seconds: float, trace_id: str | None) -> None:
        """A batch of so many contacts got its answer after so long, in that trace."""
        self._batches.labels(status).inc()
        self._batch_size.observe(size)
        self._deliver.observe(seconds, {"trace_id": trace_id} if trace_id else None)

    def on_request(self, operation: str, status: str, seconds: float) -> None:
        """One attempt of a request ended; `status` is the HTTP status, or the name of the error."""
        self._requests.labels(operation, status).inc()
        self._request.labels(operation).observe(seconds)

    def retried(self, reason: str) -> None:
        """A request will be made again."""
        self._retries.labels(reason).inc()

    def searched(self, *, found: bool) -> None:
        self._search_requests.inc()
        if found:
            self._refused_contacts.inc()

    def withdrawal_refused(self, what: str) -> None:
        """Genesys does not take a withdrawal, whose `contact` is deleted instead, or its `number` to be blocked."""
        self._withdrawals_refused.labels(what).inc()

    def settled(self, records: Sequence[SettledRecord], now: float, seconds: float) -> None:
        self._settle.observe(seconds)
        outcomes = Count(record.outcome for record in records)
        self._totals.update(outcomes)
        for outcome, count in outcomes.items():
            self._outcomes[outcome].inc(count)
        self._last_minute.add(len(records), sum(outcomes[outcome] for outcome in GIVEN_UP))
        given_up = (record for record in records if record.outcome in GIVEN_UP)
        for reason, count in Count(reason for record in given_up for reason in record.reasons).items():
            self._rejected.labels(reason).inc(count)
        self._end_to_end.observe([max(0.0, now - each.appended_ms / 1000) for each in records if each.appended_ms >= 0])
        for record in records:
            if record.withdrawal and record.applied_at is not None:
                self._applied(record, record.applied_at)

    def _applied(self, withdrawal: SettledRecord, at: float) -> None:
        """Genesys has a withdrawal since then, seconds since the epoch."""
        self._undecodable.inc(not UNDECODABLE.isdisjoint(withdrawal.reasons))
        if withdrawal.appended_ms >= 0:
            took = max(0.0, at - withdrawal.appended_ms / 1000)
            self._withdrawal.observe(took)
            self.slowest_withdrawal_s = max(self.slowest_withdrawal_s, took)

    def restored(self, seconds: float) -> None:
        self._restore.observe(seconds)

    def offset_gap(self, partition: TopicPartition) -> None:
        self._gaps.labels(partition.topic).inc()

    def source_epoch_began(self, partition: TopicPartition) -> None:
        self._epochs.labels(partition.topic).inc()

    def source_overtaken(self, partition: TopicPartition) -> None:
        """Retention removed records of a partition before the group had read them."""
        self._overtaken.labels(partition.topic).inc()


class _BulkHistogram(Collector):
    """A histogram without labels for what comes by the thousand: the library's own takes three locks for each value.

    Belongs to one thread.
    """

    def __init__(self, name: str, help_: str, buckets: Sequence[float]) -> None:
        self._name = _PREFIX + name
        self._help = help_
        self._bounds = (*buckets, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count values; one that equals a bound belongs below it."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def collect(self) -> Iterator[HistogramMetricFamily]:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        totals = accumulate(self._counts)
        names = map(floatToGoString, self._bounds)
        buckets = [(name, float(total)) for name, total in zip(names, totals, strict=True)]
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=self._sum)


_Reading = float | Mapping[TopicPartition, float] | Mapping[str, float]

_LEVELS = {
    "breaker_state": "0 closed, 1 half-open, 2 open.",
    "rate_limit_remaining": "Requests that the limit still allows.",
    "in_flight": "Requests sent and unanswered.",
    "lag": "Records between the last settled one and the end.",
    "stalled_seconds": "For how long nothing was settled although something waits.",
    "store_keys": "Contacts remembered in the open stores.",
    "store_bytes": "Disk space of the open stores.",
    "fuse_tripped": "1 where the fuse has tripped and the topic stands still, else 0.",
    "error_rate": "Share of the last minute's records that was rejected or undeliverable.",
}


_OF_PARTITION = ("topic", "partition")
_LABELS = {"lag": _OF_PARTITION, "stalled_seconds": _OF_PARTITION, "fuse_tripped": ("topic",)}


class _LevelCollector(Collector):
    """Reads levels when Prometheus asks."""

    def __init__(self, read: Callable[[], Mapping[str, _Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name nothing: registering must not read."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        for name, reading in self._read().items():
            if isinstance(reading, Mapping):
                yield _labelled(name, reading)
            else:
                yield GaugeMetricFamily(_PREFIX + name, _LEVELS[name], reading)


def _labelled(name: str, reading: Mapping[TopicPartition, float] | Mapping[str, float]) -> GaugeMetricFamily:
    """A level of each topic or partition."""
    family = GaugeMetricFamily(_PREFIX + name, _LEVELS[name], labels=_LABELS[name])
    for place, level in reading.items():
        family.add_metric((place,) if isinstance(place, str) else (place.topic, str(place.partition)), level)
    return family


def _read(levels: Levels) -> Mapping[str, _Reading]:
    keys, size = levels.store_size()
    return {
        "breaker_state": levels.breaker_state(),
        "rate_limit_remaining": levels.rate_limit_remaining(),
        "in_flight": levels.in_flight(),
        "lag": levels.lag(),
        "stalled_seconds": levels.stalled(),
        "store_keys": keys,
        "store_bytes": size,
        "fuse_tripped": levels.fuse_tripped(),
    }
