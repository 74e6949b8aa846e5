"""The contact list as the pipeline's `Sink`: contacts as Genesys knows them, added, deleted and amended.

Touches Genesys through the client.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn, Self

import orjson
from msgspec import Struct
from msgspec.json import Decoder, Encoder
from opentelemetry.trace import Tracer

from consumer.adapters.genesys import limits
from consumer.adapters.genesys.answers import NO_CONTACT
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import LIST_PATH, columns, open_list
from consumer.adapters.genesys.dnc_list import DncList
from consumer.adapters.genesys.exports import exported
from consumer.adapters.genesys.transport import Endpoint, OnRequest
from consumer.adapters.genesys.uploads import GenesysUploads, import_status
from consumer.columns import PHONE, data_of, shown
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Throttle
from consumer.errors import (
    ConsumerError,
    InUse,
    NoneCameBack,
    NoRoom,
    RefusedByGenesys,
    SinkUnavailable,
    Throttled,
    Withheld,
)
from consumer.model import Amendment, Contact, ExportedContact
from consumer.ports import Amended, Current, Sure, always, whatever_is_there
from consumer.settings import Settings

ADD_CONTACTS = Endpoint("add_contacts", "POST", f"{LIST_PATH}/contacts", "outbound:contact:add")
DELETE_CONTACTS = Endpoint("delete_contacts", "DELETE", f"{LIST_PATH}/contacts", "outbound:contact:delete")
READ_CONTACTS = Endpoint("read_contacts", "POST", f"{LIST_PATH}/contacts/bulk", "outbound:contact:view")

KEEP_QUEUE = {"doNotQueue": "true"}
"""A contact that was dialled already is not dialled again because its data came again."""

_Data = dict[str, str | None]
_DOES_NOT_MATCH = "the answer does not match: it holds other contacts than were asked for"
_READ_AT_ONCE = 50

OF_BLOCKING = 0.5
"""Share of the time that a call has left for the do-not-call list, or for a delete; the rest is for whom nobody may
call where these come to nothing."""


class _Contact(Struct, rename="camel", gc=False):
    """A contact as Genesys' API writes it."""

    id: str
    contact_list_id: str
    callable: bool
    data: dict[str, str]


class _Named(Struct, gc=False):
    """Which contact it is, and whether it is callable, as far as an answer tells."""

    id: str
    callable: bool | None = None


class _Held(NamedTuple):
    """A contact as Genesys has it: its data, and whether it is callable."""

    data: _Data
    callable: object


class _Merged(NamedTuple):
    """An amended contact, its encoding, and its phone number, or the one that Genesys still has if that is cleared."""

    amended: Amended
    encoded: bytes
    callable: bool
    number: str


