"""The sink against the simulator: what it sends has the effect that is meant, and faults leave what may be repeated."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aiohttp
import orjson
import pytest
from msgspec.structs import replace
from opentelemetry.trace import NoOpTracer
from structlog.testing import capture_logs

from consumer.adapters.genesys import limits
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contacts import ADD_CONTACTS, Contacts, Held as Shown
from consumer.adapters.genesys.dnc_list import DncList
from consumer.adapters.genesys.sink import GenesysSink
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import (
    ConsumerError,
    FatalError,
    InUse,
    NoneCameBack,
    NoRoom,
    RefusedByGenesys,
    SinkUnavailable,
    TakesNoNumbers,
    Throttled,
    Unauthorized,
    Withheld,
)
from consumer.model import UNCHANGED, Amendment, Contact
from consumer.ports import Amended, Sink
from consumer.settings import load
from consumer.simulator.app import Simulator
from consumer.simulator.contacts import ContactView, Poison, PoisonKind
from consumer.simulator.faults import Fault, FaultKind
from tests.sink_contract import Held, SinkContract
from tests.waiting import eventually

JANE = Contact("crm-1", "+15550100001", "jane@example.com", True, False, {"city": "Bern"})
JANES_ID = contact_id("crm-1")
WITHDRAWN = Amendment("crm-1", UNCHANGED, UNCHANGED, False, UNCHANGED, {})


async def open_sink(simulator: Simulator, throttle: Throttle | None = None, **environ: str) -> GenesysSink:
    """Open the list `People` on the simulator."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "GENESYS_OAUTH_CLIENT_ID": "client",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": "People",
        "GENESYS_ATTRIBUTE_COLUMNS": "city",
        "GENESYS_LOGIN_URL": simulator.url,
        "GENESYS_API_URL": simulator.url,
    }
    return await GenesysSink.open(
        load(settings | environ),
        on_request=lambda *_: None,
        tracer=NoOpTracer(),
        throttle=throttle or Throttle(100_000),
    )


@asynccontextmanager
async def opened(simulator: Simulator, **environ: str) -> AsyncIterator[GenesysSink]:
    """A sink that is closed afterwards."""
    sink = await open_sink(simulator, None, **environ)
    try:
        yield sink
    finally:
        await sink.close()


class TestGenesysSinkKeepsTheContract(SinkContract):
    @asynccontextmanager
    async def listed(
        self,
        *,
        refused: Collection[str] = (),
        left_out: Collection[str] = (),
        in_use: Collection[str] = (),
        lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncIterator[tuple[Sink, Callable[[], Held]]]:
        """On a simulator of its own."""
        kind = PoisonKind.LEFT_OUT if left_out else PoisonKind.REFUSED
        poison = Poison(lambda data: data["external_id"] in {*refused, *left_out}, kind=kind)
        lags = [Fault(FaultKind.LAG, seconds=lag_s)] if lag_s else []
        async with (
            Simulator(poison=poison, faults=lags, clock=clock) as simulator,
            opened(simulator, GENESYS_ATTRIBUTE_COLUMNS="") as sink,
        ):
            simulator.contacts_in_use.update(map(contact_id, in_use))

            def held() -> Held:
                rows = simulator.contacts("People").values()
                return {row["data"]["external_id"]: _seen(row) for row in rows}

            yield sink, held


def _seen(row: ContactView) -> tuple[object, object, object]:
    return row["data"]["phone_number"], row["data"]["consent_flag"] == "true", row["callable"]


async def put(sink: GenesysSink, contact: Contact) -> None:
    """Upsert one contact."""
    await sink.upsert([sink.encode(contact, callable_=contact.callable)])


async def test_contact_is_added_changed_suppressed_and_deleted():
    """Each call leaves the list as its name says, and a repeat leaves it the same."""
    async with Simulator() as simulator, opened(simulator) as sink:
        for contact in (JANE, replace(JANE, phone="+15550100009")):
            await put(sink, contact)
            await put(sink, contact)
            held = simulator.contacts("People")[JANES_ID]
            assert (held["data"]["phone_number"], held["callable"]) == (contact.phone, True)
        await sink.amend([WITHDRAWN, replace(WITHDRAWN, external_id="crm-unknown")])
        held = simulator.contacts("People")[JANES_ID]
        assert (held["data"]["consent_flag"], held["data"]["phone_number"]) == ("false", "+15550100009")
        assert not held["callable"]
        await sink.delete(["crm-1", "crm-unknown"])
        await sink.delete(["crm-1"])
        assert simulator.contacts("People") == {}


@asynccontextmanager
async def with_dnc_list(simulator: Simulator) -> AsyncIterator[GenesysSink]:
    """A sink that keeps the do-not-call list `Nobody`."""
    async with opened(simulator, GENESYS_DNC_LIST="Nobody") as sink:
        yield sink


@asynccontextmanager
async def releasing(simulator: Simulator) -> AsyncIterator[GenesysSink]:
    """A sink that also takes numbers off the list `Nobody`."""
    async with opened(simulator, GENESYS_DNC_LIST="Nobody", GENESYS_DNC_RELEASE="true") as sink:
        yield sink


async def withdraw(sink: GenesysSink, *contacts: Contact) -> None:
    """Upsert contacts, all of them withdrawn."""
    await sink.upsert([sink.encode(contact, callable_=False) for contact in contacts], withdrawn=contacts)


async def test_the_number_of_a_withdrawn_contact_goes_on_the_do_not_call_list():
    """The list is created; a repeat is fine; who grants is not on it; a deleted contact's number stays."""
    granted = replace(JANE, external_id="crm-2", phone="+15550100002")
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, granted)
        await withdraw(sink, replace(JANE, consent=False))
        await withdraw(sink, replace(JANE, consent=False))
        await sink.delete(["crm-1"])
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}
    assert JANES_ID not in simulator.contacts("People")


