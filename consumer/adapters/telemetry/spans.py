"""Spans of the flow, exported over OTLP/HTTP: names and attributes after the messaging conventions.

Answers for what a trace shows. Touches the `OTEL_*` variables (the SDK reads them) and, from a thread of the SDK, the
collector. Importing this costs a third of a second: only who exports does. A span holds no text of an exception.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    format_trace_id,
    use_span,
)
from opentelemetry.util.types import Attributes

from consumer.core import trace_context

_QUEUE_SPANS = 4096
"""Spans that wait for the collector unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise: at most some 100 MB, with links."""

_ROOT = Context()

log = logging.getLogger(__name__)


class OtlpSpans:
    """Makes the spans of the flow and hands them to a collector.

    Args:
        topics: Source topics.
        group_id: Consumer group.
    """

    def __init__(self, topics: Sequence[str], group_id: str) -> None:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        if provider.sampler is not ALWAYS_OFF:
            provider.sampler = _AsLinked(provider.sampler)
        queue = None if "OTEL_BSP_MAX_QUEUE_SIZE" in os.environ else _QUEUE_SPANS
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=queue))
        self._provider = provider
        self._topics = ",".join(topics)
        self._common = {
            "messaging.system": "kafka",
            "messaging.destination.name": self._topics,
            "messaging.consumer.group.name": group_id,
        }
        self.tracer: Tracer = provider.get_tracer("genesys-consumer")

    @contextmanager
    def poll(self, records: int) -> Iterator[None]:
        """One poll going through the stages."""
        with self._span("poll", "receive", SpanKind.CLIENT, {"messaging.batch.message_count": records}):
            yield

    @contextmanager
    def batch(self, operation: str, batch_id: str, size: int, headers: Sequence[bytes]) -> Iterator[str | None]:
        """One batch on its way to Genesys, linked to the traces that its records came from."""
        attributes: dict[str, str | int] = {
            "messaging.batch.message_count": size,
            "genesys_consumer.operation": operation,
            "genesys_consumer.batch.id": batch_id,
        }
        with self._span("process", "process", SpanKind.CONSUMER, attributes, _links(headers)) as span:
            yield format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None

    @contextmanager
    def settle(self, records: int) -> Iterator[None]:
        """One settlement."""
        with self._span("settle", "settle", SpanKind.CLIENT, {"messaging.batch.message_count": records}):
            yield

    @contextmanager
    def _span(
        self,
        name: str,
        type_: str,
        kind: SpanKind,
        attributes: dict[str, str | int],
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """A root span, current inside the block: a task may have inherited the context of a span long ended."""
        attributes = {
            **self._common,
            "messaging.operation.name": name,
            "messaging.operation.type": type_,
            **attributes,
        }
        span = self.tracer.start_span(f"{name} {self._topics}", _ROOT, kind, attributes, links)
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise

    async def close(self, deadline_s: float) -> None:
        """Export what waits, for no longer than the deadline: the SDK alone would try a dead collector for 30 s."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # past the deadline there may be no loop any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="otlp-shutdown", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), deadline_s)
        except TimeoutError:
            log.warning("spans_not_exported")


class _AsLinked(Sampler):
    """Samples a span when one of its links is sampled, and otherwise as configured."""

    def __init__(self, configured: Sampler) -> None:
        self._configured = configured

    def should_sample(  # type: ignore[explicit-override]  # noqa: PLR0917 -- the SDK's signature; typing has it from 3.12
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        linked = any(link.context.trace_flags.sampled for link in links or ())
        sampler = ALWAYS_ON if linked else self._configured
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        return f"AsLinked{{{self._configured.get_description()}}}"


def _resource() -> Resource:
    """What the environment says of this process, under the program's name unless it says another."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "genesys-consumer"}))
    return resource


def _links(headers: Sequence[bytes]) -> list[Link]:
    """Links to the sampled contexts among `traceparent` values, each once; the SDK keeps 128, and counts the rest."""
    contexts = (_sampled_context(header) for header in dict.fromkeys(headers))
    return [Link(context) for context in contexts if context is not None]


def _sampled_context(header: bytes) -> SpanContext | None:
    """The context that a header names; None when it is not sampled, or no valid W3C trace context."""
    parent = trace_context.parse(header)
    if parent is None or not parent.sampled:
        return None
    trace_id, span_id = int(parent.trace_id, 16), int(parent.span_id, 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
