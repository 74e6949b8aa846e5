"""Salesforce's change events: what a null means, many ids, gaps."""

import json

import pytest

from consumer.core import changes
from consumer.core.dedupe import accepted, judge
from consumer.core.envelopes.salesforce import MAX_IDS
from consumer.core.validate import validate
from consumer.errors import DecodeError, ManyChanged
from consumer.model import UNCHANGED, ChangeType, FuseCause, Reason, Verdict
from tests.envelopes import TIME_MS, record_type, sample, told

SCHEMA = sample("salesforce_contact_change_event.avsc")
NAMES = [field["name"] for field in SCHEMA["fields"]]
PERSON = ["Salutation", "FirstName", "LastName"]
VERSION = TIME_MS << 20 | 2**20 - 1

MAPPING = {
    "phone": "MobilePhone",
    "email": "Email",
    "consent": {"path": "Level__c", "values": {"granted": True, "denied": False}},
    "do_not_call": "DoNotCall",
    "attributes": {"lastName": "Name.LastName", "about": "Description"},
}

BODY = {
    "MobilePhone": "+14155550100",
    "Email": "jane@example.com",
    "Level__c": "granted",
    "DoNotCall": False,
    "Name": {"LastName": "Doe"},
    "Description": "likes tea",
}


def bitmap(*names: str) -> str:
    """The mark of fields by their place in the schema."""
    return f"0x{sum(1 << NAMES.index(name) for name in names):X}"


def person_bitmap(*names: str) -> str:
    """The mark of fields within the name."""
    return f"{NAMES.index('Name')}-0x{sum(1 << PERSON.index(name) for name in names):x}"


def event(change_type, body=None, *, ids=("003000000000001AAA",), mapping=MAPPING, schema=SCHEMA, **header):
    """The events of one record."""
    fields = dict.fromkeys(field["name"] for field in schema["fields"]) | (body or {})
    fields["ChangeEventHeader"] = {
        "entityName": "Contact",
        "recordIds": list(ids),
        "changeType": change_type,
        "changeOrigin": "",
        "transactionKey": "t",
        "sequenceNumber": 3,
        "commitTimestamp": TIME_MS,
        "commitNumber": 10832042834831,
        "commitUser": "u",
        "nulledFields": [],
        "diffFields": [],
        "changedFields": [],
    } | header
    return told("salesforce", schema, fields, mapping)


def test_a_create_tells_all_there_is():
    """Nulls are values that the contact does not have."""
    (created,) = event("CREATE", BODY | {"Email": None, "Description": None})
    assert (created.change_type, created.external_id) == (ChangeType.CREATE, "003000000000001AAA")
    assert (created.phone, created.email, created.consent, created.do_not_call) == ("+14155550100", None, True, False)
    assert created.attributes == {"lastName": "Doe", "about": ""}
    assert (created.occurred_at, created.version, created.partial) == (TIME_MS, VERSION, False)


def test_an_update_tells_only_what_changed():
    """A null that is not marked is unchanged, never empty: else every update would blank the phone."""
    (updated,) = event("UPDATE", {"MobilePhone": "+14155550111"}, changedFields=[bitmap("MobilePhone")])
    assert updated.partial
    assert updated.phone == "+14155550111"
    assert (updated.email, updated.consent, updated.do_not_call) == (UNCHANGED, UNCHANGED, UNCHANGED)
    assert updated.attributes == {}


@pytest.mark.parametrize("mark", ["nulledFields", "changedFields"])
def test_a_null_that_is_marked_was_cleared(mark):
    """In either list."""
    (updated,) = event("UPDATE", **{mark: [bitmap("MobilePhone", "Description")]})
    assert (updated.phone, updated.attributes) == (None, {"about": ""})
    assert updated.email is UNCHANGED


@pytest.mark.parametrize(
    "marks", [[person_bitmap("LastName")], [bitmap("Name")], [bitmap("Fax"), person_bitmap("LastName")]]
)
def test_a_field_within_a_field_has_marks_of_its_own(marks):
    """A list may hold a nested mark alone; the whole compound covers what is in it."""
    (updated,) = event("UPDATE", nulledFields=marks)
    assert updated.attributes == {"lastName": ""}


