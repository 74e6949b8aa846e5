"""The official Python SDK, unmodified, on the simulator: do-not-call lists, their entries, and limits."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from PureCloudPlatformClientV2 import (
    DncList,
    DncListCreate,
    DNCListUploadUrlRequest,
    DncPatchCustomExclusionColumnsRequest,
    DncPatchEmailsRequest,
    DncPatchPhoneNumbersRequest,
    DncPatchWhatsAppNumbersRequest,
    OutboundApi,
)

from consumer.simulator.faults import Fault
from tests.official_sdk import OfficialSdk, official_sdk, refusal

JANE, JOHN = "+15550100001", "+15550100002"
ABSENT = "5f4dcc3b-5aa7-4f6b-9f65-6f1a3f0d1c2e"


class Clock:
    """The organisation's clock, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> float:
        return (datetime(2026, 6, 1, tzinfo=UTC) + self.ahead).timestamp()


@pytest.fixture(scope="module")
def clock() -> Clock:
    """The clock of all tests here; it only goes ahead."""
    return Clock()


@pytest.fixture(scope="module")
def sdk(clock: Clock) -> Iterator[OfficialSdk]:
    """The SDK, logged in to one organisation for all tests here; each makes its own lists."""
    with official_sdk(journal_limit=1_000, clock=clock, wall_clock=clock) as made:
        yield made


@pytest.fixture
def outbound(sdk: OfficialSdk) -> OutboundApi:
    """The SDK's outbound API."""
    return sdk.outbound


def definition(name: str, **properties: Any) -> DncListCreate:
    """A list as the SDK describes it."""
    made = DncListCreate()
    made.name = name
    for field, value in properties.items():
        setattr(made, field, value)
    return made


def internal(name: str, method: str = "Phone") -> DncListCreate:
    """An internal list."""
    return definition(name, dnc_source_type="rds", contact_method=method)


def custom(name: str) -> DncListCreate:
    """A custom list."""
    return definition(name, dnc_source_type="rds_custom", custom_exclusion_column="city")


@pytest.fixture
def made(outbound: OutboundApi, request: pytest.FixtureRequest) -> Iterator[DncList]:
    """A new internal list of phone numbers."""
    created = outbound.post_outbound_dnclists(internal(request.node.name[:64]))
    yield created
    outbound.delete_outbound_dnclist(created.id)


def phones(action: str, *numbers: str, expires: str | None = None) -> DncPatchPhoneNumbersRequest:
    """A patch of phone numbers."""
    patch = DncPatchPhoneNumbersRequest()
    patch.action, patch.phone_numbers = action, list(numbers)
    if expires:
        patch.expiration_date_time = expires
    return patch


def test_a_list_is_created_as_the_sdk_describes_it(outbound: OutboundApi):
    """What is created is what was asked for, with an id and a version; it can be read, and deleted."""
    created = outbound.post_outbound_dnclists(
        definition("created", dnc_source_type="rds", contact_method="Phone", division={"id": "south"})
    )
    assert (created.name, created.dnc_source_type, created.contact_method) == ("created", "rds", "Phone")
    assert (created.version, created.division.id) == (1, "south")
    assert isinstance(created.date_created, datetime)
    assert outbound.get_outbound_dnclist(created.id).to_dict() == created.to_dict()
    outbound.delete_outbound_dnclist(created.id)
    assert refusal(outbound.get_outbound_dnclist, created.id) == (404, "dnc.list.not.found")


