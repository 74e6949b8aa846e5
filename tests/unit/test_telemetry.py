"""Metrics as Prometheus reads them, and when there are spans at all."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from consumer import ports
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.adapters.telemetry.metrics import Levels
from consumer.errors import SettingsError
from consumer.model import Outcome, TopicPartition
from consumer.ports import SettledRecord

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

LABELS = {
    "records": ("outcome",), "records_rejected": ("reason",), "batches": ("status",),
    "requests": ("operation", "status"), "request_retries": ("reason",), "lag": ("topic", "partition"),
    "request_seconds": ("operation",), "stalled_seconds": ("topic", "partition"), "offset_gaps": ("topic",),
    "source_overtaken": ("topic",), "source_epochs": ("topic",), "fuse_tripped": ("topic",),
    "withdrawals_refused": ("what",),
}  # fmt: skip
"""Names of the labels that a metric has, as dashboards and alerts group by them."""

PLAIN = ["batch_size", "deliver_seconds", "end_to_end_seconds", "withdrawal_seconds", "settle_seconds", "error_rate"]
PLAIN += ["breaker_state", "rate_limit_remaining", "in_flight", "store_keys", "store_bytes", "restore_seconds"]
PLAIN += ["undecodable_suppressions"]
PLAIN += ["search_requests", "refused_contacts"]


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)


TOPICS = ["changes", "more changes"]


def telemetry(monotonic: Callable[[], float] = lambda: 0.0) -> Telemetry:
    """Telemetry of two topics."""
    return Telemetry(TOPICS, "group", monotonic)


def levels() -> Levels:
    """Levels that stand still."""
    return Levels(
        breaker_state=lambda: 2,
        rate_limit_remaining=lambda: 250.0,
        in_flight=lambda: 3,
        lag=lambda: {TopicPartition("changes", 0): 7, TopicPartition("changes", 1): 0},
        stalled=lambda: {TopicPartition("changes", 0): 1.5},
        store_size=lambda: (1000, 65536),
        fuse_tripped=lambda: {"changes": 1, "others": 0},
    )


def record(
    outcome: Outcome,
    *reasons: str,
    appended_ms: int = 1_000_000,
    applied_at: float | None = None,
    withdrawal: bool = False,
) -> SettledRecord:
    """A settled record, appended at 1000 s."""
    return SettledRecord(outcome, reasons, appended_ms, applied_at, withdrawal)


def samples(of: Telemetry) -> dict[str, float]:
    """Every sample as a scraper reads it: name without prefix, then the values of its labels."""
    families = text_string_to_metric_families(of.render(OPENMETRICS)[0].decode())
    return {
        " ".join((sample.name.removeprefix("genesys_consumer_"), *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def labels(of: Telemetry) -> dict[str, set[str]]:
    """Names of the labels of each metric that has samples; the bounds of a histogram's buckets are none."""
    return {
        family.name.removeprefix("genesys_consumer_"): {name for s in family.samples for name in s.labels} - {"le"}
        for family in text_string_to_metric_families(of.render(OPENMETRICS)[0].decode())
        if family.name.startswith("genesys_consumer_")
    }


def test_it_is_the_port() -> None:
    """The adapter must have every method of the port, with its signature: mypy reads the annotation."""
    port: ports.Telemetry = telemetry()
    assert all(hasattr(port, name) for name in vars(ports.Telemetry) if not name.startswith("_"))


def test_every_promised_metric_is_there() -> None:
    """Dashboards rely on the names: each must be in the output, even before anything happened, and has its labels."""
    subject = telemetry()
    subject.bind(levels())
    text = subject.render(OPENMETRICS)[0].decode()
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE genesys_consumer_")}
    assert families == {f"genesys_consumer_{name}" for name in (*LABELS, *PLAIN)}
    subject.on_request("add_contacts", "200", 0.1)
    assert labels(subject) == {name: set(LABELS.get(name, ())) for name in (*LABELS, *PLAIN)}


def test_outcomes_are_counted_from_zero() -> None:
    """A settlement must add to the counters of its outcomes; the other outcomes are there with 0."""
    subject = telemetry()
    subject.settled([record(Outcome.DELIVERED), record(Outcome.DELIVERED), record(Outcome.STALE)], 1001.0, 0.2)
    found = samples(subject)
    assert found["records_total delivered"] == 2
    assert found["records_total stale"] == 1
    assert found["records_total undeliverable"] == 0
    assert found["settle_seconds_count"] == 1
    assert subject.outcomes() == {
        "delivered": 2, "stale": 1, "duplicate": 0, "superseded": 0, "rejected": 0, "undeliverable": 0,
        "ignored": 0,
    }  # fmt: skip


def test_what_alerts_watch_is_there_before_it_happens() -> None:
    """A series that appears with its first event has not increased: the alert on lost data would stay silent."""
    found = samples(telemetry())
    counters = ("offset_gaps", "source_epochs", "source_overtaken")
    assert {found[f"{name}_total {topic}"] for name in counters for topic in TOPICS} == {0}


