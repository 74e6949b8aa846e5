"""Reconciling in memory: each kind of drift is found and mended, nothing else is touched, and harm is refused."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import asdict, replace
from structlog.testing import capture_logs

from consumer import reconcile_app
from consumer.core import dedupe, fingerprints, state_bytes
from consumer.core.audit import Auditor
from consumer.core.contact_id import contact_id
from consumer.core.delivery import Gate, Throttle
from consumer.core.framing import form
from consumer.errors import (
    ConsumerError,
    FatalError,
    InUse,
    RefusedByGenesys,
    SinkUnavailable,
    SourceUnavailable,
    Throttled,
    Withheld,
)
from consumer.formats import Framing, KeyFormat, SchemaReference
from consumer.model import (
    Amendment,
    ExportedContact,
    Record,
    TopicPartition,
)
from consumer.pipeline.settle import IMPORT_KEY
from consumer.ports import TimeAndChance, always
from consumer.reconcile.mend import ALONE_FOR_S, AT_ONCE, IN_USE_RETRY_S, WITHHELD_TRIES, Mender
from consumer.reconcile.report import Mended, Report
from consumer.reconcile.run import EXPORTS, Reconciliation
from consumer.reconcile.source import SourceTopics
from tests import virtual_time
from tests.envelopes import CONFLUENT
from tests.fills import Fill, MemoryRows, fill, row
from tests.lives import NATIVE, Life, live, settings, world_of
from tests.memory_ports import MemoryHistory, MemorySchemas, MemorySink, MemoryStore, MemoryTopics, World, outage
from tests.stories import TOPIC, Event, Story, random_story

P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
GRANTED, REFUSED_CONSENT, GONE, SUPPRESSED = "granted", "withdrawn", "gone", "suppressed"

KEY_SCHEMA = 2
KEYS: dict[SchemaReference, list[str | Exception | None]] = {
    KEY_SCHEMA: ['{"type": "record", "name": "Key", "fields": [{"name": "id", "type": "string"}]}']
}
AVRO_KEYS = form(TOPIC, Framing.CONFLUENT, KeyFormat.AVRO)

Export = Callable[[], AsyncIterator[Sequence[ExportedContact]]]


def delivered_world(*more: Event) -> World:
    """A world in which forty contacts were delivered, one of each kind among them."""
    told = [Event(f"contact-{n}", 1, phone=f"+1555010{n:04d}") for n in range(36)]
    told += [
        Event(GRANTED, 1),
        Event(REFUSED_CONSENT, 1, consent=False),
        Event(GONE, 1),
        Event(SUPPRESSED, 1),
        Event(GONE, 2, delete=True),
        Event(SUPPRESSED, 2, do_not_call=True, reasons=("consent_conflicts_with_do_not_call",)),
    ]
    world = world_of(Story().tell(0, *told, *more).tell(1, Event("elsewhere", 1)))
    live(world)
    world.sent.clear()
    world.audit.clear()
    return world


def reconcile(
    world: World,
    *,
    apply: bool = False,
    delete_extra: bool = False,
    history: MemoryHistory | None = None,
    export: Export | None = None,
    sink: MemorySink | None = None,
    topics: MemoryTopics | None = None,
    avro_keys: bool = False,
) -> Report:
    """One run in virtual time, on a scratch store of its own."""

    async def main() -> Report:
        clock = asyncio.get_running_loop().time
        asked = history or MemoryHistory(world)
        used = sink or MemorySink(world)
        source = SourceTopics(
            asked,
            MemorySchemas(KEYS),
            form=AVRO_KEYS if avro_keys else CONFLUENT,
            framed_keys=[TOPIC] if avro_keys else [],
            envelopes=NATIVE,
            contact_list_id=used.contact_list_id,
            columns=(),
        )
        mender = Mender(
            sink=used,
            source=source,
            history=asked,
            topics=topics or MemoryTopics(world),
            auditor=Auditor(used.contact_list_id, b""),
            gate=Gate(Throttle(100_000), 1, 10),
            group="group",
            delete_extra=delete_extra,
            times=TimeAndChance(clock, lambda: 1_700_000_000.0 + clock(), lambda: 0.5),
        )
        reconciliation = Reconciliation(
            history=asked,
            source=source,
            store=MemoryStore(World()),
            export=export or used.export,
            contact_list_id=used.contact_list_id,
            attribute_columns=(),
            key=b"key",
        )
        return await reconciliation.run(mender if apply else None)

    return virtual_time.run(main())


def put(world: World, name: str, **entry: Any) -> None:
    """Somebody puts a contact into the list in Genesys."""
    plain = {"external_id": name, "phone": "", "email": "", "consent": True, "do_not_call": False, "attributes": {}}
    world.list[name] = {"callable": True, **plain, **entry}


def edit(world: World, name: str, **entry: Any) -> None:
    """Somebody edits a contact in Genesys."""
    world.list[name] |= entry


def test_a_list_in_step_has_no_drift_whatever_the_story_was() -> None:
    """After random stories with every kind of event the list is what was delivered, and a second look too."""
    for seed in range(5):
        story, poison = random_story(seed)
        world = world_of(story)
        world.poison = set(poison)
        live(world, schema_unknown_timeout_s=0)
        report = reconcile(world)
        assert (report.drift, report.rows, report.pending) == (0, len(world.list), 0)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lambda world: world.list.pop("contact-3"), {"missing": 1}),
        (lambda world: world.list.pop("elsewhere"), {"missing": 1}),
        (lambda world: edit(world, "contact-3", phone="+15559"), {"drifted": 1, "columns": {"phone_number": 1}}),
        (
            lambda world: edit(world, "contact-3", email="x@example.org", do_not_call=True),
            {"drifted": 1, "columns": {"email": 1, "do_not_call": 1}},
        ),
        (lambda world: edit(world, "contact-3", consent="perhaps"), {"drifted": 1, "columns": {"consent_flag": 1}}),
        (lambda world: edit(world, REFUSED_CONSENT, callable=True), {"callable": 1}),
        (
            lambda world: edit(world, REFUSED_CONSENT, callable=True, consent=True),
            {"callable": 1, "columns": {"consent_flag": 1}},
        ),
        (lambda world: edit(world, SUPPRESSED, callable=True), {"callable": 1}),
        (lambda world: put(world, GONE), {"callable": 1}),
        (lambda world: put(world, GONE, callable=False), {"deleted": 1}),
        (lambda world: put(world, "stranger"), {"foreign": 1}),
        (lambda world: put(world, "by hand", external_id="", contact_id="x"), {"foreign": 1, "unnamed": 1}),
        (lambda world: put(world, "twin", external_id="contact-3", contact_id="x"), {"foreign": 1}),
        (lambda world: edit(world, "contact-3", external_id="other"), {"foreign": 1, "missing": 1}),
        (lambda world: edit(world, "contact-3", callable=False), {"held_back": 1}),
        (lambda world: world.list.pop(SUPPRESSED), {}),
    ],
)
def test_each_kind_of_drift_is_told_from_the_others(plant: Callable[[World], None], found: dict[str, Any]) -> None:
    """What somebody did in Genesys is counted as what it is, once, and nothing else is counted."""
    world = delivered_world()
    plant(world)
    report = reconcile(world)
    about_all = {"contact_list_id", "delivered", "rows"}
    assert {name: value for name, value in asdict(report).items() if value and name not in about_all} == found
    assert world.sent == []
    assert world.audit == []


def test_a_contact_counts_once_however_often_its_content_was_told() -> None:
    """Records that say the same explain the same difference, also where they are read together."""
    world = delivered_world(*[Event("often", version) for version in (1, 2, 3)])
    edit(world, "often", phone="+15559")
    report = reconcile(world)
    assert (report.drifted, report.columns) == (1, {"phone_number": 1})


def planted() -> World:
    """A world with one drift of each kind."""
    world = delivered_world()
    del world.list["contact-1"]
    edit(world, "contact-2", phone="+15559")
    edit(world, "contact-4", phone="+15559", callable=False)
    edit(world, "contact-5", callable=False)
    edit(world, "contact-6", external_id="other")
    edit(world, REFUSED_CONSENT, callable=True, consent=True)
    edit(world, SUPPRESSED, callable=True)
    put(world, GONE)
    put(world, "stranger")
    put(world, "by hand", external_id="", contact_id="x")
    return world


def test_apply_brings_the_list_into_step_and_leaves_the_rest_alone() -> None:
    """Missing and drifted contacts are as delivered again, nobody is callable who must not be, extras stay."""
    world, right = planted(), delivered_world().list
    report = reconcile(world, apply=True)
    assert report.mended == Mended(suppressed=2, redelivered=5)
    for name in ("contact-1", "contact-2", "contact-6", REFUSED_CONSENT):
        assert world.list[name] == right[name]
    assert world.list["contact-4"] == right["contact-4"] | {"callable": False}
    assert not world.list[GONE]["callable"]
    assert {"stranger", "by hand"} < world.list.keys()
    again = reconcile(world)
    assert (again.deleted, again.foreign, again.held_back, again.drift) == (1, 2, 2, 3)


def test_delete_extra_removes_what_is_too_many_and_nothing_else() -> None:
    """The second run is in step; the contact whose external id was edited is there, under its id."""
    world, right = planted(), delivered_world().list
    report = reconcile(world, apply=True, delete_extra=True)
    assert report.mended == Mended(suppressed=1, redelivered=5, deleted=3)
    assert world.list.keys() == right.keys()
    assert reconcile(world).drift == 0


def test_who_must_not_be_called_comes_first() -> None:
    """Suppressions, then withdrawals, then everything else, then deletes."""
    world = planted()
    reconcile(world, apply=True, delete_extra=True)
    assert [operation for operation, _ in world.sent] == ["amend", "upsert", "upsert", "delete"]
    assert world.sent[1][1] == (REFUSED_CONSENT,)


def test_a_change_on_its_way_is_not_drift() -> None:
    """Records that are not settled are left to the consumer: sent already, or not yet."""
    world = delivered_world()
    number = len(world.log[P0])
    unsettled = Story().tell(0, *[Event("x", 1)] * number, Event("contact-1", 2, phone="+15559"), Event("new", 1))
    world.append(unsettled.records()[number:])
    edit(world, "contact-1", phone="+15559")
    put(world, "new")
    del world.list["contact-2"]
    report = reconcile(world, apply=True)
    assert (report.pending, report.drift, report.missing) == (2, 1, 1)
    assert world.sent == [("upsert", ("contact-2",))]


@pytest.mark.parametrize("name", [REFUSED_CONSENT, SUPPRESSED, GONE])
def test_who_must_not_be_called_does_not_wait_for_what_is_on_its_way(name: str) -> None:
    """He is made not callable, and nothing else is done to him; what he grants meanwhile applies when it is read."""
    world = delivered_world()
    number = len(world.log[P0])
    world.append(Story().tell(0, *[Event("x", 1)] * number, Event(name, 9)).records()[number:])
    put(world, name, phone="+15559")
    compared = reconcile(world)
    assert (compared.callable, compared.pending) == (0, 1)  # a consumer may have delivered the grant meanwhile
    report = reconcile(world, apply=True, delete_extra=True)
    assert (report.callable, report.pending, report.mended) == (1, 0, Mended(suppressed=1))
    assert (world.list[name]["callable"], world.list[name]["phone"]) == (False, "+15559")
    live(world)
    assert world.list[name]["callable"]


def test_without_its_source_record_a_contact_is_counted_and_not_sent() -> None:
    """Retention removed the record: somebody must have the CRM send the contact again."""
    world = delivered_world()
    del world.list["contact-1"], world.list["contact-2"]
    world.log[P0] = [record for record in world.log[P0] if record.key != b"contact-1"]
    report = reconcile(world, apply=True)
    assert (report.missing, report.source_gone, report.mended) == (2, 1, Mended(redelivered=1))


@pytest.mark.parametrize("no", [{"delete": True}, {"consent": False}], ids=["deleted", "withdrawn"])
@pytest.mark.parametrize(("ahead_s", "days"), [(3_000, 0), (3_000, 30), (300_000, 0)])
def test_the_partition_that_settled_last_has_the_last_word_whatever_the_clock_of_its_producer(
    no: Mapping[str, Any], ahead_s: int, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody was granted in one partition, by a machine whose clock is ahead, and said no in another one."""
    world = delivered_world()
    granted = Story().tell(0, *[Event("c", 1)] * (len(world.log[P0]) + 1)).records()[-1]
    world.append([replace(granted, timestamp_ms=granted.timestamp_ms + ahead_s * 1000)])
    live(world, state_retention_days=days)
    world.append(Story().tell(1, Event("elsewhere", 1), Event("c", 2, **no)).records()[1:])
    monkeypatch.setattr(virtual_time, "EPOCH", virtual_time.EPOCH + 60)
    live(world, state_retention_days=days)
    right = world.list.get("c")
    assert reconcile(world, apply=True).mended == Mended()
    assert world.list.get("c") == right
    assert not (right or {}).get("callable")


