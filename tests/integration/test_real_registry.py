"""Schemas from a real registry: Apicurio, by Confluent's API and by its own; and schemas that change in mid-stream."""

import asyncio
import copy
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from consumer.adapters.schema_registry.cache import SchemaCache
from consumer.adapters.schema_registry.directory import LocalSchemas
from consumer.adapters.schema_registry.registry import RegistrySchemas
from consumer.adapters.schema_registry.transport import Transport
from consumer.core.decode import decode
from consumer.core.envelopes.choice import TopicEnvelope
from consumer.core.envelopes.native import native
from consumer.core.framing import form
from consumer.core.keys import ANY_FIELD
from consumer.errors import DecodeError, SourceUnavailable
from consumer.formats import Framing, KeyFormat, SchemaKind, SchemaName
from consumer.model import ChangeEvent, Reason, Record
from consumer.pipeline.readers import Readers
from consumer.settings import packaged_schemas
from tests.apicurio import Apicurio
from tests.kafka_cluster import KafkaMissingError

pytestmark = pytest.mark.timeout(300)

NATIVE = json.loads((packaged_schemas() / "crm_contact_change.avsc").read_text())
COUNTRY = {"type": "enum", "name": "geo.Country", "symbols": ["DE", "FR"]}
ADDRESS = {"type": "record", "name": "crm.Address", "fields": [{"name": "country", "type": "geo.Country"}]}
CONTACT = {
    "type": "record",
    "name": "crm.Contact",
    "fields": [{"name": "home", "type": "crm.Address"}, {"name": "work", "type": "crm.Address"}],
}
TOPIC = "crm.contacts.changes"


@pytest.fixture(scope="module")
def apicurio() -> Iterator[Apicurio]:
    """A registry for the whole file."""
    try:
        with Apicurio() as registry:
            yield registry
    except KafkaMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
async def schemas(apicurio: Apicurio, tmp_path: Path) -> AsyncIterator[RegistrySchemas]:
    """The adapter, by Confluent's API."""
    (tmp_path / "ids.json").write_text("{}")
    transport = Transport(apicurio.confluent, None, None)
    adapter = RegistrySchemas(transport, SchemaCache(tmp_path / "cache", transport.base), LocalSchemas(tmp_path))
    yield adapter
    await adapter.close()


def registered_with_references(apicurio: Apicurio) -> int:
    """A schema that refers to one that refers to another."""
    apicurio.register("geo.Country", COUNTRY)
    country = {"name": "geo.Country", "subject": "geo.Country", "version": 1}
    apicurio.register("crm.Address", ADDRESS, references=[country])
    address = {"name": "crm.Address", "subject": "crm.Address", "version": 1}
    return apicurio.register("crm.Contact", CONTACT, references=[address])


def read(schema: str, body: bytes) -> Any:
    """What a body holds."""
    return fastavro.schemaless_reader(io.BytesIO(body), fastavro.parse_schema(json.loads(schema)), None)


async def test_a_schema_is_found_by_its_id(apicurio, schemas):
    """As it was registered."""
    text = await schemas.fetch(apicurio.register("native", NATIVE))
    assert json.loads(text) == NATIVE


async def test_an_id_that_nobody_gave_is_unknown(schemas):
    """The registry says so itself."""
    assert await schemas.fetch(2**31 - 1) is None
    assert await schemas.fetch(SchemaName(SchemaKind.GLOBAL_ID, "999999")) is None
    assert await schemas.fetch(SchemaName(SchemaKind.CONTENT_ID, "999999")) is None
    assert await schemas.fetch(SchemaName(SchemaKind.CONTENT_HASH, "ab" * 32)) is None


async def test_a_name_of_a_kind_that_the_registry_does_not_know_is_unknown(schemas):
    """Junk that looks like a GUID must not hold up its partition for ever."""
    assert await schemas.fetch(SchemaName(SchemaKind.GUID, "6f1c0a0e-3c1b-4f5e-9f43-0c1d2e3f4a5b")) is None