def test_every_reason_is_counted() -> None:
    """A record with two reasons must count under both, also when Genesys refused it; one that is delivered does not."""
    subject = telemetry()
    subject.settled(
        [
            record(Outcome.REJECTED, "email_invalid", "phone_not_e164"),
            record(Outcome.REJECTED, "email_invalid"),
            record(Outcome.UNDELIVERABLE, "genesys:bad"),
            record(Outcome.DELIVERED, "genesys:carried.out.in.another.way"),
        ],
        1001.0,
        0.2,
    )
    found = samples(subject)
    assert found["records_rejected_total email_invalid"] == 2
    assert found["records_rejected_total phone_not_e164"] == 1
    assert found["records_rejected_total genesys:bad"] == 1
    assert found["records_rejected_total not_decodable"] == 0
    assert "records_rejected_total genesys:carried.out.in.another.way" not in found


def test_refused_withdrawals_are_counted() -> None:
    """An alert needs them from the start on, at zero."""
    subject = telemetry()
    subject.withdrawal_refused("number")
    found = samples(subject)
    assert (found["withdrawals_refused_total contact"], found["withdrawals_refused_total number"]) == (0, 1)


def test_contacts_suppressed_without_knowing_why_are_counted() -> None:
    """Only where something was sent, and only records that could not be decoded."""
    subject = telemetry()
    assert samples(subject)["undecodable_suppressions_total"] == 0
    subject.settled(
        [
            record(Outcome.REJECTED, "schema_unknown", applied_at=1002.0, withdrawal=True),
            record(Outcome.REJECTED, "not_decodable", withdrawal=True),
            record(Outcome.REJECTED, "envelope_unknown"),
            record(Outcome.REJECTED, "phone_not_e164", applied_at=1002.0, withdrawal=True),
        ],
        1005.0,
        0.2,
    )
    assert samples(subject)["undecodable_suppressions_total"] == 1


def test_ages_run_from_the_append() -> None:
    """End to end must run until settled, a withdrawal until applied; a clock behind Kafka's counts as no time."""
    subject = telemetry()
    subject.settled(
        [
            record(Outcome.DELIVERED, applied_at=1002.0, withdrawal=True),
            record(Outcome.DELIVERED, applied_at=1002.0),
            record(Outcome.DUPLICATE, withdrawal=True),
            record(Outcome.DUPLICATE, appended_ms=1_009_000),
        ],
        1005.0,
        0.2,
    )
    found = samples(subject)
    assert (found["end_to_end_seconds_count"], found["end_to_end_seconds_sum"]) == (4, 15.0)
    assert (found["withdrawal_seconds_count"], found["withdrawal_seconds_sum"]) == (1, 2.0)
    assert subject.slowest_withdrawal_s == 2.0


def test_the_slowest_withdrawal_is_kept() -> None:
    """What is quicker afterwards does not hide it, and other records do not count."""
    subject = telemetry()
    for appended_ms, withdrawal in ((990_000, True), (999_000, True), (1, False)):
        late = record(Outcome.DELIVERED, appended_ms=appended_ms, applied_at=1000.0, withdrawal=withdrawal)
        subject.settled([late], 1001.0, 0.1)
    assert subject.slowest_withdrawal_s == 10.0


def test_records_without_a_time_have_no_age() -> None:
    """They are counted in all else; one of them must not hide how slow the others were."""
    subject = telemetry()
    timeless = record(Outcome.REJECTED, "not_decodable", appended_ms=-1, applied_at=1002.0, withdrawal=True)
    subject.settled([timeless, record(Outcome.DELIVERED, applied_at=1002.0, withdrawal=True)], 1005.0, 0.2)
    found = samples(subject)
    assert (found["end_to_end_seconds_count"], found["end_to_end_seconds_sum"]) == (1, 5.0)
    assert (found["withdrawal_seconds_count"], found["withdrawal_seconds_sum"]) == (1, 2.0)
    assert subject.slowest_withdrawal_s == 2.0
    assert found["undecodable_suppressions_total"] == 1


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_ages_look_like_those_of_the_library(accept: str) -> None:
    """Whoever reads the histogram of ages must not see that it is counted in bulk: at bounds and beyond them too."""
    name = "genesys_consumer_end_to_end_seconds"
    ages = [0.0, 0.125, 0.5, 86400.0, 90000.0]
    subject, reference = telemetry(), CollectorRegistry()
    subject.settled([record(Outcome.DUPLICATE, appended_ms=round((1e5 - age) * 1000)) for age in ages], 1e5, 0.1)
    bounds = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400)
    expected = Histogram(name, "From append in Kafka to settled.", buckets=bounds, registry=reference)
    for age in ages:
        expected.observe(age)
    encode, _ = choose_encoder(accept)
    assert lines(subject.render(accept)[0], name) == lines(encode(reference), name)


def lines(text: bytes, name: str) -> list[str]:
    """What a page of metrics says of one of them."""
    return [line for line in text.decode().splitlines() if name in line]


