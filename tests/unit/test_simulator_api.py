"""The operations without a socket: what is kept, what is refused, and that a refusal changes nothing."""

import json
import re
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from consumer.simulator import lists as lists_module, organisation
from consumer.simulator.api import Api, Call, Done, named_contacts
from consumer.simulator.contacts import Poison, PoisonKind
from consumer.simulator.definitions import check_definition
from consumer.simulator.errors import ApiError
from consumer.simulator.list_api import ListApi
from consumer.simulator.lists import ContactList, ContactLists
from consumer.simulator.operations import Operation
from consumer.simulator.tasks import Pace

ADD = Operation.ADD_CONTACTS
NAME = "customers"


class Bench:
    """An organisation with one list, asked without HTTP."""

    def __init__(self, poison: Poison | None = None, in_use: Sequence[str] = (), **limits: Any) -> None:
        self.lists = ContactLists(**limits)
        self.api = Api(self.lists, poison, in_use, ListApi(self.lists).actions)
        self.list = self.add_list(NAME)
        self.lag_s = 0.0

    def add_list(self, name: str, **changes: Any) -> ContactList:
        phone = {"columnName": "phone", "type": "cell"}
        definition = {"name": name, "columnNames": ["phone", "note"], "phoneColumns": [phone]} | changes
        return self.lists.create(check_definition(definition))

    def contact(self, contact_id: str | None, note: str = "", **changes: Any) -> dict[str, Any]:
        made = {"contactListId": self.list.id, "data": {"phone": "+15550100001", "note": note}}
        return made | ({} if contact_id is None else {"id": contact_id}) | changes

    def ask(self, operation: Operation, contact_id: str = "", body: Any = None, **query: str) -> Any:
        done = self.do(operation, contact_id, body, **query)
        return json.loads(done.body) if done.body else None

    def do(self, operation: Operation, contact_id: str = "", body: Any = None, **query: str) -> Done:
        values = {name: [value] for name, value in query.items()}
        call = Call(self.list.id, contact_id, values, body=json.dumps(body).encode())
        return self.api.carry_out(operation, call, lag_s=self.lag_s)

    def refusal(self, operation: Operation, contact_id: str = "", body: Any = None, **query: str) -> dict[str, Any]:
        with pytest.raises(ApiError) as refused:
            self.do(operation, contact_id, body, **query)
        return dict(json.loads(refused.value.reply("correlation").body))

    def notes(self) -> dict[str, str]:
        return {contact_id: view["data"]["note"] for contact_id, view in self.list.contacts.views()}


def test_what_is_added_is_read_back():
    """Every property that a client may set of a contact comes back as it was."""
    bench = Bench()
    status = {"phoneNumberStatus": {"phone": {"callable": False}}}
    added = bench.ask(ADD, body=[bench.contact("a", "nöte", callable=False, **status)])
    read = bench.ask(Operation.GET_CONTACT, "a")
    assert [read] == added
    assert (read["data"]["note"], read["callable"], read["phoneNumberStatus"]) == (
        "nöte",
        False,
        status["phoneNumberStatus"],
    )


def test_a_contact_is_callable_unless_said():
    """A new contact without `callable` is callable; a known one stays as it was, unless its system data is cleared."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b", callable=False)])
    bench.ask(ADD, body=[bench.contact("b", "later")])
    assert [view["callable"] for _, view in bench.list.contacts.views()] == [True, False]
    bench.ask(ADD, body=[bench.contact("b", "later")], clearSystemData="true")
    assert [view["callable"] for _, view in bench.list.contacts.views()] == [True, True]


def test_status_stays_until_it_is_cleared():
    """What is known of a contact besides its data outlives an update, and not clearSystemData."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a", contactableStatus={"Voice": {"contactable": False}})])
    bench.ask(ADD, body=[bench.contact("a", phoneNumberStatus={})])
    kept = bench.ask(Operation.GET_CONTACT, "a")
    assert kept.keys() >= {"contactableStatus", "phoneNumberStatus"}
    bench.ask(ADD, body=[bench.contact("a")], clearSystemData="true")
    assert "contactableStatus" not in bench.ask(Operation.GET_CONTACT, "a")


