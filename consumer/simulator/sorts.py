"""Answers for the order in which a search shows contacts: its `contactSorts`. Touches nothing.

The schema names the fields and no more. Assumed: the first sort counts most; what is no number comes before numbers;
the field is a column of the list.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from consumer.simulator.contacts import Contact
from consumer.simulator.errors import invalid_value

Order = Callable[[list[Contact]], None]
_DIRECTIONS = {"ASC": False, "DESC": True}


def ordering(request: Mapping[str, Any], columns: Collection[str]) -> Order | None:
    """What puts contacts in the order that a request wants; None is the order of arrival.

    Raises:
        ApiError: The sorts are none of a list with these columns.
    """
    sorts = request.get("contactSorts")
    if not sorts:
        return None
    if not isinstance(sorts, list):
        raise invalid_value("contactSorts", "an array")
    steps = [_step(sort, columns) for sort in reversed(sorts)]

    def order(contacts: list[Contact]) -> None:
        for key, descending in steps:
            contacts.sort(key=key, reverse=descending)

    return order


def _step(sort: object, columns: Collection[str]) -> tuple[Callable[[Contact], Any], bool]:
    if not isinstance(sort, dict) or sort.get("fieldName") not in columns:
        raise invalid_value("contactSorts", "sorts by columns of the contact list")
    column, direction = sort["fieldName"], sort.get("direction") or "ASC"
    if direction not in _DIRECTIONS:
        raise invalid_value("direction", "ASC or DESC")
    read = _number if sort.get("numeric") else str
    return lambda contact: read(contact["data"][column]), _DIRECTIONS[direction]


def _number(text: str) -> tuple[bool, float]:
    try:
        return True, float(text)
    except ValueError:
        return False, 0.0