def forget_record(world: World, name: str) -> None:
    """Retention removes what the source topic told of a contact."""
    for key, records in world.log.items():
        world.log[key] = [record for record in records if record.key != name.encode()]


def restate(world: World, name: str, **changed: Any) -> None:
    """Have something else known of a contact."""
    identity = fingerprints.identity(name)
    for entries in world.changelog.values():
        if raw := dict(entries).get(identity):
            state = replace(state_bytes.decode(raw), **changed)
            entries.append((identity, state_bytes.encode(state, state_bytes.settled_ms(raw))))


LOADED = "loaded"
EDITS = [{"callable": True, "phone": "+15559"}, {"callable": True, "phone": "+15559", "consent": True}]


@pytest.mark.parametrize("name", [REFUSED_CONSENT, LOADED], ids=["streamed", "from a file"])
@pytest.mark.parametrize("edits", EDITS, ids=["flags as they were", "flags as well"])
def test_who_withdrew_is_made_not_callable_also_without_the_record(name: str, edits: dict[str, Any]) -> None:
    """That the CRM withdrew is known by the state; what else was edited stays, and is told."""
    world = delivered_world()
    fill(world, [row(LOADED, consent=False)])
    forget_record(world, name)
    edit(world, name, **edits)
    report = reconcile(world, apply=True)
    assert (report.callable, report.drifted, report.source_gone, report.drift) == (1, 0, 1, 1)
    assert report.mended == Mended(suppressed=1)
    assert not world.list[name]["callable"]
    again = reconcile(world)
    assert (again.callable, again.drifted, again.source_gone) == (0, 1, 1)


