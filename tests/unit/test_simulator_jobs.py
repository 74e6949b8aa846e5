"""What goes on in a list after its answer, without a socket: clears, bulk operations, and what filters select."""

import json
from typing import Any

import pytest

from consumer.simulator.api import Api, Call
from consumer.simulator.contacts import Poison
from consumer.simulator.definitions import check_definition
from consumer.simulator.errors import ApiError
from consumer.simulator.list_jobs import ListJobs
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import Operation
from consumer.simulator.tasks import Pace


class Bench:
    """An organisation with one list of five contacts, on a clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lists = ContactLists(pace=Pace(lambda: self.now, job_seconds=10.0))
        poison = Poison.marked("poison")
        self.api = Api(self.lists, poison, (), ListJobs(self.lists, poison).actions)
        phone = {"columnName": "phone", "type": "cell"}
        definition = {"name": "n", "columnNames": ["phone", "age"], "phoneColumns": [phone]}
        self.list = self.lists.create(check_definition(definition))
        for number, age in enumerate(("5", "10", "40", "", "x9")):
            self.list.contacts.put(f"c{number}", {"data": {"phone": f"+1555010000{number}", "age": age}}, afresh=False)

    def ask(self, operation: Operation, body: Any = None, job_id: str = "") -> Any:
        call = Call(self.list.id, body=json.dumps(body).encode(), job_id=job_id)
        done = self.api.carry_out(operation, call)
        return json.loads(done.body) if done.body else done.status

    def refusal(self, operation: Operation, body: Any = None, job_id: str = "") -> str:
        with pytest.raises(ApiError) as refused:
            self.ask(operation, body, job_id)
        return refused.value.code

    def job(self, job_id: str) -> tuple[str, int, int]:
        job = self.ask(Operation.GET_JOB, job_id=job_id)
        return job["state"], job["completedRecords"], job["percentComplete"]

    def ids(self) -> str:
        """The contacts that there are, by their numbers."""
        return "".join(contact_id[1:] for contact_id, _ in self.list.contacts.views())


def criteria(*predicates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Criteria of one clause."""
    return {"criteria": {"filterType": "AND", "clauses": [{"predicates": list(predicates)} | changes]}}


def age(operator: str, value: str | None = None, kind: str = "numeric", **changes: Any) -> dict[str, Any]:
    """A predicate about the age."""
    made = {"column": "age", "columnType": kind, "operator": operator} | changes
    return made if value is None else made | {"value": value}


@pytest.mark.parametrize(
    ("predicate", "found"),
    [
        (age("EQUALS", "10.0"), "1"),
        (age("LESS_THAN", "10"), "0"),
        (age("LESS_THAN_EQUALS", "10"), "01"),
        (age("GREATER_THAN", "10"), "2"),
        (age("GREATER_THAN_EQUALS", "10"), "12"),
        (age("LESS_THAN", "10", inverted=True), "1234"),
        (age("EQUALS", "10", "alphabetic"), "1"),
        (age("LESS_THAN", "40", "alphabetic"), "13"),
        (age("BEFORE", "40", "alphabetic"), "13"),
        (age("AFTER", "40", "alphabetic"), "04"),
        (age("CONTAINS", "0", "alphabetic"), "12"),
        (age("BEGINS_WITH", "x", "alphabetic"), "4"),
        (age("ENDS_WITH", "0", "alphabetic"), "12"),
        (age("BETWEEN", range={"min": "5", "max": "40"}), "1"),
        (age("BETWEEN", range={"min": "5", "max": "40", "minInclusive": True, "maxInclusive": True}), "012"),
        (age("IN", range={"inSet": ["5", "40.0"]}), "02"),
    ],
)
def test_each_operator_selects(predicate: dict[str, Any], found: str):
    """As its name says; what is no number matches no comparison of numbers."""
    bench = Bench()
    page = {"pageNumber": 1, "pageSize": 10}
    result = bench.ask(Operation.SEARCH_CONTACTS, page | criteria(predicate))
    assert "".join(contact["id"][1:] for contact in result["entities"]) == found
    assert (result["total"], result["contactsCount"]) == (len(found), len(found))


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (criteria(age("LESS_THAN", "10"), age("GREATER_THAN", "10")), ""),
        (criteria(age("LESS_THAN", "10"), age("GREATER_THAN", "10"), filterType="OR"), "02"),
        (criteria(), "01234"),
        ({"criteria": {}}, "01234"),
        (
            {
                "criteria": {
                    "filterType": "OR",
                    "clauses": [{"predicates": [age("EQUALS", "5")]}, {"predicates": [age("EQUALS", "40")]}],
                }
            },
            "02",
        ),
    ],
)
def test_predicates_and_clauses_are_combined(request_: dict[str, Any], found: str):
    """AND unless OR is said, within a clause and among clauses."""
    bench = Bench()
    result = bench.ask(Operation.SEARCH_CONTACTS, {"pageNumber": 1, "pageSize": 10} | request_)
    assert "".join(contact["id"][1:] for contact in result["entities"]) == found


