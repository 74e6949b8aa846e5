"""The first fill on ports in memory: what becomes of rows, crashes at every step, and the stream afterwards."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from consumer.command_ports import ImportStatus
from consumer.core import fingerprints, state_bytes
from consumer.core.rows import Rows
from consumer.errors import (
    ConsumerError,
    FatalError,
    InUse,
    RefusedByGenesys,
    SinkUnavailable,
    SourceUnavailable,
    TakesNoNumbers,
    Withheld,
)
from consumer.first_fill.candidates import Candidates
from consumer.first_fill.requests import Requests
from consumer.first_fill.run import AT_ONCE
from consumer.model import FROM_A_FILE, FileRow, Record, Settlement, TopicPartition, Work
from consumer.pipeline.settle import IMPORT_KEY
from consumer.ports import always
from tests import virtual_time
from tests.fills import WRITTEN_MS, Fill, MemoryRows, Row, empty_world, fill, partition_of, row, survive
from tests.lives import live
from tests.memory_ports import MemorySink, MemoryTopics, World, outage
from tests.stories import TOPIC, Event, partly
from tests.virtual_time import passes

LONG = "x" * 513


def _tell(world: World, *events: Event) -> None:
    """Put events where the stream has their contacts."""
    for event in events:
        number = partition_of(world, event.external_id)
        offset = len(world.log[TopicPartition(TOPIC, number)])
        record = Record(TOPIC, number, offset, event.occurred_at, event.external_id.encode(), event.value())
        world.append([record])


def _outcomes(world: World) -> dict[int, str]:
    """Outcomes of the rows, by number."""
    return {
        event["source"]["offset"]: event["outcome"] for event in world.events() if event["source"]["topic"] != TOPIC
    }


def _streamed(world: World) -> list[str]:
    """Outcomes of the stream's records, in the order of the audit topic."""
    return [event["outcome"] for event in world.events() if event["source"]["topic"] == TOPIC]


def _check_chain(world: World) -> None:
    seq, prev = 0, "0" * 64
    for event in world.events():
        if event["source"]["topic"] != TOPIC:
            assert (event["seq"], event["prev"]) == (seq, prev)
            seq, prev = seq + 1, event["hash"]


ROWS: list[Row] = [
    row("new"),
    row("not-callable", consent=False),
    row("bad", phone="12"),
    row("twice", phone="+15550101"),
    row("conflict", doNotCall=True),
    row("twice", phone="+15550102"),
    row("long", segment=LONG),
    row("same"),
    row("same"),
    row("gone", changeType="DELETE"),
    {"phone": "+15550100"},
]
OUTCOMES = {
    1: "delivered",
    2: "delivered",
    3: "rejected",
    4: "superseded",
    5: "rejected",
    6: "delivered",
    7: "delivered",
    8: "delivered",
    9: "duplicate",
    10: "delivered",
    11: "rejected",
}


def test_each_row_has_one_outcome_and_the_list_is_what_the_rows_say() -> None:
    """New and callable goes by file, the rest by request, withdrawals first; the last row of a contact wins.

    Who is not known is asked for before his rejected withdrawal is noted.
    """
    world = empty_world()
    uploads = []
    summary = fill(world, ROWS, lambda run: uploads.append(run.uploads), genesys_attribute_columns="segment")
    assert _outcomes(world) == OUTCOMES
    assert sorted(line["external_id"] for line in uploads[0].files[0]) == ["new", "same", "twice"]
    requests = [(operation, sorted(names)) for operation, names in world.sent]
    assert requests[-1] == ("upsert", ["long"])
    assert sorted(requests[:-1]) == [("amend", ["conflict"]), ("delete", ["gone"]), ("upsert", ["not-callable"])]
    assert {name: contact["callable"] for name, contact in world.list.items()} == {
        "new": True, "twice": True, "same": True, "long": True, "not-callable": False,
    }  # fmt: skip
    assert world.list["twice"]["phone"] == "+15550102"
    assert (summary.rows, summary.uploaded, summary.requested) == (11, 3, 4)
    assert summary.outcomes == Counter(OUTCOMES.values())
    assert {type(name) for name in (*summary.outcomes, *summary.reasons)} == {str}
    assert summary.reasons == {
        "phone_not_e164": 1,
        "consent_conflicts_with_do_not_call": 1,
        "external_id_missing": 1,
        "consent_not_boolean": 1,
        "do_not_call_not_boolean": 1,
    }
    _check_chain(world)


def test_rejected_rows_become_dead_letters_as_they_stand_in_the_file() -> None:
    """Value and reason, with the external id as the key, and no other row."""
    world = empty_world()
    fill(world, ROWS)
    letters = [(record.offset, record.key, record.value, reason) for record, reason in world.dead_letters]
    assert letters == [
        (3, b"bad", orjson.dumps(ROWS[2]), "phone_not_e164"),
        (5, b"conflict", orjson.dumps(ROWS[4]), "consent_conflicts_with_do_not_call"),
        (11, None, orjson.dumps(ROWS[10]), "external_id_missing"),
    ]