def test_who_withdrew_is_brought_into_step_by_one_run_where_the_record_is_there() -> None:
    """Not callable, and every column as it was delivered."""
    world, right = delivered_world(), delivered_world().list
    edit(world, REFUSED_CONSENT, callable=True, consent=True, phone="+15559")
    report = reconcile(world, apply=True)
    assert (report.callable, report.drifted, report.columns) == (1, 0, {"phone_number": 1, "consent_flag": 1})
    assert report.mended == Mended(redelivered=1)
    assert world.list == right


@pytest.mark.parametrize("flags", [{"consent": False}, {"consent": "TRUE", "do_not_call": "yes"}, {"consent": ""}])
def test_where_the_crm_s_word_is_not_known_the_flags_in_genesys_count_against_calling(flags: dict[str, Any]) -> None:
    """A state that does not say who may be called, and no record: who is callable against his flags is made not so."""
    world = delivered_world()
    restate(world, "contact-3", callable=None)
    forget_record(world, "contact-3")
    edit(world, "contact-3", phone="+15559", **flags)
    report = reconcile(world, apply=True)
    assert (report.callable, report.source_gone, report.mended) == (1, 1, Mended(suppressed=1))
    assert not world.list["contact-3"]["callable"]


def test_where_the_crm_s_word_is_not_known_flags_that_let_call_are_believed() -> None:
    """Nothing speaks against calling."""
    world = delivered_world()
    restate(world, "contact-3", callable=None)
    forget_record(world, "contact-3")
    edit(world, "contact-3", phone="+15559", consent="True", do_not_call="")
    report = reconcile(world, apply=True)
    assert (report.callable, report.drifted, report.mended) == (0, 1, Mended())