def test_a_search_pages_through_what_it_selects():
    """The second page of two begins with the third match."""
    bench = Bench()
    wanted = criteria(age("GREATER_THAN", "0"))
    result = bench.ask(Operation.SEARCH_CONTACTS, {"pageNumber": 2, "pageSize": 2} | wanted)
    assert ([contact["id"] for contact in result["entities"]], result["pageCount"]) == (["c2"], 2)


@pytest.mark.parametrize(
    "request_",
    [
        {"criteria": []},
        {"criteria": {"clauses": {}}},
        {"criteria": {"filterType": "XOR"}},
        {"criteria": {"clauses": [7]}},
        criteria(age("EQUALS", "1", column="none")),
        criteria(age("EQUALS", "1", "date")),
        criteria(age("EQUALS", "one")),
        criteria(age("EQUALS")),
        criteria(age("CONTAINS", "1")),
        criteria(age("SOUNDS_LIKE", "1", "alphabetic")),
        criteria(age("BETWEEN")),
        criteria(age("BETWEEN", range={"min": "1"})),
        criteria(age("IN", range={"inSet": [1]})),
    ],
)
def test_what_is_no_filter_is_refused(request_: dict[str, Any]):
    """By every operation that takes one, and nothing begins."""
    bench = Bench()
    assert bench.refusal(Operation.SEARCH_CONTACTS, {"pageNumber": 1, "pageSize": 10} | request_) == (
        "invalid.contact.list.filter"
    )
    assert bench.refusal(Operation.BULK_REMOVE, request_) == "invalid.contact.list.filter"
    assert bench.refusal(Operation.START_EXPORT, request_) == "invalid.contact.list.filter"
    assert bench.ask(Operation.LIST_JOBS)["total"] == 0


def test_a_stored_filter_is_not_found():
    """The simulator keeps none."""
    bench = Bench()
    assert bench.refusal(Operation.BULK_REMOVE, {"contactListFilterId": "f"}) == "resource.not.found"


def test_a_bulk_remove_goes_by_the_clock():
    """It answers at once; half way through half of the contacts are gone; then it is complete."""
    bench = Bench()
    job = bench.ask(Operation.BULK_REMOVE, criteria(age("GREATER_THAN_EQUALS", "10")))
    assert (job["state"], job["type"], job["totalRecords"], bench.ids()) == ("InProgress", "BulkDelete", 2, "01234")
    bench.now += 5
    assert (bench.job(job["id"]), bench.ids()) == (("InProgress", 1, 50), "0234")
    bench.now += 5
    assert (bench.job(job["id"]), bench.ids()) == (("Complete", 2, 100), "034")
    assert bench.lists.tally["deleted"] == 2


