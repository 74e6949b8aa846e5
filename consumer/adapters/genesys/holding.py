"""Has nobody call contacts while what comes first cannot be done: their numbers are not blocked, or they not deleted.

Answers for no number being lost before it is on the do-not-call list. Touches Genesys through `contacts`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from consumer.adapters.genesys.contacts import Contacts, Held, encoded
from consumer.columns import data_of
from consumer.core.contact_id import contact_id
from consumer.errors import InUse, NoRoom, RefusedByGenesys, SinkUnavailable, Throttled
from consumer.model import Contact
from consumer.ports import Sure


class Holding:
    """Holds contacts of one list; deadlines and `paid` as for `Contacts`."""

    def __init__(self, contacts: Contacts) -> None:
        self._contacts = contacts

    def not_callable(self, contacts: Sequence[Contact]) -> dict[str, bytes]:
        """Those that come with a number, by id, as not callable."""
        by_id = {contact_id(each.external_id): each for each in contacts if each.phone}
        list_id = self._contacts.list_id
        return {id_: encoded(id_, list_id, data_of(each), callable_=False) for id_, each in by_id.items()}

    def as_they_are(self, contacts: Mapping[str, Held]) -> dict[str, bytes]:
        """Contacts as Genesys has them, by id, but not callable."""
        list_id, complete = self._contacts.list_id, self._contacts.complete
        return {id_: encoded(id_, list_id, complete(held.data), callable_=False) for id_, held in contacts.items()}

    async def hold(self, contacts: Mapping[str, bytes], deadline: float, sure: Sure, *, paid: bool) -> None:
        """Have nobody call these, by id, while the do-not-call list takes no numbers; then all is tried again.

        Where that list asked everybody to wait, for longer than this call may take, this request is made nevertheless:
        the list would ask for it again the next time, and they would stay callable.

        One that loses its number keeps it until it is on the list: nobody would know it any more. One that Genesys
        refuses stays as it is there: what becomes of it is decided once its number is on the list.

        Raises:
            ConsumerError: As `Contacts.add_all`: they are not held, or nobody knows.
        """
        if not contacts:
            return
        try:
            await self._contacts.add_all([*contacts.values()], deadline, sure, paid=paid)
        except InUse:
            raise  # it can be held later, and not by waiting for the list
        except NoRoom:
            with suppress(NoRoom):  # who is gone since it was read is called by nobody
                await self._hold_as_they_are(list(contacts), deadline, sure, paid=paid)
        except RefusedByGenesys:
            if len(contacts) > 1:
                raise
            with suppress(RefusedByGenesys):
                await self._hold_as_they_are(list(contacts), deadline, sure, paid=paid)

    async def is_held(self, ids: Sequence[str], deadline: float, sure: Sure) -> bool:
        """Have nobody call these; whether that is so. A delete may be what Genesys does where it takes no change."""
        try:
            await self._hold_as_they_are(ids, deadline, sure)
        except (RefusedByGenesys, SinkUnavailable, Throttled):
            return False
        return True

    async def _hold_as_they_are(self, ids: Sequence[str], deadline: float, sure: Sure, *, paid: bool = False) -> None:
        """Have nobody call those of these that Genesys has."""
        there = await self._contacts.read_all(ids, deadline, paid=paid)
        if there:
            await self._contacts.add_all([*self.as_they_are(there).values()], deadline, sure, paid=paid)