def test_a_list_of_a_vendor_is_created(outbound: OutboundApi):
    """A list of dnc.com keeps its login and codes."""
    vendor = definition("vendor", dnc_source_type="dnc.com", login_id="login", dnc_codes=["B"])
    created = outbound.post_outbound_dnclists(vendor)
    assert (created.login_id, created.dnc_codes) == ("login", ["B"])
    outbound.delete_outbound_dnclist(created.id)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (internal(" "), "name.cannot.be.blank"),
        (internal("n" * 65), "name.length.exceeded"),
        (definition("x", dnc_source_type="rds"), "invalid.create"),
        (definition("x"), "constraint.validation"),
        (definition("x", dnc_source_type="rds_custom"), "dnc.list.missing.custom.exclusion.column"),
        (definition("x", dnc_source_type="gryphon"), "dnc.source.configuration.invalid"),
    ],
    ids=["blank", "long", "no method", "no source", "no column", "no licence"],
)
def test_a_list_that_may_not_be_is_refused(outbound: OutboundApi, asked: DncListCreate, code: str):
    """Each rule for a new list comes as an ApiException with its code."""
    assert refusal(outbound.post_outbound_dnclists, asked) == (400, code)


def test_a_name_is_unique(outbound: OutboundApi, made: DncList):
    """A second list of the same name is refused."""
    assert refusal(outbound.post_outbound_dnclists, internal(made.name)) == (400, "duplicate.name")


def test_a_list_is_renamed_once_with_its_version(outbound: OutboundApi, made: DncList):
    """PUT takes the version that was read; the same again is a conflict."""
    read = outbound.get_outbound_dnclist(made.id)
    read.name = "renamed"
    assert outbound.put_outbound_dnclist(made.id, read).version == 2
    assert outbound.get_outbound_dnclist(made.id).name == "renamed"
    assert refusal(outbound.put_outbound_dnclist, made.id, read) == (409, "invalid.update.wrong.version")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("dnc_source_type", "rds_custom", "cannot.update.dnc.list.type"),
        ("custom_exclusion_column", "city", "cannot.update.custom.exclusion.column"),
        ("contact_method", "Email", "invalid.update"),
    ],
)
def test_what_a_list_is_for_stays(outbound: OutboundApi, made: DncList, field: str, value: str, code: str):
    """Source, custom column and contact method cannot be changed."""
    read = outbound.get_outbound_dnclist(made.id)
    setattr(read, field, value)
    assert refusal(outbound.put_outbound_dnclist, made.id, read) == (400, code)


def test_lists_come_in_pages_and_by_filter(outbound: OutboundApi):
    """Three lists in pages of two, by prefix, by another filter, and by source."""
    ids = [outbound.post_outbound_dnclists(internal(f"paged {n}")).id for n in range(2)]
    ids.append(outbound.post_outbound_dnclists(custom("paged custom")).id)
    first = outbound.get_outbound_dnclists(name="paged", page_size=2)
    second = outbound.get_outbound_dnclists(name="paged", page_size=2, page_number=2)
    assert [found.id for found in first.entities + second.entities] == ids
    assert (first.total, first.page_count, second.page_number) == (3, 2, 2)
    by_end = outbound.get_outbound_dnclists(name="custom", filter_type="EndsWith")
    by_source = outbound.get_outbound_dnclists(name="paged", dnc_source_type="rds_custom")
    assert [found.id for found in by_end.entities] == [found.id for found in by_source.entities] == ids[2:]
    descending = outbound.get_outbound_dnclists(name="paged", sort_by="name", sort_order="descending")
    assert [found.name for found in descending.entities] == ["paged custom", "paged 1", "paged 0"]
    for list_id in ids:
        outbound.delete_outbound_dnclist(list_id)


@pytest.mark.parametrize("options", [{"page_size": 101}, {"page_number": 0}, {"filter_type": "Sounds"}], ids=str)
def test_an_impossible_page_is_refused(outbound: OutboundApi, options: dict[str, Any]):
    """What is outside its limits is a 400."""
    assert refusal(outbound.get_outbound_dnclists, **options) == (400, "invalid.query.param.value")