async def test_a_withdrawal_without_a_number_blocks_the_one_that_genesys_has():
    """The CRM may forget the number together with the consent; a contact that is not there has none."""
    unknown = replace(JANE, external_id="crm-unknown", phone="", consent=False)
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        told: list[tuple[str, str]] = []
        withdrawn = [replace(JANE, phone="", consent=False), unknown]
        payloads = [sink.encode(contact, callable_=False) for contact in withdrawn]
        await sink.upsert(payloads, withdrawn=withdrawn, number_refused=lambda *whose: told.append(whose))
        assert (simulator.dnc_numbers("Nobody"), told) == ({JANE.phone}, [])


async def test_a_part_of_a_contact_is_merged_with_the_rest():
    """What it does not tell stays as Genesys has it, also what somebody changed there; unknown ones are told."""
    part = replace(WITHDRAWN, consent=UNCHANGED, phone="+15550100009", attributes={"city": "Basel"})
    async with Simulator() as simulator, opened(simulator) as sink:
        await put(sink, replace(JANE, email="changed@example.com"))
        told = await sink.amend([part, replace(part, external_id="crm-unknown")])
        held = simulator.contacts("People")[JANES_ID]
    expected = Contact("crm-1", "+15550100009", "changed@example.com", True, False, {"city": "Basel"})
    assert told == {"crm-1": Amended(expected, sent=True)}
    assert (held["data"]["phone_number"], held["data"]["email"]) == (expected.phone, expected.email)
    assert (held["data"]["city"], held["callable"]) == ("Basel", True)


async def test_a_part_that_comes_again_changes_nothing():
    """The second time Genesys has it already."""
    part = replace(WITHDRAWN, consent=UNCHANGED, phone="+15550100009")
    async with Simulator() as simulator, opened(simulator) as sink:
        await put(sink, JANE)
        assert [(await sink.amend([part]))["crm-1"].sent for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("part", "blocked"),
    [
        (WITHDRAWN, {JANE.phone}),
        (replace(WITHDRAWN, phone="+15550100009"), {"+15550100009"}),
        (replace(WITHDRAWN, phone=""), {JANE.phone}),
        (replace(WITHDRAWN, consent=UNCHANGED, do_not_call=True), {JANE.phone}),
        (replace(WITHDRAWN, consent=True, phone="+15550100009"), set()),
    ],
    ids=str,
)
async def test_the_number_of_an_amended_contact_goes_on_the_do_not_call_list_if_it_withdraws(part, blocked):
    """The one that it has then, or the last one that Genesys has when it is cleared at the same time."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await sink.amend([part])
        assert simulator.dnc_numbers("Nobody") == blocked


async def test_a_new_number_of_somebody_who_withdrew_is_blocked_too():
    """A part that tells the number alone: without consent nobody may call the new one either."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, replace(JANE, consent=False))
        await sink.amend([replace(WITHDRAWN, consent=UNCHANGED, phone="+15550100009")])
        assert simulator.dnc_numbers("Nobody") == {"+15550100009"}


async def test_a_suppression_blocks_the_number_that_genesys_has():
    """A rejected record tells no number that could be trusted."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await sink.amend([WITHDRAWN])
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}


async def test_the_number_is_blocked_before_the_contact_changes():
    """When the contact cannot be written, its number is on the list already."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        simulator.faults.inject(Fault.parse("503@add_contacts"))
        with pytest.raises(SinkUnavailable):
            await withdraw(sink, replace(JANE, consent=False))
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}
        assert simulator.contacts("People") == {}


@pytest.mark.parametrize("fault", ["503", "hang"])
async def test_nobody_is_called_while_the_do_not_call_list_takes_no_numbers(fault):
    """All is tried again, also grants; but the contacts that withdrew are not callable meanwhile."""
    granted = replace(JANE, external_id="crm-2", phone="+15550100002")
    numberless = replace(JANE, external_id="crm-3", consent=False)
    brief = {"GENESYS_DNC_LIST": "Nobody", "GENESYS_REQUEST_TIMEOUT_S": "2"}
    async with Simulator() as simulator, opened(simulator, **brief) as sink:
        await put(sink, JANE)
        await put(sink, replace(numberless, consent=True))
        simulator.faults.inject(Fault.parse(f"{fault}@add_dnc_phone_numbers"))
        withdrawn = [replace(JANE, consent=False), replace(numberless, phone="")]
        encoded = [sink.encode(each, callable_=False) for each in withdrawn]
        with pytest.raises(Withheld):
            await sink.upsert([*encoded, sink.encode(granted, callable_=True)], withdrawn=withdrawn)
        contacts = simulator.contacts("People")
        assert [contacts[each]["callable"] for each in (JANES_ID, contact_id("crm-3"))] == [False, False]
        assert contacts[contact_id("crm-3")]["data"]["phone_number"] == numberless.phone
        assert contact_id("crm-2") not in contacts
        await sink.upsert([*encoded, sink.encode(granted, callable_=True)], withdrawn=withdrawn)
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}
        assert simulator.contacts("People")[contact_id("crm-2")]["callable"] is True


@pytest.mark.parametrize("part", [False, True])
async def test_a_do_not_call_list_that_is_not_to_be_asked_is_not(part):
    """It counts as one that takes no numbers: who withdraws is held and keeps the number, which is not lost."""
    cleared = replace(JANE, external_id="crm-3", consent=False, phone="")
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        granted = [replace(JANE, external_id=name) for name in ("crm-1", "crm-3")]
        await sink.upsert(
            [sink.encode(each, callable_=True) for each in granted], asks=False
        )  # no number is to go there
        withdrawn = [replace(JANE, consent=False), cleared]
        encoded = [sink.encode(each, callable_=False) for each in withdrawn]
        parts = [WITHDRAWN, replace(WITHDRAWN, external_id="crm-3", phone="")]
        with pytest.raises(Withheld) as caught:
            await (sink.amend(parts, asks=False) if part else sink.upsert(encoded, withdrawn=withdrawn, asks=False))
        assert (set(caught.value.external_ids), caught.value.asked) == ({"crm-1", "crm-3"}, False)
        contacts = simulator.contacts("People").values()
        assert [(each["callable"], each["data"]["phone_number"]) for each in contacts] == [(False, JANE.phone)] * 2
        assert simulator.dnc_numbers("Nobody") == set()
        await (sink.amend(parts) if part else sink.upsert(encoded, withdrawn=withdrawn))
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}


