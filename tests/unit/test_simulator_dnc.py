"""Do-not-call lists and limits: what is kept, what is refused, what expires, and the view inside."""

import json
from typing import Any

import aiohttp
import pytest

from consumer.simulator.api import Call, Done
from consumer.simulator.app import Simulator
from consumer.simulator.dnc import DncList, DncLists, EntryKind, check_dnc_definition
from consumer.simulator.dnc_api import DncApi
from consumer.simulator.errors import ApiError
from consumer.simulator.limits import NO_LIMIT, Limits
from consumer.simulator.operations import Operation

ADD = Operation.ADD_DNC_PHONE_NUMBERS
PATCH = Operation.PATCH_DNC_PHONE_NUMBERS
CLEAR = Operation.DELETE_DNC_PHONE_NUMBERS
PHONES = EntryKind.PHONE_NUMBERS
JANE, JOHN = "+15550100001", "+15550100002"
JUNE_1 = 1_780_272_000.0  # 2026-06-01T00:00Z
HOUR = 3_600
INTERNAL = {"name": "never", "dncSourceType": "rds", "contactMethod": "Phone"}
CUSTOM = {"name": "custom", "dncSourceType": "rds_custom", "customExclusionColumn": "city"}
VENDOR = {"name": "vendor", "dncSourceType": "gryphon", "licenseId": "license"}


class Bench:
    """An organisation with one internal list of phone numbers, asked without HTTP."""

    def __init__(self, **limits: Any) -> None:
        self.now = JUNE_1
        self.lists = DncLists(lambda: self.now, **limits)
        self.api = DncApi(self.lists)
        self.list = self.make(INTERNAL)

    def make(self, definition: dict[str, Any], **changes: Any) -> DncList:
        return self.lists.create(check_dnc_definition(definition | changes))

    def do(self, operation: Operation, body: Any = None, at: DncList | None = None, **query: Any) -> Done:
        values = {name: [value] if isinstance(value, str) else value for name, value in query.items()}
        call = Call((self.list if at is None else at).id, query=values, body=json.dumps(body).encode())
        return self.api.actions[operation](call)

    def ask(self, operation: Operation, body: Any = None, **query: Any) -> Any:
        return json.loads(self.do(operation, body, **query).body)

    def refusal(
        self, operation: Operation, body: Any = None, at: DncList | None = None, **query: Any
    ) -> tuple[int, str]:
        with pytest.raises(ApiError) as refused:
            self.do(operation, body, at, **query)
        return refused.value.status, refused.value.code

    def numbers(self) -> set[str]:
        return self.lists.in_force(self.list, PHONES)


def test_a_list_is_read_as_it_was_created():
    """Every property that a client sets comes back, with an id, a version and dates by the wall clock."""
    bench = Bench()
    read = bench.ask(Operation.GET_DNC_LIST, includeSize="true")
    assert read.items() >= INTERNAL.items()
    assert (read["version"], read["size"]) == (1, 0)
    assert read["dateCreated"] == read["dateModified"] == "2026-06-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        (INTERNAL | {"name": " "}, "name.cannot.be.blank"),
        (INTERNAL | {"name": "n" * 65}, "name.length.exceeded"),
        (INTERNAL, "duplicate.name"),
        ({"name": "other"}, "constraint.validation"),
        (INTERNAL | {"name": "other", "dncSourceType": "csv"}, "invalid.value"),
        (INTERNAL | {"name": "other", "contactMethod": "Fax"}, "invalid.value"),
        ({"name": "other", "dncSourceType": "rds"}, "invalid.create"),
        ({"name": "other", "dncSourceType": "rds_custom"}, "dnc.list.missing.custom.exclusion.column"),
        ({"name": "other", "dncSourceType": "dnc.com", "loginId": "id"}, "dnc.source.configuration.invalid"),
        ({"name": "other", "dncSourceType": "gryphon"}, "dnc.source.configuration.invalid"),
        (VENDOR | {"dncCodes": [1]}, "invalid.value"),
        (INTERNAL | {"name": 7}, "invalid.value"),
        (INTERNAL | {"name": "other", "phones": []}, "invalid.property"),
        ([], "bad.request"),
    ],
)
def test_a_list_that_may_not_be_is_refused(definition: Any, code: str):
    """Each rule for a new list has its own code, and nothing is created."""
    bench = Bench()
    assert bench.refusal(Operation.CREATE_DNC_LIST, definition) == (400, code)
    assert bench.lists.all() == [bench.list]