def test_the_stream_sends_nothing_again() -> None:
    """The same contents come on the topic, before and after the time of the file: all are duplicates."""
    world = empty_world(partitions=3)
    names = [f"contact-{n}" for n in range(20)]
    fill(world, [row(name) for name in names])
    _tell(world, *(Event(name, n % 2 or None, occurred_at=WRITTEN_MS + n - 10) for n, name in enumerate(names)))
    sent = len(world.sent)
    live(world)
    assert Counter(_streamed(world)) == {"duplicate": 20}
    assert len(world.sent) == sent


def test_the_stream_goes_on_from_where_it_was() -> None:
    """Loading commits no record that was not consumed, and a group that had consumed some goes on behind them."""
    world = empty_world(partitions=1)
    _tell(world, Event("a", None), Event("b", None))
    live(world)
    _tell(world, Event("c", None))
    fill(world, [row("d")])
    assert world.committed == {TopicPartition(TOPIC, 0): 2}
    live(world)
    assert _streamed(world) == ["delivered"] * 3


@pytest.mark.parametrize("version", [None, 7])
@pytest.mark.parametrize("later", [0, 1])
def test_a_change_of_the_stream_applies_when_it_happened_after_the_file(version: int | None, later: int) -> None:
    """Another phone number: at the same time the file stands, a millisecond later the stream does."""
    world = empty_world()
    fill(world, [row("a")])
    _tell(world, Event("a", version, phone="+15550199", occurred_at=WRITTEN_MS + later))
    live(world)
    assert _streamed(world) == [("stale", "delivered")[later]]
    assert world.list["a"]["phone"] == ("+15550100", "+15550199")[later]


@pytest.mark.parametrize("version", [None, 7])
def test_a_withdrawal_of_the_stream_always_applies(version: int | None) -> None:
    """Also one that is a year older than the file."""
    world = empty_world()
    fill(world, [row("a")])
    _tell(world, Event("a", version, consent=False, occurred_at=WRITTEN_MS - 31_536_000_000))
    live(world)
    assert _streamed(world) == ["delivered"]
    assert world.list["a"]["callable"] is False


