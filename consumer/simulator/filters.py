"""Answers for which contacts a filter selects: the criteria of searches, exports and bulk operations. Touches nothing.

The schema names the operators and no more. Assumed: a `numeric` column is compared as numbers, where what is no number
never matches; BEFORE, AFTER and every other order of an alphabetic column is that of the text, which is also that of
dates in ISO 8601; letters are compared as they are; a filter without clauses selects everyone.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from consumer.simulator.contacts import Contact, Match
from consumer.simulator.errors import ApiError

_Test = Callable[[Any, Any], bool]

_COMPARISONS: Mapping[str, _Test] = {
    "EQUALS": operator.eq,
    "LESS_THAN": operator.lt,
    "LESS_THAN_EQUALS": operator.le,
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_EQUALS": operator.ge,
    "BEFORE": operator.lt,
    "AFTER": operator.gt,
}
_TEXT_ONLY: Mapping[str, _Test] = {
    "CONTAINS": operator.contains,
    "BEGINS_WITH": str.startswith,
    "ENDS_WITH": str.endswith,
}
_COMBINE: Mapping[str, Callable[[Any], bool]] = {"AND": all, "OR": any}


def invalid_filter(message: str) -> ApiError:
    """The filter is not one."""
    return ApiError(400, "invalid.contact.list.filter", message, field="criteria")


def selection(request: Mapping[str, Any], columns: Collection[str]) -> Match | None:
    """What a request's `criteria` selects; None is every contact.

    Raises:
        ApiError: They are no criteria for a list with these columns, or the request names a stored filter.
    """
    if request.get("contactListFilterId") is not None:
        raise ApiError(404, "resource.not.found", "The contact list filter was not found.")
    criteria = request.get("criteria")
    return None if criteria is None else _combined(criteria, "clauses", lambda clause: _clause(clause, columns))


def _combined(given: object, part: str, read: Callable[[Any], Match]) -> Match:
    if not isinstance(given, dict) or not isinstance(given.get(part, []), list):
        raise invalid_filter(f"The filter needs an array of {part}.")
    combine = _COMBINE.get(given.get("filterType", "AND"))
    if combine is None:
        raise invalid_filter("The filterType must be AND or OR.")
    matches = [read(each) for each in given.get(part, [])]
    return lambda contact: not matches or combine(match(contact) for match in matches)


def _clause(clause: object, columns: Collection[str]) -> Match:
    return _combined(clause, "predicates", lambda predicate: _predicate(predicate, columns))


def _predicate(given: object, columns: Collection[str]) -> Match:
    if not isinstance(given, dict) or given.get("column") not in columns:
        raise invalid_filter("A predicate names no column of the contact list.")
    column: str = given["column"]
    read = _reader(given)
    test = _test(given, read)
    inverted = bool(given.get("inverted"))

    def match(contact: Contact) -> bool:
        value = read(contact["data"][column])
        return (value is not None and test(value)) is not inverted

    return match


def _reader(given: Mapping[str, Any]) -> Callable[[str], Any]:
    column_type = given.get("columnType", "alphabetic")
    if column_type not in {"numeric", "alphabetic"}:
        raise invalid_filter("The columnType must be numeric or alphabetic.")
    return _number if column_type == "numeric" else str


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _test(given: Mapping[str, Any], read: Callable[[str], Any]) -> Callable[[Any], bool]:
    name = str(given.get("operator"))
    if name in {"BETWEEN", "IN"}:
        return _range_test(name, given.get("range"), read)
    test = _COMPARISONS.get(name) or (_TEXT_ONLY.get(name) if read is not _number else None)
    if test is None:
        raise invalid_filter("The operator is not known for this type of column.")
    operand = _operand(given.get("value"), read)
    return lambda value: test(value, operand)


def _operand(given: object, read: Callable[[str], Any]) -> Any:
    operand = read(given) if isinstance(given, str) else None
    if operand is None:
        raise invalid_filter("A value of the filter is missing or of the wrong type.")
    return operand


def _range_test(name: str, given: object, read: Callable[[str], Any]) -> Callable[[Any], bool]:
    if not isinstance(given, dict):
        raise invalid_filter("The operator needs a range.")
    if name == "IN":
        members = {_operand(member, read) for member in given.get("inSet") or ()}
        return lambda value: value in members
    low, high = _operand(given.get("min"), read), _operand(given.get("max"), read)
    above = operator.le if given.get("minInclusive") else operator.lt
    below = operator.le if given.get("maxInclusive") else operator.lt
    return lambda value: above(low, value) and below(value, high)