def test_there_are_only_so_many_lists():
    """The thousandth list is created and the next is not."""
    bench = Bench()
    for number in range(999):
        bench.make(INTERNAL, name=f"list-{number}")
    assert bench.refusal(Operation.CREATE_DNC_LIST, INTERNAL | {"name": "more"}) == (400, "max.entity.count.reached")


def test_an_update_takes_the_version_that_was_read():
    """What was read, changed, may be sent back once; the second time its version is old."""
    bench = Bench()
    bench.now += HOUR
    changed = bench.ask(Operation.GET_DNC_LIST) | {"name": "never again"}
    updated = bench.ask(Operation.UPDATE_DNC_LIST, changed)
    assert (updated["name"], updated["version"], updated["id"]) == ("never again", 2, bench.list.id)
    assert (updated["dateCreated"], updated["dateModified"]) == ("2026-06-01T00:00:00.000Z", "2026-06-01T01:00:00.000Z")
    assert bench.refusal(Operation.UPDATE_DNC_LIST, changed) == (409, "invalid.update.wrong.version")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dncSourceType": "rds_custom"}, "cannot.update.dnc.list.type"),
        ({"customExclusionColumn": "city"}, "cannot.update.custom.exclusion.column"),
        ({"contactMethod": "Any"}, "invalid.update"),
        ({"name": "custom"}, "duplicate.name"),
        ({"name": ""}, "name.cannot.be.blank"),
    ],
)
def test_an_update_that_may_not_be_is_refused(changes: dict[str, Any], code: str):
    """What cannot be changed after creation, and a name that is taken, have their codes; the list stays as it was."""
    bench = Bench()
    bench.make(CUSTOM)
    read = bench.ask(Operation.GET_DNC_LIST)
    assert bench.refusal(Operation.UPDATE_DNC_LIST, read | changes) == (400, code)
    assert bench.ask(Operation.GET_DNC_LIST) == read


def test_lists_are_found_by_name_source_division_and_id():
    """Each filter selects what it says, and a page tells how many there are."""
    bench = Bench()
    custom, vendor = bench.make(CUSTOM), bench.make(VENDOR, division={"id": "south"})

    def found(operation: Operation = Operation.LIST_DNC_LISTS, **query: Any) -> list[str]:
        return [entity["name"] for entity in bench.ask(operation, **query)["entities"]]

    assert found() == ["never", "custom", "vendor"]
    assert found(name="cus") == found(dncSourceType="rds_custom") == ["custom"]
    assert found(divisionId="south") == ["vendor"]
    assert found(sortBy="name", sortOrder="descending") == ["vendor", "never", "custom"]
    assert found(pageSize="2", pageNumber="2") == ["vendor"]
    assert bench.ask(Operation.LIST_DNC_LISTS, pageSize="2")["total"] == 3
    assert found(Operation.LIST_DNC_DIVISION_VIEWS, id=[custom.id, vendor.id]) == ["custom", "vendor"]
    too_many = bench.refusal(Operation.LIST_DNC_DIVISION_VIEWS, id=["x"] * 101)
    assert too_many == (400, "too.many.bulk.retrieves")
    assert found(id=["x"] * 101) == found(), "of these operations views alone have ids"


@pytest.mark.parametrize("kind", ["PHONE_NUMBERS", "EMAIL_ADDRESSES", "WHATSAPP_NUMBERS", "CUSTOM_VALUES"])
def test_an_impossible_parameter_of_a_delete_is_a_bad_request(kind: str):
    """The contract has no other code for it; nothing is deleted."""
    bench = Bench()
    of_any = bench.make(INTERNAL, name="any", contactMethod="Any") if kind != "CUSTOM_VALUES" else bench.make(CUSTOM)
    refusal = bench.refusal(Operation[f"DELETE_DNC_{kind}"], at=of_any, expiredOnly="x")
    assert refusal == (400, "bad.request")


def test_a_division_view_tells_little():
    """It names the list and its size, without version or dates."""
    bench = Bench()
    bench.do(ADD, [JANE])
    view = bench.ask(Operation.GET_DNC_DIVISION_VIEW, includeSize="true")
    assert view.keys() == {"id", "name", "division", "dncSourceType", "contactMethod", "selfUri", "size"}
    assert view["size"] == 1


