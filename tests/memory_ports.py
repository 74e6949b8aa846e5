"""The ports in memory: a world of Kafka, RocksDB and Genesys that survives the death of a pipeline.

`World` is what is durable. The ports are what one process holds of it; a new process gets new ports on the same world.
Every effect passes `World.step`, where a test may let the process die before or after it.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
from msgspec.structs import asdict

from consumer.core.contact_id import contact_id
from consumer.errors import InUse, NoneCameBack, NoRoom, RefusedByGenesys, SinkUnavailable
from consumer.formats import SchemaReference
from consumer.model import Amendment, Contact, ExportedContact, Record, Settlement, TopicPartition
from consumer.ports import (
    Amended,
    Assigned,
    Breadcrumb,
    ChangelogChunk,
    Current,
    Lost,
    NumberRefused,
    Polled,
    Revoked,
    SettledRecord,
    SourceEvent,
    StoreWrite,
    Sure,
    always,
    nothing,
    told_nobody,
    whatever_is_there,
)
from tests.virtual_time import TURN_S, passes

SCHEMA = (Path(__file__).parent.parent / "schemas" / "crm_contact_change.avsc").read_text()

FETCH_S = 20 * TURN_S
"""What it takes to fetch a schema: polls that are under way meanwhile come in."""


class Killed(BaseException):
    """The process dies here."""


class World:
    """What outlives a process.

    Attributes:
        log: Records of each source partition.
        committed: Next offset of the group, by partition.
        audit: Keys and values of the audit topic.
        dead_letters: Of the dead letter topic.
        changelog: Entries of each partition's changelog.
        stores: Entries and position of each partition's store on disk.
        list: The contact list in Genesys, by external id.
        sent: Every applied request: operation and external ids.
        poison: External ids whose data Genesys refuses.
        refusal: What it says of them; unless a test says more, not who of them it is.
        unanswered: External ids for which an upsert or amendment gets no usable answer, and is not done.
        full: Whether no contact is taken that is not in the list yet.
        left_out: External ids that an answer to an upsert leaves out: of them nothing is done.
        in_use: External ids that Genesys does not delete now.
        refuses_in_use: Whether it then deletes none of a request, and says so; otherwise it leaves them out.
        delete_refusal: What it says of every delete; None does them.
        unseen: External ids that cannot be read back yet.
        lagging: What is read back of contacts that have changed since.
        read_lag: Seconds for which a delete that reads back sees contacts as they were before a write.
        clock: Monotonic seconds, for that.
        blocked: Numbers on the do-not-call list.
        refused_numbers: Those that it refuses.
        answer: Called for each request before its effect; may raise.
        answer_lost: Upserts are applied, and their answers do not come.
        on_upsert: Told the contacts of each upsert before its effect.
        requested: External ids of every request made.
        pending_import: Contacts of a file that Genesys imports after it was asked so often whether it does.
        latency: Seconds that a request takes.
        connecting: Seconds that pass before one is written.
        poll_records: Records of a poll, unless a source says otherwise.
        lives: Pipelines that have worked on it.
    """

    def __init__(self) -> None:
        self.log: dict[TopicPartition, list[Record]] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.audit: list[tuple[bytes, bytes]] = []
        self.dead_letters: list[tuple[Record, str]] = []
        self.changelog: dict[TopicPartition, list[tuple[bytes, bytes | None]]] = defaultdict(list)
        self.stores: dict[TopicPartition, tuple[dict[bytes, bytes], int]] = {}
        self.list: dict[str, dict[str, object]] = {}
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.poison: set[str] = set()
        self.refusal = RefusedByGenesys("contact.datum.length.limit.exceeded")
        self.unanswered: set[str] = set()
        self.full = False
        self.left_out: set[str] = set()
        self.in_use: set[str] = set()
        self.refuses_in_use = False
        self.delete_refusal: RefusedByGenesys | None = None
        self.unseen: set[str] = set()
        self.lagging: dict[str, dict[str, object]] = {}
        self.read_lag = 0.0
        self.clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
        self._shows: dict[str, list[tuple[float, dict[str, object] | None]]] = defaultdict(list)
        self.blocked: set[str] = set()
        self.refused_numbers: set[str] = set()
        self.answer: Callable[[], None] = lambda: None
        self.answer_lost = False
        self.on_upsert: Callable[[list[dict[str, Any]]], None] = lambda _: None
        self.requested: list[tuple[str, ...]] = []
        self.pending_import: tuple[int, list[dict[str, Any]]] = (0, [])
        self.latency = 0.01
        self.connecting = 0.0
        self.poll_s = 0.004
        self.poll_records = 7
        self.lives = 0
        self.steps = 0
        self.die_at: int | None = None
        self.die_after_effect = False
        self.in_flight: Counter[str] = Counter()

    @contextmanager
    def step(self) -> Iterator[None]:
        """One call of a port: the place where a process may die, before or after the effect."""
        self.steps += 1
        dies = self.steps == self.die_at
        if dies and not self.die_after_effect:
            raise Killed
        yield
        if dies:
            raise Killed

    def append(self, records: Sequence[Record]) -> None:
        """Put records on the source topic."""
        for record in records:
            self.log.setdefault(TopicPartition(record.topic, record.partition), []).append(record)

    def write(self, external_id: str, entry: dict[str, object] | None) -> None:
        """Put an entry into the list, or delete it; reads may lag behind that."""
        if self.read_lag:
            before = self.list.get(external_id)
            self._shows[external_id].append((self.clock() + self.read_lag, before and dict(before)))
        if entry is None:
            self.list.pop(external_id, None)
        else:
            self.list[external_id] = entry

    def shown(self, external_id: str) -> dict[str, object] | None:
        """An entry as a read has it: before the first write that it does not know of yet."""
        unknown = [before for until, before in self._shows[external_id] if until > self.clock()]
        return unknown[0] if unknown else self.list.get(external_id)

    def silence(self, external_ids: Collection[str]) -> None:
        """Give no usable answer if it is one of those contacts."""
        if self.unanswered & set(external_ids):
            raise SinkUnavailable("no usable answer")

    def import_goes_on(self) -> bool:
        """Let the import come a step further; whether it goes on."""
        left, contacts = self.pending_import
        self.pending_import = (left - 1, contacts) if left else (0, [])
        if not left:
            for contact in contacts:
                known = self.list.get(contact["external_id"], {"callable": True})
                self.list[contact["external_id"]] = {"callable": known["callable"], **contact}
        return left > 0

    def events(self, type_: str = "record") -> list[dict[str, Any]]:
        """Audit events as a reader sees them."""
        return [event for _, value in self.audit if (event := orjson.loads(value))["type"] == type_]


class MemorySource:
    """A group consumer that owns every partition, polls `size` records at a time, and can be made to lose some."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.size = world.poll_records
        self._events: asyncio.Queue[SourceEvent] = asyncio.Queue()
        self._positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.leaving: set[TopicPartition] = set()
        self.sure = True
        self.connected = True
        self.missing: set[str] = set()
        self.topic_ids: dict[TopicPartition, str] = {}
        self.recalled: dict[TopicPartition, tuple[int, str]] = {}
        self._woken = asyncio.Event()
        self.assign(list(world.log))

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Give partitions to the consumer."""
        positions = {key: self._world.committed.get(key, 0) for key in partitions}
        ends = {key: len(self._world.log[key]) for key in partitions}
        self._events.put_nowait(Assigned(positions, ends, self.topic_ids))
        self._positions |= positions
        self.paused |= set(partitions)
        self._woken.set()

    async def revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Take partitions away, as the group does: wait until they are let go."""
        released = asyncio.Event()
        for key in partitions:
            del self._positions[key]
        self.leaving |= set(partitions)
        self._events.put_nowait(Revoked(list(partitions), released.set))
        self._woken.set()
        await released.wait()
        self.leaving -= set(partitions)

    def lose(self, partitions: Sequence[TopicPartition], forgotten: Callable[[], None] = nothing) -> None:
        """Take partitions away without asking."""
        for key in partitions:
            del self._positions[key]
        self._events.put_nowait(Lost(list(partitions), forgotten))
        self._woken.set()

    def wake(self) -> None:
        """Records were put on the topics."""
        self._woken.set()

    async def next(self) -> SourceEvent:
        while True:
            self._woken.clear()
            if not self._events.empty():
                return self._events.get_nowait()
            await passes(self._world.poll_s)
            if self._events.empty() and (polled := self._poll()) is not None:
                return polled
            if self._events.empty() and not self._woken.is_set():
                await self._woken.wait()

    def _poll(self) -> Polled | None:
        for key, position in self._positions.items():
            if key not in self.paused and position < len(self._world.log[key]):
                records = self._world.log[key][position : position + self.size]
                self._positions[key] += len(records)
                with self._world.step():
                    return Polled(records)
        return None

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused |= set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.paused -= set(partitions)
        self._woken.set()

    def owns(self, partition: TopicPartition) -> bool:
        return self.sure and (partition in self._positions or partition in self.leaving)

    def recall(self, partition: TopicPartition, next_offset: int, topic_id: str) -> None:
        self.recalled[partition] = (next_offset, topic_id)