async def test_a_wrong_url_is_an_outage(apicurio, tmp_path):
    """Records are not rejected for it, whatever their schemas are called."""
    transport = Transport(f"{apicurio.url}/apis/elsewhere", None, None)
    (tmp_path / "ids.json").write_text("{}")
    adapter = RegistrySchemas(transport, SchemaCache(tmp_path, transport.base), LocalSchemas(tmp_path))
    for name in (7, SchemaName(SchemaKind.GUID, "6f1c0a0e-3c1b-4f5e-9f43-0c1d2e3f4a5b")):
        with pytest.raises(SourceUnavailable, match="check its URL"):
            await adapter.fetch(name)
    await adapter.close()


async def test_protobuf_is_not_decodable(apicurio, schemas):
    """The frame of such a record is the same."""
    identifier = apicurio.register("proto", 'syntax = "proto3"; message A { string a = 1; }', schemaType="PROTOBUF")
    with pytest.raises(DecodeError, match="PROTOBUF, not Avro"):
        await schemas.fetch(identifier)


async def test_references_are_put_in_place_by_whichever_name(apicurio, schemas):
    """By the id, and by each of the names that Apicurio's headers give."""
    identifier = registered_with_references(apicurio)
    (version,) = apicurio.ask("/apis/registry/v2/groups/default/artifacts/crm.Contact/versions")["versions"]
    found = [
        await schemas.fetch(identifier),
        await schemas.fetch(SchemaName(SchemaKind.GLOBAL_ID, str(version["globalId"]))),
        await schemas.fetch(SchemaName(SchemaKind.CONTENT_ID, str(version["contentId"]))),
    ]
    for text in found:
        assert read(text, b"\x02\x00") == {"home": {"country": "FR"}, "work": {"country": "DE"}}


async def test_a_schema_is_found_by_the_hash_of_its_content(apicurio, schemas):
    """One without references: their content is part of the hash."""
    text = json.dumps({"type": "record", "name": "crm.Hashed", "fields": [{"name": "id", "type": "string"}]})
    apicurio.register("hashed", text)
    name = SchemaName(SchemaKind.CONTENT_HASH, hashlib.sha256(text.encode()).hexdigest())
    assert json.loads(await schemas.fetch(name)) == json.loads(text)


async def test_the_schemas_of_a_topic_are_found_the_latest_first(apicurio, schemas, tmp_path):
    """By Confluent's API as by its own; a topic without some has none."""
    older = {"type": "record", "name": "crm.Registered", "fields": [{"name": "id", "type": "string"}]}
    newer = {**older, "fields": [*older["fields"], {"name": "city", "type": "string", "default": ""}]}
    for schema in (older, newer):
        apicurio.register("registered.contacts-value", schema)
    transport = Transport(f"{apicurio.url}/apis/registry/v2", None, None)
    own = RegistrySchemas(transport, SchemaCache(tmp_path / "cache", transport.base), LocalSchemas(tmp_path))
    for each in (schemas, own):
        found = [json.loads(str(text)) async for text in each.of_topic("registered.contacts")]
        assert found == [newer, older]
        assert [text async for text in each.of_topic("nobody.s.contacts")] == []
    await own.close()


# ---- schemas change ----


def changed(**types: Any) -> dict[str, Any]:
    """The native schema with fields of other types; None takes a field away, what is not there is added."""
    schema: dict[str, Any] = copy.deepcopy(NATIVE)
    fields = {field["name"]: field for field in schema["fields"]}
    fields |= {name: {"name": name, "type": kind} for name, kind in types.items()}
    schema["fields"] = [field for name, field in fields.items() if types.get(name, "") is not None]
    return schema