@pytest.mark.parametrize("known", [True, None])
def test_whom_the_crm_lets_be_called_is_not_made_not_callable(known: bool | None) -> None:
    """Somebody edits a flag in Genesys: the record says what the CRM wants, and is sent again."""
    world, right = delivered_world(), delivered_world().list
    restate(world, "contact-3", callable=known)
    edit(world, "contact-3", consent=False)
    report = reconcile(world, apply=True)
    assert (report.callable, report.drifted, report.mended) == (0, 1, Mended(redelivered=1))
    assert world.list == right


def test_whom_the_crm_lets_be_called_stays_callable_without_the_record() -> None:
    """It is told that he differs; what the CRM wants stands against what somebody wrote in Genesys."""
    world = delivered_world()
    forget_record(world, "contact-3")
    edit(world, "contact-3", consent=False)
    report = reconcile(world, apply=True)
    assert (report.callable, report.drifted, report.source_gone, report.mended) == (0, 1, 1, Mended())
    assert world.list["contact-3"]["callable"]


def test_a_repeat_in_a_compacted_topic_tells_the_content_too() -> None:
    """Without versions the state keeps the place of the first record; compaction leaves only the last."""
    story = Story().tell(0, *[Event(f"contact-{n}", None) for n in (*range(9), 3)])
    world = world_of(story)
    live(world)
    del world.log[P0][3]
    del world.list["contact-3"]
    report = reconcile(world, apply=True)
    assert (report.missing, report.source_gone) == (1, 0)
    assert reconcile(world).drift == 0


def test_a_contact_in_two_partitions_is_what_settled_last() -> None:
    """The topic got more partitions: an old state of the contact stays behind in the changelog."""
    world = delivered_world()
    moved = Event("elsewhere", 2, phone="+15559")
    number = len(world.log[P0])
    world.append(Story().tell(0, *[Event("x", 1)] * number, moved).records()[number:])
    world.poll_s = 60  # each life begins at the same virtual time: what this one settles is later
    live(world)
    assert reconcile(world).drift == 0


def test_apply_is_refused_while_the_group_has_members() -> None:
    """One line says which to stop, and how long one that is gone counts; without --apply they may go on."""
    world = planted()
    history = MemoryHistory(world)
    history.consumers = 2
    with pytest.raises(FatalError, match="stop the consumers of group group first, or run without --apply") as told:
        reconcile(world, apply=True, history=history)
    assert "until its session is over (45 s unless set): then wait, and run it again" in str(told.value)
    assert reconcile(world, history=history).drift
    assert world.sent == []


def test_consumers_that_start_meanwhile_stop_the_mending() -> None:
    """The group is asked again before each request."""
    world = planted()
    history = MemoryHistory(world)
    world.on_upsert = lambda _: setattr(history, "consumers", 1)
    with pytest.raises(FatalError, match="stop the consumers"):
        reconcile(world, apply=True, history=history)
    assert [operation for operation, _ in world.sent] == ["amend", "upsert"]


Visit = Callable[[World], Awaitable[object]]


class Visited(MemoryHistory):
    """Somebody works for the group while the source topics' ends are asked for, and is gone when it is mended."""

    def __init__(self, world: World, visit: Visit) -> None:
        super().__init__(world)
        self._visit = visit

    async def ends(self) -> Mapping[TopicPartition, int]:
        ends = await super().ends()
        await self._visit(self._world)
        return ends


async def load_withdrawal(world: World) -> None:
    """A load that comes and goes."""
    later = row(GRANTED, consent=False, occurredAt=1_900_000_000_000)
    await Fill(world, MemoryRows([later])).first_fill.run()


async def consume_withdrawal(world: World) -> None:
    """A consumer that catches up and ends, with a record that came after the ends that are known."""
    number = len(world.log[P0])
    told = Story().tell(0, *[Event("x", 1)] * number, Event(GRANTED, 2, consent=False))
    world.append(told.records()[number:])
    await Life(world).run()


@pytest.mark.parametrize("visit", [load_withdrawal, consume_withdrawal])
def test_what_was_withdrawn_between_reading_and_mending_is_not_granted_again(visit: Visit) -> None:
    """No member is seen, and nothing in the source topics: that the changelog has moved on tells it."""
    world = delivered_world()
    edit(world, GRANTED, phone="+15550999")
    with pytest.raises(FatalError, match=r"changelog of group group has moved on .* run it again"):
        reconcile(world, apply=True, history=Visited(world, visit))
    assert not world.list[GRANTED]["callable"]
    assert reconcile(world, apply=True).drift == 0
    assert not world.list[GRANTED]["callable"]


class StoodStill(Visited):
    """This process is stopped once it has heard that nobody is at work, right before it mends; somebody comes then."""

    calls = 0

    async def ends(self) -> Mapping[TopicPartition, int]:
        return await MemoryHistory.ends(self)

    async def changelog_ends(self) -> Mapping[TopicPartition, int]:
        ends = await super().changelog_ends()
        self.calls += 1
        if self.calls == 2:
            await self._visit(self._world)
            await virtual_time.passes(ALONE_FOR_S)
        return ends