def test_a_deleted_list_is_gone():
    """It is deleted once, with its entries."""
    bench = Bench()
    bench.do(Operation.DELETE_DNC_LIST)
    assert bench.refusal(Operation.DELETE_DNC_LIST) == (404, "resource.not.found")
    assert bench.refusal(Operation.GET_DNC_LIST) == (404, "dnc.list.not.found")
    with pytest.raises(LookupError):
        bench.lists.look_up("never")


def test_numbers_are_added_and_removed():
    """POST and PATCH add, PATCH removes; what is there or not there already is no error. The tally counts both."""
    bench = Bench()
    assert bench.do(ADD, [JANE]).status == 204
    bench.do(PATCH, {"action": "Add", "phoneNumbers": [JANE, JOHN]})
    assert bench.numbers() == {JANE, JOHN}
    done = bench.do(PATCH, {"action": "Remove", "phoneNumbers": [JANE, "+15550100003"]})
    assert (done.status, done.dnc_entries) == (204, (JANE, "+15550100003"))
    assert bench.numbers() == {JOHN}
    assert bench.lists.tally == {"added": 3, "removed": 1}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"phoneNumbers": [JANE]}, "invalid.dnc.patch.action"),
        ({"action": "Replace", "phoneNumbers": [JANE]}, "invalid.dnc.patch.action"),
        ({"action": "Add"}, "invalid.dnc.patch.request"),
        ({"action": "Remove", "phoneNumbers": []}, "invalid.dnc.patch.request"),
        ({"action": "Add", "phoneNumbers": [1]}, "invalid.value"),
        ({"action": "Add", "phoneNumbers": JANE}, "invalid.value"),
        ({"action": "Add", "emailAddresses": ["a@example.com"]}, "invalid.property"),
        ({"action": "Add", "phoneNumbers": [JANE], "expirationDateTime": "soon"}, "invalid.date.value"),
        ({"action": "Remove", "phoneNumbers": [JANE] * 251}, "dnc.delete.entries.max.per.request.exceeded"),
        ([JANE], "bad.request"),
    ],
)
def test_a_patch_that_may_not_be_is_refused(body: Any, code: str):
    """Each rule for a patch has its own code, and what the list holds stays."""
    bench = Bench()
    bench.do(ADD, [JOHN])
    assert bench.refusal(PATCH, body) == (400, code)
    assert bench.numbers() == {JOHN}


@pytest.mark.parametrize("body", [[1], [""], [JANE, None]], ids=str)
def test_only_strings_are_added(body: Any):
    """A POST with anything else among the numbers adds none of them."""
    bench = Bench()
    assert bench.refusal(ADD, body) == (400, "invalid.value")
    assert bench.numbers() == set()


_KINDS = {
    EntryKind.PHONE_NUMBERS: (PATCH, CLEAR),
    EntryKind.EMAIL_ADDRESSES: (Operation.PATCH_DNC_EMAIL_ADDRESSES, Operation.DELETE_DNC_EMAIL_ADDRESSES),
    EntryKind.WHATSAPP_NUMBERS: (Operation.PATCH_DNC_WHATSAPP_NUMBERS, Operation.DELETE_DNC_WHATSAPP_NUMBERS),
    EntryKind.CUSTOM_VALUES: (Operation.PATCH_DNC_CUSTOM_VALUES, Operation.DELETE_DNC_CUSTOM_VALUES),
}


@pytest.mark.parametrize("kind", EntryKind)
@pytest.mark.parametrize(
    ("definition", "takes"),
    [
        (INTERNAL, {EntryKind.PHONE_NUMBERS}),
        (INTERNAL | {"contactMethod": "Email"}, {EntryKind.EMAIL_ADDRESSES}),
        (INTERNAL | {"contactMethod": "WhatsApp"}, {EntryKind.WHATSAPP_NUMBERS}),
        (INTERNAL | {"contactMethod": "Any"}, {*EntryKind} - {EntryKind.CUSTOM_VALUES}),
        (CUSTOM, {EntryKind.CUSTOM_VALUES}),
        (VENDOR, set()),
    ],
    ids=["phone", "email", "whatsapp", "any", "custom", "vendor"],
)
def test_a_list_takes_what_it_is_for(definition: dict[str, Any], takes: set[EntryKind], kind: EntryKind):
    """Entries of its contact method, custom values if it is custom, nothing if a vendor's; else the code says why."""
    bench = Bench()
    made = bench.make(definition, name="under test")
    patch, clear = _KINDS[kind]
    body = {"action": "Add", kind.value: ["entry"]}
    if kind in takes:
        assert bench.do(patch, body, at=made).status == 204
        assert made.entries[kind] == {"entry": None}
        assert bench.do(clear, at=made).dnc_entries == ("entry",)
        return
    wrong_method = made.definition["dncSourceType"] == "rds" and kind is not EntryKind.CUSTOM_VALUES
    code = "dnc.list.invalid.contact.method" if wrong_method else "dnc.source.operation.not.supported"
    assert bench.refusal(patch, body, at=made) == bench.refusal(clear, at=made) == (400, code)
    assert len(made) == 0