def test_each_write_of_a_contact_is_counted():
    """The count grows with adds and replacements, and outlives the contact."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b")])
    bench.ask(ADD, body=[bench.contact("a")])
    bench.ask(Operation.UPDATE_CONTACT, "a", bench.contact("a"))
    bench.ask(Operation.DELETE_CONTACT, "a")
    assert dict(bench.list.contacts.applied) == {"a": 3, "b": 1}
    assert bench.lists.tally == {"applied": 4, "deleted": 1, "requeued": 1}


def test_an_update_without_do_not_queue_is_told():
    """Only a known contact sent without doNotQueue counts as queued again."""
    bench = Bench()
    for query in ({}, {"doNotQueue": "true"}, {"doNotQueue": "false"}):
        bench.ask(ADD, body=[bench.contact("a")], **query)
    assert bench.lists.tally["requeued"] == 1


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"data": {"phone": "", "note": "", "x": ""}}, "invalid.contact.columns", "x"),
        ({"data": {"phone": ""}}, "contact.missing.columns", "note"),
        ({"data": {"phone": "", "note": "n" * 513}}, "contact.datum.length.limit.exceeded", "note"),
        ({"data": {"phone": "", "note": None}}, "invalid.value", "note"),
        ({"data": ["x"]}, "invalid.value", "data"),
        ({"data": None}, "contact.missing.data", "data"),
        ({"id": "a b"}, "invalid.contact.id", "id"),
        ({"id": 7}, "invalid.value", "id"),
        ({"callable": "true"}, "invalid.value", "callable"),
        ({"phoneNumberStatus": []}, "invalid.value", "phoneNumberStatus"),
        ({"surprise": 1}, "invalid.property", "surprise"),
    ],
)
def test_one_bad_contact_refuses_the_request_and_changes_nothing(changes: dict[str, Any], code: str, field: str):
    """The refusal names the field, and none of the good contacts beside it is written."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a", "before")])
    refusal = bench.refusal(ADD, body=[bench.contact("a", "after"), bench.contact("b"), bench.contact("c") | changes])
    assert refusal["code"] == code
    assert refusal["details"] == [{"errorCode": code, "fieldName": field}]
    assert bench.notes() == {"a": "before"}


def test_a_refusal_repeats_no_value():
    """No text of a refusal has the contact's data in it."""
    bench = Bench(Poison.marked("secret"))
    for data in ({"phone": "secret", "note": "s" * 513}, {"phone": "secret", "note": ""}, {"phone": "secret"}):
        assert "secret" not in json.dumps(bench.refusal(ADD, body=[bench.contact("a", data=data)]))


