"""Records that nobody can decode, and dead letters that come back: neither makes somebody callable who withdrew."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from consumer.core import dead_letters
from consumer.errors import DecodeError
from consumer.formats import SchemaReference
from consumer.model import DeadLetter, Record, TopicPartition
from consumer.pipeline.readers import make_reader
from tests.envelopes import envelopes
from tests.lives import live, world_of
from tests.memory_ports import SCHEMA, MemorySchemas, World
from tests.stories import TOPIC, Event, Story

P0 = TopicPartition(TOPIC, 0)
UNKNOWN_SCHEMA = 9


def _append(world: World, event: Event, **changed: object) -> Record:
    """Put an event at the end of the partition."""
    offset = len(world.log.get(P0, ()))
    record = Record(*P0, offset, event.occurred_at, event.external_id.encode(), event.value())
    world.append([replace(record, **changed)])
    return world.log[P0][-1]


def _of_unknown_schema(event: Event) -> bytes:
    value = event.value()
    assert value is not None
    return struct.pack(">bI", 0, UNKNOWN_SCHEMA) + value[5:]


def _replay(world: World, record: Record) -> None:
    """Put a dead letter back, as `dead-letters replay` does."""
    headers = dead_letters.headers(DeadLetter(record, "schema_unknown", "", 0))
    letter = dead_letters.read(headers)
    assert letter is not None
    again = replace(record, offset=len(world.log[P0]), headers=dead_letters.replayed(headers, letter))
    world.append([again])


def _delivered(version: int | None = 1) -> World:
    """A world in which a contact may be called."""
    world = world_of(Story().tell(0, Event("contact-0", version)))
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is True
    return world


def _last(world: World) -> tuple[object, object]:
    event = world.events()[-1]
    return event["outcome"], event["operation"]


@pytest.mark.parametrize("version", [1, None])
@pytest.mark.parametrize("value", [b"", b"\1junk", b"\0\0\0\0\1junk", b"\0\0\0\0\x09junk"])
def test_the_contact_of_a_record_that_cannot_be_decoded_is_not_callable(value: bytes, version: int | None) -> None:
    """Whatever keeps it from being decoded; the event names the contact, and the number stays off the other list."""
    world = _delivered(version)
    _append(world, Event("contact-0", None), value=value)
    live(world, suppress_undecodable=True, schema_unknown_timeout_s=0)
    assert world.list["contact-0"]["callable"] is False
    assert _last(world) == ("rejected", "suppress")
    assert world.events()[-1]["contactRef"] == world.events()[0]["contactRef"]
    assert len(world.dead_letters) == 1


def test_by_default_a_record_that_cannot_be_decoded_changes_nobody() -> None:
    """It is rejected, and names nobody."""
    world = _delivered()
    _append(world, Event("contact-0", None), value=b"junk")
    live(world)
    assert world.list["contact-0"]["callable"] is True
    assert _last(world) == ("rejected", None)
    assert world.events()[-1]["contactRef"] is None


@pytest.mark.parametrize("key", [None, b"", b" ", b"\0\0\0\0\1framed", b"\xff"])
def test_a_key_that_names_nobody_suppresses_nobody(key: bytes | None) -> None:
    """Missing, blank, framed, or not text."""
    world = _delivered()
    _append(world, Event("contact-0", None), key=key, value=b"junk")
    live(world, suppress_undecodable=True)
    assert _last(world) == ("rejected", None)


@pytest.mark.parametrize("version", [1, None])
def test_the_next_change_that_can_be_decoded_is_sent(version: int | None) -> None:
    """Also one with the content from before: the contact is callable again."""
    world = _delivered(version)
    _append(world, Event("contact-0", None), value=b"junk")
    live(world, suppress_undecodable=True)
    _append(world, Event("contact-0", None if version is None else 2))
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is True
    assert _last(world) == ("delivered", "upsert")


@pytest.mark.parametrize("version", [2, None])
def test_a_replayed_letter_that_can_be_decoded_now_is_sent(version: int | None) -> None:
    """Its schema was registered meanwhile: what it says counts, and is the end of the precaution."""
    world = _delivered(None if version is None else 1)
    event = Event("contact-0", version, phone="+15550177")
    letter = _append(world, event, value=_of_unknown_schema(event))
    live(world, suppress_undecodable=True, schema_unknown_timeout_s=0)
    assert world.list["contact-0"]["callable"] is False
    _replay(world, letter)
    live(world, MemorySchemas({UNKNOWN_SCHEMA: [SCHEMA]}), suppress_undecodable=True)
    assert (world.list["contact-0"]["callable"], world.list["contact-0"]["phone"]) == (True, "+15550177")
    assert _last(world) == ("delivered", "upsert")


@pytest.mark.parametrize("version", [2, None])
def test_a_replayed_letter_that_still_cannot_be_decoded_does_not_undo_a_newer_change(version: int | None) -> None:
    """It counts where it stood first."""
    world = _delivered(None if version is None else 1)
    letter = _append(world, Event("contact-0", None), value=b"junk")
    live(world, suppress_undecodable=True)
    _append(world, Event("contact-0", version))
    live(world, suppress_undecodable=True)
    _replay(world, letter)
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is True
    assert _last(world) == ("rejected", None)


def test_an_old_change_that_comes_again_does_not_end_the_precaution() -> None:
    """What stood before the record that cannot be decoded is older than it, with the same version too."""
    world = _delivered()
    _append(world, Event("contact-0", None), value=b"junk")
    live(world, suppress_undecodable=True)
    world.committed[P0] = 0
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is False
    assert [event["outcome"] for event in world.events()[-2:]] == ["stale", "rejected"]


def test_a_contact_that_is_not_in_genesys_is_left_alone() -> None:
    """It is asked for, nothing is sent, and its first change is delivered as ever."""
    world = World()
    _append(world, Event("contact-0", None), value=b"junk")
    live(world, suppress_undecodable=True)
    assert (world.sent, world.list) == ([("amend", ("contact-0",))], {})
    assert _last(world) == ("rejected", None)
    _append(world, Event("contact-0", 1))
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is True


def test_an_upsert_under_way_is_followed_by_the_precaution() -> None:
    """The grant and the record that cannot be decoded are polled together: the person does not stay callable."""
    world = World()
    _append(world, Event("contact-0", 1))
    _append(world, Event("contact-0", None), value=b"junk")
    live(world, suppress_undecodable=True)
    assert world.list["contact-0"]["callable"] is False


@pytest.mark.parametrize("version", [1, None])
def test_a_replayed_grant_does_not_undo_a_withdrawal_that_came_after_it(version: int | None) -> None:
    """Without versions the order of the partition counts, and there the letter stands where it stood first."""
    world = World()
    grant = Event("contact-0", version, phone="+15550177")
    letter = _append(world, grant, value=_of_unknown_schema(grant))
    _append(world, Event("contact-0", None if version is None else 2, consent=False))
    live(world, schema_unknown_timeout_s=0)
    assert world.list["contact-0"]["callable"] is False
    _replay(world, letter)
    live(world, MemorySchemas({UNKNOWN_SCHEMA: [SCHEMA]}))
    assert world.list["contact-0"]["callable"] is False
    assert _last(world) == ("stale", None)


def _row(**columns: object) -> bytes:
    return json.dumps({"id": "7", "phone": "+14155550142", "consent": True, "dnc": False, **columns}).encode()


NAMELESS = {
    "an event that nobody knows": ("outbox", _row(id=None, consent=False, type="WITHDRAWN")),
    "no phone": ("flattened", json.dumps({"id": None, "consent": False, "dnc": False, "__op": "u"}).encode()),
    "an attribute": ("flattened", _row(id="", consent=False, city={}, __op="u")),
    "a delete without a time": ("outbox", _row(id=None, type="DELETE", at="never")),
}


@pytest.mark.parametrize("key", ["string", "avro"])
@pytest.mark.parametrize(("envelope", "value"), NAMELESS.values(), ids=NAMELESS)
def test_a_row_with_a_flaw_that_names_nobody_suppresses_whom_its_key_names(
    tmp_path: Path, envelope: str, value: bytes, key: str
) -> None:
    """What it tells otherwise cannot be carried out either: it counts as one that nobody can decode."""
    path = tmp_path / "mapping.toml"
    told = {"external_id": "id", "phone": "phone", "consent": "consent", "do_not_call": "dnc", "occurred_at": "at"}
    told |= {"change_type": "type"} if envelope == "outbox" else {}
    path.write_text(
        "\n".join(["[default]", *(f'{name} = "{column}"' for name, column in told.items()), 'attributes.city = "city"'])
    )
    settings = {"source_envelope": envelope, "source_mapping": str(path), "source_framing": "json", "source_key": key}
    keys = [b"7", b"7"] if key == "string" else [struct.pack(">bIb", 0, schema, 2) + b"7" for schema in (10, 11)]
    world = World()
    for named, body in zip(keys, (_row(type="CREATE", __op="c"), value), strict=True):
        _append(world, Event("7", None), key=named, value=body)
        live(world, MemorySchemas(_SCHEMAS), suppress_undecodable=True, **settings)
    assert world.list["7"]["callable"] is False
    assert _last(world) == ("rejected", "suppress")
    assert [reason for _, reason in world.dead_letters] == ["external_id_missing"]


_SCHEMAS: Mapping[SchemaReference, Sequence[str]] = {
    1: [SCHEMA],
    10: ['"string"'],
    11: ['{"type": "string", "connect.version": 1}'],
}


def _framed(schema_id: int) -> bytes:
    return struct.pack(">bIb", 0, schema_id, 2 * len("contact-0")) + b"contact-0"


@pytest.mark.parametrize("value", [b"\0\0\0\0\1junk", b"junk", b"\0\0\0\0\x09junk"])
def test_the_schema_of_a_key_is_learnt_before_it_has_to_name_somebody(value: bytes) -> None:
    """The first record with a new schema of keys may be the one that cannot be decoded, also behind ones that can."""
    world = World()
    _append(world, Event("contact-0", None), key=_framed(10))
    schemas = MemorySchemas(_SCHEMAS)
    live(world, schemas, source_key="avro")
    world.poll_records = 1
    for number in (0, 1):
        _append(world, Event(f"contact-{number}", None), key=_framed(10))
    _append(world, Event("contact-0", None), key=_framed(11), value=value)
    live(world, schemas, suppress_undecodable=True, source_key="avro", schema_unknown_timeout_s=0)
    assert world.list["contact-0"]["callable"] is False
    assert world.list["contact-1"]["callable"] is True
    assert _last(world) == ("rejected", "suppress")


def test_a_schema_of_keys_that_nobody_knows_names_nobody() -> None:
    """It is asked for as long as one of values, and holds nothing up any longer."""
    world = World()
    _append(world, Event("contact-0", None), key=_framed(12), value=b"junk")
    _append(world, Event("contact-1", None))
    live(world, MemorySchemas({1: [SCHEMA]}), suppress_undecodable=True, source_key="avro")
    assert [(event["outcome"], event["operation"]) for event in world.events() if event["type"] == "record"] == [
        ("rejected", None),
        ("delivered", "upsert"),
    ]


@pytest.mark.parametrize("name", ["\ud800", "n" * 300_000])
def test_the_name_of_a_schema_fits_a_dead_letter_whatever_it_is(name: str) -> None:
    """One that UTF-8 does not have would end the process, and a long one not fit a header."""
    schema = json.dumps({"type": "record", "name": name, "fields": []}, ensure_ascii=False)
    world = World()
    _append(world, Event("contact-0", 1), value=b"\0\0\0\0\7")
    live(world, MemorySchemas({7: [schema]}), source_envelope="salesforce")
    ((record, reason),) = world.dead_letters
    assert reason == "envelope_unknown"
    error = make_reader(schema, envelopes("salesforce").of_topic(TOPIC))
    assert isinstance(error, DecodeError)
    headers = dead_letters.headers(DeadLetter(record, reason, error.detail, 0))
    assert all(value is not None and len(value) <= 2_000 for _, value in headers)
    assert f"is for the topic, for {'n' * 1_000 if name[0] == 'n' else '?'}" in error.detail


def test_a_key_in_avro_names_the_contact_as_well() -> None:
    """The schema of keys is learnt together with the first schema of values, before anybody has to be named by it."""
    key = struct.pack(">bIb", 0, 10, 2 * len("contact-0")) + b"contact-0"
    world = World()
    for value in ({}, {"value": b"\0\0\0\0\1junk"}):
        _append(world, Event("contact-0", None), key=key, **value)
    live(world, MemorySchemas({1: [SCHEMA], 10: ['"string"']}), suppress_undecodable=True, source_key="avro")
    assert world.list["contact-0"]["callable"] is False
    assert _last(world) == ("rejected", "suppress")