def test_who_stood_still_asks_again_whether_nobody_else_is_at_work() -> None:
    """What he heard before is of another time: nothing is sent."""
    world = delivered_world()
    edit(world, GRANTED, phone="+15550999")
    with pytest.raises(FatalError, match="moved on"):
        reconcile(world, apply=True, history=StoodStill(world, consume_withdrawal))
    assert not world.list[GRANTED]["callable"]


def test_what_was_loaded_while_the_list_was_exported_is_not_deleted() -> None:
    """It was not delivered when the changelog was read; its state would have the stream leave it out for good."""
    world = delivered_world()
    sink = MemorySink(world)

    async def export() -> AsyncIterator[Sequence[ExportedContact]]:
        await Fill(world, MemoryRows([row("fresh")])).first_fill.run()
        async for rows in sink.export():
            yield rows

    with pytest.raises(FatalError, match="has moved on"):
        reconcile(world, apply=True, delete_extra=True, export=export)
    assert "fresh" in world.list
    assert reconcile(world, apply=True, delete_extra=True).drift == 0


def test_what_is_settled_between_two_requests_stops_the_mending() -> None:
    """The changelog is looked at before each request; what was done before stays."""
    world = planted()
    world.on_upsert = lambda _: world.changelog[P1].append((b"chain", b"moved"))
    with pytest.raises(FatalError, match="has moved on"):
        reconcile(world, apply=True)
    assert [operation for operation, _ in world.sent] == ["amend", "upsert"]


def test_comparing_goes_on_whatever_is_settled_meanwhile() -> None:
    """Without --apply nothing can be undone."""
    world = delivered_world()
    edit(world, "contact-1", phone="+15559")
    assert reconcile(world, history=Visited(world, load_withdrawal)).drifted == 1


def test_apply_is_refused_behind_a_load_that_was_stopped_while_its_file_was_imported() -> None:
    """What the import brings would be extra; the consumers that take the mark away have waited for it."""
    world = delivered_world()
    edit(world, "contact-1", phone="+15559")
    world.changelog[P1].append((IMPORT_KEY, b"load-x"))
    with pytest.raises(FatalError, match="a load was stopped before its end"):
        reconcile(world, apply=True, delete_extra=True)
    assert (reconcile(world).drift, world.sent) == (1, [])
    live(world)
    assert reconcile(world, apply=True, delete_extra=True).mended == Mended(redelivered=1)