def test_marks_of_one_field_add_up():
    """Its names may be marked one by one."""
    (updated,) = event("UPDATE", nulledFields=[person_bitmap("LastName"), person_bitmap("FirstName")])
    assert updated.attributes == {"lastName": ""}


def test_a_neighbour_within_a_field_is_unchanged():
    """Only the first name was nulled."""
    assert event("UPDATE", nulledFields=[person_bitmap("FirstName")]) == ()


@pytest.mark.parametrize("name", ["MobilePhone", "Name.LastName"])
def test_marks_may_be_names(name):
    """As the streaming API and the Kafka connector write them."""
    (updated,) = event("UPDATE", changedFields=[name])
    assert (updated.phone is None, updated.attributes == {"lastName": ""}) == (name == "MobilePhone", "Last" in name)


ADDRESSES = record_type(
    "ContactChangeEvent",
    {
        "ChangeEventHeader": next(field["type"] for field in SCHEMA["fields"] if field["name"] == "ChangeEventHeader"),
        "MailingAddress": ["null", record_type("Mailing", {"City": ["null", "string"], "Zip": ["null", "string"]})],
        "OtherAddress": ["null", record_type("Other", {"City": ["null", "string"]})],
        "City": ["null", "string"],
    },
)


@pytest.mark.parametrize(
    ("mark", "cleared"),
    [
        ("MailingAddress.City", ["beside", "city"]),
        ("MailingAddress", ["city", "zip"]),
        ("OtherAddress.City", ["beside"]),
        ("City", ["beside"]),
        ("Zip", ["zip"]),
    ],
)
def test_a_name_within_a_field_marks_none_within_another(mark, cleared):
    """Its last part is a name beside the compounds alone, as the connector has it: a city elsewhere is unchanged."""
    attributes = {"city": "MailingAddress.City", "zip": "MailingAddress.Zip", "beside": "City"}
    mapping = MAPPING | {"phone": "City", "consent": {"value": True}, "do_not_call": {"value": False}}
    mapping |= {"email": "City", "attributes": attributes}
    (updated,) = event("UPDATE", {}, schema=ADDRESSES, mapping=mapping, changedFields=[mark])
    assert sorted(updated.attributes) == cleared


def test_a_difference_is_not_a_value():
    """Of a long text only the difference is told: it must not be stored in its place."""
    body = {"Description": "--- \n+++ ", "MobilePhone": "+14155550111"}
    (updated,) = event("UPDATE", body, diffFields=[bitmap("Description")], changedFields=[bitmap("Description")])
    assert updated.attributes == {}
    assert updated.phone == "+14155550111"


def test_an_update_of_what_is_not_mapped_is_ignored():
    """It tells nothing of the contact."""
    assert event("UPDATE", {"Fax": "1"}, changedFields=[bitmap("Fax")]) == ()


@pytest.mark.parametrize("mark", ["0xZZ", "a-0x1", "0x"])
def test_marks_that_cannot_be_read_are_rejected(mark):
    """What is unchanged cannot be told."""
    with pytest.raises(DecodeError, match="bitmap"):
        event("UPDATE", changedFields=[mark])


def test_a_withdrawal_in_an_update_is_told_alone():
    """Do-not-call was set, nothing else is known."""
    (updated,) = event("UPDATE", {"DoNotCall": True}, changedFields=[bitmap("DoNotCall")])
    assert (updated.do_not_call, updated.consent, updated.partial) == (True, UNCHANGED, True)


def test_a_record_of_many_ids_is_an_event_for_each():
    """The same change of several contacts within a transaction comes as one record."""
    events = event("UPDATE", {"DoNotCall": True}, ids=("003A", "003B", "003C"))
    assert [each.external_id for each in events] == ["003A", "003B", "003C"]
    assert {each.do_not_call for each in events} == {True}


ZEROS = "000000000000000"


@pytest.mark.parametrize("ids", [("003*",), (ZEROS,), (f"{ZEROS}000",), (f"{ZEROS}AAA",), ("003A", "003*")])
@pytest.mark.parametrize("change_type", ["CREATE", "UPDATE", "UNDELETE", "DELETE", "GAP_UPDATE", "GAP_DELETE"])
def test_ids_that_name_nobody_ask_for_a_resync(ids, change_type):
    """A wildcard or zeros, with or without a checksum: nothing is done for some and left undone for others."""
    with pytest.raises(ManyChanged) as caught:
        event(change_type, ids=ids)
    assert (caught.value.cause, caught.value.reasons) == (FuseCause.OVERFLOW, (Reason.RESYNC_NEEDED,))