async def test_who_is_refused_while_the_do_not_call_list_takes_no_numbers_waits_for_it():
    """Carried out as a delete before, the withdrawal would end with a number that anybody may call."""
    async with Simulator(poison=Poison.marked("jane")) as simulator, with_dnc_list(simulator) as sink:
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        with pytest.raises(Withheld):
            await withdraw(sink, replace(JANE, consent=False))
        with pytest.raises(RefusedByGenesys):
            await withdraw(sink, replace(JANE, consent=False))
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}


async def test_who_is_in_use_meanwhile_is_not_said_to_be_held():
    """He may be called: he is tried again soon, and not by turns with all who wait for the list."""
    in_use = Poison.marked("in-use", code="contact.in.use")
    async with Simulator(poison=in_use) as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        with pytest.raises(InUse):
            await withdraw(sink, replace(JANE, email="in-use@example.com", consent=False))


@pytest.mark.parametrize("fault", ["503", "429=42"])
async def test_who_is_new_to_a_full_organisation_waits_for_the_do_not_call_list_too(fault):
    """What becomes of such a withdrawal is decided once its number is on the list; who is there is held meanwhile."""
    john = replace(JANE, external_id="crm-2", phone="+15550100002", consent=False)
    jane = replace(JANE, consent=False)
    async with Simulator(contacts_per_list=1) as simulator:
        async with with_dnc_list(simulator) as sink:
            await put(sink, JANE)
            simulator.faults.inject(Fault.parse(f"{fault}@add_dnc_phone_numbers"))
            with pytest.raises(Withheld):
                await withdraw(sink, jane, john)
            assert simulator.contacts("People")[JANES_ID]["callable"] is False
        async with with_dnc_list(simulator) as sink:
            with pytest.raises(NoRoom):
                await withdraw(sink, john)
            assert simulator.dnc_numbers("Nobody") == {john.phone}


async def test_who_is_refused_meanwhile_stays_as_it_is_but_is_not_callable():
    """Whole or in part: what Genesys refuses is what is told of it now."""
    async with Simulator(poison=Poison.marked("refused")) as simulator, with_dnc_list(simulator) as sink:
        for told in (
            withdraw(sink, replace(JANE, email="refused@example.com", consent=False)),
            sink.amend([replace(WITHDRAWN, email="refused@example.com")]),
        ):
            await put(sink, JANE)
            simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
            with pytest.raises(Withheld):
                await told
            contact = simulator.contacts("People")[JANES_ID]
            assert (contact["callable"], contact["data"]["email"]) == (False, JANE.email)


@pytest.mark.parametrize("fault", ["503", "429=42"])
async def test_who_is_refused_as_it_was_too_waits_for_the_do_not_call_list(fault):
    """Its number comes before what becomes of it; beside others it is told, so that these are held without it."""
    refused: set[str] = set()
    jane, john = (replace(JANE, external_id=f"crm-{n}", consent=False) for n in (1, 2))
    poison = Poison(lambda data: data["external_id"] in refused)
    async with Simulator(poison=poison) as simulator, with_dnc_list(simulator) as sink:
        for each in (jane, john):
            await put(sink, replace(each, consent=True))
        refused.add("crm-1")
        simulator.faults.inject(*[Fault.parse(f"{fault}@add_dnc_phone_numbers")] * 3)
        with pytest.raises(RefusedByGenesys):
            await withdraw(sink, jane, john)
        for each in (jane, john):
            with pytest.raises(Withheld):
                await withdraw(sink, each)
        assert simulator.contacts("People")[contact_id("crm-2")]["callable"] is False


async def test_who_is_gone_from_a_full_organisation_since_it_was_read_waits_too(monkeypatch):
    """Reads may lag behind: nobody is called who is not there, and the number comes first."""

    async def lagging(*_: object, **__: object) -> dict[str, Shown]:
        return {contact_id("crm-2"): Shown({"external_id": "crm-2"}, True)}

    monkeypatch.setattr(Contacts, "read_all", lagging)
    async with Simulator(contacts_per_list=1) as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        with pytest.raises(Withheld):
            await withdraw(sink, replace(JANE, external_id="crm-2", consent=False))


async def test_where_nobody_is_to_be_held_for_a_number_genesys_is_asked_to_hold_nobody():
    """A rejected record may name the number of a contact that is not there."""
    unknown = replace(WITHDRAWN, external_id="crm-unknown")
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        with pytest.raises(Withheld):
            await sink.amend([unknown], numbers=["+15550100008"])
        assert "add_contacts" not in simulator.stats()["requests"]


async def test_nobody_is_called_by_an_amended_contact_while_that_list_takes_no_numbers():
    """Of a part too; one that clears the number keeps it for now: it would be lost to the list."""
    cleared = replace(JANE, external_id="crm-3")
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await put(sink, cleared)
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        parts = [WITHDRAWN, replace(WITHDRAWN, external_id="crm-3", phone="")]
        with pytest.raises(Withheld):
            await sink.amend(parts)
        contacts = simulator.contacts("People")
        assert [contacts[each]["callable"] for each in (JANES_ID, contact_id("crm-3"))] == [False, False]
        assert contacts[contact_id("crm-3")]["data"]["phone_number"] == JANE.phone
        await sink.amend(parts)
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}


async def test_who_is_not_callable_as_a_precaution_does_not_wait_for_that_list():
    """Nor for a neighbour in the same request whose number it does not take."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await put(sink, replace(JANE, external_id="crm-3"))
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        told_nothing = replace(WITHDRAWN, external_id="crm-3", consent=UNCHANGED)
        with pytest.raises(Withheld):
            await sink.amend([WITHDRAWN, told_nothing], withheld={"crm-3"})
        assert simulator.contacts("People")[contact_id("crm-3")]["callable"] is False


async def may_not_block(simulator: Simulator) -> None:
    """The client's role loses the permission."""
    simulator.withheld_permissions.add("outbound:dnc:add")