def test_the_error_rate_is_that_of_the_last_minute() -> None:
    """Rejected and undeliverable records must weigh for 60 seconds, then be forgotten."""
    now = 100.0
    subject = telemetry(lambda: now)
    assert samples(subject)["error_rate"] == 0
    subject.settled([record(Outcome.REJECTED), record(Outcome.UNDELIVERABLE)], 1001.0, 0.1)
    subject.settled([record(Outcome.DELIVERED), record(Outcome.DUPLICATE)], 1001.0, 0.1)
    assert samples(subject)["error_rate"] == 0.5
    now = 130.0
    subject.settled([record(Outcome.DELIVERED)] * 4, 1001.0, 0.1)
    assert samples(subject)["error_rate"] == 0.25
    now = 160.0
    assert samples(subject)["error_rate"] == 0
    now = 190.0
    assert subject.error_rate() == 0
    assert not subject._last_minute._seconds


def test_levels_are_read_when_asked() -> None:
    """Levels must come from where they are bound to, at each scrape."""
    subject = telemetry()
    subject.bind(levels())
    found = samples(subject)
    assert found["breaker_state"] == 2
    assert found["in_flight"] == 3
    assert found["lag 0 changes"] == 7
    assert found["stalled_seconds 0 changes"] == 1.5
    assert found["store_keys"] == 1000
    assert found["store_bytes"] == 65536
    assert (found["fuse_tripped changes"], found["fuse_tripped others"]) == (1, 0)
    assert found["rate_limit_remaining"] == 250.0


def test_batches_and_requests_are_counted() -> None:
    """Each answer of a batch, each attempt of a request and each retry must show."""
    subject = telemetry()
    subject.batch_sent(100, "success", 0.4)
    subject.batch_sent(50, "failure", 0.1)
    subject.on_request("upsert", "200", 0.3)
    subject.on_retry("throttled")
    subject.searched(found=False)
    subject.searched(found=True)
    subject.restored(3.0)
    subject.offset_gap(TopicPartition("changes", 0))
    subject.source_overtaken(TopicPartition("changes", 0))
    subject.source_epoch_began(TopicPartition("changes", 0))
    found = samples(subject)
    assert found["batches_total success"] == found["batches_total failure"] == 1
    assert (found["batch_size_count"], found["batch_size_sum"]) == (2, 150)
    assert found["deliver_seconds_sum"] == 0.5
    assert found["requests_total upsert 200"] == 1
    assert found["request_seconds_count upsert"] == 1
    assert found["request_retries_total throttled"] == 1
    assert (found["search_requests_total"], found["refused_contacts_total"]) == (2, 1)
    assert found["restore_seconds_sum"] == 3
    assert found["offset_gaps_total changes"] == found["source_overtaken_total changes"] == 1
    assert found["source_epochs_total changes"] == 1


def test_old_scrapers_get_plain_text() -> None:
    """Who does not ask for OpenMetrics must get the classic format."""
    assert telemetry().render("")[1].startswith("text/plain")
    assert telemetry().render(OPENMETRICS)[1].startswith("application/openmetrics-text")


def test_without_an_endpoint_there_are_no_spans() -> None:
    """No endpoint: no trace id, and requests to Genesys are not traced either."""
    subject = telemetry()
    with subject.poll_span(1), subject.settle_span(1), subject.batch_span("upsert", "b", 1, [b"\xff"]) as trace_id:
        assert trace_id is None
        assert not subject.tracer.start_span("POST").is_recording()


@pytest.mark.parametrize(
    "switch", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_ENDPOINT="]
)
def test_traces_can_be_switched_off(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's own switches must hold although an endpoint is set; an empty endpoint is none."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*switch.split("="))
    subject = telemetry()
    with subject.batch_span("upsert", "b", 1, []) as trace_id:
        assert trace_id is None
    assert subject._spans is None


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
@pytest.mark.parametrize("headers", ["authorization: Bearer geheim", "geheim"])
def test_headers_that_cannot_be_read_are_named_and_not_shown(
    name: str, headers: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold the collector's token; the SDK would quote it in a warning."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, headers)
    with capture_logs() as told:
        telemetry()
    assert [(line["event"], line["name"]) for line in told] == [("otlp_headers_ignored", name)]
    assert caplog.records == []


def test_headers_that_can_be_read_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space in them is one of those that the SDK takes although it should not be there."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer geheim")
    with capture_logs() as told:
        telemetry()
    assert told == []


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8192", "max_export_batch_size"),
        ("OTEL_BSP_MAX_QUEUE_SIZE=100", "max_queue_size"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT=abc", "OTEL_SPAN_LINK_COUNT_LIMIT"),
    ],
)
def test_a_variable_that_the_sdk_refuses_is_a_bad_setting(
    variable: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a stack trace: whoever set it can mend it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(SettingsError, match=rf"^OTEL_\*: .*{named}"):
        telemetry()


def test_the_sdk_is_not_even_imported() -> None:
    """Without an endpoint the program must start without the tracing SDK, which takes long to import."""
    code = (
        "import sys; from consumer.adapters.telemetry.adapter import Telemetry; Telemetry(['t'], 'g');"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 -- our own text