@pytest.mark.parametrize("versions", [(None, None, None, None), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("deletes", [False, True])
def test_who_withdrew_and_granted_again_before_the_file_is_callable(
    versions: tuple[int | None, ...], *, deletes: bool
) -> None:
    """The stream comes to what the file says by the same way as the CRM; the same for who was deleted and made anew."""
    world = empty_world()
    fill(world, [row("a")])
    told = [
        Event("a", version, consent=n != 1, delete=deletes and n == 1, occurred_at=WRITTEN_MS - 40 + 10 * n)
        for n, version in enumerate(versions)
    ]
    _tell(world, *told)
    live(world)
    assert _streamed(world) == ["duplicate", "superseded", "delivered", "duplicate"]
    assert world.list["a"]["callable"] is True
    fill(world, [row("a")])
    assert world.list["a"]["callable"] is True


def test_a_row_that_is_loaded_once_more_does_not_grant_what_the_stream_withdrew_since() -> None:
    """What the row says is as old as before, whatever time its withdrawal has."""
    world = empty_world()
    fill(world, [row("a")])
    _tell(world, Event("a", 2, consent=False, occurred_at=WRITTEN_MS - 10))
    live(world)
    fill(world, [row("a"), row("b")])
    assert world.list["a"]["callable"] is False


@pytest.mark.parametrize("versions", [(None, None, None), (1, 2, 3), (None, 2, None), (1, None, 3)], ids=str)
def test_a_stream_from_before_the_file_does_not_grant_what_the_file_withdraws(versions: tuple[int | None, ...]) -> None:
    """Grant, withdraw, grant, all older than the file: nobody may be called at any time; what is newer grants again."""
    world = empty_world()
    fill(world, [row("a", consent=False)])
    upserts: list[dict[str, Any]] = []
    world.on_upsert = upserts.extend
    told = [Event("a", version, consent=n != 1, phone=f"+1555010{n}") for n, version in enumerate(versions)]
    _tell(world, *(replace_time(event, WRITTEN_MS - 30 + 10 * n) for n, event in enumerate(told)))
    live(world, batch_linger_ms=0)
    assert [upsert["callable"] for upsert in upserts if upsert["callable"]] == []
    assert world.list["a"]["callable"] is False
    _tell(world, Event("a", 9, occurred_at=WRITTEN_MS + 1))
    live(world)
    assert world.list["a"]["callable"] is True


def replace_time(event: Event, occurred_at: int) -> Event:
    """The event at another time."""
    return Event(event.external_id, event.version, event.consent, phone=event.phone, occurred_at=occurred_at)


@pytest.mark.parametrize(("version", "outcome"), [(4, "stale"), (5, "stale"), (6, "delivered")])
def test_versions_tell_where_both_have_them(version: int, outcome: str) -> None:
    """The file says version 5: what is not above it is not sent, whatever the offset, unless it withdraws."""
    world = empty_world()
    fill(world, [row("a", version=5)])
    _tell(world, Event("a", version, phone="+15550199", occurred_at=WRITTEN_MS - 1))
    live(world)
    assert _streamed(world) == [outcome]


def test_rows_with_versions_are_in_order_also_after_a_failover_of_the_source() -> None:
    """The contact is known from a later epoch of the source's log, in which no row stands."""
    world = empty_world()
    _tell(world, Event("a", 1, occurred_at=WRITTEN_MS - 1))
    live(world)
    partition = TopicPartition(TOPIC, partition_of(world, "a"))
    entries, position = world.stores[partition]
    known = replace(state_bytes.decode(entries[fingerprints.identity("a")]), epoch=1)
    entries[fingerprints.identity("a")] = state_bytes.encode(known, 0)
    fill(world, [row("a", version=2, consent=False), row("a", version=3, phone="+15550199")])
    assert _outcomes(world) == {1: "superseded", 2: "delivered"}
    assert (world.list["a"]["phone"], world.list["a"]["callable"]) == ("+15550199", True)
    loaded = state_bytes.decode(world.stores[partition][0][fingerprints.identity("a")])
    assert (loaded.epoch, loaded.version, loaded.offset) == (1, 3, FROM_A_FILE)
    assert position < world.stores[partition][1]


@pytest.mark.parametrize(("consent", "occurred_at", "outcome"), [
    (True, WRITTEN_MS - 1, "stale"), (True, WRITTEN_MS + 1, "delivered"), (False, WRITTEN_MS - 1, "delivered"),
])  # fmt: skip
def test_a_file_that_is_older_than_the_stream_takes_nothing_back(consent: bool, occurred_at: int, outcome: str) -> None:
    """A row against what the stream delivered: by time, but a withdrawal applies in any case."""
    world = empty_world()
    _tell(world, Event("a", None, phone="+15550199", occurred_at=WRITTEN_MS))
    live(world)
    fill(world, [row("a", consent=consent, occurredAt=occurred_at)])
    assert _outcomes(world) == {1: outcome}
    assert world.list["a"]["callable"] is consent


def test_what_the_stream_delivered_already_is_a_duplicate() -> None:
    """Nothing is sent of it."""
    world = empty_world()
    _tell(world, Event("a", 3))
    live(world)
    sent = len(world.sent)
    summary = fill(world, [row("a")])
    assert (_outcomes(world), len(world.sent), summary.uploaded) == ({1: "duplicate"}, sent, 0)


def test_a_changed_contact_goes_by_request() -> None:
    """An imported row could not say that it may be called again, nor be ordered against a request."""
    world = empty_world()
    _tell(world, Event("a", 1, consent=False))
    live(world)
    summary = fill(world, [row("a", version=2)])
    assert (summary.uploaded, summary.requested, world.list["a"]["callable"]) == (0, 1, True)


@pytest.mark.parametrize("delivered_before", [False, True])
def test_a_rejected_row_that_withdraws_suppresses_its_contact(delivered_before: bool) -> None:
    """Also the row before it in the file: the contact is not called."""
    world = empty_world()
    if delivered_before:
        _tell(world, Event("a", 1))
        live(world)
    fill(world, [row("a", version=2, phone="+15550199"), row("a", version=3, phone="bad", consent=False)])
    assert _outcomes(world) == {1: "superseded", 2: "rejected"}
    assert world.list.get("a", {"callable": False})["callable"] is False


UNREADABLE: dict[str, Row] = {
    "time": {"occurredAt": "2024-01-31T10:00:00"},
    "version": {"version": "v12"},
    "attribute": {"segment": ["a"]},
    "kind": {"changeType": "MERGE"},
}


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("delivered_before", [False, True])
def test_a_withdrawal_of_which_something_cannot_be_read_suppresses(unreadable: Row, delivered_before: bool) -> None:
    """It is rejected for that, and the person is not called, nor granted by the row before it."""
    world = empty_world()
    if delivered_before:
        _tell(world, Event("a", 1))
        live(world)
    rows = [row("a", version=2), row("a", consent=False, **unreadable)]
    summary = fill(world, rows, genesys_attribute_columns="segment", genesys_dnc_list="nobody")
    assert _outcomes(world) == {1: "superseded", 2: "rejected"}
    assert summary.reasons == {"not_decodable": 1}
    assert world.list.get("a", {"callable": False})["callable"] is False
    assert world.blocked == {"+15550100"}


def test_a_line_that_holds_no_row_is_told_as_that() -> None:
    """Not as a row without an external id, which somebody would look for in vain."""
    (candidate,) = Candidates(Rows((), 0), (), "list").of([FileRow(1, b"{", {}, "the line is no JSON")])
    assert (candidate.change, list(candidate.reasons), candidate.detail) == (
        None,
        ["not_decodable"],
        "the line is no JSON",
    )


def test_a_delete_that_does_not_tell_when_suppresses() -> None:
    """As in the stream: the contact stays, and is not called."""
    world = empty_world()
    _tell(world, Event("a", None))
    live(world)
    fill(world, [row("a", changeType="DELETE", occurredAt="yesterday")])
    assert _outcomes(world) == {1: "rejected"}
    assert (world.list["a"]["callable"], world.list["a"]["consent"]) == (False, False)


def test_numbers_of_rows_that_withdraw_go_on_the_do_not_call_list() -> None:
    """Of good rows and of rejected ones, also when their contact is unknown, or withdrew before."""
    world = empty_world()
    rows = [
        row("good", phone="+15550101", consent=False),
        row("bad", phone="+15550102", consent=False, email="bad"),
        row("bad", phone="+15550103", consent=False, email="bad"),
        row("granted", phone="+15550104"),
    ]
    fill(world, rows[:2], genesys_dnc_list="nobody")
    fill(world, rows, genesys_dnc_list="nobody")
    assert world.blocked == {"+15550101", "+15550102", "+15550103"}


def test_a_rejected_withdrawal_gives_way_to_a_later_row() -> None:
    """It stays rejected, with its dead letter; the contact is what the later row says."""
    world = empty_world()
    fill(world, [row("a", phone="bad", consent=False), row("a", occurredAt=WRITTEN_MS + 1)])
    assert _outcomes(world) == {1: "rejected", 2: "delivered"}
    assert [reason for _, reason in world.dead_letters] == ["phone_not_e164"]
    assert world.list["a"]["callable"] is True


LATER = WRITTEN_MS + 1

REJECTED_LAST: dict[str, tuple[list[Row], Event]] = {
    "two rejected ones": (
        [row("a", phone="bad", consent=False), row("a", phone="bad", doNotCall=True)],
        partly("a", None, do_not_call=False, occurred_at=LATER),
    ),
    "three rejected ones": (
        [row("a", phone="bad", doNotCall=True), row("a", phone="bad", consent=False), row("a", doNotCall=True)],
        partly("a", None, do_not_call=False, occurred_at=LATER),
    ),
    "by consent, then rejected": (
        [row("a", consent=False), row("a", phone="bad", doNotCall=True)],
        partly("a", None, do_not_call=False, occurred_at=LATER),
    ),
    "by do-not-call, then rejected": (
        [row("a", consent=False, doNotCall=True), row("a", phone="bad", consent=False)],
        partly("a", None, consent=True, occurred_at=LATER),
    ),
}


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize(("rows", "grant"), REJECTED_LAST.values(), ids=REJECTED_LAST)
def test_a_rejected_row_takes_nothing_back_that_was_withdrawn_before(rows: list[Row], grant: Event) -> None:
    """Genesys gets every flag, so that a later grant of one of them makes nobody callable; a grant of both does."""
    world = empty_world()
    _tell(world, Event("a", None))
    live(world)
    fill(world, rows)
    held = world.list["a"]
    assert (held["callable"], held["consent"], held["do_not_call"]) == (False, False, True)
    _tell(world, grant)
    live(world)
    assert world.list["a"]["callable"] is False
    _tell(world, partly("a", None, consent=True, do_not_call=False, occurred_at=LATER + 1))
    live(world)
    assert world.list["a"]["callable"] is True


def test_a_rejected_row_that_repeats_what_the_rows_before_it_withdrew_does_nothing() -> None:
    """It is no change beside both of them."""
    world = empty_world()
    _tell(world, Event("a", None))
    live(world)
    rows = [row("a", phone="bad", consent=False), row("a", phone="bad", doNotCall=True)]
    summary = fill(world, [*rows, rows[0]])
    assert (summary.outcomes, summary.requested) == ({"rejected": 3}, 1)
    assert [event["operation"] for event in world.events()[1:]] == [None, "suppress", None]


def test_a_row_that_tells_the_whole_contact_takes_all_of_it_back() -> None:
    """What was withdrawn before it does not come back with a rejected row behind it."""
    world = empty_world()
    _tell(world, Event("a", None))
    live(world)
    fill(world, [row("a", consent=False), row("a", occurredAt=LATER), row("a", phone="bad", doNotCall=True)])
    assert (world.list["a"]["consent"], world.list["a"]["do_not_call"]) == (True, True)


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("known", [False, True])
def test_a_rejected_row_does_not_undo_the_delete_before_it(known: bool) -> None:
    """The contact goes, whether or not it is known, and nothing partial brings it back."""
    world = empty_world()
    if known:
        _tell(world, Event("a", None))
        live(world)
    rows = [row("a", changeType="DELETE"), row("a", phone="+15550199", email="bad", doNotCall=True)]
    fill(world, [*rows, row("a", phone="bad", consent=False)])
    assert _outcomes(world) == {1: "superseded", 2: "rejected", 3: "rejected"}
    assert [reason for _, reason in world.dead_letters] == ["email_invalid", "phone_not_e164"]
    assert "a" not in world.list
    _tell(world, partly("a", None, consent=True, do_not_call=False, occurred_at=LATER))
    live(world)
    assert _streamed(world)[-1] == "undeliverable"


def test_the_number_of_a_rejected_row_behind_a_delete_is_not_called_either() -> None:
    """It goes on the do-not-call list, in a batch of its own behind that of the delete."""
    world = empty_world()
    _tell(world, Event("a", None))
    live(world)
    rows = [row("a", changeType="DELETE"), row("a", phone="+15550199", email="bad", doNotCall=True)]
    fill(world, rows, genesys_dnc_list="nobody")
    assert (world.blocked, "a" in world.list) == ({"+15550199"}, False)
    batches = [event["batchId"] for event in world.events("batch")]
    assert len(batches) == len(set(batches)) == 3
    entries, _ = world.stores[TopicPartition(TOPIC, partition_of(world, "a"))]
    state = state_bytes.decode(entries[fingerprints.identity("a")])
    assert (state.deleted, state.callable, state.offset) == (True, False, FROM_A_FILE)


def test_a_contact_that_genesys_refuses_is_undeliverable_and_holds_up_nobody() -> None:
    """It ends as a dead letter with Genesys' code; the contact is not remembered as delivered."""
    world = empty_world()
    world.poison = {"long"}
    fill(world, [row("a"), row("long", segment=LONG)], genesys_attribute_columns="segment")
    assert _outcomes(world) == {1: "delivered", 2: "undeliverable"}
    assert [reason for _, reason in world.dead_letters] == ["genesys:contact.datum.length.limit.exceeded"]
    _tell(world, Event("long", None))
    world.poison = set()
    live(world)
    assert _streamed(world) == ["delivered"]


def test_outages_are_waited_out() -> None:
    """Genesys fails by request and by file, the brokers and the disk too: nothing is lost, nothing told twice."""
    world = empty_world()
    world.answer = outage(4, SinkUnavailable("no answer"))

    def act(run: Fill) -> None:
        run.uploads.failures = [SinkUnavailable("no answer"), SinkUnavailable("no answer")]
        run.topics.failures = [SourceUnavailable("no broker")]

    fill(world, ROWS, act, genesys_attribute_columns="segment")
    assert _outcomes(world) == OUTCOMES
    assert len(world.events()) == len(ROWS)


def test_an_upload_without_an_answer_is_made_again_and_harmless() -> None:
    """It may have arrived: the same contacts come once more."""
    world = empty_world()
    runs: list[Fill] = []

    def act(run: Fill) -> None:
        runs.append(run)
        run.uploads.answer_lost = SinkUnavailable("no answer")

    fill(world, [row("a"), row("b")], act)
    assert runs[0].uploads.files[0] == runs[0].uploads.files[1]
    assert _outcomes(world) == {1: "delivered", 2: "delivered"}
    (event,) = world.events("batch")
    assert (event["recordsIn"], event["recordsOut"], event["attempts"]) == (2, 2, 2)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            ImportStatus(under_way=False, failure="EXCEEDED_CONTACT_LIMIT", total=0, completed=0),
            "EXCEEDED_CONTACT_LIMIT",
        ),
        (ImportStatus(under_way=False, failure="", total=1, completed=1), "1 of 1 rows, but 2 were sent"),
        (ImportStatus(under_way=False, failure="", total=2, completed=1), "1 of 2 rows, but 2 were sent"),
    ],
    ids=["failed", "others", "not all"],
)
def test_an_import_that_is_not_what_was_sent_ends_it_before_anything_is_settled(
    status: ImportStatus, says: str
) -> None:
    """The message says what Genesys counts; the next run sends everything again."""
    world = empty_world()

    def act(run: Fill) -> None:
        run.uploads.status = status

    assert says in _failure(world, [row("a"), row("b")], act)
    assert world.audit == []


