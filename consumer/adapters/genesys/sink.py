"""The contact list as the pipeline's `Sink`: contacts upserted, deleted and amended, their numbers blocked first.

Answers for the order of the requests of a call, and for nobody being callable whose number could not be blocked.
Touches Genesys through the client.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Self

from opentelemetry.trace import Tracer

from consumer.adapters.genesys import limits
from consumer.adapters.genesys.blocking import Blocking, Owner, part, without_number
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import columns, open_list
from consumer.adapters.genesys.contacts import Contacts, Held, encoded
from consumer.adapters.genesys.dnc_list import DncList
from consumer.adapters.genesys.exports import exported
from consumer.adapters.genesys.holding import Holding
from consumer.adapters.genesys.transport import OnRequest
from consumer.adapters.genesys.uploads import GenesysUploads, import_status
from consumer.columns import PHONE, data_of, shown
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import ConsumerError, InUse, SinkUnavailable, Throttled, Withheld
from consumer.model import Amendment, Contact, ExportedContact
from consumer.ports import Amended, Current, NumberRefused, Sure, always, told_nobody, whatever_is_there
from consumer.settings import Settings


class _Merged(NamedTuple):
    """An amended contact, its encoding, and its phone number, or the one that Genesys still has if that is cleared."""

    amended: Amended
    encoded: bytes
    callable: bool
    number: str


class GenesysSink:
    """A contact list in Genesys Cloud, a `consumer.ports.Sink`. Each call is over within one request's time limit.

    The throttle must know of the first request of each call; it is asked for the others.

    Use `open`, and `close` at the end.
    """

    def __init__(
        self,
        client: Client,
        list_id: str,
        column_names: Sequence[str],
        dnc_list: DncList | None = None,
        *,
        releases: bool = False,
    ) -> None:
        self._client = client
        self._list_id = list_id
        self._columns = tuple(column_names)
        self._contacts = Contacts(client, list_id, self._columns)
        self._holding = Holding(self._contacts)
        self._blocking = Blocking(dnc_list, self._contacts, self._holding, releases=releases)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        on_request: OnRequest,
        tracer: Tracer,
        throttle: Throttle,
        create: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Log in, and find or create the contact list.

        Args:
            settings: Hosts, credentials, limits, the list and its columns.
            on_request: Told of each physical request: operation, HTTP status or error, seconds.
            tracer: Makes one CLIENT span for each physical request.
            throttle: The limit of requests, on the event loop's clock.
            create: Whether a contact list that does not exist is made.
            monotonic: Clock of the token's expiry, in seconds.

        Raises:
            FatalError: Wrong credentials, a missing permission, or a list that cannot be used.
            TransientError: Not now; it may be called again.
        """
        client = Client(settings, on_request=on_request, tracer=tracer, monotonic=monotonic, throttle=throttle)
        try:
            list_id = await open_list(client, settings, create=create)
            name = settings.genesys_dnc_list
            dnc_list = None if name is None else await DncList.open(client, name)
        except BaseException:
            await client.close()
            raise
        return cls(client, list_id, columns(settings), dnc_list, releases=settings.genesys_dnc_release)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def uploads(self, upload_url: str) -> GenesysUploads:
        """The way into the same list by file; `upload_url` is the host of the older form."""
        return GenesysUploads(self._client, self._list_id, self._columns, upload_url)

    async def follow_limit(self) -> None:
        """Keep to the limit of requests that Genesys tells, as far as it does, until cancelled."""
        await limits.follow(self._client)

    @property
    def contact_list_id(self) -> str:
        """Genesys' id of the list."""
        return self._list_id

    def encode(self, contact: Contact, *, callable_: bool) -> bytes:
        return encoded(contact_id(contact.external_id), self._list_id, data_of(contact), callable_=callable_)

    async def upsert(
        self,
        contacts: Sequence[bytes],
        sure: Sure = always,
        withdrawn: Sequence[Contact] = (),
        granted: Sequence[Contact] = (),
        *,
        asks: bool = True,
        number_refused: NumberRefused = told_nobody,
    ) -> Collection[str]:
        deadline = self._client.deadline()
        until = part(deadline)
        kept = await self._blocking.shown_without_number(withdrawn, until, deadline, sure)
        owners: list[Owner] = [(each.external_id, each.phone) for each in withdrawn]
        owners += [(each.external_id, kept[id_].data.get(PHONE)) for id_, each in _by_id(withdrawn, kept).items()]
        try:
            await self._blocking.block(owners, until, sure, number_refused, asks=asks)
        except ConsumerError as error:
            without_numbers = self._holding.not_callable(withdrawn) | self._holding.as_they_are(kept)
            await self._holding.hold(without_numbers, deadline, sure, paid=True)
            raise Withheld(error, {each.external_id for each in withdrawn}, asked=asks) from error
        kept_numbers = await self._blocking.numbers_kept(granted, deadline)
        missing, held = await self._contacts.add(contacts, deadline, sure, paid=True)
        released = {number for id_, number in kept_numbers.items() if id_ not in missing and id_ not in held}
        blocked = {number for _, number in owners}
        await self._blocking.release(released - blocked, deadline, sure)
        return missing

    async def delete(
        self,
        external_ids: Sequence[str],
        sure: Sure = always,
        *,
        tried: bool = False,
        held: Collection[str] = (),
    ) -> Collection[str]:
        by_id = {contact_id(external_id): external_id for external_id in external_ids}
        left = await self._remove(list(by_id), sure, tried=tried, held={*map(contact_id, held)})
        return {by_id[id_] for id_ in left}

    async def remove(
        self, contact_ids: Sequence[str], sure: Sure = always, *, held: Collection[str] = ()
    ) -> Collection[str]:
        return await self._remove(contact_ids, sure, tried=False, held=held)

    async def _remove(
        self, contact_ids: Sequence[str], sure: Sure, *, tried: bool, held: Collection[str]
    ) -> Collection[str]:
        """Delete contacts; who shows yet is held, and told.

        Whoever is written is added where the delete was done and what is read lags behind it. So whom an earlier delete
        held is written again only where he is callable: else each delete would add anew whom it has to delete.
        """
        deadline = self._client.deadline()
        are_held = tried and await self._holding.is_held(contact_ids, part(deadline), sure)
        failed = await self._contacts.delete(contact_ids, deadline if are_held else part(deadline), sure)
        if isinstance(failed, SinkUnavailable) and (are_held or not sure()):
            raise failed  # they are held, or may be somebody else's by now, who asks for the same
        left = await self._contacts.read(contact_ids, deadline, paid=False)
        callable_ = {id_: each for id_, each in left.items() if id_ not in held or each.callable is not False}
        if callable_:
            await self._contacts.add_all([*self._holding.as_they_are(callable_).values()], deadline, sure)
        in_use_alone = isinstance(failed, InUse) and len(contact_ids) == 1
        if failed is not None and not (in_use_alone and left):
            raise failed  # others can be deleted; and one that does not show may be there, and as it was
        return left.keys()

    async def absent(self, external_ids: Sequence[str]) -> Collection[str]:
        by_id = {contact_id(external_id): external_id for external_id in external_ids}
        found = await self._contacts.read_all(list(by_id), self._client.deadline())
        return {external_id for id_, external_id in by_id.items() if id_ not in found}

    def export(self) -> AsyncIterator[Sequence[ExportedContact]]:
        """All contacts of the list, as `consumer.command_ports.ContactExport` has them."""
        return exported(self._client, {"contactListId": self._list_id}, self._columns)

    async def amend(
        self,
        amendments: Sequence[Amendment],
        sure: Sure = always,
        withheld: Collection[str] = (),
        current: Current = whatever_is_there,
        numbers: Sequence[str] = (),
        *,
        if_held: Collection[str] = (),
        asks: bool = True,
        number_refused: NumberRefused = told_nobody,
    ) -> Mapping[str, Amended]:
        deadline = self._client.deadline()
        by_id = {contact_id(amendment.external_id): amendment for amendment in amendments}
        found = await self._contacts.read(list(by_id), deadline, paid=True)
        seen = [
            (by_id[id_], held, shown(by_id[id_].external_id, self._contacts.complete(held.data)))
            for id_, held in found.items()
        ]
        merged = [self._merged(*each, withheld, if_held) for each in seen if current(each[-1])]
        withdrawn = [each for each in merged if not each.amended.contact.callable]
        owners = [(each.external_id, number) for each, number in zip(amendments, numbers, strict=False)]
        owners += [(each.amended.contact.external_id, each.number) for each in withdrawn]
        try:
            await self._blocking.block(owners, part(deadline), sure, number_refused, asks=asks)
        except ConsumerError as error:
            refused = [each.amended.contact for each in merged if not each.callable]
            kept = {id_: found[id_] for id_ in without_number(refused)}
            held = self._holding.not_callable(refused) | self._holding.as_they_are(kept)
            await self._holding.hold(held, deadline, sure, paid=isinstance(error, Throttled))
            rejected = [each.external_id for each, number in zip(amendments, numbers, strict=False) if number]
            waiting = {*rejected, *(each.amended.contact.external_id for each in withdrawn)}
            raise Withheld(error, waiting, asked=asks) from error
        changed = [each.encoded for each in merged if each.amended.sent]
        if changed:
            await self._contacts.add_all(changed, deadline, sure)
        return {each.amended.contact.external_id: each.amended for each in merged}

    async def is_importing(self) -> bool:
        return (await import_status(self._client, self._list_id)).under_way

    def _merged(
        self,
        amendment: Amendment,
        held: Held,
        seen: Contact,
        withheld: Collection[str],
        if_held: Collection[str],
    ) -> _Merged:
        """What an amendment makes of a contact; sent when it differs from what Genesys has, or withdraws."""
        contact = amendment.onto(seen)
        is_held = held.callable is False and seen.callable
        barred = amendment.external_id in withheld or (is_held and amendment.external_id in if_held)
        callable_ = contact.callable and not barred
        differs = held.callable is not callable_ or self._contacts.complete(held.data) != data_of(contact)
        in_any_case = amendment.withdraws or amendment.external_id in withheld
        amended = Amended(contact, in_any_case or differs, is_held)
        return _Merged(amended, self.encode(contact, callable_=callable_), callable_, contact.phone or seen.phone)


def _by_id(contacts: Sequence[Contact], ids: Collection[str]) -> dict[str, Contact]:
    """Those contacts that have one of Genesys' ids, by it."""
    return {id_: each for each in contacts if (id_ := contact_id(each.external_id)) in ids} if ids else {}