class MemoryTopics:
    """Output topics whose transactions are atomic."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.failures: list[Exception] = []

    async def settle(self, settlement: Settlement) -> Mapping[TopicPartition, int]:
        await passes(0.003)
        if self.failures:
            raise self.failures.pop(0)
        with self._world.step():
            self._world.audit.extend(settlement.audit)
            self._world.dead_letters.extend((letter.record, letter.reason) for letter in settlement.dead_letters)
            for key, name, value in settlement.changelog:
                self._world.changelog[key].append((name, value))
            self._world.committed.update(settlement.offsets)
        return {key: len(self._world.changelog[key]) for key, _, _ in settlement.changelog}

    async def changelog(self, partition: TopicPartition, start: int) -> AsyncGenerator[ChangelogChunk, None]:
        entries = self._world.changelog[partition]
        if start < len(entries):
            yield ChangelogChunk([], start, len(entries))  # nothing comes before a consumer is connected
        for begin in range(start, len(entries), 10):
            with self._world.step():
                chunk = entries[begin : begin + 10]
            yield ChangelogChunk(chunk, begin + len(chunk), len(entries))


class MemoryStore:
    """A store whose disk is the world's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: set[TopicPartition] = set()

    async def open(self, partition: TopicPartition) -> int:
        with self._world.step():
            self._open.add(partition)
        return self._world.stores.setdefault(partition, ({}, 0))[1]

    async def reset(self, partition: TopicPartition) -> None:
        with self._world.step():
            self._world.stores[partition] = ({}, 0)

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> list[bytes | None]:
        if partition not in self._open:
            raise AssertionError("a closed store is read")
        entries, _ = self._world.stores[partition]
        return [entries.get(key) for key in keys]

    async def scan(self, partition: TopicPartition, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        if partition not in self._open:
            return []
        entries, _ = self._world.stores[partition]
        return sorted(entry for entry in entries.items() if entry[0] > after)[:limit]

    async def write(self, *writes: StoreWrite) -> None:
        await passes(0.001)
        for each in writes:
            self._write(*each)

    def _write(self, partition: TopicPartition, entries: Sequence[tuple[bytes, bytes | None]], position: int) -> None:
        if partition not in self._open:
            raise AssertionError("a closed store is written")
        with self._world.step():
            held, _ = self._world.stores[partition]
            for key, value in entries:
                if value is None:
                    held.pop(key, None)
                else:
                    held[key] = value
            self._world.stores[partition] = (held, position)

    async def close(self, *partitions: TopicPartition) -> None:
        self._open.difference_update(partitions)


class MemorySchemas:
    """Schema 1 is the packaged one; others as a test says. To fetch one takes some turns of the loop."""

    def __init__(self, answers: Mapping[SchemaReference, Sequence[str | Exception | None]] | None = None) -> None:
        self._answers = {key: list(value) for key, value in (answers or {}).items()}

    async def fetch(self, reference: SchemaReference) -> str | None:
        await passes(FETCH_S)
        answers = self._answers.get(reference)
        if answers is None:
            return SCHEMA if reference == 1 else None
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class MemoryBreadcrumbs:
    """Found breadcrumbs are a test's; those that are laid are kept until they are lifted."""

    def __init__(self, *found: Breadcrumb) -> None:
        self.found = found
        self.laid: Breadcrumb | None = None

    def lay(self, crumb: Breadcrumb) -> None:
        self.laid = crumb

    def lift(self) -> None:
        self.laid = None


class MemorySink:
    """A contact list that refuses poison, and fails when a contact is in two requests at once."""

    contact_list_id = "11111111-2222-4333-8444-555555555555"

    def __init__(self, world: World) -> None:
        self._world = world

    def encode(self, contact: Contact, *, callable_: bool) -> bytes:
        return orjson.dumps({"externalId": contact.external_id, "callable": callable_, "data": asdict(contact)})

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
        bodies = {body["externalId"]: body for raw in contacts for body in [orjson.loads(raw)]}
        self._world.on_upsert(list(bodies.values()))
        async with self._request("upsert", list(bodies), sure):
            blocked = {contact.phone for contact in withdrawn} - self._world.refused_numbers
            self._block(((contact.external_id, contact.phone) for contact in withdrawn), number_refused)
            self._world.silence(bodies)
            if self._world.full and bodies.keys() - self._world.list.keys():
                raise NoRoom("no room", "contacts.per.org.limit.exceeded")
            if self._world.poison & set(bodies):
                raise self._world.refusal
            left_out = self._world.left_out & bodies.keys()
            kept = [each for each in granted if self._has_number(each) and each.external_id not in left_out]
            self._world.blocked -= {each.phone for each in kept} - blocked
            for external_id in bodies.keys() - left_out:
                body = bodies[external_id]
                self._world.write(external_id, {"callable": body["callable"], **body["data"]})
        if self._world.answer_lost:
            raise SinkUnavailable("no answer, and applied")
        if left_out and left_out == bodies.keys():
            raise NoneCameBack("all left out")
        return {contact_id(external_id) for external_id in left_out}

    async def delete(
        self,
        external_ids: Sequence[str],
        sure: Sure = always,
        *,
        tried: bool = False,
        held: Collection[str] = (),
    ) -> Collection[str]:
        async with self._request("delete", external_ids, sure):
            if self._world.delete_refusal is not None:
                raise self._world.delete_refusal
            kept = self._world.in_use & self._world.list.keys() & set(external_ids)
            none_deleted = bool(kept) and self._world.refuses_in_use
            for external_id in () if none_deleted else set(external_ids) - kept:
                self._world.write(external_id, None)
            left = {name: shown for name in external_ids if (shown := self._world.shown(name)) is not None}
            for external_id, shown in left.items():
                if external_id not in held or shown["callable"]:
                    self._world.write(external_id, {**shown, "callable": False})
            if none_deleted and len(external_ids) > 1:
                raise InUse
        return left.keys()

    async def remove(
        self, contact_ids: Sequence[str], sure: Sure = always, *, held: Collection[str] = ()
    ) -> Collection[str]:
        by_id = {id_of(name, entry): name for name, entry in self._world.list.items()}
        known = [id_ for id_ in contact_ids if id_ in by_id]
        left = await self.delete([by_id[id_] for id_ in known], sure, held=[by_id[id_] for id_ in known if id_ in held])
        return {id_ for id_ in known if by_id[id_] in left}

    async def absent(self, external_ids: Sequence[str]) -> Collection[str]:
        await passes(self._world.latency)
        return set(external_ids) - self._world.list.keys()

    async def export(self) -> AsyncIterator[Sequence[ExportedContact]]:
        """The list, some contacts at a time, as it is now."""
        rows = [_row(name, entry) for name, entry in self._world.list.items()]
        for begin in range(0, len(rows), 7):
            await passes(0.001)
            yield rows[begin : begin + 7]

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
        amended = {}
        async with self._request("amend", [amendment.external_id for amendment in amendments], sure):
            self._world.silence([amendment.external_id for amendment in amendments])
            owners = zip((each.external_id for each in amendments), numbers, strict=False)
            self._block(((owner, number) for owner, number in owners if number), number_refused)
            seen = [each for each in amendments if each.external_id in self._world.list.keys() - self._world.unseen]
            for amendment in seen:
                held = self._world.lagging.get(amendment.external_id, self._world.list[amendment.external_id])
                columns = {name: value for name, value in held.items() if name != "callable"}
                shown = Contact(**columns)  # type: ignore[arg-type]
                if current(shown):
                    is_held = held["callable"] is False and shown.callable
                    barred = {*withheld, *(if_held if is_held else ())}
                    contact = amendment.onto(shown)
                    if not contact.callable:
                        self._block([(contact.external_id, contact.phone)], number_refused)
                    sent = self._amend(amendment, held, shown, withheld, barred)
                    amended[amendment.external_id] = Amended(amendment.onto(shown), sent, is_held)
        if self._world.answer_lost:
            raise SinkUnavailable("no answer, and applied")
        return amended

    def _amend(
        self,
        amendment: Amendment,
        held: dict[str, object],
        shown: Contact,
        withheld: Collection[str],
        barred: Collection[str],
    ) -> bool:
        """Amend a contact; whether anything was sent for that."""
        contact = amendment.onto(shown)
        body = {"callable": contact.callable and amendment.external_id not in barred, **asdict(contact)}
        sent = amendment.withdraws or amendment.external_id in withheld or body != held
        if sent and amendment.external_id in self._world.poison:
            raise self._world.refusal
        if sent:
            self._world.list[amendment.external_id] = body
        return sent

    def _block(self, owners: Iterable[tuple[str, str]], number_refused: NumberRefused) -> None:
        for external_id, number in owners:
            if number in self._world.refused_numbers:
                number_refused(external_id, "invalid.value")
            else:
                self._world.blocked.add(number)

    def _has_number(self, contact: Contact) -> bool:
        return self._world.list.get(contact.external_id, {}).get("phone") == contact.phone

    async def is_importing(self) -> bool:
        await passes(self._world.latency)
        return self._world.import_goes_on()

    @asynccontextmanager
    async def _request(self, operation: str, external_ids: Sequence[str], sure: Sure) -> AsyncIterator[None]:
        """One request under way: the body is its effect."""
        world = self._world
        if world.connecting:
            await passes(world.connecting)
        if not sure():
            raise SinkUnavailable("not sent")
        world.requested.append(tuple(external_ids))
        world.in_flight.update(external_ids)
        try:
            twice = [name for name in external_ids if world.in_flight[name] > 1]
            assert not twice, f"contacts in two requests at once: {twice}"
            await passes(world.latency)
            world.answer()
            with world.step():
                yield
                world.sent.append((operation, tuple(external_ids)))
        finally:
            world.in_flight.subtract(external_ids)


def id_of(name: str, entry: Mapping[str, Any]) -> str:
    """Genesys' id of an entry of the list: the usual one, unless a test gave it another."""
    return entry.get("contact_id") or contact_id(name)


def _row(name: str, entry: Mapping[str, Any]) -> ExportedContact:
    flags = tuple(str(entry[flag]).lower() for flag in ("consent", "do_not_call"))
    attributes = entry["attributes"].values()
    return ExportedContact(
        id_of(name, entry),
        entry["callable"],
        (entry["external_id"], entry["phone"], entry["email"], *flags, *attributes),
    )


class MemoryHistory:
    """What the world's topics hold."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.consumers = 0

    async def committed(self) -> Mapping[TopicPartition, int]:
        return {key: self._world.committed.get(key, 0) for key in self._world.log}

    async def empty(self) -> Collection[TopicPartition]:
        return [key for key, log in self._world.log.items() if not log]

    async def ends(self) -> Mapping[TopicPartition, int]:
        return {key: log[-1].offset + 1 if log else 0 for key, log in self._world.log.items()}

    async def members(self) -> int:
        return self.consumers

    async def changelog_ends(self) -> Mapping[TopicPartition, int]:
        return {key: len(entries) for key, entries in self._world.changelog.items()}

    def changelog(self, partition: TopicPartition) -> AsyncIterator[ChangelogChunk]:
        return MemoryTopics(self._world).changelog(partition, 0)

    async def read(self, partition: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        records = [record for record in self._world.log[partition] if start <= record.offset < end]
        for begin in range(0, len(records), 7):
            yield records[begin : begin + 7]


class SilentTelemetry:
    """Takes everything, keeps what tests look at."""

    def __init__(self) -> None:
        self.gaps: list[TopicPartition] = []
        self.retries: Counter[str] = Counter()
        self.epochs: Counter[TopicPartition] = Counter()
        self.search_requests = 0
        self.refused_contacts = 0
        self.refused_withdrawals: Counter[str] = Counter()
        self.settled_records: list[SettledRecord] = []

    @contextmanager
    def poll_span(self, records: int) -> Iterator[None]:
        yield

    @contextmanager
    def batch_span(self, operation: str, batch_id: str, size: int, headers: Sequence[bytes]) -> Iterator[str | None]:
        yield None

    @contextmanager
    def settle_span(self, records: int) -> Iterator[None]:
        yield

    def batch_sent(self, size: int, status: str, seconds: float) -> None:
        return

    def on_retry(self, reason: str) -> None:
        self.retries[reason] += 1

    def searched(self, *, found: bool) -> None:
        self.search_requests += 1
        self.refused_contacts += found

    def withdrawal_refused(self, what: str) -> None:
        self.refused_withdrawals[what] += 1

    def settled(self, records: Sequence[SettledRecord], now: float, seconds: float) -> None:
        self.settled_records += records

    def restored(self, seconds: float) -> None:
        return

    def offset_gap(self, partition: TopicPartition) -> None:
        self.gaps.append(partition)

    def source_epoch_began(self, partition: TopicPartition) -> None:
        self.epochs[partition] += 1


def outage(times: int, error: Exception) -> Callable[[], None]:
    """A Genesys that answers the next `times` requests with an error."""
    left = [times]

    def answer() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error

    return answer