def test_an_id_may_have_many_zeros():
    """One letter that is none, and it names somebody, whatever its checksum is."""
    for id_ in ("003000000000000AAA", "00000000000000AAAA", "000000000000001AAA"):
        assert event("DELETE", ids=(id_,))[0].external_id == id_


@pytest.mark.parametrize("change_type", ["UPDATE", "DELETE", "GAP_UPDATE"])
def test_more_ids_than_a_record_of_salesforce_holds_ask_for_a_resync(change_type):
    """Junk of half a million ids would take up hundreds of megabytes; whom it names is not left out silently."""
    ids = [f"{number:018}" for number in range(1, MAX_IDS + 2)]
    assert len(event("UPDATE", {"DoNotCall": True}, ids=ids[:-1])) == MAX_IDS
    with pytest.raises(ManyChanged, match=r"50,001 ids.*send all contacts again") as caught:
        event(change_type, ids=ids)
    assert (caught.value.cause, caught.value.reasons) == (FuseCause.OVERFLOW, (Reason.RESYNC_NEEDED,))


@pytest.mark.parametrize(
    ("marks", "attributes"), [([bitmap("Description")], {"about": ""}), (["Description"], {"about": ""}), ([], None)]
)
def test_what_stands_in_a_map_is_marked_with_the_map(marks, attributes):
    """It has no place of its own in the schema."""
    in_map = {"name": "Description", "type": ["null", {"type": "map", "values": "string"}]}
    schema = SCHEMA | {"fields": [in_map if each["name"] == "Description" else each for each in SCHEMA["fields"]]}
    mapping = MAPPING | {"attributes": {"about": "Description.en"}}
    (created,) = event("CREATE", BODY | {"Description": {"en": "likes tea"}}, mapping=mapping, schema=schema)
    assert created.attributes == {"about": "likes tea"}
    updated = event("UPDATE", changedFields=marks, mapping=mapping, schema=schema)
    assert [each.attributes for each in updated] == ([] if attributes is None else [attributes])


def test_a_record_without_ids_is_rejected():
    """It is about nobody, and does not say so."""
    with pytest.raises(DecodeError, match="recordIds is empty"):
        event("UPDATE", ids=())


def test_a_delete_is_one():
    """So is the gap of a delete."""
    for change_type in ("DELETE", "GAP_DELETE"):
        (gone,) = event(change_type)
        assert (gone.change_type, gone.external_id, gone.version) == (ChangeType.DELETE, "003000000000001AAA", VERSION)


@pytest.mark.parametrize("change_type", ["DELETE", "GAP_DELETE", "GAP_UPDATE"])
def test_what_tells_no_field_has_no_version_beside_one_that_is_mapped(change_type):
    """That of the commit would be compared with numbers of another kind."""
    (gone,) = event(change_type, mapping=MAPPING | {"version": "Level__c"})
    assert (gone.version, gone.occurred_at) == (None, TIME_MS)


@pytest.mark.parametrize("change_type", ["GAP_CREATE", "GAP_UPDATE", "GAP_UNDELETE"])
def test_a_gap_says_that_and_not_how(change_type):
    """For each contact that it names."""
    assert [each.change_type for each in event(change_type, ids=("003A", "003B"))] == [ChangeType.GAP] * 2


def test_a_delete_with_values_is_a_gap():
    """One corrupt byte makes a delete of a create: it is not believed."""
    (doubted,) = event("DELETE", BODY)
    assert doubted.change_type is ChangeType.GAP


def test_an_undelete_counts_if_it_tells_anything():
    """With a body it is a create; without one nobody knows what is there."""
    (back,) = event("UNDELETE", BODY)
    (empty,) = event("UNDELETE")
    assert (back.change_type, back.partial) == (ChangeType.CREATE, False)
    assert empty.change_type is ChangeType.GAP