def _failure(world: World, rows: list[Row] | MemoryRows, act: Any = lambda _: None) -> str:
    with pytest.raises(ExceptionGroup) as caught:
        fill(world, rows, act)
    own = caught.value.subgroup(ConsumerError)
    assert own is not None
    (error,) = own.exceptions
    return str(error)


def test_a_file_that_genesys_refuses_ends_it() -> None:
    """With Genesys' code."""

    def act(run: Fill) -> None:
        run.uploads.failures = [RefusedByGenesys("invalid.property")]

    assert "invalid.property" in _failure(empty_world(), [row("a")], act)


@pytest.mark.parametrize("broken", [FatalError("the file was changed meanwhile"), OSError(5, "no terminal")])
def test_a_file_that_breaks_off_by_itself_is_not_sent_again(broken: Exception) -> None:
    """What broke it is told, not the request that broke with it, whatever it was."""

    class Changing(MemoryRows):
        reads = 0

        def chunks(self) -> Any:
            self.reads += 1
            yield from super().chunks()
            if self.reads > 1:
                raise broken

    def act(run: Fill) -> None:
        upload = run.uploads.upload

        async def over_the_wire(size: int, body: Any) -> None:
            try:
                await upload(size, body)
            except (FatalError, OSError):
                raise SinkUnavailable("no whole answer") from None

        run.uploads.upload = over_the_wire  # type: ignore[method-assign]

    with pytest.raises(ExceptionGroup) as caught:
        fill(empty_world(), Changing([row("a")]), act)
    assert caught.group_contains(type(broken), match=re.escape(str(broken)))