async def delete_dnc_lists(simulator: Simulator) -> None:
    """Somebody deletes every do-not-call list."""
    login = {"Authorization": aiohttp.encode_basic_auth("client", "secret")}
    async with aiohttp.ClientSession(simulator.url) as session:
        answer = await session.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=login)
        token = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        for each in simulator.dnc_lists():
            await session.delete(f"/api/v2/outbound/dnclists/{each['id']}", headers=token)


REFUSED_FOR_GOOD = pytest.mark.parametrize(
    ("lose", "words"),
    [(may_not_block, "outbound:dnc:add"), (delete_dnc_lists, "GENESYS_DNC_LIST")],
    ids=["permission", "list"],
)


@REFUSED_FOR_GOOD
async def test_nobody_is_called_where_the_do_not_call_list_refuses_for_good(lose, words):
    """Somebody has to mend it; until then those who withdrew wait, and are told apart from those who can be sent."""
    granted = replace(JANE, external_id="crm-2", phone="+15550100002")
    withdrawn = replace(JANE, consent=False)
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await lose(simulator)
        encoded = [sink.encode(each, callable_=each.callable) for each in (withdrawn, granted)]
        with pytest.raises(Withheld, match=words) as caught:
            await sink.upsert(encoded, withdrawn=[withdrawn])
        (left,) = simulator.contacts("People").values()
    assert (left["data"]["external_id"], left["callable"]) == ("crm-1", False)
    assert (set(caught.value.external_ids), caught.value.throttles) == ({"crm-1"}, False)


@REFUSED_FOR_GOOD
async def test_nobody_is_called_by_an_amended_contact_where_that_list_refuses_for_good(lose, words):
    """Of a part too; a contact that stays callable does not wait for the list."""
    other, rejected = (replace(WITHDRAWN, external_id=f"crm-{n}", consent=UNCHANGED) for n in (2, 3))
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        for n in (1, 2, 3):
            await put(sink, replace(JANE, external_id=f"crm-{n}"))
        await lose(simulator)
        with pytest.raises(Withheld, match=words) as caught:
            await sink.amend([WITHDRAWN, other, rejected], numbers=["", "", "+15550100003"])
        callable_ = {each["data"]["external_id"]: each["callable"] for each in simulator.contacts("People").values()}
    assert callable_ == {"crm-1": False, "crm-2": True, "crm-3": True}
    assert caught.value.external_ids == {"crm-1", "crm-3"}


@pytest.mark.parametrize(
    ("contacts_fault", "expected"), [("503@add_contacts", SinkUnavailable), ("429=60@add_contacts", Throttled)]
)
@pytest.mark.parametrize("lost", [False, True])
async def test_where_nothing_else_works_either_nobody_is_said_to_be_held(contacts_fault, expected, lost):
    """It is an outage, or too many requests, whatever is wrong with the do-not-call list: all is tried again."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        if lost:
            await may_not_block(simulator)
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"), Fault.parse(contacts_fault))
        with pytest.raises(expected) as caught:
            await withdraw(sink, replace(JANE, consent=False))
    assert not isinstance(caught.value, Withheld)


async def test_a_permission_for_contacts_that_is_missing_is_told_while_that_list_is_away():
    """Waiting for the list would not help: nobody could be made not callable meanwhile."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        simulator.withheld_permissions.add("outbound:contact:add")
        simulator.faults.inject(Fault.parse("503@add_dnc_phone_numbers"))
        with pytest.raises(Unauthorized, match="outbound:contact:add"):
            await withdraw(sink, replace(JANE, consent=False))


@pytest.mark.parametrize(("fault", "expected"), [("503", SinkUnavailable), ("429=42", Throttled)])
async def test_who_withdrew_is_held_where_the_number_of_another_cannot_be_read(fault, expected):
    """A contact that comes without one has to be read, to have the number on the list; until then it keeps it."""
    numberless = replace(JANE, external_id="crm-2", phone="", consent=False)
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        await put(sink, replace(JANE, external_id="crm-2"))
        simulator.faults.inject(Fault.parse(f"{fault}@read_contacts"))
        with pytest.raises(expected) as caught:
            await withdraw(sink, replace(JANE, consent=False), numberless)
        assert not isinstance(caught.value, Withheld)  # it is not the list that has to be waited for
        contacts = simulator.contacts("People")
        assert contacts[JANES_ID]["callable"] is False
        assert contacts[contact_id("crm-2")]["data"]["phone_number"] == JANE.phone


@pytest.mark.parametrize("seconds", [7, 42])
@pytest.mark.parametrize("part", [False, True])
async def test_a_busy_do_not_call_list_has_those_who_withdrew_held_too(seconds, part):
    """And all requests wait for a moment, as Genesys asks, be it longer than one may take."""
    throttle = Throttle(100_000)
    async with Simulator() as simulator:
        sink = await open_sink(simulator, throttle, GENESYS_DNC_LIST="Nobody")
        await put(sink, JANE)
        simulator.faults.inject(Fault.parse(f"429={seconds}@add_dnc_phone_numbers"))
        with pytest.raises(Withheld) as caught:
            await (sink.amend([WITHDRAWN]) if part else withdraw(sink, replace(JANE, consent=False)))
        assert (caught.value.throttles, caught.value.retry_after) == (True, seconds)
        assert simulator.contacts("People")[JANES_ID]["callable"] is False
        assert seconds - 5 < throttle.pause(asyncio.get_running_loop().time()) <= seconds
        await sink.close()