@pytest.mark.parametrize("definition", [INTERNAL | {"contactMethod": "Email"}, CUSTOM, VENDOR])
def test_a_post_has_one_code_for_a_list_that_takes_no_numbers(definition: dict[str, Any]):
    """The contract gives POST no code of its own for the wrong contact method."""
    bench = Bench()
    made = bench.make(definition, name="under test")
    assert bench.refusal(ADD, [JANE], at=made) == (400, "dnc.source.operation.not.supported")


def test_an_entry_holds_until_it_expires():
    """It holds back to the minute, then no longer, and is deleted by expiredOnly alone when others stay."""
    bench = Bench()
    bench.do(ADD, [JANE], expirationDateTime="2026-06-01T01:00Z")
    bench.do(ADD, [JOHN])
    bench.now = JUNE_1 + HOUR - 1
    assert bench.numbers() == {JANE, JOHN}
    assert bench.do(CLEAR, expiredOnly="true").dnc_entries == ()
    bench.now = JUNE_1 + HOUR
    assert bench.numbers() == {JOHN}
    assert len(bench.list) == 2
    assert bench.do(CLEAR, expiredOnly="true").dnc_entries == (JANE,)
    assert len(bench.list) == 1
    bench.do(CLEAR)
    assert len(bench.list) == 0


def test_adding_again_changes_the_expiration():
    """The last word on a number counts: with an expiration, then for ever."""
    bench = Bench()
    bench.do(ADD, [JANE], expirationDateTime="2026-06-01T01:00Z")
    bench.do(PATCH, {"action": "Add", "phoneNumbers": [JANE]})
    bench.now += 2 * HOUR
    assert bench.numbers() == {JANE}


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("2026-06-01T00:01Z", True),
        ("2026-11-28T00:00Z", True),
        ("2026-11-28T00:01Z", False),
        ("2026-06-01T00:00Z", False),
        ("2026-06-01T01:00:00Z", False),
        ("2026-06-01T01:00+00:00", False),
        ("2026-6-1T1:00Z", False),
        ("tomorrow", False),
    ],
)
def test_an_expiration_lies_ahead_and_within_180_days(text: str, taken: bool):
    """It is spelled to the minute in UTC; another spelling, the past and more than 180 days are refused."""
    bench = Bench()
    if taken:
        bench.do(ADD, [JANE], expirationDateTime=text)
    else:
        assert bench.refusal(ADD, [JANE], expirationDateTime=text) == (400, "invalid.date.value")
    assert bench.numbers() == ({JANE} if taken else set())


def test_a_number_may_be_refused():
    """With all that came with it, added or patched; it can be taken off like any other."""
    bench = Bench(refused=[JANE])
    assert bench.refusal(ADD, [JOHN, JANE]) == (400, "invalid.value")
    assert bench.refusal(PATCH, {"action": "Add", "phoneNumbers": [JANE]}) == (400, "invalid.value")
    assert bench.numbers() == set()
    bench.do(ADD, [JOHN])
    bench.do(PATCH, {"action": "Remove", "phoneNumbers": [JANE, JOHN]})
    assert bench.numbers() == set()


def test_a_list_has_room_for_so_many():
    """One entry too many is refused with all that came with it; an entry that is there needs no room."""
    bench = Bench(per_list_max=2)
    bench.do(ADD, [JANE])
    assert bench.refusal(ADD, [JOHN, "+15550100003"]) == (400, "dnc.records.per.list.limit.exceeded")
    assert bench.numbers() == {JANE}
    bench.do(ADD, [JANE, JOHN])
    assert bench.numbers() == {JANE, JOHN}


