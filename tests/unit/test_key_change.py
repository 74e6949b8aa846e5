"""A contact whose external id changes: who was not to be called under the old one is not under the new one either."""

import json
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import SinkUnavailable
from consumer.model import Headers, Record, TopicPartition
from tests.debezium_rows import PARTITION, ROWS, callable_, reading, schemas
from tests.envelopes import ROW, TIME_MS, encoded
from tests.lives import Life, in_life, live, survive
from tests.memory_ports import MemorySchemas, World, outage
from tests.virtual_time import passes, until

Told = tuple[dict[str, object] | None, Headers]


def row(op: str, pos: int, before: object, after: object, headers: Headers = ()) -> Told:
    """A record of Debezium, one at each position and moment."""
    source = {"ts_ms": TIME_MS + pos, "file": "log.1", "pos": pos}
    return {"before": before, "after": after, "source": source, "op": op}, headers


def contact(external_id: int, **columns: object) -> dict[str, object]:
    """The row of a contact that may be called, but for what a test says."""
    return ROW | {"id": external_id} | columns


DENIED = contact(6, consent="denied")
GRANT = row("c", 1, None, contact(6))
WITHDRAWAL = row("u", 2, None, DENIED)
SUPPRESSION = row("u", 2, None, contact(6, consent="denied", phone="no number"))
RENAMED = row("u", 5, DENIED, contact(7))
DELETE, TOMBSTONE = row("d", 5, DENIED, None, [("__debezium.newkey", b'{"id":7}')]), (None, ())
CREATE = row("c", 6, None, contact(7), [("trace", b"1"), ("__debezium.oldkey", b'{"id":6}')])
CONNECT = row("c", 6, None, contact(7), [("__debezium.oldkey", b'{"schema":{"type":"struct"},"payload":{"id":6}}')])
DMS = {"record-type": "data", "timestamp": "2023-11-14T22:13:20Z"}
LATER = row("u", 9, None, contact(7, phone="+15550199"))


def tell(world: World, *values: Told, partition: TopicPartition = PARTITION) -> World:
    """Append records."""
    start = len(world.log.setdefault(partition, []))
    for offset, (fields, headers) in enumerate(values, start):
        value = None if fields is None else b"\0\0\0\0\1" + encoded(ROWS, fields)
        world.append([Record(*partition, offset, TIME_MS, b"6", value, headers)])
    return world


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> dict[str, Any]:
    """Settings for rows of Debezium."""
    return reading(tmp_path)


CHANGES = {
    "in one record": [RENAMED],
    "in two records": [DELETE, TOMBSTONE, CREATE],
    "with a header of Kafka Connect's JSON": [DELETE, TOMBSTONE, CONNECT],
}
each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@each_change
@pytest.mark.parametrize("withdrawal", [WITHDRAWAL, SUPPRESSION], ids=["withdrawn", "rejected"])
@pytest.mark.parametrize("lives", [1, 2, 3])
def test_a_withdrawn_consent_survives_a_change_of_key(
    rows: dict[str, Any], change: list[Told], withdrawal: Told, lives: int
) -> None:
    """Delivered long before, or still under way; until something later grants. Told again, it stays so."""
    world = tell(World(), GRANT)
    for step in ([withdrawal], change)[:lives]:
        if lives > 1:
            live(world, schemas(), **rows)
        tell(world, *step)
    if lives == 1:
        tell(world, *change)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False}
    tell(world, *change)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False}
    tell(world, LATER, *change)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": True}


def test_ids_that_move_up_by_one_statement_lose_nobody(rows: dict[str, Any]) -> None:
    """All its rows have one position in the log: who gets an id that another row has just left is no repeat of that."""
    five, six = contact(5, phone="+15550105"), contact(6, phone="+15550106")
    world = tell(World(), row("c", 1, None, five), row("c", 2, None, six))
    moves = [row("u", 9, six, six | {"id": 7}), row("u", 9, five, five | {"id": 6})]
    for _ in range(2):
        tell(world, *moves)
        live(world, schemas(), **rows)
        assert {name: held["phone"] for name, held in world.list.items()} == {"7": "+15550106", "6": "+15550105"}


@each_change
def test_who_was_callable_is_so_under_the_new_id(rows: dict[str, Any], change: list[Told]) -> None:
    """Also when a withdrawal was taken back before."""
    world = tell(World(), GRANT, WITHDRAWAL, row("u", 3, None, contact(6)))
    live(world, schemas(), **rows)
    tell(world, *change)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": True}


@pytest.mark.parametrize("headers", [[], [("__debezium.oldkey", b"\xff")], [("__debezium.oldkey", b"6")]])
def test_a_create_that_does_not_say_whose_it_was_has_the_consent_of_its_row(
    rows: dict[str, Any], headers: Headers
) -> None:
    """So it is with a converter of headers that is not JSON's."""
    world = tell(World(), GRANT, WITHDRAWAL, DELETE, TOMBSTONE, row("c", 6, None, contact(7), headers))
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": True}