def test_the_longest_values_and_ids_are_taken():
    """512 characters, of whatever bytes, and 100 characters of id are within the limits."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("i" * 100, "ö" * 512)])
    assert bench.notes() == {"i" * 100: "ö" * 512}
    assert bench.refusal(ADD, body=[bench.contact("i" * 101)])["code"] == "contact.id.length.limit.exceeded"


def test_poisoned_contacts_are_refused():
    """A contact with the marker in any value is refused with the code given, by every operation that writes."""
    bench = Bench(Poison.marked("bad", "contact.missing.data"))
    bench.ask(ADD, body=[bench.contact("a", "good")])
    assert bench.refusal(ADD, body=[bench.contact("b", "a bad one")])["code"] == "contact.missing.data"
    assert bench.refusal(Operation.UPDATE_CONTACT, "a", bench.contact("a", "bad"))["code"] == "contact.missing.data"


def test_poison_can_be_any_predicate():
    """Contacts are told by a function of their data."""
    bench = Bench(Poison(lambda data: data["note"] == ""))
    assert bench.refusal(ADD, body=[bench.contact("a")])["code"] == "contact.datum.length.limit.exceeded"


def test_poison_may_break_the_request_cut_its_answer_or_be_left_out():
    """A 500 changes nothing; the answer that is cut tells of what was done; who is left out is not there."""
    bodies = [("a", "good"), ("b", "bad")]
    found: list[tuple[Any, list[str]]] = []
    for kind in (PoisonKind.BREAKS, PoisonKind.CUTS, PoisonKind.LEFT_OUT):
        bench = Bench(Poison.marked("bad", kind=kind))
        contacts = [bench.contact(*each) for each in bodies]
        if kind is PoisonKind.BREAKS:
            assert bench.refusal(ADD, body=contacts)["status"] == 500
        else:
            done = bench.do(ADD, body=contacts)
            found.append((done.cut, [each["id"] for each in json.loads(done.body)]))
        found.append((kind, sorted(bench.notes())))
    assert found == [
        (PoisonKind.BREAKS, []),
        (True, ["a", "b"]),
        (PoisonKind.CUTS, ["a", "b"]),
        (False, ["a"]),
        (PoisonKind.LEFT_OUT, ["a"]),
    ]


def test_a_contact_in_use_is_not_deleted():
    """One delete of it is refused; among others it is passed over."""
    bench = Bench(in_use=["a"])
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b")])
    assert bench.refusal(Operation.DELETE_CONTACT, "a")["code"] == "contact.in.use"
    bench.ask(Operation.DELETE_CONTACTS, contactIds="a,b")
    assert bench.notes().keys() == {"a"}


def test_reads_may_lag_behind_writes():
    """They show what was there before the first write that they do not know of; what is not struck shows at once."""
    now = [0.0]
    bench = Bench(pace=Pace(lambda: now[0]))
    bench.do(ADD, body=[bench.contact("a", "old"), bench.contact("b")])
    bench.lag_s = 5
    bench.do(ADD, body=[bench.contact("a", "new")])
    now[0] = 2
    bench.do(Operation.DELETE_CONTACTS, contactIds="a,b")
    bench.lag_s = 0
    bench.do(ADD, body=[bench.contact("c")])

    def shown() -> dict[str, str]:
        read = bench.ask(Operation.READ_CONTACTS, body=["a", "b", "c"])
        return {contact["id"]: contact["data"]["note"] for contact in read}

    assert bench.notes().keys() == {"c"}
    assert shown() == {"a": "old", "b": "", "c": ""}
    now[0] = 6
    assert shown() == {"a": "new", "b": "", "c": ""}
    assert bench.ask(Operation.GET_CONTACT, "b")["id"] == "b"
    now[0] = 7
    assert shown() == {"c": ""}


def test_a_refused_write_is_nothing_to_lag_behind():
    """It has changed nothing; the next one shows at once."""
    bench = Bench(poison=Poison.marked("bad"), pace=Pace(lambda: 0.0))
    bench.do(ADD, body=[bench.contact("a", "old")])
    bench.lag_s = 5
    with pytest.raises(ApiError):
        bench.do(ADD, body=[bench.contact("a", "bad")])
    bench.lag_s = 0
    bench.do(ADD, body=[bench.contact("a", "new")])
    assert bench.ask(Operation.GET_CONTACT, "a")["data"]["note"] == "new"


def test_each_endpoint_refuses_with_the_codes_that_it_has():
    """The same fault has another one where contacts are deleted or replaced than where they are added."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a")])
    unknown = {"id": "a", "contactListId": bench.list.id, "data": {"phone": "", "note": "", "x": ""}}
    assert bench.refusal(ADD, body=[unknown])["code"] == "invalid.contact.columns"
    assert bench.refusal(Operation.UPDATE_CONTACT, "a", unknown)["code"] == "invalid.update"
    assert bench.refusal(Operation.DELETE_CONTACTS, contactIds="i" * 101)["code"] == "invalid.contact.id"


def test_the_organisation_has_room_for_so_many_contacts(monkeypatch: pytest.MonkeyPatch):
    """Contacts of all lists count; updates of known ones need no room."""
    monkeypatch.setattr(lists_module, "CONTACTS_MAX", 2)
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b")])
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b")])
    bench.list = bench.add_list("second")
    assert bench.refusal(ADD, body=[bench.contact("c")])["code"] == "contacts.per.org.limit.exceeded"


def test_a_list_has_room_for_so_many_contacts():
    """Those of others do not count; updates of known ones need no room, and the code is that of a full organisation."""
    bench = Bench(per_list_max=2)
    full = bench.list
    bench.list = bench.add_list("second")
    bench.ask(ADD, body=[bench.contact("a")])
    bench.list = full
    bench.ask(ADD, body=[bench.contact("a"), bench.contact("b")])
    bench.ask(ADD, body=[bench.contact("a", "again"), bench.contact("b")])
    refusal = bench.refusal(ADD, body=[bench.contact("a"), bench.contact("c", "new")])
    assert (refusal["code"], refusal["message"]) == (
        "contacts.per.org.limit.exceeded",
        "A contact list may have 2 contacts.",
    )
    assert bench.notes() == {"a": "again", "b": ""}