def test_division_views_show_those_asked_for(outbound: OutboundApi, made: DncList):
    """By ids that the SDK joins with commas, and one by its id, with its size."""
    other = outbound.post_outbound_dnclists(internal("other view"))
    outbound.post_outbound_dnclist_phonenumbers(made.id, [JANE])
    listed = outbound.get_outbound_dnclists_divisionviews(id=[made.id, other.id], include_size=True)
    assert {view.id: view.size for view in listed.entities} == {made.id: 1, other.id: 0}
    view = outbound.get_outbound_dnclists_divisionview(made.id, include_size=True)
    assert (view.name, view.contact_method, view.size) == (made.name, "Phone", 1)
    assert refusal(outbound.get_outbound_dnclists_divisionview, ABSENT) == (404, "resource.not.found")
    too_many = refusal(outbound.get_outbound_dnclists_divisionviews, id=["x"] * 101)
    assert too_many == (400, "too.many.bulk.retrieves")
    outbound.delete_outbound_dnclist(other.id)


def test_numbers_are_added_and_removed(sdk: OfficialSdk, outbound: OutboundApi, made: DncList):
    """POST and PATCH add, PATCH removes, and the journal names what was written."""
    assert outbound.post_outbound_dnclist_phonenumbers(made.id, [JANE]) is None
    assert outbound.patch_outbound_dnclist_phonenumbers(made.id, phones("Add", JANE, JOHN)) is None
    assert sdk.simulator.dnc_numbers(made.id) == {JANE, JOHN}
    outbound.patch_outbound_dnclist_phonenumbers(made.id, phones("Remove", JANE))
    assert sdk.simulator.dnc_numbers(made.name) == {JOHN}
    written = [entry.dnc_entries for entry in sdk.simulator.journal if entry.list_id == made.id]
    assert written == [(JANE,), (JANE, JOHN), (JANE,)]


def test_250_numbers_and_no_more_are_removed_at_once(sdk: OfficialSdk, outbound: OutboundApi, made: DncList):
    """251 are refused and stay; 250 go. As many as one likes are added at once."""
    numbers = [f"+1555{n:07d}" for n in range(2_000)]
    outbound.post_outbound_dnclist_phonenumbers(made.id, numbers)
    refused = refusal(outbound.patch_outbound_dnclist_phonenumbers, made.id, phones("Remove", *numbers[:251]))
    assert refused == (400, "dnc.delete.entries.max.per.request.exceeded")
    outbound.patch_outbound_dnclist_phonenumbers(made.id, phones("Remove", *numbers[:250]))
    assert sdk.simulator.dnc_numbers(made.id) == set(numbers[250:])


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        (phones("Add"), "invalid.dnc.patch.request"),
        (DncPatchPhoneNumbersRequest(), "invalid.dnc.patch.action"),
        (phones("Add", JANE, expires="2026-06-01"), "invalid.date.value"),
        (phones("Add", JANE, expires="2027-06-01T00:00Z"), "invalid.date.value"),
    ],
    ids=["nobody", "no action", "no time", "too far"],
)
def test_a_patch_that_may_not_be_is_refused(
    outbound: OutboundApi, made: DncList, patch: DncPatchPhoneNumbersRequest, code: str
):
    """Each rule for a patch comes as an ApiException with its code."""
    assert refusal(outbound.patch_outbound_dnclist_phonenumbers, made.id, patch) == (400, code)


def test_entries_expire(sdk: OfficialSdk, outbound: OutboundApi, made: DncList, clock: Clock):
    """A number with an expiration holds until then; `expiredOnly` deletes it and leaves the others."""
    until = datetime.fromtimestamp(clock(), UTC) + timedelta(hours=1)
    spelled = until.strftime("%Y-%m-%dT%H:%MZ")
    outbound.post_outbound_dnclist_phonenumbers(made.id, [JANE], expiration_date_time=spelled)
    outbound.post_outbound_dnclist_phonenumbers(made.id, [JOHN])
    assert sdk.simulator.dnc_numbers(made.id) == {JANE, JOHN}
    clock.ahead += timedelta(hours=2)
    assert sdk.simulator.dnc_numbers(made.id) == {JOHN}
    outbound.delete_outbound_dnclist_phonenumbers(made.id, expired_only=True)
    assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 1
    outbound.delete_outbound_dnclist_phonenumbers(made.id)
    assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 0