def test_an_import_that_begins_late_is_not_taken_for_the_last_one() -> None:
    """Of as many rows: for a while it looks as if the file had been imported already, and nothing is settled."""
    runs: list[Fill] = []
    arrived_at: list[float] = []

    def act(run: Fill) -> None:
        runs.append(run)
        loop, upload = asyncio.get_running_loop(), run.uploads.upload

        async def arrives(size: int, body: Any) -> None:
            await upload(size, body)
            arrived_at.append(loop.time())

        async def status() -> ImportStatus:
            await passes(0.01)
            goes_on = bool(arrived_at) and 20 <= loop.time() - arrived_at[0] < 60
            return ImportStatus(under_way=goes_on, failure="", total=1, completed=int(not goes_on))

        run.uploads.upload, run.uploads.import_status = arrives, status  # type: ignore[method-assign]

    fill(empty_world(), [row("a")], act)
    assert ("importing", 0, 1) in runs[0].told


@pytest.mark.parametrize("silent", [{0, 1}, {0}, {1}], ids=str)
def test_no_file_is_sent_while_ownership_is_not_sure(silent: set[int]) -> None:
    """The brokers are silent, of all partitions or of one: the file waits until they answer again."""
    world = empty_world()
    sent_at: list[float] = []

    def act(run: Fill) -> None:
        loop = asyncio.get_running_loop()
        owns = run.source.owns
        run.source.owns = lambda partition: (  # type: ignore[method-assign]
            owns(partition) and (partition.partition not in silent or loop.time() - began >= 100)
        )
        upload, began = run.uploads.upload, loop.time()

        async def sent(size: int, body: Any) -> None:
            sent_at.append(loop.time() - began)
            await upload(size, body)

        run.uploads.upload = sent  # type: ignore[method-assign]

    fill(world, [row("a")], act)
    assert len(sent_at) == 1
    assert sent_at[0] >= 100