def test_a_state_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """As `run` does: no stack trace, but the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match="STATE_DIR cannot be used"):
        reconcile_app._scratch(tmp_path / "file" / "state", AsyncExitStack())


def test_an_empty_changelog_is_refused() -> None:
    """With the wrong group everything would be extra."""
    world = World()
    world.log[P0] = []
    put(world, "stranger")
    with pytest.raises(FatalError, match="KAFKA_GROUP_ID"):
        reconcile(world)


def test_a_group_whose_offsets_expired_is_refused() -> None:
    """Every record would count as on its way, and every drift as a change that comes."""
    world = planted()
    del world.committed[P1]
    with pytest.raises(FatalError, match=f"no offset for {TOPIC}/1"):
        reconcile(world)


def test_a_partition_without_offset_in_which_nothing_stands_is_caught_up() -> None:
    """Nothing of it can be on its way, and without a record nobody ever commits an offset there."""
    world = planted()
    del world.committed[P1]
    world.log[P1] = []
    assert reconcile(world).pending == 0


def test_more_than_half_of_the_list_is_never_deleted() -> None:
    """The wrong list, probably: nothing at all is changed."""
    world = delivered_world()
    for n in range(len(world.list) + 1):
        put(world, f"stranger-{n}")
    with pytest.raises(FatalError, match="more than half of the list"):
        reconcile(world, apply=True, delete_extra=True)
    assert world.sent == []
    assert reconcile(world, apply=True).mended == Mended()


def test_an_export_that_breaks_off_is_begun_anew() -> None:
    """What was read of it counts for nothing: neither that it showed a contact, nor that one differed."""
    world = planted()
    sink = MemorySink(world)
    breaks_after = [4, 2]

    async def export() -> AsyncIterator[Sequence[ExportedContact]]:
        left = breaks_after.pop() if breaks_after else len(world.list)
        async for rows in sink.export():
            yield rows
            left -= 1
            if left == 0:
                world.list.pop("contact-0", None)
                edit(world, "contact-2", phone="+15550100002")
                raise SinkUnavailable("the file broke off")

    with capture_logs() as logs:
        found = reconcile(world, export=export)
    assert [line["event"] for line in logs].count("export_failed") == 2
    assert found == reconcile(world)
    assert found.missing == reconcile(planted()).missing + 1


def test_an_export_that_never_comes_whole_ends_the_run() -> None:
    """It is not tried for ever: somebody waits for the answer."""
    begun = []

    async def export() -> AsyncIterator[Sequence[ExportedContact]]:
        begun.append(1)
        yield []
        raise SinkUnavailable("the file broke off")

    with pytest.raises(SinkUnavailable):
        reconcile(delivered_world(), export=export)
    assert len(begun) == EXPORTS


def test_an_outage_while_mending_is_waited_for() -> None:
    """Throttled or unavailable: the request is made again."""
    for error in (Throttled("wait", 42), SinkUnavailable("no answer")):
        world = planted()
        world.answer = outage(5, error)
        reconcile(world, apply=True, delete_extra=True)
        assert reconcile(world).drift == 0


def test_genesys_is_left_alone_for_as_long_as_it_asks() -> None:
    """Neither the request that it turned away nor the next one is made before."""
    world = planted()
    moments: list[float] = []

    def answer() -> None:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) == 1:
            raise Throttled("wait", 42)

    world.answer = answer
    reconcile(world, apply=True)
    assert len(moments) > 2
    assert moments[1] - moments[0] >= 42


def test_a_refused_contact_is_found_and_told_and_the_others_are_mended() -> None:
    """One that must not be called is deleted instead; one that may be is left as it is."""
    world = planted()
    world.poison = {"contact-2", REFUSED_CONSENT}
    report = reconcile(world, apply=True)
    assert report.mended is not None
    assert (report.mended.refused, report.mended.redelivered) == (1, 3)
    assert REFUSED_CONSENT not in world.list
    assert world.list["contact-2"]["phone"] == "+15559"


def test_in_a_full_organisation_who_is_there_is_mended_and_who_is_missing_is_told() -> None:
    """Nobody may make room while the command runs; and who withdrew is not callable because of it."""
    world = delivered_world(Event("missing-no", 1, consent=False), Event("callable-no", 1, consent=False))
    del world.list["missing-no"], world.list["contact-3"]
    edit(world, "callable-no", callable=True, consent=True)
    edit(world, "contact-2", phone="+15559")
    world.full = True
    with capture_logs() as logs:
        report = reconcile(world, apply=True)
    assert report.mended == Mended(redelivered=2, refused=1)
    assert world.list["callable-no"]["callable"] is False
    assert world.list["contact-2"]["phone"] == "+15550100002"
    assert not {"missing-no", "contact-3"} & world.list.keys()
    codes = [line["code"] for line in logs if line["event"] == "mending_refused"]
    assert codes == ["contacts.per.org.limit.exceeded"] * 2


def be_called(world: World, name: str, requests: int) -> list[tuple[float, int]]:
    """Have a contact be in use for so many requests; when those with it are made, and how many contacts they hold."""
    world.poison, world.refusal, world.delete_refusal = {name}, InUse(), InUse()
    made: list[tuple[float, int]] = []

    def answer() -> None:
        if name in world.requested[-1]:
            made.append((asyncio.get_running_loop().time(), len(world.requested[-1])))
            if len(made) > requests:
                world.poison, world.delete_refusal = set(), None

    world.answer = answer
    return made


@pytest.mark.parametrize("name", [REFUSED_CONSENT, SUPPRESSED, "contact-2"])
def test_who_is_in_use_is_mended_once_the_call_is_over(name: str) -> None:
    """He is neither deleted nor left as he was: told from others at once, then sent as he is to be, again and again."""
    world, right = planted(), delivered_world().list
    made = be_called(world, name, 50)
    with capture_logs() as logs:
        report = reconcile(world, apply=True)
    assert report.mended == Mended(suppressed=2, redelivered=5)
    assert world.list[name] == right[name]
    waited = [later - sooner >= IN_USE_RETRY_S for (sooner, _), (later, _) in itertools.pairwise(made)]
    assert waited == [contacts == 1 for _, contacts in made[:-1]]
    assert {line["event"] for line in logs if line["log_level"] != "info"} == {"contact_in_use"}


def test_a_contact_in_use_is_told() -> None:
    """A campaign dials it: it is not callable any more, and to be removed by the next run."""
    world = delivered_world()
    put(world, "stranger")
    world.in_use = {"stranger"}
    report = reconcile(world, apply=True, delete_extra=True)
    assert report.mended == Mended(in_use=1)
    assert not world.list["stranger"]["callable"]


@pytest.mark.parametrize("read_lag", [0.0, 20.0])
def test_who_shows_yet_is_removed_with_the_next_try(read_lag: float) -> None:
    """In use for a moment, or deleted and shown all the same: neither is told as in use, and nobody is added anew."""
    world = delivered_world()
    kept = {*world.list}
    for n in range(30):
        put(world, f"stranger-{n}")
    world.read_lag = read_lag
    world.in_use = set() if read_lag else {"stranger-7"}

    made: list[float] = []

    def answer() -> None:
        made.append(asyncio.get_running_loop().time())
        if made[-1] - made[0] >= IN_USE_RETRY_S:
            world.in_use = set()

    world.answer = answer
    report = reconcile(world, apply=True, delete_extra=True)
    assert report.mended == Mended(deleted=30)
    assert world.list.keys() == kept


def test_a_contact_in_use_does_not_keep_others_from_being_removed() -> None:
    """Genesys refuses the whole request for it: what can be deleted is, and it alone is told."""
    world = delivered_world()
    for name in ("stranger", "another", "third"):
        put(world, name)
    world.in_use, world.refuses_in_use = {"stranger"}, True
    report = reconcile(world, apply=True, delete_extra=True)
    assert report.mended == Mended(deleted=2, in_use=1)
    assert not world.list["stranger"]["callable"]
    assert world.list.keys().isdisjoint({"another", "third"})


def test_each_request_leaves_an_audit_event() -> None:
    """Batch events of the operation `reconcile`; no record event, since no record was consumed."""
    world = planted()
    reconcile(world, apply=True, delete_extra=True)
    events = [orjson.loads(value) for _, value in world.audit]
    assert {(event["type"], event["operation"], event["status"]) for event in events} == {
        ("batch", "reconcile", "success")
    }
    assert [event["recordsOut"] for event in events] == [1, 1, 4, 3]
    assert len({event["eventId"] for event in events}) == len(events)


def test_brokers_that_take_no_audit_event_are_waited_for() -> None:
    """What Genesys has answered is told, even if it takes a while."""
    world = planted()
    topics = MemoryTopics(world)
    topics.failures = [SourceUnavailable("no broker")] * 3
    reconcile(world, apply=True, topics=topics)
    assert [orjson.loads(value)["recordsOut"] for _, value in world.audit] == [2, 1, 4]


def test_no_report_holds_contact_data() -> None:
    """Counts and names of columns alone, for people and for programs."""
    world = planted()
    report = reconcile(world, apply=True)
    told = report.as_text() + report.as_json()
    assert "contact-" not in told
    assert "+1555" not in told
    assert orjson.loads(report.as_json())["drift"] == report.drift
    assert report.as_text().splitlines()[1].split()[:2] == ["3", "callable,"]


def test_a_forgotten_content_is_not_compared() -> None:
    """After a refusal behind a superseded change nobody knows what Genesys has."""
    world = delivered_world()
    identity = fingerprints.identity("contact-1")
    state = state_bytes.decode(dict(world.changelog[P0])[identity] or b"")
    forgotten = dedupe.forgotten(state, MemorySink.contact_list_id)
    world.changelog[P0].append((identity, state_bytes.encode(forgotten, 0)))
    edit(world, "contact-1", phone="+15559")
    report = reconcile(world)
    assert (report.unknown, report.drift) == (1, 0)


def test_of_forgotten_content_who_withdrew_is_not_callable_against_his_flags() -> None:
    """A grant that was refused came after the withdrawal: perhaps applied with its flags, but not without them."""
    world = delivered_world()
    nothing_known = fingerprints.unknown_content(MemorySink.contact_list_id)
    restate(world, REFUSED_CONSENT, fingerprint=nothing_known)
    edit(world, REFUSED_CONSENT, callable=True)
    report = reconcile(world, apply=True)
    assert (report.callable, report.source_gone, report.mended) == (1, 0, Mended(suppressed=1))
    edit(world, REFUSED_CONSENT, callable=True, consent=True)
    assert (again := reconcile(world)).drift == 0
    assert again.unknown == 1


def test_nothing_that_is_kept_on_disk_holds_contact_data() -> None:
    """The scratch store has hashes; the names in it are ids."""
    world = planted()
    scratch = World()

    async def main() -> None:
        history, sink = MemoryHistory(world), MemorySink(world)
        await Reconciliation(
            history=history,
            source=SourceTopics(
                history,
                MemorySchemas(),
                form=CONFLUENT,
                framed_keys=[],
                envelopes=NATIVE,
                contact_list_id=sink.contact_list_id,
                columns=(),
            ),
            store=MemoryStore(scratch),
            export=sink.export,
            contact_list_id=sink.contact_list_id,
            attribute_columns=(),
            key=b"key",
        ).run(None)

    virtual_time.run(main())
    kept = b"".join(key + value for entries, _ in scratch.stores.values() for key, value in entries.items())
    assert contact_id("stranger").encode() in kept
    assert b"+1555" not in kept


def test_a_refusal_of_a_delete_is_told() -> None:
    """Genesys says no to one of them: the others go."""
    world = delivered_world()
    for n in range(3):
        put(world, f"stranger-{n}")

    class Refusing(MemorySink):
        async def remove(self, contact_ids: Sequence[str], *more: Any, **named: Any) -> Any:
            if contact_id("stranger-1") in contact_ids:
                raise RefusedByGenesys("invalid.delete")
            return await super().remove(contact_ids, *more, **named)

    report = reconcile(world, apply=True, delete_extra=True, sink=Refusing(world))
    assert report.mended == Mended(deleted=2, refused=1)


def test_who_is_left_out_of_an_answer_is_sent_again() -> None:
    """It is not told as mended, and goes on once the answer is whole."""
    names = [f"lost-{n}" for n in range(3)]
    world = delivered_world(*(Event(name, 1) for name in names))
    for name in names:
        del world.list[name]
    world.left_out, tries = {"lost-1"}, []

    def answer() -> None:
        tries.append(1)
        if len(tries) == 3:
            world.left_out = set()

    world.answer = answer
    assert reconcile(world, apply=True).mended == Mended(redelivered=3)
    assert world.list.keys() >= {*names}


class _WithoutDncList(MemorySink):
    """A contact list whose do-not-call list takes no numbers so often."""

    times = 1_000_000
    cause: ConsumerError = FatalError("no permission")

    async def upsert(self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, **named: Any) -> Any:
        missing = await super().upsert(contacts, sure, withdrawn, *more, **named)
        self._refuse([each.external_id for each in withdrawn])
        return missing

    async def amend(self, amendments: Sequence[Amendment], *more: Any, **named: Any) -> Any:
        amended = await super().amend(amendments, *more, **named)
        self._refuse([each.external_id for each in amendments])
        return amended

    def _refuse(self, names: Sequence[str]) -> None:
        if names and self.times:
            self.times -= 1
            raise Withheld(self.cause, names)


def _withdrawn_and_callable() -> tuple[World, list[str]]:
    """A world in which many are callable who withdrew. Of half of them the record is gone."""
    names = [f"withdrawn-{n}" for n in range(4 * AT_ONCE)]
    world = delivered_world(*(Event(name, 1, consent=False) for name in names), Event("lost", 1))
    for name in names:
        edit(world, name, callable=True)
    for name in names[::2]:
        forget_record(world, name)
    del world.list["lost"]
    return world, names


@pytest.mark.parametrize("cause", [FatalError("no permission"), SinkUnavailable("no answer")])
def test_a_do_not_call_list_that_takes_no_numbers_ends_it_with_nobody_callable(cause: ConsumerError) -> None:
    """All who withdrew are made not callable before; nobody is granted anything, and the next run goes on."""
    world, names = _withdrawn_and_callable()
    sink = _WithoutDncList(world)
    sink.cause = cause
    with pytest.raises(FatalError, match=str(cause)):
        reconcile(world, apply=True, sink=sink)
    assert [name for name in names if world.list[name]["callable"]] == []
    assert "lost" not in world.list
    reconcile(world, apply=True)
    assert reconcile(world).drift == 0


def test_a_moment_without_the_do_not_call_list_does_not_end_it() -> None:
    """It is asked again a few times."""
    world, _ = _withdrawn_and_callable()
    sink = _WithoutDncList(world)
    sink.times, sink.cause = WITHHELD_TRIES - 1, SinkUnavailable("no answer")
    reconcile(world, apply=True, sink=sink)
    assert reconcile(world).drift == 0


async def test_what_retention_forgot_is_never_deleted() -> None:
    """Refused before anything is asked: it cannot be told from what was never delivered."""
    with pytest.raises(FatalError, match="STATE_RETENTION_DAYS"):
        await reconcile_app.reconcile(settings(state_retention_days=30), apply=True, delete_extra=True)


def test_a_contact_that_came_from_a_file_is_told_and_has_no_record_to_be_looked_up() -> None:
    """In step it is seen as such; missing, it is one whose record is gone, and nothing is sent."""
    world = delivered_world()
    fill(world, [row("loaded"), row("lost")])
    assert reconcile(world).drift == 0
    del world.list["lost"]
    report = reconcile(world, apply=True)
    assert (report.missing, report.source_gone, report.mended) == (1, 1, Mended())


# -- keys in Avro


def with_avro_key(record: Record) -> Record:
    """The record, with its key as Confluent's serialiser writes it."""
    assert record.key is not None
    length = bytes([2 * len(record.key)])  # of a text that is shorter than 64 bytes
    return replace(record, key=b"\0" + KEY_SCHEMA.to_bytes(4, "big") + length + record.key)