def test_a_list_of_email_addresses(outbound: OutboundApi):
    """Addresses are added, patched and deleted, and no numbers are taken."""
    made = outbound.post_outbound_dnclists(internal("addresses", "Email"))
    patch = DncPatchEmailsRequest()
    patch.action, patch.email_addresses = "Add", ["b@example.com"]
    outbound.post_outbound_dnclist_emailaddresses(made.id, ["a@example.com"])
    outbound.patch_outbound_dnclist_emailaddresses(made.id, patch)
    assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 2
    number = refusal(outbound.patch_outbound_dnclist_phonenumbers, made.id, phones("Add", JANE))
    assert number == (400, "dnc.list.invalid.contact.method")
    assert refusal(outbound.post_outbound_dnclist_phonenumbers, made.id, [JANE]) == (
        400,
        "dnc.source.operation.not.supported",
    )
    outbound.delete_outbound_dnclist_emailaddresses(made.id)
    assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 0
    outbound.delete_outbound_dnclist(made.id)


def test_a_list_of_whatsapp_numbers(outbound: OutboundApi):
    """Numbers are patched in and deleted; a list of any method takes them too, one of phones does not."""
    patch = DncPatchWhatsAppNumbersRequest()
    patch.action, patch.whats_app_numbers = "Add", [JANE]
    for method in ("WhatsApp", "Any"):
        made = outbound.post_outbound_dnclists(internal("whatsapp", method))
        outbound.patch_outbound_dnclist_whatsappnumbers(made.id, patch)
        assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 1
        outbound.delete_outbound_dnclist_whatsappnumbers(made.id)
        assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 0
        outbound.delete_outbound_dnclist(made.id)


def test_a_list_of_custom_values(outbound: OutboundApi):
    """Values of the custom column are patched in and deleted; numbers are not supported there, nor values elsewhere."""
    made = outbound.post_outbound_dnclists(custom("cities"))
    patch = DncPatchCustomExclusionColumnsRequest()
    patch.action, patch.custom_exclusion_column_entries = "Add", ["Boston", "Indianapolis"]
    outbound.patch_outbound_dnclist_customexclusioncolumns(made.id, patch)
    assert outbound.get_outbound_dnclist(made.id, include_size=True).size == 2
    number = refusal(outbound.patch_outbound_dnclist_phonenumbers, made.id, phones("Add", JANE))
    assert number == (400, "dnc.source.operation.not.supported")
    outbound.delete_outbound_dnclist_customexclusioncolumns(made.id)
    outbound.delete_outbound_dnclist(made.id)
    plain = outbound.post_outbound_dnclists(internal("numbers"))
    refused = refusal(outbound.patch_outbound_dnclist_customexclusioncolumns, plain.id, patch)
    assert refused == (400, "dnc.source.operation.not.supported")
    outbound.delete_outbound_dnclist(plain.id)


def test_nothing_can_be_done_in_a_list_that_is_not(outbound: OutboundApi):
    """Every operation on an unknown list is a 404, with the code that the contract gives it."""
    assert refusal(outbound.post_outbound_dnclist_phonenumbers, ABSENT, [JANE]) == (404, "dnc.list.not.found")
    assert refusal(outbound.delete_outbound_dnclist_phonenumbers, ABSENT) == (404, "dnc.list.not.found")
    assert refusal(outbound.delete_outbound_dnclist, ABSENT) == (404, "resource.not.found")
    asked = DncList()
    asked.name, asked.dnc_source_type, asked.version = "absent", "rds", 1
    assert refusal(outbound.put_outbound_dnclist, ABSENT, asked) == (404, "resource.not.found")


def file_url(list_id: str) -> DNCListUploadUrlRequest:
    """A request for a URL to put a file of numbers to."""
    asked = DNCListUploadUrlRequest()
    asked.id, asked.content_type, asked.phone_columns = list_id, "text/csv", "phone"
    return asked


