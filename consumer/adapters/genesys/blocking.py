"""Puts the numbers of contacts on the do-not-call list, and takes them off, where there is such a list.

Answers for which numbers these are: those that contacts come with, and those that Genesys has of who comes without one.
Touches Genesys through the list and through `contacts`.
"""

import asyncio
from collections.abc import Collection, Sequence

from consumer.adapters.genesys.contacts import Contacts, Held
from consumer.adapters.genesys.dnc_list import DncList
from consumer.adapters.genesys.holding import Holding
from consumer.columns import PHONE
from consumer.core.contact_id import contact_id
from consumer.errors import ConsumerError, SinkUnavailable
from consumer.model import Contact
from consumer.ports import NumberRefused, Sure

OF_BLOCKING = 0.5
"""Share of the time that a call has left for the do-not-call list, or for a delete; the rest is for whom nobody may
call where these come to nothing."""

Owner = tuple[str, str | None]
"""An external id, and the phone number of that contact, if any."""


class Blocking:
    """Blocks numbers of contacts of one list.

    Args:
        dnc_list: Where they go; None: nowhere.
        contacts: Of the contact list.
        holding: Has nobody call them.
        releases: Whether numbers are taken off when consent is granted anew.
    """

    def __init__(
        self, dnc_list: DncList | None, contacts: Contacts, holding: Holding, *, releases: bool = False
    ) -> None:
        self._dnc_list = dnc_list
        self._contacts = contacts
        self._holding = holding
        self._releases = releases

    async def shown_without_number(
        self, withdrawn: Sequence[Contact], until: float, deadline: float, sure: Sure
    ) -> dict[str, Held]:
        """What Genesys has of those that withdraw without a number, by id: theirs have to be on the list too.

        Where it does not tell, nobody calls the others meanwhile.

        Args:
            withdrawn: All that withdraw.
            until: When it must have told, on the event loop's clock.
            deadline: When the call must be over.
            sure: As for `Contacts`.

        Raises:
            ConsumerError: It does not tell.
        """
        if self._dnc_list is None:
            return {}
        try:
            return await self._contacts.read_all(without_number(withdrawn), until)
        except ConsumerError:
            await self._holding.hold(self._holding.not_callable(withdrawn), deadline, sure, paid=True)
            raise

    async def block(
        self, owners: Sequence[Owner], deadline: float, sure: Sure, number_refused: NumberRefused, *, asks: bool
    ) -> None:
        """Put numbers on the list, before anything else is done for their contacts.

        Args:
            owners: Whose numbers.
            deadline: When it must be over, on the event loop's clock.
            sure: As for `DncList.add`.
            number_refused: Told of each owner whose number Genesys refuses alone, with its code.
            asks: Whether the list is asked: others may wait for it already.

        Raises:
            ConsumerError: As `DncList.add`, or nobody asked.
        """
        numbers = list(dict.fromkeys(number for _, number in owners if number))
        if self._dnc_list is None or not numbers:
            return
        if not asks:
            raise SinkUnavailable("others wait for the do-not-call list already")
        refused = await self._dnc_list.add(numbers, deadline, sure)
        for external_id, number in owners:
            if code := refused.get(number or ""):
                number_refused(external_id, code)

    async def numbers_kept(self, granted: Sequence[Contact], deadline: float) -> dict[str, str]:
        """By id, the numbers that Genesys already shows for these contacts: only these may be taken off the list.

        Asked before the upsert, which would overwrite them; none where no number is taken off.
        """
        if not self._releases:
            return {}
        phones = {contact_id(contact.external_id): contact.phone for contact in granted if contact.phone}
        found = await self._contacts.read_all(list(phones), deadline)
        return {id_: phones[id_] for id_, held in found.items() if held.data.get(PHONE) == phones[id_]}

    async def release(self, numbers: Collection[str], deadline: float, sure: Sure) -> None:
        """Take numbers off the list, as `DncList.remove`."""
        if self._dnc_list is not None:
            await self._dnc_list.remove(sorted(numbers), deadline, sure)


def without_number(contacts: Sequence[Contact]) -> list[str]:
    """Genesys' ids of those that come without a phone number."""
    return [contact_id(contact.external_id) for contact in contacts if not contact.phone]


def part(deadline: float) -> float:
    """When the do-not-call list or a delete must have been answered, so that there is time left without it."""
    now = asyncio.get_running_loop().time()
    return now + OF_BLOCKING * max(0.0, deadline - now)
