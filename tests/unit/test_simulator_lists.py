"""Lists as such, without a socket: what a PUT keeps and forgets, results of bulk updates, and the order of searches."""

from typing import Any

import pytest

from consumer.simulator.api import Call
from consumer.simulator.definitions import check_definition
from consumer.simulator.errors import ApiError
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import Operation
from consumer.simulator.sorts import ordering
from tests.unit.test_simulator_api import Bench

PHONE = {"columnName": "phone", "type": "cell"}


def put(bench: Bench, **changes: Any) -> dict[str, Any]:
    """What a PUT of the list as it is, with changes, answers."""
    read = bench.ask(Operation.GET_CONTACT_LIST)
    return dict(bench.ask(Operation.UPDATE_CONTACT_LIST, body=read | changes))


def test_a_put_forgets_what_it_leaves_out():
    """It replaces the whole definition; what Genesys adds stays, and so does the division."""
    bench = Bench()
    put(bench, trimWhitespace=False, division={"id": "north", "name": "North"})
    made = bench.list.definition["dateCreated"]
    bare = {"name": "bare", "version": 2, "columnNames": ["phone", "note"], "phoneColumns": [PHONE]}
    answer = bench.ask(Operation.UPDATE_CONTACT_LIST, body=bare)
    assert "trimWhitespace" not in answer
    assert (answer["division"]["id"], answer["dateCreated"], answer["emailColumns"]) == ("north", made, [])


def test_dates_go_by_the_wall_clock_that_is_given():
    """As those of do-not-call lists: a test that has a clock of its own sees the dates of that."""
    now = iter((0.0, 86_400.0))
    bench = Bench(now=lambda: next(now))
    put(bench)
    dates = [bench.list.definition[field] for field in ("dateCreated", "dateModified")]
    assert dates == ["1970-01-01T00:00:00.000Z", "1970-01-02T00:00:00.000Z"]


def test_a_put_without_a_version_is_a_conflict():
    """A client that did not read may not write."""
    bench = Bench()
    bare = {"name": "bare", "columnNames": ["phone", "note"], "phoneColumns": [PHONE]}
    refusal = bench.refusal(Operation.UPDATE_CONTACT_LIST, body=bare)
    assert (refusal["status"], refusal["code"]) == (409, "invalid.update.wrong.version")


def test_a_put_leaves_contacts_alone():
    """The list's contacts outlive the replacement of its definition."""
    bench = Bench()
    bench.ask(Operation.ADD_CONTACTS, body=[bench.contact("a", "kept")])
    put(bench, name="renamed")
    assert bench.notes() == {"a": "kept"}


@pytest.mark.parametrize("absent", [[], None])
def test_an_absent_list_of_columns_is_an_empty_one(absent: list[Any] | None):
    """A client that leaves out a channel without columns does not change it."""
    assert put(Bench(), emailColumns=absent)["version"] == 2


def test_a_put_may_keep_its_own_name():
    """A name is taken by other lists only."""
    assert put(Bench())["name"] == "customers"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"contactListIds": [], "contactList": {}}, "invalid.value"),
        ({"contactListIds": ["a"] * 101, "contactList": {}}, "invalid.value"),
        ({"contactListIds": ["a"], "contactList": []}, "invalid.value"),
        ({"contactListIds": ["a"], "contactList": {"name": "x"}}, "invalid.property"),
        ({"contactListIds": ["a"], "contactList": {"retentionType": "Sometimes"}}, "invalid.value"),
        ({"contactListIds": ["a"], "contactList": {"retentionDays": "30"}}, "invalid.value"),
        ({"contactListIds": ["a"], "contactList": {"timeZone": 1}}, "invalid.value"),
    ],
)
def test_a_bulk_update_of_lists_is_of_retention_only(body: dict[str, Any], code: str):
    """Too many lists, none, other properties and impossible values are refused."""
    assert Bench().refusal(Operation.UPDATE_CONTACT_LISTS, body=body)["code"] == code


def test_a_definition_has_a_retention_that_there_is():
    """One that is created, and one that takes its place."""
    bench = Bench()
    body = bench.ask(Operation.GET_CONTACT_LIST) | {"name": "other", "retentionType": "Sometimes"}
    for operation in (Operation.CREATE_CONTACT_LIST, Operation.UPDATE_CONTACT_LIST):
        assert bench.refusal(operation, body=body)["code"] == "invalid.value"
    assert put(bench, retentionType="Never")["retentionType"] == "Never"


def test_a_bulk_update_raises_the_version():
    """Whoever read the list before reads it again before a PUT."""
    bench = Bench()
    changes = {"contactListIds": [bench.list.id], "contactList": {"retentionType": "Today"}}
    (result,) = bench.ask(Operation.UPDATE_CONTACT_LISTS, body=changes)["results"]
    assert (result["entity"]["version"], result["entity"]["retentionType"]) == (2, "Today")


def test_a_view_hides_what_only_readers_see():
    """A division view has no version and no settings, and its own address."""
    bench = Bench()
    view = bench.ask(Operation.GET_DIVISION_VIEW)
    assert view["selfUri"].endswith(f"/divisionviews/{bench.list.id}")
    assert not view.keys() & {"version", "dateCreated", "attemptLimits"}


def test_lists_found_by_several_ids_may_be_joined_or_repeated():
    """Both spellings of a list of ids are read."""
    lists = ContactLists()
    for name in ("a", "b", "c"):
        lists.create(check_definition({"name": name, "columnNames": ["phone"], "phoneColumns": [PHONE]}))
    first, second, third = (each.id for each in lists.all())
    assert Call(query={"id": [f"{first},{second}", third]}).ids("id") == [first, second, third]


def in_order(sorts: object, values: dict[str, tuple[str, str]]) -> list[str]:
    """The ids of contacts with these values of two columns, in the order that the sorts give them."""
    contacts: list[dict[str, Any]] = [
        {"id": each, "data": {"name": name, "age": age}} for each, (name, age) in values.items()
    ]
    order = ordering({"contactSorts": sorts}, ("name", "age"))
    if order is not None:
        order(contacts)
    return [contact["id"] for contact in contacts]


def test_numbers_sort_as_numbers_when_asked():
    """As text 10 comes before 9; as numbers after it, and what is no number first."""
    values = {"a": ("", "10"), "b": ("", "9"), "c": ("", "old")}
    assert in_order([{"fieldName": "age"}], values) == ["a", "b", "c"]
    assert in_order([{"fieldName": "age", "numeric": True}], values) == ["c", "b", "a"]


def test_the_first_sort_counts_most():
    """The second decides among those that the first leaves equal."""
    values = {"a": ("x", "1"), "b": ("y", "2"), "c": ("x", "2")}
    sorts = [{"fieldName": "age", "direction": "DESC"}, {"fieldName": "name", "direction": "ASC"}]
    assert in_order(sorts, values) == ["c", "b", "a"]


def test_without_sorts_the_order_is_that_of_arrival():
    """No sorts are no order."""
    assert in_order([], {"b": ("2", ""), "a": ("1", "")}) == ["b", "a"]


@pytest.mark.parametrize(
    "sorts", ["name", ["name"], [{"fieldName": "absent"}], [{"fieldName": "name", "direction": "up"}]]
)
def test_sorts_that_may_not_be_are_refused(sorts: object):
    """Another column or direction is an invalid value."""
    with pytest.raises(ApiError) as refused:
        in_order(sorts, {})
    assert refused.value.code == "invalid.value"