def test_a_file_is_imported(sdk: OfficialSdk, outbound: OutboundApi, made: DncList, clock: Clock):
    """The SDK gets the URL, urllib3 (which it brings) puts the file there, and the SDK reads how far the import is."""
    issued = outbound.post_outbound_dnclists_uploads(file_url(made.id))
    body = f"name,phone\nJane,{JANE}\n"
    assert urllib3.request("PUT", issued.url, body=body, headers=issued.headers).status == 200
    assert outbound.get_outbound_dnclist_importstatus(made.id).state == "IN_PROGRESS"
    clock.ahead += timedelta(minutes=1)
    assert outbound.get_outbound_dnclist_importstatus(made.id).percent_complete == 100
    assert sdk.simulator.dnc_numbers(made.id) == {JANE}
    assert outbound.get_outbound_dnclist(made.id, include_import_status=True).import_status.total_records == 1


def test_a_url_for_a_list_that_is_not_is_refused(outbound: OutboundApi):
    """It is a 404."""
    assert refusal(outbound.post_outbound_dnclists_uploads, file_url(ABSENT)) == (404, "not.found")


def test_a_list_is_exported(sdk: OfficialSdk, outbound: OutboundApi, made: DncList, clock: Clock):
    """There is no export until one is asked for and made; the file needs the bearer token."""
    assert refusal(outbound.get_outbound_dnclist_export, made.id) == (404, "no.available.list.export.uri")
    outbound.post_outbound_dnclist_phonenumbers(made.id, [JANE])
    assert outbound.post_outbound_dnclist_export(made.id).id == made.id
    assert refusal(outbound.post_outbound_dnclist_export, made.id) == (400, "dnc.list.export.in.progress")
    clock.ahead += timedelta(minutes=1)
    uri = outbound.get_outbound_dnclist_export(made.id).uri
    assert urllib3.request("GET", uri).status == 401
    answer = urllib3.request("GET", uri, headers={"Authorization": f"Bearer {sdk.client.access_token}"})
    assert JANE.encode() in answer.data


def test_an_organisation_tells_its_limits():
    """The effective limits are the simulator's own, the defaults Genesys's, and an unknown namespace is a 404."""
    with official_sdk(requests_per_minute=42) as sdk:
        api = sdk.organization
        effective = {
            limit.key: limit.value for limit in api.get_organizations_limits_namespace("platform.api").entities
        }
        assert effective["client.credentials.token.rate.per.minute"] == 42
        assert effective["request.bytes.max"] == 512_000
        defaults = api.get_organizations_limits_namespace_defaults("platform.api").entities
        assert {limit.key: limit.value for limit in defaults}["token.rate.per.minute"] == 300
        outbound = api.get_organizations_limits_namespace("outbound").entities
        assert {limit.namespace for limit in outbound} == {"outbound"}
        assert refusal(api.get_organizations_limits_namespace, "no.such") == (404, "not.found")


def test_a_missing_permission_is_named():
    """Reading works and adding numbers does not, when the role may only read."""
    with official_sdk(withheld_permissions=["outbound:dnc:add"]) as sdk:
        made = sdk.outbound.post_outbound_dnclists(internal("never"))
        refused = refusal(sdk.outbound.post_outbound_dnclist_phonenumbers, made.id, [JANE])
        assert refused == (403, "missing.any.permissions")
        assert sdk.simulator.dnc_numbers("never") == set()


def test_a_server_error_is_an_exception():
    """A 500 reaches the SDK's user with Genesys's error in it."""
    with official_sdk() as sdk:
        sdk.simulator.faults.inject(Fault.parse("500"))
        assert refusal(sdk.outbound.get_outbound_dnclists) == (500, "internal.server.error")


def test_the_sdk_repeats_what_it_is_told_to_repeat():
    """After 503 with Retry-After the SDK sends the same again by itself: numbers are added once, asked for twice."""
    with official_sdk() as sdk:
        made = sdk.outbound.post_outbound_dnclists(internal("never"))
        sdk.simulator.faults.inject(Fault.parse("503=0"))
        sdk.outbound.post_outbound_dnclist_phonenumbers(made.id, [JANE])
        assert sdk.simulator.dnc_numbers("never") == {JANE}
        assert sdk.simulator.stats()["requests"]["add_dnc_phone_numbers"] == {"503": 1, "204": 1}
