"""Reads `traceparent` headers as W3C Trace Context has them.

Answers for which are valid: an audit event names the same trace as the spans of its record. Touches nothing.
"""

import re
from typing import NamedTuple

HEADER = "traceparent"

_FORM = re.compile(rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*")
_NO_VERSION, _FIRST_VERSION = b"ff", b"00"
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """The span that a header names.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        flags: Eight bits.
    """

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether its trace is kept."""
        return bool(self.flags & _SAMPLED)


def parse(header: bytes) -> TraceParent | None:
    """What a header says; None where it is not valid. Versions to come may say more behind it."""
    match = _FORM.fullmatch(header)
    if match is None or match[1] == _NO_VERSION or (match[1] == _FIRST_VERSION and match[5]):
        return None
    trace_id, span_id = match[2].decode(), match[3].decode()
    return TraceParent(trace_id, span_id, int(match[4], 16)) if int(trace_id, 16) and int(span_id, 16) else None