@pytest.mark.parametrize("lost", [False, True])
def test_whoever_loses_a_partition_stops(lost: bool) -> None:
    """In the middle of the upload: the file is not imported, nothing is settled, and the message says what to do."""
    world = empty_world()
    revoking: list[asyncio.Task[None]] = []

    def act(run: Fill) -> None:
        async def never(*_: object) -> None:
            partition = [TopicPartition(TOPIC, 0)]
            if lost:
                run.source.lose(partition)
            else:
                revoking.append(asyncio.create_task(run.source.revoke(partition)))
            await passes(3600)

        run.uploads.upload = never  # type: ignore[assignment, method-assign]

    assert "stop the consumers" in _failure(world, [row("a")], act)
    assert world.audit == []


def test_partitions_are_let_go_only_when_the_import_is_over() -> None:
    """A new owner's change must not be overtaken by an import that cannot be called back."""
    world = empty_world()
    let_go: list[float] = []
    revoking: list[asyncio.Task[None]] = []

    def act(run: Fill) -> None:
        run.uploads.status = ImportStatus(under_way=False, failure="", total=0, completed=0)
        upload = run.uploads.upload

        async def revoke() -> None:
            await run.source.revoke([TopicPartition(TOPIC, 0)])
            let_go.append(asyncio.get_running_loop().time())

        async def begun(size: int, body: Any) -> None:
            await upload(size, body)
            loop = asyncio.get_running_loop()
            run.uploads.status = ImportStatus(under_way=True, failure="", total=1, completed=0)
            revoking.append(loop.create_task(revoke()))
            loop.call_later(10, lambda: let_go.append(-loop.time()))
            done = ImportStatus(under_way=False, failure="", total=1, completed=1)
            loop.call_later(10, lambda: setattr(run.uploads, "status", done))

        run.uploads.upload = begun  # type: ignore[method-assign]

    _failure(world, [row("a")], act)
    assert len(let_go) == 2
    assert let_go[1] >= -let_go[0]


def test_a_group_whose_partitions_others_hold_is_not_filled() -> None:
    """Only one of two partitions comes: after a minute it ends and says what to do."""
    world = empty_world()
    other = world.log.pop(TopicPartition(TOPIC, 1))

    def act(run: Fill) -> None:
        run.first_fill._membership._wanted |= {TopicPartition(TOPIC, 1)}

    assert "stop the consumers of it first" in _failure(world, [row("a")], act)
    assert other == []


