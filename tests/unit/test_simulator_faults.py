"""Which fault strikes which request."""

from collections import Counter

import pytest

from consumer.simulator.faults import Fault, FaultKind, FaultPlan
from consumer.simulator.operations import Operation

ADD = Operation.ADD_CONTACTS
GET = Operation.GET_CONTACT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("503:0.05", Fault(FaultKind.UNAVAILABLE, 0.05)),
        ("lost_reply:0.03", Fault(FaultKind.LOST_REPLY, 0.03)),
        ("slow=0.2:0.5", Fault(FaultKind.SLOW, 0.5, seconds=0.2)),
        ("429=7@token:.1", Fault(FaultKind.THROTTLED, 0.1, seconds=7, operation=Operation.TOKEN)),
        ("hang@add_contacts", Fault(FaultKind.HANG, operation=ADD)),
        ("drip=0.01@get_contact", Fault(FaultKind.DRIP, seconds=0.01, operation=GET)),
        ("bulk_job:0.2", Fault(FaultKind.BULK_JOB, 0.2)),
        ("lag=5@delete_contacts", Fault(FaultKind.LAG, seconds=5, operation=Operation.DELETE_CONTACTS)),
    ],
)
def test_a_fault_is_read_as_it_is_spelled(text: str, fault: Fault):
    """Kind, seconds, operation and rate are read from where they stand."""
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "418:0.1",
        "503:0",
        "503:1.5",
        "503:x",
        "slow:0.5",
        "drip:0.5",
        "hang=3:0.1",
        "503@nothing:0.1",
        "503:0.1:0.2",
        "lag",
        "lag=5@read_contacts",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text: str):
    """A misspelled, unknown or impossible fault is a ValueError."""
    with pytest.raises(ValueError, match=r"fault|Fault|Operation"):
        Fault.parse(text)


@pytest.mark.parametrize(("text", "known"), [("599", "503"), ("503@nothing", "add_contacts")])
def test_what_there_is_no_fault_of_is_refused_with_what_there_is(text: str, known: str):
    """Whoever types it learns what to type."""
    with pytest.raises(ValueError, match=rf"is one of .*{known}, .*, not '\w+'$"):
        Fault.parse(text)


def test_a_script_strikes_in_order_and_then_no_more():
    """Each fault of a script strikes once, the first first."""
    plan = FaultPlan(script=[Fault.parse("503"), Fault.parse("reset")])
    assert [fault and fault.kind for fault in map(plan.draw, [ADD, ADD, ADD])] == ["503", "reset", None]
    assert plan.pending == 0


def test_an_injected_fault_goes_to_the_end():
    """What is injected strikes after what was there."""
    plan = FaultPlan(script=[Fault.parse("503")])
    plan.inject(Fault.parse("reset"))
    assert [fault and fault.kind for fault in map(plan.draw, [ADD, ADD])] == ["503", "reset"]


def test_a_scripted_fault_waits_for_its_operation():
    """A fault of one operation lets others pass, and those behind it strike meanwhile."""
    plan = FaultPlan(script=[Fault.parse("503@add_contacts")])
    plan.inject(Fault.parse("reset"))
    assert [fault and fault.kind for fault in map(plan.draw, [GET, GET, ADD])] == ["reset", None, "503"]


def test_the_token_is_struck_only_when_named():
    """A fault of every operation leaves the login host alone."""
    plan = FaultPlan([Fault.parse("503")])
    assert plan.draw(Operation.TOKEN) is None
    assert plan.draw(ADD) is not None
    plan.set_rates([Fault.parse("503@token")])
    assert plan.draw(Operation.TOKEN) is not None


def test_rates_are_shares_of_the_requests():
    """Over many requests each fault strikes as often as its rate says, beside the others."""
    plan = FaultPlan([Fault.parse("503:0.1"), Fault.parse("reset:0.2")], seed=7)
    struck = Counter(fault.kind for _ in range(10_000) if (fault := plan.draw(ADD)))
    assert struck[FaultKind.UNAVAILABLE] == pytest.approx(1_000, rel=0.1)
    assert struck[FaultKind.RESET] == pytest.approx(2_000, rel=0.1)


def test_a_lag_strikes_writes_of_contacts_alone():
    """Reads show it; they are not struck themselves."""
    plan = FaultPlan([Fault.parse("lag=5")])
    struck = {operation for operation in Operation if plan.draw(operation) is not None}
    assert struck == {ADD, Operation.UPDATE_CONTACT, Operation.DELETE_CONTACTS, Operation.DELETE_CONTACT}


def test_a_seed_repeats_its_faults():
    """The same seed strikes the same requests; another one does not."""

    def drawn(seed: int) -> list[Fault | None]:
        plan = FaultPlan([Fault.parse("503:0.5")], seed=seed)
        return [plan.draw(ADD) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_rates_add_up_to_all_requests_at_most():
    """Rates above 1 together are refused; exactly 1, or apart by operation, is not."""
    with pytest.raises(ValueError, match="add_contacts"):
        FaultPlan([Fault.parse("503:0.6"), Fault.parse("reset@add_contacts:0.6")])
    FaultPlan([Fault.parse("503@get_contact:0.6"), Fault.parse("reset@add_contacts:0.6")])
    FaultPlan([Fault.parse("503:0.7"), Fault.parse("reset:0.2"), Fault.parse("500:0.1")])