async def test_the_number_is_blocked_before_an_amended_contact_changes():
    """So it is when only a part is told; a number that a rejected record names is blocked then too."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        simulator.faults.inject(Fault.parse("503@add_contacts"))
        with pytest.raises(SinkUnavailable):
            await sink.amend([WITHDRAWN], numbers=["+15550100009"])
        assert simulator.dnc_numbers("Nobody") == {JANE.phone, "+15550100009"}
        assert simulator.contacts("People")[JANES_ID]["callable"]


async def grant(sink: GenesysSink, *contacts: Contact, withdrawn: Sequence[Contact] = ()) -> None:
    """Upsert contacts that withdrew before, and others that withdraw now."""
    encoded = [sink.encode(contact, callable_=contact.callable) for contact in (*contacts, *withdrawn)]
    await sink.upsert(encoded, withdrawn=withdrawn, granted=contacts)


async def test_the_number_of_a_contact_that_grants_again_is_taken_off_where_that_is_set():
    """Without the setting it stays; a number that is not on the list is fine."""
    async with Simulator() as simulator:
        for release, left in (("false", {JANE.phone}), ("true", set())):
            async with opened(simulator, GENESYS_DNC_LIST="Nobody", GENESYS_DNC_RELEASE=release) as sink:
                await withdraw(sink, replace(JANE, consent=False))
                await grant(sink, JANE)
                await grant(sink, JANE)
                assert simulator.dnc_numbers("Nobody") == left
                assert simulator.contacts("People")[JANES_ID]["callable"]


async def test_the_number_of_who_is_not_callable_in_genesys_all_the_same_stays(monkeypatch):
    """An agent or a campaign has made him so: the list may be all that holds in other lists."""

    async def held(client, endpoint, **named):
        answer: Any = await call(client, endpoint, **named)
        return [replace(each, callable=False) for each in answer] if endpoint is ADD_CONTACTS else answer

    call = Client.call
    async with Simulator() as simulator, releasing(simulator) as sink:
        await withdraw(sink, replace(JANE, consent=False))
        monkeypatch.setattr(Client, "call", held)
        await grant(sink, JANE)
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}
        monkeypatch.undo()
        await grant(sink, JANE)
        assert simulator.dnc_numbers("Nobody") == set()


async def test_only_the_number_that_genesys_has_of_the_contact_is_taken_off():
    """One who grants with another number gets neither off; nor does one whose number somebody withdraws meanwhile."""
    john = replace(JANE, external_id="crm-2", consent=False)
    async with Simulator() as simulator, releasing(simulator) as sink:
        await withdraw(sink, replace(JANE, consent=False), replace(john, external_id="crm-3", phone="+15550100003"))
        await grant(sink, replace(JANE, phone="+15550100003"))
        assert simulator.dnc_numbers("Nobody") == {JANE.phone, "+15550100003"}
        await withdraw(sink, replace(JANE, consent=False))
        await grant(sink, JANE, withdrawn=[john])
        for _ in range(2):
            await grant(sink, replace(JANE, external_id="crm-4", phone=""))
        assert simulator.dnc_numbers("Nobody") == {JANE.phone, "+15550100003"}
        assert "patch_dnc_phone_numbers" not in simulator.stats()["requests"]


@pytest.mark.parametrize(
    ("fault", "callable_"),
    [("503@add_contacts", False), ("503@patch_dnc_phone_numbers", True), ("lost_reply@add_contacts", True)],
)
async def test_a_number_is_taken_off_after_its_contact_was_granted(fault, callable_):
    """Whatever fails leaves it on the list, and a repeat takes it off."""
    async with Simulator() as simulator, releasing(simulator) as sink:
        await withdraw(sink, replace(JANE, consent=False))
        simulator.faults.inject(Fault.parse(fault))
        with pytest.raises(SinkUnavailable):
            await grant(sink, JANE)
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}
        assert simulator.contacts("People")[JANES_ID]["callable"] is callable_
        await grant(sink, JANE)
        assert simulator.dnc_numbers("Nobody") == set()


async def test_numbers_of_partitions_that_may_have_moved_away_stay_as_they_are():
    """Who owns them by now may have a withdrawal that is newer, and blocks what has to be blocked."""
    async with Simulator() as simulator, releasing(simulator) as sink:
        await withdraw(sink, replace(JANE, consent=False))
        sure = [True]  # when the contact is written, and not when its number is
        with pytest.raises(SinkUnavailable):
            await sink.upsert([sink.encode(JANE, callable_=True)], lambda: bool(sure) and sure.pop(), granted=[JANE])
        assert simulator.contacts("People")[JANES_ID]["callable"] is True
        other = replace(JANE, external_id="crm-2", phone="+15550100002", consent=False)
        with pytest.raises(SinkUnavailable):
            await sink.upsert([sink.encode(other, callable_=False)], lambda: False, withdrawn=[other])
        assert simulator.dnc_numbers("Nobody") == {JANE.phone}


async def test_the_number_of_whom_an_answer_leaves_out_stays():
    """Nothing says that the grant was applied; the one beside it was."""
    left_out: set[str] = set()
    jane, john = (replace(JANE, external_id=f"crm-{n}", phone=f"+1555010000{n}") for n in (1, 2))
    poison = Poison(lambda data: data["external_id"] in left_out, kind=PoisonKind.LEFT_OUT)
    async with Simulator(poison=poison) as simulator, releasing(simulator) as sink:
        await withdraw(sink, *(replace(each, consent=False) for each in (jane, john)))
        left_out.add("crm-1")
        await grant(sink, jane, john)
        assert simulator.dnc_numbers("Nobody") == {jane.phone}


async def test_a_thousand_numbers_are_taken_off_in_requests_that_genesys_takes():
    """Reads of 50, removals of 250."""
    contacts = [replace(JANE, external_id=f"crm-{n}", phone=f"+1555{n:07}") for n in range(1000)]
    async with Simulator() as simulator, releasing(simulator) as sink:
        await withdraw(sink, *(replace(contact, consent=False) for contact in contacts))
        await grant(sink, *contacts)
        assert simulator.dnc_numbers("Nobody") == set()
        requests = simulator.stats()["requests"]
        assert (requests["read_contacts"], requests["patch_dnc_phone_numbers"]) == ({"200": 20}, {"204": 4})


async def test_a_number_that_a_rejected_record_names_is_blocked_whether_the_contact_is_there_or_not():
    """It is put on the list beside the one that Genesys has; the contact keeps its own, and none is made."""
    async with Simulator() as simulator, with_dnc_list(simulator) as sink:
        await put(sink, JANE)
        unknown = replace(WITHDRAWN, external_id="crm-unknown")
        another = replace(WITHDRAWN, external_id="crm-another")
        told = await sink.amend([WITHDRAWN, unknown, another], numbers=["+15550100008", "", "+15550100009"])
        assert set(told) == {"crm-1"}
        assert simulator.dnc_numbers("Nobody") == {JANE.phone, "+15550100008", "+15550100009"}
        (held,) = simulator.contacts("People").values()
        assert held["data"]["phone_number"] == JANE.phone


@pytest.mark.parametrize("code", ["invalid.dnc.patch.request", "dnc.source.operation.not.supported"])
async def test_a_number_that_genesys_does_not_release_stays_and_the_others_go(code):
    """The refused one is found by halves; a line says so without the number, and no grant waits for it."""
    refused = RefusedByGenesys(code)
    asked: list[list[str]] = []

    class Refusing:
        async def call(self, *_: object, body: bytes, **__: object) -> None:
            asked.append(orjson.loads(body)["phoneNumbers"])
            if "+2" in asked[-1]:
                raise refused

    with capture_logs() as lines:
        await DncList(cast("Client", Refusing()), "id").remove(["+1", "+2", "+3", "+4"], 0.0, lambda: True)
    assert asked == [["+1", "+2", "+3", "+4"], ["+1", "+2"], ["+1"], ["+2"], ["+3", "+4"]]
    assert [(line["event"], line["code"]) for line in lines] == [("number_not_released", refused.code)]
    assert "+2" not in str(lines)


async def test_a_number_that_genesys_refuses_is_left_out_and_the_others_are_blocked():
    """Its contact is not callable like theirs; whose it is is told each time that somebody withdraws."""
    withdrawn = [replace(JANE, external_id=f"crm-{n}", phone=f"+1555010{n:04}", consent=False) for n in range(8)]
    refused = withdrawn[5].phone
    async with Simulator(refused_numbers=[refused]) as simulator, with_dnc_list(simulator) as sink:
        for _ in range(2):
            told: list[tuple[str, str]] = []
            payloads = [sink.encode(contact, callable_=False) for contact in withdrawn]
            await sink.upsert(payloads, withdrawn=withdrawn, number_refused=lambda *whose: told.append(whose))  # noqa: B023
            assert told == [("crm-5", "invalid.value")]
        assert simulator.dnc_numbers("Nobody") == {each.phone for each in withdrawn} - {refused}
        assert {each["callable"] for each in simulator.contacts("People").values()} == {False}


class Brief:
    """A client for which each try ends after so many requests; Genesys refuses some numbers."""

    def __init__(self, requests: int, refuses: set[str]) -> None:
        self.requests = self.left = requests
        self.refuses = refuses
        self.done: set[str] = set()

    async def call(self, _: object, *, body: bytes, **__: object) -> None:
        if self.left == 0:
            raise SinkUnavailable("no time is left")
        self.left -= 1
        asked = orjson.loads(body)
        numbers = set(asked if isinstance(asked, list) else asked["phoneNumbers"])
        if numbers & self.refuses:
            raise RefusedByGenesys("invalid.value")
        self.done |= numbers

    async def tries(self, change: Callable[[], Awaitable[None]]) -> int:
        """Make a change until it comes to its end; how many tries it took."""
        for count in range(1, 200):
            self.left = self.requests
            with suppress(SinkUnavailable):
                await change()
                return count
        raise AssertionError("it never came to its end")


@pytest.mark.parametrize("change", ["add", "remove"])
async def test_refused_numbers_that_one_try_cannot_find_are_found_by_several(change):
    """Looked for from the start each time, they would keep all that is with them waiting for good."""
    numbers = [f"+1555{n:07}" for n in range(100)]
    client = Brief(2, set(numbers[::10]))
    dnc_list = DncList(cast("Client", client), "id")
    told: list[str] = []

    async def once() -> None:
        told.extend(await getattr(dnc_list, change)(numbers, 0.0, lambda: True) or ())

    with capture_logs() as lines:
        assert await client.tries(once) > 1
    assert client.done == set(numbers) - client.refuses
    assert len([*lines, *told]) == len(client.refuses)
    assert {*told} == (client.refuses if change == "add" else set())
    client.refuses = set()
    assert await client.tries(lambda: getattr(dnc_list, change)(numbers, 0.0, lambda: True)) == 1
    assert client.done == set(numbers)


async def test_calls_at_the_same_time_tell_each_what_was_refused():
    """One call may be over, and have forgotten the number, before the other one is."""
    waits, goes_on = asyncio.Event(), asyncio.Event()

    class Refusing:
        async def call(self, *_: object, body: bytes, **__: object) -> None:
            numbers = orjson.loads(body)
            if numbers == ["+2"]:
                waits.set()
                await goes_on.wait()
            if "+1" in numbers:
                raise RefusedByGenesys("invalid.value")

    dnc_list = DncList(cast("Client", Refusing()), "id")
    first = asyncio.create_task(dnc_list.add(["+1", "+2"], 0.0, lambda: True))
    await waits.wait()
    assert await dnc_list.add(["+1", "+3"], 0.0, lambda: True) == {"+1": "invalid.value"}
    goes_on.set()
    assert await first == {"+1": "invalid.value"}


@pytest.mark.parametrize(
    "code",
    [
        "dnc.phone.numbers.per.list.limit.exceeded",
        "dnc.phone.numbers.per.organization.limit.exceeded",
        "dnc.records.per.list.limit.exceeded",
        "dnc.records.per.organization.limit.exceeded",
        "dnc.source.operation.not.supported",
        "dnc.list.invalid.contact.method",
        "dnc.list.not.found",
    ],
)
async def test_a_list_that_takes_no_numbers_is_waited_for(code):
    """No number is to blame, so none is left out, be it alone or with others."""

    class Refusing:
        async def call(self, *_: object, **__: object) -> None:
            raise RefusedByGenesys(code)

    dnc_list = DncList(cast("Client", Refusing()), "id")
    for numbers in (["+1"], ["+1", "+2"]):
        with capture_logs() as lines, pytest.raises(TakesNoNumbers, match=re.escape(code)):
            await dnc_list.add(numbers, 0.0, lambda: True)
        assert lines == []


async def test_whom_genesys_does_not_have_is_told():
    """Of as many as a request may change, which are more than one that reads may hold."""
    names = [f"crm-{n}" for n in range(100)]
    async with Simulator() as simulator, opened(simulator) as sink:
        for name in names[::30]:
            await put(sink, replace(JANE, external_id=name))
        assert await sink.absent(names) == {*names} - {*names[::30]}


async def test_a_do_not_call_list_is_found_again():
    """The second consumer takes the list that the first one created, by its name."""
    async with Simulator() as simulator:
        for phone in ("+15550100001", "+15550100002"):
            async with with_dnc_list(simulator) as sink:
                await withdraw(sink, replace(JANE, phone=phone, consent=False))
        assert simulator.dnc_numbers("Nobody") == {"+15550100001", "+15550100002"}


async def test_a_do_not_call_list_that_does_not_exist_is_named():
    """An id that no list has ends the start, with the setting to look at."""
    async with Simulator() as simulator:
        with pytest.raises(FatalError, match="GENESYS_DNC_LIST"):
            await open_sink(simulator, GENESYS_DNC_LIST="5f4dcc3b-5aa7-4f6b-9f65-6f1a3f0d1c2e")


async def test_a_contact_in_use_is_not_callable_and_not_deleted():
    """The simulator deletes the one and leaves the other; who is left is told, and no campaign may dial it."""
    other = replace(JANE, external_id="crm-2")
    async with Simulator(contacts_in_use=[JANES_ID]) as simulator, opened(simulator) as sink:
        await put(sink, JANE)
        await put(sink, other)
        assert await sink.delete(["crm-1", "crm-2"]) == {"crm-1"}
        (left,) = simulator.contacts("People").items()
    assert left[0] == JANES_ID
    assert left[1]["callable"] is False
    assert left[1]["data"]["phone_number"] == JANE.phone


async def test_a_small_limit_lets_a_call_of_two_requests_come_to_its_end():
    """One request a minute: the delete is read back within its time limit, and what follows waits for what it owes."""
    throttle = Throttle(1)
    async with Simulator() as simulator:
        sink = await open_sink(simulator, throttle)
        await put(sink, JANE)
        assert await sink.delete(["crm-1"]) == set()
        assert simulator.contacts("People") == {}
        assert (
            throttle.wait(asyncio.get_running_loop().time()) > 300
        )  # for the list, which was looked for and made, too
        await sink.close()


async def test_a_second_request_waits_too_where_genesys_asked_everybody_to():
    """What another request was told holds for it as well: it is not sent, and may be made again later."""
    throttle = Throttle(100_000)
    async with Simulator() as simulator:
        sink = await open_sink(simulator, throttle)
        await put(sink, JANE)
        throttle.told_to_wait(asyncio.get_running_loop().time(), 60)
        with pytest.raises(Throttled) as told:
            await sink.amend([WITHDRAWN])
        assert 50 < (told.value.retry_after or 0) <= 60
        assert simulator.stats()["requests"]["read_contacts"] == {"200": 1}  # the first, which the throttle knows of
        assert simulator.contacts("People")[JANES_ID]["callable"] is True
        with pytest.raises(Throttled):
            await sink.delete(["crm-1"])
        assert simulator.contacts("People") == {}
        await sink.close()


async def test_full_batches_are_taken():
    """A thousand contacts, fifty deletes and fifty suppressions fit in one call."""
    contacts = [replace(JANE, external_id=f"crm-{n}") for n in range(1000)]
    async with Simulator() as simulator, opened(simulator) as sink:
        await sink.upsert([sink.encode(contact, callable_=True) for contact in contacts])
        await sink.delete([contact.external_id for contact in contacts[:50]])
        await sink.amend([replace(WITHDRAWN, external_id=contact.external_id) for contact in contacts[100:150]])
        held = simulator.contacts("People")
    assert len(held) == 950
    assert sum(not contact["callable"] for contact in held.values()) == 50


async def test_a_full_list_is_waited_for_and_takes_changes_of_whom_it_has():
    """Somebody must make room; nobody's data is to blame, so nobody is given up."""
    john = replace(JANE, external_id="crm-2")
    async with Simulator(contacts_per_list=1) as simulator, opened(simulator) as sink:
        await put(sink, JANE)
        with pytest.raises(SinkUnavailable, match=r"contacts\.per\.org\.limit\.exceeded"):
            await put(sink, john)
        await put(sink, replace(JANE, consent=False))
        assert simulator.contacts("People")[JANES_ID]["callable"] is False
        await sink.delete(["crm-1"])
        await put(sink, john)
        assert list(simulator.contacts("People")) == [contact_id("crm-2")]