def test_the_organisation_has_room_for_so_many_lists(monkeypatch: pytest.MonkeyPatch):
    """One list more than the limit is refused."""
    monkeypatch.setattr(organisation, "LISTS_MAX", 1)
    with pytest.raises(ApiError, match="1 contact lists"):
        Bench().add_list("second")


@pytest.mark.parametrize(
    ("filter_type", "name", "found"),
    [
        ("Prefix", "cust", True),
        ("Prefix", "omers", False),
        ("EndsWith", "omers", True),
        ("Contains", "tom", True),
        ("Equals", "customer", False),
        ("RegEx", "^c.*s$", True),
        ("LessThan", "d", True),
        ("GreaterThan", "d", False),
    ],
)
def test_lists_are_filtered_by_name(filter_type: str, name: str, found: bool):
    """Each filter type compares the name its own way."""
    answer = Bench().ask(Operation.LIST_CONTACT_LISTS, name=name, filterType=filter_type)
    assert [entity["name"] for entity in answer["entities"]] == ([NAME] if found else [])


def test_a_broken_pattern_is_the_clients_mistake():
    """A regular expression that is none is a 400."""
    refusal = Bench().refusal(Operation.LIST_CONTACT_LISTS, name="(", filterType="RegEx")
    assert refusal["code"] == "invalid.query.param.value"


def test_lists_are_sorted_and_selected_as_asked():
    """Order by a property, by its direction, and only lists of the divisions asked for."""
    bench = Bench()
    bench.add_list("alpha", division={"id": "north"})
    ask = bench.ask
    up = ask(Operation.LIST_CONTACT_LISTS, sortBy="name", sortOrder="ascending")
    down = ask(Operation.LIST_CONTACT_LISTS, sortBy="name", sortOrder="descending")
    north = ask(Operation.LIST_CONTACT_LISTS, divisionId="north")
    assert [entity["name"] for entity in up["entities"]] == ["alpha", NAME]
    assert [entity["name"] for entity in down["entities"]] == [NAME, "alpha"]
    assert [entity["name"] for entity in north["entities"]] == ["alpha"]


def test_too_many_ids_of_lists_are_refused():
    """101 ids in one query are too many."""
    call = Call(query={"id": ["x"] * 101})
    with pytest.raises(ApiError) as refused:
        Bench().api.carry_out(Operation.LIST_CONTACT_LISTS, call)
    assert refused.value.code == "too.many.bulk.retrieves"


def test_pages_link_to_their_neighbours():
    """A page in the middle links to both sides; the ends do not link past themselves."""
    bench = Bench()
    bench.add_list("second")
    bench.add_list("third")
    pages = [bench.ask(Operation.LIST_CONTACT_LISTS, pageSize="1", pageNumber=number) for number in "123"]
    assert [("previousUri" in page, "nextUri" in page) for page in pages] == [
        (False, True),
        (True, True),
        (True, False),
    ]
    assert pages[1]["nextUri"] == "/api/v2/outbound/contactlists?pageSize=1&pageNumber=3"
    assert pages[1]["lastUri"] == pages[2]["selfUri"]