def test_the_same_file_again_does_nothing() -> None:
    """Everything is settled: no request, no audit event, and the summary says so."""
    world = empty_world()
    fill(world, ROWS, genesys_attribute_columns="segment")
    audit, sent = len(world.audit), len(world.sent)
    summary = fill(world, ROWS, genesys_attribute_columns="segment")
    assert (len(world.audit), len(world.sent)) == (audit, sent)
    assert (summary.settled_before, summary.outcomes, summary.uploaded) == (len(ROWS), {}, 0)


def test_another_file_is_judged_against_the_first() -> None:
    """What it repeats is a duplicate, what it changes is sent."""
    world = empty_world()
    fill(world, [row("a"), row("b")])
    changed = MemoryRows([row("a"), row("b", phone="+15550199")], modified_ms=WRITTEN_MS + 1)
    summary = fill(world, changed)
    assert summary.outcomes == {"duplicate": 1, "delivered": 1}
    assert world.list["b"]["phone"] == "+15550199"


def test_a_transaction_ends_where_its_rows_take_much_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are: a file may have rows of any size, and memory has not."""
    settled: list[int] = []

    class Noting(MemoryTopics):
        async def settle(self, settlement: Settlement) -> Any:
            settled.append(len(settlement.audit))
            return await super().settle(settlement)

    monkeypatch.setattr("tests.fills.MemoryTopics", Noting)
    monkeypatch.setattr("consumer.first_fill.settle.TRANSACTION_BYTES", 1_000)
    fill(empty_world(), [row(f"contact-{n}") for n in range(100)])
    assert max(settled) < 20


@pytest.mark.parametrize("after_effect", [False, True])
def test_killed_at_any_step_and_started_again_every_row_has_one_outcome(
    after_effect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after each call of a port, twice in a row: the same list, one audit event a row, an unbroken chain."""
    monkeypatch.setattr("consumer.first_fill.settle.TRANSACTION_ROWS", 3)
    rows = [{key: value for key, value in each.items() if key != "segment"} for each in ROWS]
    expected = empty_world()
    fill(expected, rows)
    for step in range(1, expected.steps + 1):
        world = empty_world()
        assert survive(world, rows, step, after_effect=after_effect)
        survive(world, rows, step, after_effect=after_effect)
        survive(world, rows, None, after_effect=False)
        assert _outcomes(world) == _outcomes(expected), step
        assert len(world.events()) == len(rows), step
        assert world.list == expected.list, step
        _check_chain(world)
        _tell(world, Event("new", None), Event("same", 1))
        world.die_at = None
        live(world)
        assert _streamed(world) == ["duplicate", "duplicate"], step