_encode = Encoder().encode
_named = Decoder(list[_Named]).decode
"""Reads which contacts an array holds, and not their data: a third of the time that a hundred of them would take."""


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
        self._dnc_list = dnc_list
        self._releases = releases
        self._list_id = list_id
        self._path = {"contactListId": list_id}
        self._columns = tuple(column_names)

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
        return self._encoded(contact_id(contact.external_id), data_of(contact), callable_=callable_)

    async def upsert(
        self,
        contacts: Sequence[bytes],
        sure: Sure = always,
        withdrawn: Sequence[Contact] = (),
        granted: Sequence[Contact] = (),
    ) -> Collection[str]:
        deadline = self._client.deadline()
        until = _part(deadline)
        kept = await self._numberless(withdrawn, until, deadline, sure)
        blocked = [each.phone for each in withdrawn] + [held.data.get(PHONE) or "" for held in kept.values()]
        try:
            await self._block(blocked, until, sure)
        except ConsumerError as error:
            await self._hold(self._not_callable(withdrawn) | self._as_they_are(kept), deadline, sure, paid=True)
            raise Withheld(error, {each.external_id for each in withdrawn}) from error
        kept_numbers = await self._numbers_kept(granted, deadline) if self._releases else {}
        missing = await self._add(contacts, deadline, sure, paid=True)
        if self._dnc_list is not None:
            released = {number for id_, number in kept_numbers.items() if id_ not in missing}
            await self._dnc_list.remove(sorted(released.difference(blocked)), deadline, sure)
        return missing

    async def delete(self, external_ids: Sequence[str], sure: Sure = always, *, tried: bool = False) -> Collection[str]:
        by_id = {contact_id(external_id): external_id for external_id in external_ids}
        return {by_id[id_] for id_ in await self._remove(list(by_id), sure, tried=tried)}

    async def remove(self, contact_ids: Sequence[str], sure: Sure = always) -> Collection[str]:
        return await self._remove(contact_ids, sure, tried=False)

    async def _remove(self, contact_ids: Sequence[str], sure: Sure, *, tried: bool) -> Collection[str]:
        deadline = self._client.deadline()
        held = tried and await self._is_held(contact_ids, _part(deadline), sure)
        failed = await self._delete(contact_ids, deadline if held else _part(deadline), sure)
        if isinstance(failed, SinkUnavailable) and (held or not sure()):
            raise failed  # they are held, or may be somebody else's by now, who asks for the same
        left = await self._read(contact_ids, deadline, paid=False)
        if left:
            await self._add_all([*self._as_they_are(left).values()], deadline, sure)
        in_use_alone = isinstance(failed, InUse) and len(contact_ids) == 1
        if failed is not None and not (in_use_alone and left):
            raise failed  # others can be deleted; and one that does not show may be there, and as it was
        return left.keys()

    def export(self) -> AsyncIterator[Sequence[ExportedContact]]:
        """All contacts of the list, as `consumer.command_ports.ContactExport` has them."""
        return exported(self._client, self._path, self._columns)

    async def amend(
        self,
        amendments: Sequence[Amendment],
        sure: Sure = always,
        withheld: Collection[str] = (),
        current: Current = whatever_is_there,
        numbers: Sequence[str] = (),
        *,
        if_held: Collection[str] = (),
    ) -> Mapping[str, Amended]:
        deadline = self._client.deadline()
        by_id = {contact_id(amendment.external_id): amendment for amendment in amendments}
        found = await self._read(list(by_id), deadline, paid=True)
        seen = [
            (by_id[id_], held, shown(by_id[id_].external_id, self._complete(held.data))) for id_, held in found.items()
        ]
        merged = [self._merged(*each, withheld, if_held) for each in seen if current(each[-1])]
        withdrawn = [each.number for each in merged if not each.amended.contact.callable]
        try:
            await self._block([*numbers, *withdrawn], _part(deadline), sure)
        except ConsumerError as error:
            refused = [each.amended.contact for each in merged if not each.callable]
            kept = {id_: found[id_] for id_ in _numberless(refused)}
            held = self._not_callable(refused) | self._as_they_are(kept)
            await self._hold(held, deadline, sure, paid=isinstance(error, Throttled))
            rejected = [each.external_id for each, number in zip(amendments, numbers, strict=False) if number]
            not_callable = [each.amended.contact for each in merged if not each.amended.contact.callable]
            raise Withheld(error, {*rejected, *(each.external_id for each in not_callable)}) from error
        changed = [each.encoded for each in merged if each.amended.sent]
        if changed:
            await self._add_all(changed, deadline, sure)
        return {each.amended.contact.external_id: each.amended for each in merged}

    async def is_importing(self) -> bool:
        return (await import_status(self._client, self._list_id)).under_way

    async def _delete(
        self, contact_ids: Sequence[str], deadline: float, sure: Sure
    ) -> RefusedByGenesys | SinkUnavailable | None:
        """Delete contacts; the refusal where none was deleted, or why nobody knows whether they are."""
        query = {"contactIds": ",".join(contact_ids)}
        try:
            await self._client.call(
                DELETE_CONTACTS, deadline=deadline, path=self._path, query=query, sure=sure, paid=True
            )
        except RefusedByGenesys as refused:
            if refused.code != NO_CONTACT:  # who is not there is deleted; the others show when they are read
                return refused
        except SinkUnavailable as unanswered:
            return unanswered
        return None

    async def _numbers_kept(self, contacts: Sequence[Contact], deadline: float) -> dict[str, str]:
        """The phone numbers of those that Genesys has with the same number, by id, before it is told anything else."""
        phones = {contact_id(contact.external_id): contact.phone for contact in contacts if contact.phone}
        found = await self._read_all(list(phones), deadline)
        return {id_: phones[id_] for id_, held in found.items() if held.data.get(PHONE) == phones[id_]}

    async def _block(self, numbers: Sequence[str], deadline: float, sure: Sure) -> None:
        """Put numbers on the do-not-call list, before anything else is done for their contacts."""
        known = list(dict.fromkeys(filter(None, numbers)))
        if self._dnc_list is not None and known:
            await self._dnc_list.add(known, deadline, sure)

    async def _numberless(
        self, withdrawn: Sequence[Contact], until: float, deadline: float, sure: Sure
    ) -> dict[str, _Held]:
        """What Genesys has of those that withdraw without a number, by id: theirs have to be on the list too.

        Where it does not tell, nobody calls the others meanwhile.
        """
        if self._dnc_list is None:
            return {}
        try:
            return await self._read_all(_numberless(withdrawn), until)
        except ConsumerError:
            await self._hold(self._not_callable(withdrawn), deadline, sure, paid=True)
            raise

    async def _hold(self, contacts: Mapping[str, bytes], deadline: float, sure: Sure, *, paid: bool) -> None:
        """Have nobody call these, by id, while the do-not-call list takes no numbers; then all is tried again.

        Where that list asked everybody to wait, for longer than this call may take, this request is made nevertheless:
        the list would ask for it again the next time, and they would stay callable.

        One that loses its number keeps it until it is on the list: nobody would know it any more. One that Genesys
        refuses stays as it is there: what becomes of it is decided once its number is on the list.
        """
        if not contacts:
            return
        try:
            await self._add_all([*contacts.values()], deadline, sure, paid=paid)
        except InUse:
            raise  # it can be held later, and not by waiting for the list
        except NoRoom:
            with suppress(NoRoom):  # who is gone since it was read is called by nobody
                await self._hold_as_it_is(list(contacts), deadline, sure, paid=paid)
        except RefusedByGenesys:
            if len(contacts) > 1:
                raise
            with suppress(RefusedByGenesys):
                await self._hold_as_it_is(list(contacts), deadline, sure, paid=paid)

    async def _is_held(self, ids: Sequence[str], deadline: float, sure: Sure) -> bool:
        """Have nobody call these; whether that is so. A delete may be what Genesys does where it takes no change."""
        try:
            await self._hold_as_it_is(ids, deadline, sure)
        except (RefusedByGenesys, SinkUnavailable, Throttled):
            return False
        return True

    async def _hold_as_it_is(self, ids: Sequence[str], deadline: float, sure: Sure, *, paid: bool = False) -> None:
        """Have nobody call those of these that Genesys has."""
        there = await self._read_all(ids, deadline, paid=paid)
        if there:
            await self._add_all([*self._as_they_are(there).values()], deadline, sure, paid=paid)

    def _not_callable(self, contacts: Sequence[Contact]) -> dict[str, bytes]:
        """Those that come with a number, by id, as not callable."""
        return {contact_id(each.external_id): self.encode(each, callable_=False) for each in contacts if each.phone}

    def _as_they_are(self, contacts: Mapping[str, _Held]) -> dict[str, bytes]:
        """Contacts as Genesys has them, by id, but not callable."""
        return {id_: self._encoded(id_, self._complete(held.data), callable_=False) for id_, held in contacts.items()}

    async def _read_all(self, ids: Sequence[str], deadline: float, *, paid: bool = False) -> dict[str, _Held]:
        """What Genesys has of these contacts, by id, in as many requests as it takes."""
        found: dict[str, _Held] = {}
        for start in range(0, len(ids), _READ_AT_ONCE):
            found |= await self._read(ids[start : start + _READ_AT_ONCE], deadline, paid=paid)
        return found

    async def _read(self, ids: Sequence[str], deadline: float, *, paid: bool) -> dict[str, _Held]:
        """What Genesys has of these contacts, at most 50, by id."""
        try:
            answer = await self._client.call(
                READ_CONTACTS, deadline=deadline, path=self._path, body=orjson.dumps(ids), paid=paid
            )
        except RefusedByGenesys as refused:
            if refused.code != NO_CONTACT or len(ids) > 1:  # the others may be there
                raise
            return {}
        if not isinstance(answer, list):
            _does_not_match()
        found: dict[str, _Held] = {}
        for contact in answer:
            match contact:
                case {"id": str(id_), "data": dict(data)} if id_ in ids:
                    found[id_] = _Held(data, contact.get("callable"))
                case _:
                    _does_not_match()
        return found

    async def _add_all(self, contacts: Sequence[bytes], deadline: float, sure: Sure, *, paid: bool = False) -> None:
        """Add contacts that all have to come back in the answer."""
        if await self._add(contacts, deadline, sure, paid=paid):
            _does_not_match()

    async def _add(self, contacts: Sequence[bytes], deadline: float, sure: Sure, *, paid: bool) -> Collection[str]:
        """Add contacts; the ids of those that do not come back, or come back as callable otherwise than they were sent.

        Where an answer does not tell whether they are callable, it is taken for what was sent.
        """
        body = b"[" + b",".join(contacts) + b"]"
        added = await self._client.call(
            ADD_CONTACTS,
            deadline=deadline,
            path=self._path,
            query=KEEP_QUEUE,
            body=body,
            sure=sure,
            paid=paid,
            parse=_named,
        )
        if not isinstance(added, list):
            _does_not_match()
        sent = _named(body)
        if added == sent:  # as they nearly always are
            return ()
        told = {each.id: each.callable for each in added}
        missing = {each.id for each in sent if told.get(each.id, not each.callable) is (not each.callable)}
        if missing and len(missing) == len(contacts):
            raise NoneCameBack(_DOES_NOT_MATCH)
        return missing

    def _merged(
        self,
        amendment: Amendment,
        held: _Held,
        seen: Contact,
        withheld: Collection[str],
        if_held: Collection[str],
    ) -> _Merged:
        """What an amendment makes of a contact; sent when it differs from what Genesys has, or withdraws."""
        contact = amendment.onto(seen)
        is_held = held.callable is False and seen.callable
        barred = amendment.external_id in withheld or (is_held and amendment.external_id in if_held)
        callable_ = contact.callable and not barred
        differs = held.callable is not callable_ or self._complete(held.data) != data_of(contact)
        in_any_case = amendment.withdraws or amendment.external_id in withheld
        amended = Amended(contact, in_any_case or differs, is_held)
        return _Merged(amended, self.encode(contact, callable_=callable_), callable_, contact.phone or seen.phone)

    def _complete(self, has: _Data) -> dict[str, str]:
        """Data as it was read, with a value in every column: Genesys takes no other."""
        return {column: str(has.get(column) or "") for column in self._columns}

    def _encoded(self, id_: str, data: dict[str, str], *, callable_: bool) -> bytes:
        return _encode(_Contact(id_, self._list_id, callable_, data))


def _numberless(contacts: Sequence[Contact]) -> list[str]:
    """Genesys' ids of those that come without a phone number."""
    return [contact_id(contact.external_id) for contact in contacts if not contact.phone]


def _part(deadline: float) -> float:
    """When the do-not-call list or a delete must have been answered, so that there is time left without it."""
    now = asyncio.get_running_loop().time()
    return now + OF_BLOCKING * max(0.0, deadline - now)


def _does_not_match() -> NoReturn:
    raise SinkUnavailable(_DOES_NOT_MATCH)