def test_the_size_of_a_list_is_told_when_asked():
    """`size` is there with includeSize only, and counts contacts."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a")])
    assert "size" not in bench.ask(Operation.GET_CONTACT_LIST)
    assert bench.ask(Operation.GET_CONTACT_LIST, includeSize="true")["size"] == 1


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        (["x"], "bad.request"),
        ({"columnNames": "phone"}, "invalid.value"),
        ({"columnNames": ["back\\slash"]}, "invalid.value"),
        ({"phoneColumns": [{"columnName": "phone"}]}, "invalid.contact.phone.column"),
        ({"whatsAppColumns": [{"columnName": "x", "type": "y"}]}, "contact.columns.do.not.contain.whatsapp.column"),
        ({"automaticTimeZoneMapping": True, "zipCodeColumnName": "x"}, "invalid.zip.code.column"),
        ({"columnDataTypeSpecifications": [{"columnName": "x"}]}, "column.data.type.specification.column.name.not"),
        ({"columnDataTypeSpecifications": ["x"]}, "invalid.value"),
        (
            {"columnNames": list("abcdefghijk"), "phoneColumns": [{"columnName": c, "type": c} for c in "abcdefghijk"]},
            "phone.columns.limit.exceeded",
        ),
        (
            {
                "automaticTimeZoneMapping": True,
                "phoneColumns": [{"columnName": "phone", "type": "cell", "callableTimeColumn": "note"}],
            },
            "cannot.have.callable.time.column.with.automatic.time.zone.mapping",
        ),
    ],
)
def test_a_definition_is_refused_for_what_is_wrong_with_it(definition: Any, code: str):
    """Each rule has its code; what the contract suite asks of every organisation is not repeated here."""
    good = {"name": "x", "columnNames": ["phone", "note"], "phoneColumns": [{"columnName": "phone", "type": "cell"}]}
    with pytest.raises(ApiError) as refused:
        check_definition(good | definition if isinstance(definition, dict) else definition)
    assert refused.value.code.startswith(code)


def test_a_list_read_back_can_be_created_again():
    """Read-only properties in a definition are passed over, not refused."""
    bench = Bench()
    read = bench.ask(Operation.GET_CONTACT_LIST, includeSize="true")
    created = bench.lists.create(check_definition(read | {"name": "copy"}))
    assert created.id != bench.list.id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created.definition["dateCreated"])


def test_a_list_is_found_by_name_or_id():
    """The view inside takes either, and says when there is none."""
    bench = Bench()
    assert bench.lists.look_up(NAME) is bench.lists.look_up(bench.list.id) is bench.list
    with pytest.raises(LookupError, match="absent"):
        bench.lists.look_up("absent")


def test_a_replacement_leaves_nothing_behind():
    """PUT replaces the whole contact: what it does not say is forgotten."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a", callable=False, phoneNumberStatus={})])
    bench.ask(Operation.UPDATE_CONTACT, "a", bench.contact("a"))
    replaced = bench.ask(Operation.GET_CONTACT, "a")
    assert (replaced["callable"], "phoneNumberStatus" in replaced) == (True, False)


def test_a_replacement_must_be_of_the_contact_in_the_path():
    """Another id in the body, or an unknown contact, is refused and makes nothing."""
    bench = Bench()
    bench.ask(ADD, body=[bench.contact("a")])
    assert bench.refusal(Operation.UPDATE_CONTACT, "a", bench.contact("b"))["code"] == "invalid.value"
    assert bench.refusal(Operation.UPDATE_CONTACT, "b", bench.contact("b"))["code"] == "contact.does.not.exist"
    assert bench.notes().keys() == {"a"}


def test_a_bulk_read_takes_ids_only():
    """What is no string is no id."""
    assert Bench().refusal(Operation.READ_CONTACTS, body=["a", 7])["code"] == "bad.request"


@pytest.mark.parametrize(
    ("operation", "call", "ids"),
    [
        (ADD, Call(body=b'[{"id":"a"},{},7,{"id":8},{"id":"b"}]'), ("a", "b")),
        (ADD, Call(body=b"{"), ()),
        (Operation.DELETE_CONTACTS, Call(query={"contactIds": ["a,b", "c", ""]}), ("a", "b", "c")),
        (Operation.DELETE_CONTACT, Call(contact_id="a"), ("a",)),
        (Operation.SEARCH_CONTACTS, Call(body=b"{}"), ()),
    ],
)
def test_the_contacts_of_a_call_are_told_as_far_as_it_can_be_read(
    operation: Operation, call: Call, ids: tuple[str, ...]
):
    """Ids come from where the operation has them; what cannot be read names nobody."""
    assert named_contacts(operation, call) == ids


def test_the_ids_made_are_told():
    """Contacts without ids are named by the ids they were given."""
    bench = Bench()
    done = bench.do(ADD, body=[bench.contact(None), bench.contact("a")])
    assert set(done.contact_ids) == set(bench.notes())


def test_a_contact_costs_little_memory():
    """A contact is kept in at most half a kilobyte, so that a million fit."""
    bench = Bench()
    tracemalloc.start()
    for start in range(0, 5_000, 1_000):
        bench.do(ADD, body=[bench.contact(f"contact-{start + n:028d}", "x" * 60) for n in range(1_000)])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 5_000 < 512
