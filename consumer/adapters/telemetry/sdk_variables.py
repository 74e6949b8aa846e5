"""What the OpenTelemetry SDK says of the variables that it reads, in words of the project.

Answers for a wrong one being a bad setting, and for headers being secrets. Touches the `OTEL_*` variables, and the
logger with which the SDK complains of headers.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from consumer.errors import SettingsError

_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
"""The first that is set counts."""

_log = structlog.get_logger(__name__)


@contextmanager
def read_by_the_sdk() -> Iterator[None]:
    """The SDK reads its variables inside the block.

    Raises:
        SettingsError: It refuses one.
    """
    quoting: list[logging.LogRecord] = []

    def hold_back(record: logging.LogRecord) -> bool:
        quoting.append(record)
        return False

    complains = logging.getLogger("opentelemetry.util.re")
    complains.addFilter(hold_back)
    try:
        yield
    except ValueError as error:
        raise SettingsError([f"OTEL_*: {error}"]) from error
    finally:
        complains.removeFilter(hold_back)
    if quoting:
        _log.warning("otlp_headers_ignored", name=next(filter(os.environ.get, _HEADERS)), remedy="key=value,key=value")
