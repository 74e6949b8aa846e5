"""Traces as a collector receives them, over OTLP/HTTP from a real socket; and collectors that do not answer."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from consumer.adapters.telemetry.adapter import Telemetry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00".encode()
SAMPLED_AND_RANDOM = f"00-{TRACE}-00f067aa0ba902b8-03".encode()
PHONE = "+15550001111"


def log_nothing(_: BaseHTTPRequestHandler, __: str, *args: object) -> None:
    """Keep quiet where the handler would write to stderr."""


class Collector:
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        received: list[tuple[str, ResourceSpans]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                received.extend((self.path, each) for each in request.resource_spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            log_message = log_nothing  # type: ignore[assignment]  # its arguments have other names

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def spans(self) -> dict[str, Span]:
        """The spans by name; each name once."""
        spans = [span for _, each in self.received for scope in each.scope_spans for span in scope.spans]
        assert len({span.name for span in spans}) == len(spans)
        return {span.name: span for span in spans}

    def close(self) -> None:
        """Stop, and let go of the port."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment points at."""
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.close()


def attributes(span: Span) -> dict[str, str | int]:
    """The attributes of a span, as Python values."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def exported(collector: Collector, work: Callable[[Telemetry], object]) -> dict[str, Span]:
    """What the collector has after some work and an orderly end."""
    telemetry = Telemetry(["changes", "more"], "group")
    work(telemetry)
    await telemetry.close(10)
    return collector.spans


async def test_poll_batch_and_settle_are_spans(collector: Collector) -> None:
    """The three steps must arrive as roots with the names, kinds and attributes of the messaging conventions."""

    def work(telemetry: Telemetry) -> None:
        with telemetry.poll_span(7), telemetry.batch_span("upsert", "batch-1", 5, []):
            pass
        with telemetry.settle_span(7):
            pass

    spans = await exported(collector, work)
    common: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.destination.name": "changes,more",
        "messaging.consumer.group.name": "group",
    }
    expected: dict[str, tuple[int, str, dict[str, str | int]]] = {
        "poll": (Span.SPAN_KIND_CLIENT, "receive", {"messaging.batch.message_count": 7}),
        "process": (
            Span.SPAN_KIND_CONSUMER,
            "process",
            {
                "messaging.batch.message_count": 5,
                "genesys_consumer.operation": "upsert",
                "genesys_consumer.batch.id": "batch-1",
            },
        ),
        "settle": (Span.SPAN_KIND_CLIENT, "settle", {"messaging.batch.message_count": 7}),
    }
    assert set(spans) == {f"{name} changes,more" for name in expected}
    for name, (kind, type_, own) in expected.items():
        span = spans[f"{name} changes,more"]
        assert span.kind == kind
        assert span.parent_span_id == b""
        own |= {"messaging.operation.name": name, "messaging.operation.type": type_}
        assert attributes(span) == common | own
    assert len({span.trace_id for span in spans.values()}) == 3
    path, resource_spans = collector.received[0]
    assert path == "/v1/traces"
    service = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
    assert service["service.name"] == "genesys-consumer"


async def test_the_batch_yields_its_trace_and_links_to_its_records(collector: Collector) -> None:
    """The audit's trace id must be the one that the collector has; sampled records are linked, each once."""
    yielded: list[str | None] = []

    def work(telemetry: Telemetry) -> None:
        headers = [SAMPLED, UNSAMPLED, SAMPLED, SAMPLED_AND_RANDOM]
        with telemetry.batch_span("upsert", "batch-1", 4, headers) as trace_id:
            yielded.append(trace_id)

    span = (await exported(collector, work))["process changes,more"]
    assert yielded == [span.trace_id.hex()]
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [
        (TRACE, "00f067aa0ba902b7"),
        (TRACE, "00f067aa0ba902b8"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff\xfe\x00",
        b"garbage",
        SAMPLED.upper(),
        SAMPLED[:-1],
        SAMPLED + b"-more",
        SAMPLED + b"\n",
        b"ff" + SAMPLED[2:],
        SAMPLED.replace(TRACE.encode(), b"0" * 32),
        SAMPLED.replace(b"00f067aa0ba902b7", b"0" * 16),
        b"x" * 1_000_000,
    ],
    ids=lambda header: repr(header[:12]),
)
async def test_a_bad_header_is_ignored(header: bytes, collector: Collector) -> None:
    """Whatever a producer wrote into `traceparent` must neither raise nor become a link."""

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 1, [header]):
            pass

    assert not (await exported(collector, work))["process changes,more"].links


async def test_a_later_version_of_the_header_is_read(collector: Collector) -> None:
    """The W3C promises that later versions begin like this one."""

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 1, [b"cc" + SAMPLED[2:] + b"-what-the-future-brings"]):
            pass

    assert len((await exported(collector, work))["process changes,more"].links) == 1


