"""Answers for what all lists of an organisation have in common: how many there may be, their names, how they are found.

The clocks are arguments. Touches nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import uuid4

from consumer.simulator.definitions import Definition, refused
from consumer.simulator.errors import ApiError
from consumer.simulator.tasks import Pace, Tasks

LISTS_MAX = 1_000

HOME_DIVISION = {
    "id": "00000000-0000-4000-8000-000000000001",
    "name": "Home",
    "selfUri": "/api/v2/authorization/divisions/00000000-0000-4000-8000-000000000001",
}


def spelled(now: float) -> str:
    """A time, in seconds since 1970, as Genesys writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class OneList(ABC):
    """A list, as all of them are.

    Args:
        definition: What a client says of it, checked.
        path: Of the lists of its kind.
        now: When it is made, in seconds since 1970.
        tasks: What goes on in it.

    Attributes:
        definition: What it is.
        tasks: What goes on in it.
    """

    def __init__(self, definition: Definition, path: str, now: float, tasks: Tasks) -> None:
        list_id, made_at = str(uuid4()), spelled(now)
        made = {"id": list_id, "dateCreated": made_at, "dateModified": made_at, "version": 1}
        uri = {"selfUri": f"{path}/{list_id}"}
        self.definition: Definition = {"division": HOME_DIVISION} | definition | made | uri
        self.tasks = tasks

    @abstractmethod
    def __len__(self) -> int:
        """How much it holds."""

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.definition["id"])

    @property
    def name(self) -> str:
        """Its name, unique among its kind."""
        return str(self.definition["name"])

    def body(self, *, with_size: bool, with_import_status: bool = False) -> Definition:
        """The list as Genesys describes it."""
        body = self.definition | {"size": len(self)} if with_size else self.definition
        return body | {"importStatus": self.tasks.import_status()} if with_import_status else body


L = TypeVar("L", bound=OneList)


class Lists(Generic[L]):
    """The lists of a kind, in order of creation; whoever looks at one sees what is due in it done.

    Args:
        kind: What one of them is called.
        absent: The code when there is none; some operations have another one.
        now: The wall clock, in seconds since 1970.
        pace: How long things take in them.

    Attributes:
        now: The wall clock.
        pace: How long things take.
    """

    def __init__(self, kind: str, absent: str, now: Callable[[], float], pace: Pace) -> None:
        self._kind = kind
        self._absent = absent
        self.now = now
        self.pace = pace
        self._lists: dict[str, L] = {}

    def all(self) -> list[L]:
        """Every list."""
        for each in self._lists.values():
            each.tasks.catch_up()
        return list(self._lists.values())

    def held(self) -> Collection[L]:
        """Every list, as it was left."""
        return self._lists.values()

    def find(self, list_id: str, absent: str | None = None) -> L:
        """The list with this id.

        Args:
            list_id: The id.
            absent: The code of the operation's refusal when there is none.

        Raises:
            ApiError: There is none.
        """
        found = self._lists.get(list_id)
        if found is None:
            raise ApiError(404, absent or self._absent, f"The {self._kind} was not found.")
        found.tasks.catch_up()
        return found

    def look_up(self, name_or_id: str) -> L:
        """The list with this id or name.

        Raises:
            LookupError: There is none.
        """
        for each in self.all():
            if name_or_id in (each.id, each.name):
                return each
        raise LookupError(f"no {self._kind} {name_or_id!r}")

    def check_new(self, name: str) -> None:
        """Refuse one more list of this name.

        Raises:
            ApiError: The name is taken, or there are too many lists.
        """
        self.check_name_is_free(name)
        if len(self._lists) >= LISTS_MAX:
            raise ApiError(400, "max.entity.count.reached", f"There are already {LISTS_MAX} {self._kind}s.")

    def check_name_is_free(self, name: object, owner: L | None = None) -> None:
        """Refuse a name that another list than its owner has.

        Raises:
            ApiError: One has it.
        """
        if any(each.name == name for each in self._lists.values() if each is not owner):
            raise refused("duplicate.name", f"A {self._kind} of this name exists.", "name")

    def put(self, made: L) -> L:
        """Keep a list that was made."""
        self._lists[made.id] = made
        return made

    def drop(self, doomed: L) -> None:
        """Keep a list no more."""
        del self._lists[doomed.id]