def test_an_organisation_has_room_for_so_many():
    """The entries of all lists count together."""
    bench = Bench(per_organization_max=2)
    other = bench.make(INTERNAL, name="other")
    bench.do(ADD, [JANE, JOHN], at=other)
    refused = bench.refusal(PATCH, {"action": "Add", "phoneNumbers": [JANE]})
    assert refused == (400, "dnc.records.per.organization.limit.exceeded")
    assert bench.numbers() == set()


@pytest.mark.parametrize("operation", [ADD, PATCH, CLEAR, Operation.GET_DNC_LIST])
def test_nothing_can_be_done_in_a_list_that_is_not(operation: Operation):
    """An unknown list is a 404, whatever is in the body."""
    bench = Bench()
    bench.do(Operation.DELETE_DNC_LIST)
    assert bench.refusal(operation, [JANE]) == (404, "dnc.list.not.found")


def _limits(operation: Operation, namespace: str, requests_per_minute: int | None) -> dict[str, int]:
    done = Limits(lambda: requests_per_minute).actions[operation](Call(namespace=namespace))
    entities = json.loads(done.body)["entities"]
    assert {entity["namespace"] for entity in entities} == {namespace}
    return {entity["key"]: entity["value"] for entity in entities}


@pytest.mark.parametrize(("requests_per_minute", "told"), [(42, 42), (None, NO_LIMIT)])
def test_limits_are_those_that_are_kept(requests_per_minute: int | None, told: int):
    """The effective limits follow the simulator's own; the defaults are Genesys's whatever those are."""
    assert _limits(Operation.GET_LIMITS, "platform.api", requests_per_minute) == {
        "client.credentials.token.rate.per.minute": told,
        "token.rate.per.minute": told,
        "request.bytes.max": 512_000,
    }
    default = _limits(Operation.GET_DEFAULT_LIMITS, "platform.api", requests_per_minute)
    assert default["client.credentials.token.rate.per.minute"] == 300


def test_outbound_has_limits_of_its_own():
    """The namespace tells how many contacts and do-not-call records there may be."""
    told = _limits(Operation.GET_LIMITS, "outbound", None)
    assert told["contacts.per.org"] == 5_000_000
    assert told["dnc.records.per.list"] == 1_000_000


def test_an_unknown_namespace_has_no_limits():
    """It is a 404."""
    with pytest.raises(ApiError) as refused:
        _limits(Operation.GET_LIMITS, "no.such", None)
    assert (refused.value.status, refused.value.code) == (404, "not.found")


async def test_the_inside_is_seen():
    """Lists with their sizes, entries, numbers in force and counts, in the process and over HTTP without a token."""
    async with Simulator(wall_clock=lambda: JUNE_1, journal_limit=10) as simulator, aiohttp.ClientSession() as http:

        async def call(method: str, path: str, **options: Any) -> Any:
            async with http.request(method, simulator.url + path, **options) as response:
                raw = await response.read()
                return response.status, json.loads(raw) if response.ok and raw else None

        basic = {"Authorization": aiohttp.encode_basic_auth("any", "any")}
        _, token = await call("POST", "/oauth/token", data={"grant_type": "client_credentials"}, headers=basic)
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        _, made = await call("POST", "/api/v2/outbound/dnclists", json=INTERNAL, headers=bearer)
        path = f"/api/v2/outbound/dnclists/{made['id']}/phonenumbers"
        assert await call("POST", path, json=[JANE], headers=bearer) == (204, None)
        later = {"action": "Add", "phoneNumbers": [JOHN], "expirationDateTime": "2026-06-01T01:00Z"}
        assert await call("PATCH", path, json=later, headers=bearer) == (204, None)

        assert simulator.dnc_numbers("never") == simulator.dnc_numbers(made["id"]) == {JANE, JOHN}
        assert [entry.dnc_entries for entry in simulator.journal][-2:] == [(JANE,), (JOHN,)]
        assert await call("GET", "/simulator/dnc-lists") == (200, simulator.dnc_lists())
        assert simulator.dnc_lists() == [made | {"size": 2}]
        _, entries = await call("GET", "/simulator/dnc-lists/never/entries")
        assert entries["phoneNumbers"] == {JANE: None, JOHN: JUNE_1 + HOUR}
        assert (await call("GET", "/simulator/dnc-lists/absent/entries"))[0] == 404
        assert (await call("GET", "/simulator/stats"))[1]["dncEntries"] == {"added": 2, "removed": 0}