async def test_links_are_capped(collector: Collector) -> None:
    """A batch of many traced records must not make a span of unbounded size; what is left out is counted."""
    headers = [f"00-{TRACE}-{number:016x}-01".encode() for number in range(1, 301)]

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 300, headers):
            pass

    span = (await exported(collector, work))["process changes,more"]
    assert (len(span.links), span.dropped_links_count) == (128, 172)


async def test_requests_are_children_of_their_batch(collector: Collector) -> None:
    """A span of the Genesys client, made inside the batch, must belong to it."""

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 1, []), telemetry.tracer.start_as_current_span("POST"):
            pass

    spans = await exported(collector, work)
    assert spans["POST"].parent_span_id == spans["process changes,more"].span_id


def _fail(telemetry: Telemetry) -> None:
    with telemetry.batch_span("upsert", "batch-1", 1, []):
        raise ValueError(PHONE)


def _retry(telemetry: Telemetry) -> None:
    with telemetry.batch_span("upsert", "batch-1", 1, []):
        telemetry.on_retry("throttled")


def _refuse(telemetry: Telemetry) -> None:
    with telemetry.batch_span("upsert", "batch-1", 1, []):
        telemetry.batch_sent(1, "failure", 0.1)


async def test_an_error_shows_its_type_alone(collector: Collector) -> None:
    """An exception's text may quote a contact: the span must carry the type, and no event and no text."""

    def work(telemetry: Telemetry) -> None:
        with pytest.raises(ValueError, match="555"):
            _fail(telemetry)

    span = (await exported(collector, work))["process changes,more"]
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "ValueError"
    assert not span.events
    assert PHONE not in str(collector.received)


@pytest.mark.parametrize("work", [_retry, _refuse])
async def test_a_batch_that_failed_is_an_error(work: Callable[[Telemetry], None], collector: Collector) -> None:
    """A batch that is retried or refused must be found by looking for errors, though no exception leaves it."""
    span = (await exported(collector, work))["process changes,more"]
    assert span.status.code == Status.STATUS_CODE_ERROR


@pytest.mark.parametrize(
    ("sampler", "headers", "sampled"),
    [
        ("parentbased_always_off", [], False),
        ("parentbased_always_off", [UNSAMPLED], False),
        ("parentbased_always_off", [SAMPLED.replace(TRACE.encode(), b"0" * 32)], False),
        ("parentbased_always_off", [SAMPLED], True),
        ("parentbased_always_on", [], True),
        ("always_off", [SAMPLED], False),
    ],
)
async def test_a_batch_is_sampled_as_its_records_or_as_configured(
    sampler: str, headers: Sequence[bytes], sampled: bool, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampled record must pull its batch in, whatever the ratio; `always_off` means off."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    yielded: list[str | None] = []

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 1, headers) as trace_id:
            yielded.append(trace_id)

    spans = await exported(collector, work)
    assert bool(spans) == sampled
    assert bool(yielded[0]) == sampled


async def test_delivery_times_name_their_trace(collector: Collector) -> None:
    """From a slow bucket of the histogram one must get to a trace: the exemplar is the batch's trace id."""
    texts: list[str] = []

    def work(telemetry: Telemetry) -> None:
        with telemetry.batch_span("upsert", "batch-1", 1, []):
            telemetry.batch_sent(1, "success", 0.2)
        texts.append(telemetry.render("application/openmetrics-text; version=1.0.0")[0].decode())

    trace_id = (await exported(collector, work))["process changes,more"].trace_id.hex()
    exemplar = f'genesys_consumer_deliver_seconds_bucket{{le="0.25"}} 1.0 # {{trace_id="{trace_id}"}} 0.2'
    assert exemplar in texts[0]


async def test_the_environment_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME must win over the program's own name."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "crm-sync")

    def work(telemetry: Telemetry) -> None:
        with telemetry.settle_span(1):
            pass

    await exported(collector, work)
    resource = collector.received[0][1].resource
    assert {each.key: each.value.string_value for each in resource.attributes}["service.name"] == "crm-sync"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_a_dead_collector_does_not_hold_the_end(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing must return at its deadline, with the event loop running meanwhile."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{silent}/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10")
    telemetry = Telemetry(["changes"], "group")
    with telemetry.settle_span(1):
        pass
    started = time.monotonic()
    closing = asyncio.create_task(telemetry.close(0.5))
    await asyncio.sleep(0)
    assert not closing.done()
    await closing
    assert 0.4 < time.monotonic() - started < 8


def test_a_dead_collector_does_not_hold_the_exit(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process must end after the deadline although the SDK still waits for its collector, and end clean."""
    code = """
import asyncio
from consumer.adapters.telemetry.adapter import Telemetry
async def main():
    telemetry = Telemetry(["changes"], "group")
    with telemetry.settle_span(1):
        pass
    await telemetry.close(0.2)
asyncio.run(main())
raise SystemExit(7)
"""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)  # noqa: S603 -- our own text
    assert ended.returncode == 7
    assert ended.stderr == "spans_not_exported\n"
