"""Partial change events, as envelopes of change-data-capture hand them on, made out of native ones that say so."""

import pytest
from msgspec.structs import replace

from consumer.core.decode import Reader
from consumer.core.envelopes.choice import Envelopes
from consumer.errors import DecodeError
from consumer.model import UNCHANGED, Events
from consumer.pipeline import intake
from tests.stories import PARTIAL

_FIELDS = ("phone", "email", "consent", "do_not_call")


@pytest.fixture
def partial_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native events with the attribute `partial` are partial ones, of which what is null did not change."""
    make_reader = intake.make_reader

    def make(text: str, envelopes: Envelopes, topic: str) -> Reader | DecodeError:
        reader = make_reader(text, envelopes, topic)
        if isinstance(reader, DecodeError):
            return reader
        return lambda payload, record: _as_told(reader(payload, record))

    monkeypatch.setattr(intake, "make_reader", make)


def _as_told(event: Events) -> Events:
    if isinstance(event, tuple) or PARTIAL not in event.attributes:
        return event
    kept = {field: UNCHANGED for field in _FIELDS if getattr(event, field) is None}
    attributes = {name: value for name, value in event.attributes.items() if name != PARTIAL}
    return replace(event, partial=True, attributes=attributes, **kept)