def append(world: World, *events: Event) -> None:
    """Append events with keys in Avro to the first partition."""
    number = len(world.log.get(P0, ()))
    told = Story().tell(0, *[Event("x", 1)] * number, *events)
    world.append([with_avro_key(record) for record in told.records()[number:]])


def consume(world: World) -> None:
    """Deliver what is there."""
    live(world, MemorySchemas(KEYS), source_key="avro")


def world_with_avro_keys() -> World:
    """A world in which forty contacts were delivered, of which one was deleted by a tombstone."""
    world = World()
    append(world, *[Event(f"contact-{n}", 1, phone=f"+1555010{n:04d}") for n in range(40)])
    append(world, Event("contact-39", None, tombstone=True), Event("contact-38", 2, consent=False))
    consume(world)
    assert len(world.list) == 39
    world.sent.clear()
    return world


def test_with_keys_in_avro_a_list_in_step_has_no_drift() -> None:
    """Whom a tombstone deleted is told by its key alone."""
    report = reconcile(world_with_avro_keys(), avro_keys=True)
    assert (report.drift, report.rows, report.pending) == (0, 39, 0)


def test_with_keys_in_avro_drift_is_found_and_mended() -> None:
    """Missing, different, callable against consent, and deleted by a tombstone but there."""
    world = world_with_avro_keys()
    right = {name: dict(entry) for name, entry in world.list.items()}
    del world.list["contact-1"]
    edit(world, "contact-2", phone="+15559")
    edit(world, "contact-38", callable=True)
    put(world, "contact-39", phone="+15550100039")
    found = reconcile(world, avro_keys=True)
    assert (found.missing, found.drifted, found.callable, found.source_gone) == (1, 1, 2, 0)
    report = reconcile(world, apply=True, delete_extra=True, avro_keys=True)
    assert report.mended == Mended(suppressed=1, redelivered=2, deleted=1)
    assert world.list == right


@pytest.mark.parametrize(
    "event",
    [Event("contact-1", None, tombstone=True), Event("contact-1", None, garbage=b"junk")],
    ids=["tombstone", "junk"],
)
def test_with_keys_in_avro_a_change_on_its_way_is_not_drift(event: Event) -> None:
    """A record that tells by its key alone whom it is about: the contact is left to the consumer."""
    world = world_with_avro_keys()
    append(world, event)
    del world.list["contact-1"], world.list["contact-2"]
    report = reconcile(world, apply=True, avro_keys=True)
    assert (report.pending, report.missing) == (1, 1)
    assert world.sent == [("upsert", ("contact-2",))]


def test_with_keys_in_avro_a_repeat_in_a_compacted_topic_tells_the_content_too() -> None:
    """The record from which the contact was delivered is gone; the repeat is found by its key."""
    world = World()
    append(world, *[Event(f"contact-{n}", None) for n in (*range(9), 3)])
    consume(world)
    del world.log[P0][3]
    del world.list["contact-3"]
    report = reconcile(world, apply=True, avro_keys=True)
    assert (report.missing, report.source_gone) == (1, 0)
    assert reconcile(world, avro_keys=True).drift == 0