@each_change
def test_a_withdrawal_that_genesys_has_not_answered_survives(rows: dict[str, Any], change: list[Told]) -> None:
    """It is sent when the key changes: the new contact waits for nothing, and is not callable at any moment."""
    world = tell(World(), GRANT)
    live(world, schemas(), **rows)
    seen: list[bool] = []
    world.on_upsert = lambda bodies: seen.extend(body["callable"] for body in bodies if body["externalId"] == "7")
    world.answer = outage(2, SinkUnavailable("no answer"))
    tell(world, WITHDRAWAL)

    async def act(life: Life) -> None:
        await until(lambda: ("6",) in world.requested[1:])
        tell(world, *change)
        life.source.wake()
        await until(lambda: world.committed[PARTITION] == len(world.log[PARTITION]))

    in_life(world, act, schemas(), **rows)
    assert callable_(world) == {"7": False}
    assert set(seen) == {False}


@pytest.mark.parametrize("created", [CREATE, CONNECT], ids=["json", "kafka connect's json"])
def test_so_it_does_where_the_new_id_comes_when_the_old_one_is_settled(rows: dict[str, Any], created: Told) -> None:
    """Nothing but the header of its record leads to who withdrew then."""
    world = tell(World(), GRANT, WITHDRAWAL, DELETE, TOMBSTONE)
    live(world, schemas(), **rows)
    tell(world, created)
    live(world, schemas(), **rows)
    assert callable_(world) == {"7": False}


GRANTED = row("u", 3, None, contact(6))
WAITING = {
    "an old grant": ([GRANT, WITHDRAWAL, GRANT], False),
    "a withdrawal": ([GRANT, WITHDRAWAL, WITHDRAWAL], False),
    "a grant": ([WITHDRAWAL, GRANTED, GRANTED], True),
}


@each_change
@pytest.mark.parametrize(("values", "is_callable"), WAITING.values(), ids=WAITING)
def test_what_is_told_again_while_a_request_is_under_way_hides_nothing_that_waits_behind_it(
    rows: dict[str, Any], change: list[Told], values: list[Told], is_callable: bool
) -> None:
    """The contact is under its new id what the newest of them says, whichever came last."""
    world = tell(World(), values[0])
    world.latency = 1.0

    async def act(life: Life) -> None:
        await until(lambda: world.requested != [])
        tell(world, *values[1:], *change)
        life.source.wake()
        await until(lambda: world.committed.get(PARTITION) == len(world.log[PARTITION]))

    in_life(world, act, schemas(), **rows)
    assert callable_(world) == {"7": is_callable}


@pytest.mark.parametrize("gone", [[DELETE], [DELETE, TOMBSTONE]], ids=["delete", "delete and tombstone"])
def test_a_delete_remembers_the_withdrawal_in_whose_place_it_stands_when_that_is_gone(
    rows: dict[str, Any], gone: list[Told]
) -> None:
    """The topic got more partitions, so the withdrawal stands in another one, which is lost before anything is sent.

    What took the delete's place is lost too: the delete is judged anew, and nothing else knows of the withdrawal.
    """
    other = TopicPartition(PARTITION.topic, 1)
    world = tell(World(), WITHDRAWAL, partition=other)
    tell(world)
    world.answer = outage(10**6, SinkUnavailable("down"))

    async def act(life: Life) -> None:
        async def arrive(*values: Told, partition: TopicPartition = PARTITION) -> None:
            tell(world, *values, partition=partition)
            life.source.wake()
            await passes(1)

        await passes(100)  # the breaker is open: whatever comes now is not sent
        await arrive(*gone)
        await arrive(row("c", 6, None, contact(6)), partition=other)
        life.source.lose([other])
        await arrive(CREATE)
        world.answer = lambda: None
        await until(lambda: world.committed.get(PARTITION) == len(world.log[PARTITION]))

    in_life(world, act, schemas(), **rows)
    assert callable_(world) == {"7": False}


@each_change
@pytest.mark.parametrize("after_effect", [False, True])
def test_a_crash_anywhere_keeps_it(rows: dict[str, Any], change: list[Told], after_effect: bool) -> None:
    """Parts that were sent and not settled come again, together with what they follow."""
    step, died = 0, True
    while died:
        step += 1
        world = tell(World(), GRANT, WITHDRAWAL, *change)
        world.poll_records = 1
        died = survive(world, step, after_effect=after_effect, schemas=schemas(), **rows)
        world.die_at = None
        live(world, schemas(), **rows)
        assert callable_(world) == {"7": False}
    assert step > 8


@pytest.mark.parametrize(
    ("columns", "beside"), [({}, {"before-image": {"id": 6}}), ({"BI_id": 6}, {})], ids=["object", "columns"]
)
def test_a_change_of_dms_leaves_nobody_under_the_old_key(
    rows: dict[str, Any], columns: dict[str, Any], beside: dict[str, Any]
) -> None:
    """Whoever withdraws by the same record is callable under neither, in whichever form the old one is told."""
    created = {"data": contact(6), "metadata": DMS | {"operation": "insert"}}
    changed = {"data": contact(7, consent="denied", **columns), "metadata": DMS | {"operation": "update"}, **beside}
    world = World()
    for offset, fields in enumerate([created, changed]):
        world.append([Record(*PARTITION, offset, TIME_MS + offset, b"6", json.dumps(fields).encode())])
    live(world, MemorySchemas({}), **{**rows, "source_envelope": "dms", "source_framing": "json"})
    assert callable_(world) == {"7": False}