CHANGE_TYPE = {"type": "enum", "name": "ChangeType", "symbols": ["CREATE", "MERGE", "UPDATE", "DELETE", "UNDELETE"]}
VERSIONS = {
    "as it was": NATIVE,
    "field added": changed(loyalty="string"),
    "field removed": changed(email=None),
    "field renamed": changed(email=None, mail=["null", "string"]),
    "promoted": changed(version=["null", "int"], occurredAt="int"),
    "enum grown": changed(changeType=CHANGE_TYPE),
    "enum grown and used": changed(changeType=CHANGE_TYPE),
    "union reordered": changed(phone=["string", "null"], consent=["boolean", "null"]),
    "required field renamed": changed(externalId=None, contactId="string"),
    "as it was again": NATIVE,
}
"""Schemas in the order in which their records come."""

REJECTED = ("enum grown and used", "required field renamed")
"""Those whose records are no change events any more; records of all others are read."""


def event(number: int, step: str) -> dict[str, Any]:
    """Fields for any of the schemas."""
    return {
        "eventId": "e",
        "changeType": "MERGE" if step == "enum grown and used" else "UPDATE",
        "externalId": f"c-{number}",
        "contactId": f"c-{number}",
        "occurredAt": 1_700_000_000 if step == "promoted" else 1_700_000_000_000,
        "version": number,
        "phone": "+14155550100",
        "email": "a@example.com",
        "mail": "a@example.com",
        "consent": True,
        "doNotCall": False,
        "attributes": {},
        "loyalty": "gold",
    }


def told(apicurio: Apicurio) -> list[Record]:
    """Two records of each version, as a producer that registers its schemas writes them."""
    records: list[Record] = []
    for step, schema in VERSIONS.items():
        identifier = apicurio.register(TOPIC + "-value", schema)
        for _ in range(2):
            number = len(records)
            fastavro.schemaless_writer(body := io.BytesIO(), fastavro.parse_schema(schema), event(number, step))
            value = b"\0" + identifier.to_bytes(4, "big") + body.getvalue()
            records.append(Record(TOPIC, 0, number, 1_700_000_000_000, f"c-{number}".encode(), value))
    return records


async def taken(
    records: list[Record], readers: Readers, fetches: list[asyncio.Task[None]]
) -> tuple[list[Any], set[int]]:
    """What becomes of records, and how many fetches had begun whenever one had to wait for its schema."""
    results: list[Any] = []
    begun: set[int] = set()
    while len(results) < len(records):
        rest = records[len(results) :]
        decoded = decode(rest, readers.known, readers.form)
        results += decoded.results
        if decoded.missing is not None:
            await readers.learn(decoded.missing, rest)
            begun.add(len(fetches))
    return results, begun


async def test_schemas_change_in_mid_stream(apicurio, schemas):
    """Every record is read as it was written; what is no change event any more is rejected, and nothing around it."""
    records = told(apicurio)
    fetches: list[asyncio.Task[None]] = []
    readers = Readers(
        form(TOPIC, Framing.CONFLUENT, KeyFormat.STRING),
        envelope=TopicEnvelope(native, ANY_FIELD),
        schemas=schemas,
        way=b"",
        unknown_timeout=60,
        clock=asyncio.get_running_loop().time,
        spawn=lambda fetch: fetches.append(asyncio.create_task(fetch)),
    )
    results, begun = await taken(records, readers, fetches)
    assert len(begun) == 1, "all schemas of what is held are fetched at once"
    by_step = dict(zip(VERSIONS, zip(results[::2], results[1::2], strict=True), strict=True))
    for step in REJECTED:
        assert all(isinstance(result, DecodeError) for result in by_step[step])
    assert by_step["enum grown and used"][0].reasons == (Reason.NOT_DECODABLE,)
    assert by_step["required field renamed"][0].reasons == (Reason.ENVELOPE_UNKNOWN,)
    for number, (step, pair) in enumerate(by_step.items()):
        for offset, found in enumerate(pair):
            if step not in REJECTED:
                assert isinstance(found, ChangeEvent), (step, found)
                assert (found.external_id, found.version) == (f"c-{2 * number + offset}", 2 * number + offset)
                assert (found.change_type, found.phone, found.consent) == ("UPDATE", "+14155550100", True)
                assert found.email == (None if step in {"field removed", "field renamed"} else "a@example.com")