def test_an_undelete_without_some_values_is_a_create():
    """Those that it lacks the contact does not have."""
    (back,) = event("UNDELETE", BODY | {"Email": None})
    assert (back.change_type, back.email, back.consent) == (ChangeType.CREATE, None, True)


def test_without_a_readable_time_there_is_no_version():
    """One of Kafka's time would have what Salesforce says next, a withdrawal too, count as older."""
    (created,) = event("CREATE", BODY, commitTimestamp=-1)
    assert (created.version, created.consent) == (None, True)
    assert "the time of the change" in created.flaw


def test_an_update_of_rows_that_are_not_meant_is_ignored():
    """`only` names the values that count; an update that does not tell it may be of one of them."""
    mapping = MAPPING | {"only": {"path": "Description", "values": ["person"]}}
    marks = {"changedFields": [bitmap("Description")]}
    assert event("UPDATE", {"DoNotCall": True, "Description": "company"}, mapping=mapping, **marks) == ()
    assert len(event("UPDATE", {"DoNotCall": True, "Description": "person"}, mapping=mapping, **marks)) == 1
    assert len(event("UPDATE", {"DoNotCall": True}, mapping=mapping)) == 1


@pytest.mark.parametrize("name", ["000000000000000AAA", "003000000000001AAA"])
def test_an_overflow_asks_for_a_resync(name):
    """More than 100,000 changes in a transaction are not told, whoever is named."""
    with pytest.raises(DecodeError, match="send all contacts again") as caught:
        event("GAP_OVERFLOW", ids=(name,))
    assert caught.value.reasons == (Reason.RESYNC_NEEDED,)


def test_a_reserved_change_type_is_rejected():
    """The last symbol of the enum is nothing that Salesforce sends."""
    with pytest.raises(DecodeError, match="changeType is not one"):
        event("SNAPSHOT", BODY)


def test_commits_of_one_second_have_one_version():
    """`commitTimestamp` tells no more, and each transaction counts anew: the order of the partition decides then."""
    (first,) = event("CREATE", BODY, sequenceNumber=2)
    (second,) = event("CREATE", BODY, sequenceNumber=1)
    (later,) = event("CREATE", BODY, sequenceNumber=1, commitTimestamp=TIME_MS + 1000)
    assert first.version == second.version < later.version < 2**63


def test_a_withdrawal_of_a_later_transaction_in_the_same_second_counts():
    """It may be the first change of its transaction, where the one before it was the second of its own."""
    (granted,) = event("CREATE", BODY, sequenceNumber=2)
    (withdrawn,) = event("UPDATE", {"DoNotCall": True}, sequenceNumber=1)
    contact, amendment = validate([granted, withdrawn], ())
    first, second = changes.of(granted, contact, 5, "list"), changes.of(withdrawn, amendment, 6, "list")
    assert first is not None
    assert second is not None
    assert judge(second, accepted(first, None)) is Verdict.CHANGED


def test_the_ready_made_mapping_asks_for_a_consent_field():
    """Salesforce has none, and none is made up: the schema as it stands is refused, with what to do."""
    with pytest.raises(DecodeError, match="SOURCE_MAPPING names for consent"):
        event("CREATE", BODY, mapping=None)


def with_fields(name, **fields):
    """The schema of another object, with fields of its own."""
    header = SCHEMA["fields"][0]
    person = next(field for field in SCHEMA["fields"] if field["name"] == "Name")
    more = [{"name": field, "type": ["null", kind]} for field, kind in fields.items()]
    return record_type(name, {}) | {"fields": [header, person, *more]}


LEAD = with_fields(
    "LeadChangeEvent", MobilePhone="string", Email="string", DoNotCall="boolean", Call_Consent__c="boolean"
)
ACCOUNT = with_fields(
    "AccountChangeEvent",
    IsPersonAccount="boolean",
    PersonMobilePhone="string",
    PersonEmail="string",
    PersonDoNotCall="boolean",
    Call_Consent__pc="boolean",
)


def test_leads_have_a_ready_made_mapping():
    """By the name of their schema."""
    body = {"MobilePhone": "+1", "DoNotCall": False, "Call_Consent__c": True, "Name": {"FirstName": "Jo"}}
    (created,) = event("CREATE", body, mapping=None, schema=LEAD)
    assert (created.phone, created.consent, created.attributes) == ("+1", True, {"firstName": "Jo", "lastName": ""})


