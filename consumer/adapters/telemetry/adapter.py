"""The telemetry port: metrics always, spans when an OTLP endpoint is set.

Answers for whether spans are made at all. Touches the `OTEL_*` variables.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from opentelemetry.trace import NoOpTracer, StatusCode, Tracer, format_trace_id, get_current_span

from consumer.adapters.telemetry.metrics import Metrics
from consumer.adapters.telemetry.sdk_variables import read_by_the_sdk

_NO_SPAN: AbstractContextManager[None] = nullcontext()


class Telemetry(Metrics):
    """Implements `consumer.ports.Telemetry`. `Metrics` has the other half, and what app binds to it.

    Args:
        topics: Source topics, named by every span.
        group_id: Consumer group.
        monotonic: Clock of the last minute, in seconds.

    Attributes:
        tracer: For spans of requests to Genesys: inside a `batch_span` they are its children.

    Raises:
        SettingsError: The SDK refuses a variable of its own.
    """

    def __init__(self, topics: Sequence[str], group_id: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(topics, monotonic)
        self._spans = None
        self.tracer: Tracer = NoOpTracer()
        if _exporting():
            with read_by_the_sdk():
                from consumer.adapters.telemetry.spans import OtlpSpans  # noqa: PLC0415 -- costs 0.3 s, most do without

                self._spans = OtlpSpans(topics, group_id)
            self.tracer = self._spans.tracer

    def poll_span(self, records: int) -> AbstractContextManager[None]:
        return self._spans.poll(records) if self._spans else _NO_SPAN

    def batch_span(
        self, operation: str, batch_id: str, size: int, headers: Sequence[bytes]
    ) -> AbstractContextManager[str | None]:
        return self._spans.batch(operation, batch_id, size, headers) if self._spans else _NO_SPAN

    def settle_span(self, records: int) -> AbstractContextManager[None]:
        return self._spans.settle(records) if self._spans else _NO_SPAN

    def batch_sent(self, size: int, status: str, seconds: float) -> None:
        span = get_current_span()
        if status == "failure":
            span.set_status(StatusCode.ERROR)
        context = span.get_span_context()
        exemplar = format_trace_id(context.trace_id) if context.trace_flags.sampled else None
        self.batch_answered(size, status, seconds, exemplar)

    def on_retry(self, reason: str) -> None:
        span = get_current_span()
        span.set_attribute("error.type", reason)
        span.set_status(StatusCode.ERROR)
        self.retried(reason)

    async def close(self, deadline_s: float) -> None:
        """Export the last spans, for no longer than the deadline."""
        if self._spans:
            await self._spans.close(deadline_s)


def _exporting() -> bool:
    """Whether the environment asks for traces, after the rules of OpenTelemetry; off unless an endpoint is set."""
    environ = {name: value.strip() for name, value in os.environ.items() if name.startswith("OTEL_")}
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "") == "none":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