async def test_consumers_that_start_together_share_one_list():
    """Whoever loses the race for the name takes the winner's list."""
    async with Simulator() as simulator:
        sinks = await asyncio.gather(*(open_sink(simulator) for _ in range(4)))
        assert len({sink.contact_list_id for sink in sinks}) == len(simulator.lists()) == 1
        for sink in sinks:
            await sink.close()


async def test_list_is_opened_by_its_id():
    """The id that a list got serves as its name does."""
    async with (
        Simulator() as simulator,
        opened(simulator) as sink,
        opened(simulator, GENESYS_CONTACT_LIST=sink.contact_list_id) as again,
    ):
        assert again.contact_list_id == sink.contact_list_id


async def test_one_bad_contact_refuses_the_batch_and_leaves_the_list():
    """Nothing of a refused request is applied."""
    async with Simulator(poison=Poison.marked("poison")) as simulator, opened(simulator) as sink:
        batch = [JANE, replace(JANE, external_id="crm-2", attributes={"city": "poison"})]
        with pytest.raises(RefusedByGenesys):
            await sink.upsert([sink.encode(contact, callable_=True) for contact in batch])
        assert simulator.contacts("People") == {}


@pytest.mark.parametrize(("kind", "applied"), [(PoisonKind.BREAKS, 0), (PoisonKind.CUTS, 2)])
async def test_one_bad_contact_may_be_why_there_is_no_answer(kind, applied):
    """That is an outage as any other, whether or not it was applied; without the contact there is an answer."""
    poison = Poison.marked("poison", kind=kind)
    async with Simulator(poison=poison) as simulator, opened(simulator) as sink:
        batch = [JANE, replace(JANE, external_id="crm-2", attributes={"city": "poison"})]
        with pytest.raises(SinkUnavailable):
            await sink.upsert([sink.encode(contact, callable_=True) for contact in batch])
        assert len(simulator.contacts("People")) == applied
        assert await sink.upsert([sink.encode(JANE, callable_=True)]) == set()