def test_person_accounts_have_a_ready_made_mapping_and_companies_are_ignored():
    """An update does not tell which it is, and counts if it tells of a person's fields."""
    body = {"PersonMobilePhone": "+1", "PersonDoNotCall": False, "Call_Consent__pc": True}
    (created,) = event("CREATE", body | {"IsPersonAccount": True}, mapping=None, schema=ACCOUNT)
    (updated,) = event("UPDATE", {"PersonDoNotCall": True}, mapping=None, schema=ACCOUNT)
    assert (created.phone, created.consent) == ("+1", True)
    assert (updated.do_not_call, updated.phone) == (True, UNCHANGED)
    assert event("CREATE", body | {"IsPersonAccount": False}, mapping=None, schema=ACCOUNT) == ()


# -- the Kafka connector

CONNECT = sample("confluent_salesforce_contact_create.connect.json")


def avro_of(struct, name="Contact"):
    """The Avro schema that the connector's Connect schema becomes."""
    kinds = {"int32": "int", "int64": "long", "string": "string", "boolean": "boolean", "double": "double"}
    fields = []
    for n, field in enumerate(struct["fields"]):
        if field["type"] == "struct":
            kind = avro_of(field, f"{name}{n}")
        elif field["type"] == "array":
            kind = {"type": "array", "items": "string"}
        else:
            kind = kinds[field["type"]]
        fields.append({"name": field["field"], "type": ["null", kind] if field.get("optional") else kind})
    return {"type": "record", "name": name, "fields": fields}


CONNECT_SCHEMA = avro_of(CONNECT["schema"]) | {"name": "ContactChangeEvent"}
CONNECT_MAPPING = {
    "phone": "MobilePhone",
    "consent": {"path": "Level__c", "values": {"granted": True}},
    "do_not_call": {"value": False},
    "attributes": {"firstName": "FirstName"},
}


def connect(**changes):
    """The events of the connector's real record, with some of it changed."""
    payload = json.loads(json.dumps(CONNECT["payload"]))
    payload["ChangeEventHeader"] |= changes.pop("header", {})
    return told("salesforce", CONNECT_SCHEMA, payload | changes, CONNECT_MAPPING)


def test_a_real_record_of_the_connector_is_read():
    """Its header has neither nulled nor differing fields, and the names stand beside the compound."""
    (created,) = connect()
    assert (created.change_type, created.external_id) == (ChangeType.CREATE, "0032X00002QU10JQAT")
    assert (created.phone, created.attributes) == (None, {"firstName": "John_1241"})


def test_a_compound_of_null_does_not_hide_the_field_beside_it():
    """As JSON without a schema has it, whose names stand beside."""
    fields = {field["name"]: field["type"] for field in CONNECT_SCHEMA["fields"]} | {"Name": "null"}
    mapping = CONNECT_MAPPING | {"attributes": {"firstName": ["Name.FirstName", "FirstName"]}}
    payload = CONNECT["payload"] | {"Name": None, "FirstName": "Jane"}
    for change_type in ("CREATE", "UPDATE"):
        header = payload["ChangeEventHeader"] | {"changeType": change_type, "changedFields": ["Name.FirstName"]}
        schema = record_type("ContactChangeEvent", fields)
        (event,) = told("salesforce", schema, payload | {"ChangeEventHeader": header}, mapping)
        assert event.attributes == {"firstName": "Jane"}


def test_the_connector_tells_by_names_what_changed():
    """A null counts only if its name is there, written either way."""
    header = {"changeType": "UPDATE", "changedFields": ["Name.FirstName"]}
    (updated,) = connect(header=header, FirstName=None)
    assert (updated.phone, updated.attributes) == (UNCHANGED, {"firstName": ""})
    assert connect(header=header | {"changedFields": ["Fax"]}, FirstName=None) == ()


def test_a_schema_that_is_not_salesforce_s_is_refused():
    """It says what is missing."""
    with pytest.raises(DecodeError, match="needs a ChangeEventHeader"):
        told("salesforce", record_type("Contact", {"Id": "string"}), {"Id": "1"}, MAPPING)
