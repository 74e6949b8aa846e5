"""`make faults` must not pass with contacts in two requests at once, nor with kinds of faults that never struck."""

from dataclasses import replace

import pytest

from consumer.simulator.faults import FaultKind
from tests.faults import UNFELT, Figures, faults_of

SOUND = Figures(
    events=9,
    contacts=3,
    in_the_list=3,
    requests=99,
    faults={str(kind): 1 for kind in FaultKind},
    retries={},
    outcomes={},
    overlapping=0,
    seconds=1.0,
)


def test_a_sound_run_passes() -> None:
    """All kinds struck, and no contact was in two requests."""
    assert faults_of(SOUND) == []


@pytest.mark.parametrize("kind", sorted({*FaultKind} - UNFELT))
def test_a_kind_that_never_struck_is_told(kind: FaultKind) -> None:
    """A run that did not meet it proves nothing about it."""
    struck = {name: times for name, times in SOUND.faults.items() if name != kind}
    assert faults_of(replace(SOUND, faults=struck)) == [f"{kind} never struck: tell more events"]


def test_contacts_in_two_requests_are_told() -> None:
    """Whatever else went well."""
    assert faults_of(replace(SOUND, overlapping=2)) == ["2 contacts were in two requests at once"]