def test_a_bulk_update_changes_what_it_names_and_no_more():
    """One column and callable of the contacts it selects; one that is gone by then is passed over."""
    bench = Bench()
    patch = {"data": {"age": "7"}, "callable": False}
    job = bench.ask(Operation.BULK_UPDATE, {"contactIds": ["c1", "c2", "c9"], "contact": patch})
    bench.list.contacts.remove("c2")
    bench.now += 10
    assert (job["type"], bench.job(job["id"])) == ("BulkEdit", ("Complete", 2, 100))
    view = dict(bench.list.contacts.views())["c1"]
    assert view == {"data": {"phone": "+15550100001", "age": "7"}, "callable": False}
    assert bench.lists.tally["applied"] == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"contact": {}}, "invalid.update"),
        ({"contactIds": ["c1"]}, "invalid.update"),
        ({"contactIds": ["c1"], "contact": {"data": {"none": ""}}}, "invalid.update"),
        ({"contactIds": ["c1"], "contact": {"data": {"age": "x" * 513}}}, "invalid.update"),
        ({"contactIds": ["c1"], "contact": {"data": {"age": "poison"}}}, "invalid.update"),
        ({"contactIds": ["c1"], "contact": {"surprise": 1}}, "invalid.property"),
        ({"contactIds": "c1", "contact": {}}, "invalid.value"),
        ({"contactIds": ["c1"], "contact": {}, "generateDownloadURI": 1}, "invalid.value"),
        ({"surprise": 1}, "invalid.property"),
    ],
)
def test_a_bulk_update_that_may_not_be_is_refused(request_: dict[str, Any], code: str):
    """Each fault has its code, and no job begins."""
    bench = Bench()
    assert bench.refusal(Operation.BULK_UPDATE, request_) == code
    assert bench.ask(Operation.LIST_JOBS)["total"] == 0


def test_a_bulk_remove_needs_criteria():
    """Without any it would empty the list."""
    assert Bench().refusal(Operation.BULK_REMOVE, {}) == "invalid.contact.list.filter"


def test_one_bulk_operation_at_a_time():
    """A second one is refused until the first is complete."""
    bench = Bench()
    remove = criteria(age("EQUALS", "5"))
    bench.ask(Operation.BULK_REMOVE, remove)
    assert bench.refusal(Operation.BULK_REMOVE, remove) == "contact.bulk.operation.in.progress"
    update: dict[str, Any] = {"contactIds": [], "contact": {}}
    assert bench.refusal(Operation.BULK_UPDATE, update) == "contact.bulk.operation.in.progress"
    bench.now += 10
    assert bench.ask(Operation.BULK_UPDATE, update)["totalRecords"] == 0


def test_the_ten_latest_jobs_are_shown():
    """The latest first; the eleventh is forgotten."""
    bench = Bench()
    made = []
    for _ in range(11):
        made.append(bench.ask(Operation.BULK_UPDATE, {"contactIds": [], "contact": {}})["id"])
        bench.now += 10
    shown = bench.ask(Operation.LIST_JOBS)
    assert ([job["id"] for job in shown["entities"]], shown["total"]) == (made[:0:-1], 10)
    assert bench.refusal(Operation.GET_JOB, job_id=made[0]) == "resource.not.found"


def test_a_clear_empties_the_list_in_a_while():
    """Until then nothing is written; then everything is gone, and the list takes contacts again."""
    bench = Bench()
    contact = {"contactListId": bench.list.id, "data": {"phone": "1", "age": "2"}}
    assert bench.ask(Operation.CLEAR_CONTACT_LIST) == 204
    refusals = [
        bench.refusal(Operation.ADD_CONTACTS, [contact]),
        bench.refusal(Operation.UPDATE_CONTACT, contact),
        bench.refusal(Operation.BULK_REMOVE, criteria()),
        bench.refusal(Operation.BULK_UPDATE, {"contactIds": [], "contact": {}}),
    ]
    assert refusals == ["contact.list.clear.in.progress"] * 4
    assert bench.ids() == "01234"
    bench.now += 10
    assert bench.ask(Operation.SEARCH_CONTACTS, {"pageNumber": 1, "pageSize": 1})["total"] == 0
    assert bench.lists.tally["deleted"] == 5
    assert len(bench.ask(Operation.ADD_CONTACTS, [contact])) == 1