@pytest.mark.usefixtures("partial_events")
@pytest.mark.parametrize("after_effect", [False, True])
def test_killed_at_any_step_rejected_rows_have_taken_nothing_back(
    after_effect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the row before is settled, and the rejected one is not: Genesys has what both withdrew."""
    monkeypatch.setattr("consumer.first_fill.settle.TRANSACTION_ROWS", 1)
    rows = [
        row("a", consent=False),
        row("gone", changeType="DELETE"),
        row("a", phone="bad", doNotCall=True),
        row("gone", phone="bad", consent=False),
    ]

    def known() -> World:
        world = empty_world()
        _tell(world, Event("a", None), Event("gone", None))
        live(world)
        return world

    expected = known()
    expected.steps = 0
    fill(expected, MemoryRows(rows, chunk=1))
    for step in range(1, expected.steps + 1):
        world = known()
        assert survive(world, MemoryRows(rows, chunk=1), step, after_effect=after_effect)
        survive(world, MemoryRows(rows, chunk=1), None, after_effect=False)
        assert _outcomes(world) == _outcomes(expected), step
        assert world.list == expected.list, step
        _check_chain(world)
        world.die_at = None
        _tell(world, partly("a", None, do_not_call=False, occurred_at=LATER))
        _tell(world, partly("gone", None, consent=True, do_not_call=False, occurred_at=LATER))
        live(world)
        assert world.list["a"]["callable"] is False, step
        assert "gone" not in world.list, step


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_stream_that_begins_while_a_dead_load_s_file_is_imported_comes_after_it(after_effect: bool) -> None:
    """Killed at any step, and consumers start at once: what they withdraw is not brought back by the import."""
    rows = [row("a"), row("b")]
    expected = empty_world()
    fill(expected, rows)
    for step in range(1, expected.steps + 1):
        world = empty_world()
        assert survive(world, rows, step, after_effect=after_effect)
        world.die_at = None
        _tell(world, Event("a", None, consent=False), Event("b", None, phone="+15550199", occurred_at=WRITTEN_MS + 1))
        live(world)
        while world.import_goes_on() or world.pending_import[1]:
            pass
        assert (world.list["a"]["callable"], world.list["a"]["consent"]) == (False, False), step
        assert world.list["b"]["phone"] == "+15550199", step


def test_the_mark_of_an_import_goes_when_it_is_over() -> None:
    """A consumer that starts afterwards does not ask."""
    world = empty_world()
    fill(world, [row("a"), row("b"), row("c")])
    assert {key for entries in world.changelog.values() for key, value in entries if value is not None} >= {IMPORT_KEY}
    assert all(IMPORT_KEY not in entries for entries, _ in world.stores.values())


@pytest.mark.parametrize("after_effect", [False, True])
def test_the_mark_of_an_import_stays_for_as_long_as_no_state_tells_of_some(
    after_effect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, who mends the list would take them for contacts that were never delivered."""
    monkeypatch.setattr("consumer.first_fill.settle.TRANSACTION_ROWS", 1)
    rows = [row(f"c-{n}") for n in range(7)]
    step, died, seen = 0, True, 0
    while died:
        step += 1
        world = empty_world()
        died = survive(world, rows, step, after_effect=after_effect)
        known = {partition: dict(entries) for partition, entries in world.changelog.items()}
        marked = any(entries.get(IMPORT_KEY) for entries in known.values())
        told = {identity for entries in known.values() for identity in entries}
        untold = [name for name in world.list if fingerprints.identity(name) not in told]
        assert marked or not untold
        seen += bool(untold)
        survive(world, rows, None, after_effect=False)
        assert not any(dict(entries).get(IMPORT_KEY) for entries in world.changelog.values())
    assert seen > 2


@pytest.mark.parametrize("cause", [FatalError("no permission"), TakesNoNumbers("it is full")], ids=str)
def test_a_load_does_not_wait_for_somebody_to_mend_the_do_not_call_list(
    monkeypatch: pytest.MonkeyPatch, cause: ConsumerError
) -> None:
    """It owns the topic, so that nobody applies what the stream says; all who withdrew are not callable by then."""
    world = empty_world()
    rows = [row(f"contact-{n}", consent=False) for n in range(AT_ONCE + 100)]

    class Refusing(MemorySink):
        async def upsert(
            self, contacts: Any, sure: Any = always, withdrawn: Any = (), *more: Any, asks: bool = True, **named: Any
        ) -> Any:
            await super().upsert(contacts, sure)
            raise Withheld(cause, {each.external_id for each in withdrawn}, asked=asks)

    class Watched(Requests):
        async def send(self, works: Sequence[Work]) -> None:
            await super().send(works)
            assert len(self.outbound.lanes) == 0  # of a file, nobody can hold all who wait

    monkeypatch.setattr("tests.fills.MemorySink", Refusing)
    monkeypatch.setattr("consumer.first_fill.run.Requests", Watched)
    with pytest.raises(ExceptionGroup) as caught:
        fill(world, rows)
    assert caught.group_contains(FatalError, match=str(cause), depth=None)
    assert [contact["callable"] for contact in world.list.values()] == [False] * len(rows)


def test_a_load_that_genesys_refuses_for_good_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes answers any more, so no request is waited for."""
    ended_at: list[float] = []

    class Refusing(MemorySink):
        async def upsert(self, *_: Any, **__: Any) -> Any:
            ended_at.append(asyncio.get_running_loop().time())
            raise FatalError("no permission")

    async def main() -> None:
        run = Fill(empty_world(), MemoryRows([row("somebody", consent=False)]))
        with pytest.raises(ExceptionGroup) as caught:
            await run.first_fill.run()
        assert caught.group_contains(FatalError, match="no permission", depth=None)
        assert asyncio.get_running_loop().time() - ended_at[0] < 1

    monkeypatch.setattr("tests.fills.MemorySink", Refusing)
    virtual_time.run(main())


def test_a_load_does_not_wait_for_proof_that_does_not_come() -> None:
    """Nobody knows whether the contact is to blame or Genesys: the next start sends it again."""
    world = empty_world()
    rows = [row(f"contact-{n}", consent=False) for n in range(5)]
    world.unanswered = {"contact-2"}
    with pytest.raises(ExceptionGroup) as caught:
        fill(world, rows)
    assert caught.group_contains(FatalError, match="no usable answer for the contact of", depth=None)
    assert len(world.list) == 4
    world.unanswered = set()
    fill(world, rows)
    assert len(world.list) == 5


def test_a_load_does_not_wait_for_ever_for_whom_a_campaign_uses() -> None:
    """After ten minutes it ends; who is free by the next start is told then."""
    world = empty_world()
    rows = [row(f"contact-{n}", consent=False) for n in range(5)]
    world.poison, world.refusal = {"contact-2"}, InUse()
    with pytest.raises(ExceptionGroup) as caught:
        fill(world, rows)
    told = "neither changes nor deletes the contact of .*: a campaign uses it"
    assert caught.group_contains(FatalError, match=told, depth=None)
    assert len(world.list) == 4
    world.poison = set()
    fill(world, rows)
    assert len(world.list) == 5