async def test_one_bad_contact_may_be_left_out():
    """The others count; alone, it makes an answer that holds nobody."""
    poison = Poison.marked("poison", kind=PoisonKind.LEFT_OUT)
    async with Simulator(poison=poison) as simulator, opened(simulator) as sink:
        bad = replace(JANE, external_id="crm-2", attributes={"city": "poison"})
        told = await sink.upsert([sink.encode(contact, callable_=True) for contact in (JANE, bad)])
        assert told == {contact_id("crm-2")}
        assert simulator.contacts("People").keys() == {contact_id(JANE.external_id)}
        with pytest.raises(NoneCameBack):
            await sink.upsert([sink.encode(bad, callable_=True)])


@pytest.mark.parametrize(
    ("fault", "expected", "applied"),
    [
        ("500", SinkUnavailable, 0),
        ("502", SinkUnavailable, 0),
        ("503=3", SinkUnavailable, 0),
        ("504", SinkUnavailable, 0),
        ("429=3", Throttled, 0),
        ("reset", SinkUnavailable, 0),
        ("hang", SinkUnavailable, 0),
        ("lost_reply", SinkUnavailable, 1),
        ("truncated", SinkUnavailable, 1),
        ("bad_json", SinkUnavailable, 1),
        ("302", SinkUnavailable, 0),
        ("html", SinkUnavailable, 0),
        ("clearing", Throttled, 0),
        ("importing", Throttled, 0),
        ("bulk_job", Throttled, 0),
        ("413", SinkUnavailable, 0),
        ("drip=0.05", SinkUnavailable, 1),
        ("endless", SinkUnavailable, 1),
        ("deep", SinkUnavailable, 1),
    ],
)
async def test_fault_is_transient_and_a_repeat_mends_it(fault, expected, applied):
    """Whether the request was applied or not, sending it again ends with the contact in the list once."""
    async with Simulator() as simulator, opened(simulator, GENESYS_REQUEST_TIMEOUT_S="1") as sink:
        simulator.faults.inject(Fault.parse(f"{fault}@add_contacts"))
        with pytest.raises(ConsumerError) as caught:
            await put(sink, JANE)
        assert type(caught.value) is expected
        assert simulator.applied("People").get(JANES_ID, 0) == applied
        await put(sink, JANE)
        assert list(simulator.contacts("People")) == [JANES_ID]


async def test_revoked_token_goes_unnoticed():
    """A token that dies early is replaced, and the request it was refused for is repeated."""
    async with Simulator() as simulator, opened(simulator) as sink:
        simulator.faults.inject(Fault.parse("401@add_contacts"))
        await put(sink, JANE)
        assert simulator.stats()["requests"]["token"] == {"200": 2}


async def test_own_rate_limit_names_the_wait():
    """The limit of the token's minute is passed on with the rest of that minute."""
    async with Simulator(requests_per_minute=3) as simulator, opened(simulator) as sink:
        await put(sink, JANE)
        with pytest.raises(Throttled) as caught:
            await put(sink, JANE)
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60


async def test_the_limit_that_genesys_tells_is_kept_and_asked_for_again(monkeypatch):
    """Genesys allows 60 a minute, then 120: a burst of two seconds' worth tells which limit holds."""
    monkeypatch.setattr(limits, "EVERY_S", 0.01)
    throttle = Throttle(100_000)
    async with Simulator(requests_per_minute=60) as simulator:
        sink = await open_sink(simulator, throttle)
        following = asyncio.create_task(sink.follow_limit())
        for requests_per_minute, burst in ((60, 2), (120, 4)):
            simulator._access.requests_per_minute = requests_per_minute
            await eventually(lambda: throttle.tokens(math.inf) == burst, 10)  # noqa: B023 -- waited for here
        following.cancel()
        await sink.close()


async def test_a_limit_that_cannot_be_told_now_is_asked_for_again(monkeypatch):
    """An outage at start leaves our own limit, until Genesys answers."""
    monkeypatch.setattr(limits, "RETRY_S", 0.01)
    throttle = Throttle(300)
    async with Simulator(requests_per_minute=60) as simulator:
        sink = await open_sink(simulator, throttle)
        simulator.faults.inject(Fault.parse("503@get_limits"), Fault.parse("bad_json@get_limits"))
        following = asyncio.create_task(sink.follow_limit())
        await eventually(lambda: throttle.tokens(math.inf) == 2, 10)
        assert simulator.stats()["faults"] == {"503": 1, "bad_json": 1}
        following.cancel()
        await sink.close()


@pytest.mark.parametrize("permission", ["outbound:contactList:view", "outbound:contactList:add"])
async def test_missing_permission_stops_the_start(permission):
    """The text names what the OAuth client's role lacks."""
    async with Simulator(withheld_permissions=[permission]) as simulator:
        with pytest.raises(Unauthorized, match=permission):
            await open_sink(simulator)


async def test_wrong_secret_stops_the_start():
    """The text says what to check."""
    async with Simulator(clients={"client": "another"}) as simulator:
        with pytest.raises(Unauthorized, match="invalid_client"):
            await open_sink(simulator)
