"""Schemas from a directory, and from a registry that answers over a real socket, well or badly."""

import asyncio
import io
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import fastavro
import pytest
from aiohttp import web

from consumer.adapters.schema_registry import transport
from consumer.adapters.schema_registry.cache import SchemaCache
from consumer.adapters.schema_registry.directory import LocalSchemas
from consumer.adapters.schema_registry.registry import RegistrySchemas, opened
from consumer.adapters.schema_registry.transport import Transport
from consumer.core.avro import WriterSchema
from consumer.errors import DecodeError, SettingsError, SourceUnavailable, TransientError
from consumer.formats import SchemaKind, SchemaName
from consumer.model import Reason
from consumer.settings import load, packaged_schemas
from tests.lives import REQUIRED
from tests.registry import UNKNOWN, Registry, running

AVRO = Path(__file__).parents[1] / "data" / "avro"
GUID = "6f1c0a0e-3c1b-4f5e-9f43-0c1d2e3f4a5b"
SCHEMA = '{"type": "record", "name": "crm.Contact", "fields": [{"name": "id", "type": "string"}]}'


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """An empty registry on loopback."""
    async with running() as registry:
        yield registry


Client = Callable[..., RegistrySchemas]


@pytest.fixture
async def client(tmp_path) -> AsyncIterator[Client]:
    """Makes clients of a registry; unless it is told there are no credentials, and no local schemas."""
    clients: list[RegistrySchemas] = []
    (tmp_path / "nothing").mkdir()

    def make(
        url: str, username: str | None = None, password: str | None = None, local: Path | None = None
    ) -> RegistrySchemas:
        reached = Transport(url, username, password)
        cache = SchemaCache(tmp_path / "cache", reached.base)
        schemas = LocalSchemas(local or directory(tmp_path / "nothing", {}))
        clients.append(RegistrySchemas(reached, cache, schemas))
        return clients[-1]

    yield make
    for each in clients:
        await each.close()


@pytest.fixture
def schemas(registry: Registry, client: Client) -> RegistrySchemas:
    """A client of the registry."""
    return client(registry.url)


def directory(path: Path, ids: Any, **files: str) -> Path:
    """A schemas directory with these ids and files."""
    (path / "ids.json").write_text(ids if isinstance(ids, str) else json.dumps(ids))
    for name, text in files.items():
        (path / f"{name}.avsc").write_text(text)
    return path


class TestLocal:
    async def test_the_packaged_schemas_are_found_by_id(self):
        """Id 1 is the native change event; an id that nobody named is unknown."""
        schemas = LocalSchemas(packaged_schemas())
        text = await schemas.fetch(1)
        assert text == (packaged_schemas() / "crm_contact_change.avsc").read_text()
        assert await schemas.fetch(2) is None
        await schemas.close()

    async def test_several_ids_may_name_one_file(self, tmp_path):
        """Registries of two environments give one schema two ids."""
        schemas = LocalSchemas(directory(tmp_path, {"7": "contact.avsc", "2147483647": "contact.avsc"}, contact=SCHEMA))
        assert await schemas.fetch(7) == await schemas.fetch(2**31 - 1) == SCHEMA

    @pytest.mark.parametrize(
        ("ids", "problem"),
        [
            ("{", "cannot be read"),
            ([], "must be an object"),
            ({"one": "contact.avsc"}, "'one'"),
            ({"-1": "contact.avsc"}, "'-1'"),
            ({"2147483648": "contact.avsc"}, "'2147483648'"),
            ({"²": "contact.avsc"}, "'²'"),
            ({"guid:6f1c0a0e": "contact.avsc"}, "'guid:6f1c0a0e'"),
            ({"none:json": "contact.avsc"}, "'none:json'"),
            ({"fingerprint:a92de1f8a242f53d": "contact.avsc"}, "'fingerprint:a92de1f8a242f53d'"),
            ({"1": 5}, "'1'"),
            ({"1": "missing.avsc"}, "schema 1 cannot be read.*missing.avsc"),
            ({"1": "broken.avsc"}, "broken.avsc is not an Avro schema"),
            ({"1": "nameless.avsc"}, "nameless.avsc is not an Avro schema"),
            ({"1": "number.avsc"}, "number.avsc is not an Avro schema"),
        ],
    )
    def test_what_is_wrong_is_told_at_the_start(self, tmp_path, ids, problem):
        """The message names the setting and the id or file."""
        directory(tmp_path, ids, contact=SCHEMA, broken="{", nameless='{"type": "record"}', number="5")
        with pytest.raises(SettingsError, match=f"^SCHEMAS_DIR: .*{problem}"):
            LocalSchemas(tmp_path)

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            (f"guid:{GUID.upper()}", SchemaName(SchemaKind.GUID, GUID)),
            (f"glue:{GUID}", SchemaName(SchemaKind.GLUE, GUID)),
            ("globalId:6", SchemaName(SchemaKind.GLOBAL_ID, "6")),
            ("contentId:6", SchemaName(SchemaKind.CONTENT_ID, "6")),
            (f"contentHash:{'ab' * 32}", SchemaName(SchemaKind.CONTENT_HASH, "ab" * 32)),
            (f"azure:{'ab' * 16}", SchemaName(SchemaKind.AZURE, "ab" * 16)),
            ("topic:CRM.contacts", SchemaName(SchemaKind.TOPIC, "CRM.contacts")),
        ],
    )
    async def test_a_schema_may_have_any_name_that_a_framing_gives(self, tmp_path, key, name):
        """Its text is the kind of name and the name, as log lines have it."""
        assert await LocalSchemas(directory(tmp_path, {key: "contact.avsc"}, contact=SCHEMA)).fetch(name) == SCHEMA
        assert str(name).lower() == key.lower()

    async def test_every_schema_is_found_by_its_fingerprint(self, tmp_path):
        """Also those without an id: in bytes as they are on the wire."""
        text = (AVRO / "single_object_test_message.avsc").read_text()
        schemas = LocalSchemas(directory(tmp_path, {}, message=text))
        assert await schemas.fetch(SchemaName(SchemaKind.FINGERPRINT, "a92de1f8a242f53d")) == text

    async def test_a_default_that_does_not_fit_is_nobody_s_business(self, tmp_path):
        """No reader uses it, and writers in Java do not mind: the schema is found by its id and by its fingerprint."""
        text = (AVRO / "single_object_test_message.avsc").read_text().replace('"long"', '"long", "default": "1"')
        assert text.count("default") == 1
        schemas = LocalSchemas(directory(tmp_path, {"1": "message.avsc"}, message=text))
        assert await schemas.fetch(SchemaName(SchemaKind.FINGERPRINT, "a92de1f8a242f53d")) == text
        assert await schemas.fetch(1) == text

    def test_a_file_that_is_no_schema_is_told_once(self, tmp_path):
        """Whether it has an id or not."""
        directory(tmp_path, {"1": "broken.avsc"}, broken="{", other="5")
        with pytest.raises(SettingsError) as raised:
            LocalSchemas(tmp_path)
        assert len(raised.value.problems) == 2

    def test_a_directory_without_ids_is_refused(self, tmp_path):
        """An empty directory would reject every record."""
        with pytest.raises(SettingsError, match=r"ids\.json cannot be read"):
            LocalSchemas(tmp_path)

    def test_all_that_is_wrong_is_told_at_once(self, tmp_path):
        """One start, one list of problems."""
        directory(tmp_path, {"1": "missing.avsc", "x": "contact.avsc", "2": "contact.avsc"}, contact=SCHEMA)
        with pytest.raises(SettingsError) as raised:
            LocalSchemas(tmp_path)
        assert len(raised.value.problems) == 2


class TestRegistry:
    async def test_a_known_id_gives_its_schema(self, registry, schemas):
        """The text is handed on as the registry has it."""
        registry.tell_schema(7, schema=SCHEMA)
        registry.tell_schema(8, schema=SCHEMA, schemaType="AVRO")
        assert await schemas.fetch(7) == await schemas.fetch(8) == SCHEMA
        assert "authorization" not in registry.requests[0].headers

    async def test_an_unknown_id_gives_none(self, registry, schemas):
        """The registry says so itself, with its own error code."""
        assert await schemas.fetch(7) is None

    @pytest.mark.parametrize("where", ["given", "in the URL"])
    async def test_credentials_are_sent(self, registry, client, where):
        """Basic authentication with the user of the settings, or with the one in the URL."""
        registry.tell_schema(7, schema=SCHEMA)
        inside = registry.url.replace("//", "//ann:s%40cret@")
        schemas = client(registry.url, "ann", "s@cret") if where == "given" else client(inside)
        assert await schemas.fetch(7) == SCHEMA
        assert registry.requests[0].headers["authorization"] == "Basic YW5uOnNAY3JldA=="

    async def test_the_api_may_live_below_a_path(self, registry, client):
        """Other registries offer Confluent's API beside their own."""
        registry.tell("/apis/ccompat/v7/schemas/ids/7", {"schema": SCHEMA})
        assert await client(f"{registry.url}/apis/ccompat/v7/").fetch(7) == SCHEMA

    async def test_a_proxy_of_the_environment_is_not_asked(self, registry, schemas, monkeypatch):
        """Credentials go to the registry alone."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        registry.tell_schema(7, schema=SCHEMA)
        assert await schemas.fetch(7) == SCHEMA

    @pytest.mark.parametrize("status", [401, 403])
    async def test_refused_credentials_are_told(self, registry, schemas, status):
        """It pauses, since a rotated password comes right again, and names the settings to look at."""
        registry.tell("/schemas/ids/7", {"error_code": status}, status)
        with pytest.raises(TransientError, match="SCHEMA_REGISTRY_USERNAME") as raised:
            await schemas.fetch(7)
        assert not isinstance(raised.value, SourceUnavailable)

    @pytest.mark.parametrize("kind", ["JSON", "PROTOBUF"])
    async def test_another_kind_of_schema_is_not_decodable(self, registry, schemas, kind):
        """No waiting makes Avro of it."""
        registry.tell_schema(7, schema="{}", schemaType=kind)
        with pytest.raises(DecodeError, match=f"schema 7 .*{kind}, not Avro") as raised:
            await schemas.fetch(7)
        assert raised.value.reasons == (Reason.NOT_DECODABLE,)


class TestOtherNames:
    async def test_a_guid_is_asked_for_as_such(self, registry, schemas):
        """Confluent's newer names; an unknown one is none."""
        registry.tell(f"/schemas/guids/{GUID}", {"schema": SCHEMA})
        assert await schemas.fetch(SchemaName(SchemaKind.GUID, GUID)) == SCHEMA
        assert await schemas.fetch(SchemaName(SchemaKind.GUID, GUID.replace("6", "7"))) is None

    @pytest.mark.parametrize("api", ["", "/apis/ccompat/v7", "/apis/registry/v3"])
    @pytest.mark.parametrize(
        ("name", "path"),
        [
            (SchemaName(SchemaKind.GLOBAL_ID, "6"), "globalIds/6"),
            (SchemaName(SchemaKind.CONTENT_ID, "6"), "contentIds/6"),
            (SchemaName(SchemaKind.CONTENT_HASH, "ab" * 32), f"contentHashes/{'ab' * 32}"),
        ],
    )
    async def test_apicurio_is_asked_by_its_own_api(self, registry, client, api, name, path):
        """Whichever of its APIs is configured; the answer is the schema itself."""
        registry.tell(f"/apis/registry/v2/ids/{path}", SCHEMA.encode())
        registry.tell(f"/apis/registry/v2/ids/{path}/references", [])
        assert await client(registry.url + api).fetch(name) == SCHEMA

    @pytest.mark.parametrize("body", [b"", b"{}", [5], [{"name": "a"}], [{"name": "a", "artifactId": "b"}]])
    async def test_references_that_are_none_are_an_outage(self, registry, schemas, body):
        """Apicurio's own are lists of names with artifacts and versions."""
        registry.tell("/apis/registry/v2/ids/globalIds/6", SCHEMA.encode())
        registry.tell("/apis/registry/v2/ids/globalIds/6/references", body)
        with pytest.raises(SourceUnavailable, match=r"schema registry.*references"):
            await schemas.fetch(SchemaName(SchemaKind.GLOBAL_ID, "6"))

    async def test_a_missing_reference_makes_the_schema_unknown(self, registry, schemas):
        """The registry may lag, as with a missing schema."""
        missing = {"error_code": 404, "name": "VersionNotFoundException"}
        listed = [{"name": "geo.Country", "groupId": "a/b", "artifactId": "c", "version": "1"}]
        registry.tell("/apis/registry/v2/ids/globalIds/6", SCHEMA.encode())
        registry.tell("/apis/registry/v2/ids/globalIds/6/references", listed)
        registry.tell("/apis/registry/v2/groups/a%2Fb/artifacts/c/versions/1", missing, 404)
        assert await schemas.fetch(SchemaName(SchemaKind.GLOBAL_ID, "6")) is None

    async def test_a_web_page_is_an_outage(self, registry, schemas):
        """A gateway that wants somebody to log in: once it lets the registry answer, the schema is what it says."""
        name, path = SchemaName(SchemaKind.GLOBAL_ID, "6"), "/apis/registry/v2/ids/globalIds/6"
        registry.tell(f"{path}/references", [])
        registry.tell(path, b"<!DOCTYPE html><title>Sign in</title>", **{"Content-Type": "text/html; charset=utf-8"})
        with pytest.raises(SourceUnavailable, match="web page"):
            await schemas.fetch(name)
        registry.tell(path, SCHEMA.encode())
        assert await schemas.fetch(name) == SCHEMA

    @pytest.mark.parametrize("body", [b'syntax = "proto3";', b"<schema/>", b"[" * 100_000])
    async def test_what_is_no_json_is_refused_and_not_kept(self, registry, schemas, body):
        """A schema of Protobuf, or of XML, holds up no partition; what only stood in its place is not kept on disk."""
        name, path = SchemaName(SchemaKind.GLOBAL_ID, "6"), "/apis/registry/v2/ids/globalIds/6"
        registry.tell(f"{path}/references", [])
        registry.tell(path, body)
        with pytest.raises(DecodeError, match="globalId:6 is not JSON") as raised:
            await schemas.fetch(name)
        assert raised.value.reasons == (Reason.NOT_DECODABLE,)
        registry.tell(path, SCHEMA.encode())
        assert await schemas.fetch(name) == SCHEMA

    async def test_what_apicurio_does_not_know_is_unknown(self, registry, schemas):
        """It says so itself; a path that it does not have is an outage."""
        name = SchemaName(SchemaKind.GLOBAL_ID, "6")
        path = "/apis/registry/v2/ids/globalIds/6"
        registry.tell(path, {"error_code": 404, "name": "ArtifactNotFoundException"}, 404)
        assert await schemas.fetch(name) is None
        registry.tell(path, {"error_code": 404, "name": "NotFoundException"}, 404)
        with pytest.raises(SourceUnavailable, match="check its URL"):
            await schemas.fetch(name)

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            (7, "/schemas/ids/7"),
            (SchemaName(SchemaKind.GUID, GUID), f"/schemas/guids/{GUID}"),
            (SchemaName(SchemaKind.GLOBAL_ID, "6"), "/apis/registry/v2/ids/globalIds/6"),
        ],
        ids=["id", "guid", "global id"],
    )
    async def test_names_that_the_registry_does_not_have_are_unknown(self, registry, schemas, name, path):
        """Junk that looks like one must not hold up its partition; only the answer of the registry itself says so."""
        registry.tell(path, {"error_code": 404, "message": "HTTP 404 Not Found"}, 404)
        with pytest.raises(SourceUnavailable, match="check its URL"):
            await schemas.fetch(name)
        registry.tell("/schemas/types", ["AVRO"])
        assert await schemas.fetch(name) is None

    @pytest.mark.parametrize("body", [b"404: Not Found", b"", b"<html>Not Found</html>", b"[]"])
    async def test_a_404_that_no_registry_gives_rejects_no_more_than_guids(self, registry, schemas, body):
        """A proxy may have answered. A registry has ids for sure, but not GUIDs: junk that looks like one must end."""
        registry.tell("/schemas/types", ["AVRO"])
        registry.tell("/schemas/ids/7", body, 404)
        registry.tell("/apis/registry/v2/ids/globalIds/6", body, 404)
        registry.tell(f"/schemas/guids/{GUID}", body, 404)
        for name in (7, SchemaName(SchemaKind.GLOBAL_ID, "6")):
            with pytest.raises(SourceUnavailable, match="not as a registry does: check its URL"):
                await schemas.fetch(name)
        assert await schemas.fetch(SchemaName(SchemaKind.GUID, GUID)) is None
        registry.tell("/schemas/types", body, 404)
        with pytest.raises(SourceUnavailable, match="check its URL"):
            await schemas.fetch(SchemaName(SchemaKind.GUID, GUID))

    async def test_names_that_others_give_come_from_the_directory(self, registry, client, tmp_path):
        """No registry is asked for what it has no word for."""
        schemas = client(registry.url, local=directory(tmp_path, {f"glue:{GUID}": "contact.avsc"}, contact=SCHEMA))
        assert await schemas.fetch(SchemaName(SchemaKind.GLUE, GUID)) == SCHEMA
        assert await schemas.fetch(SchemaName(SchemaKind.TOPIC, "crm")) is None
        assert registry.requests == []


async def of_topic(schemas: RegistrySchemas | LocalSchemas, topic: str) -> list[str | DecodeError]:
    """All schemas that are registered for a topic."""
    return [text async for text in schemas.of_topic(topic)]


class TestOfTopic:
    OLD, NEW = '"int"', '"string"'

    async def test_a_subject_s_schemas_come_the_latest_first(self, registry, schemas):
        """Whatever order and gaps the registry lists them in; what was deleted meanwhile is left out."""
        registry.tell_subject("crm-value", self.OLD, self.NEW)
        registry.tell("/subjects/crm-value/versions", [2, 3, 1])
        assert await of_topic(schemas, "crm") == [self.NEW, self.OLD]

    async def test_a_version_is_fetched_when_it_is_asked_for(self, registry, schemas):
        """The latest is mostly enough."""
        registry.tell_subject("a%2Fb-value", self.OLD, self.NEW)
        async with aclosing(schemas.of_topic("a/b")) as versions:
            assert await anext(versions) == self.NEW
        assert [request.raw_path for request in registry.requests] == [
            "/subjects/a%2Fb-value/versions",
            "/subjects/a%2Fb-value/versions/2",
        ]

    async def test_references_are_put_in_place(self, registry, schemas):
        """As in a schema that is asked for by its id."""
        main = '{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}'
        registry.tell_subject("crm-value", main, references=[reference("B", "b")])
        registry.tell("/subjects/b/versions/1?deleted=true", {"schema": '{"type": "fixed", "name": "B", "size": 1}'})
        (text,) = await of_topic(schemas, "crm")
        assert isinstance(text, str)
        assert json.loads(text)["fields"][0]["type"]["type"] == "fixed"

    async def test_one_that_is_not_avro_is_an_error_among_others(self, registry, schemas):
        """What came before it is told all the same."""
        registry.tell_subject("crm-value", self.OLD, self.NEW)
        registry.tell("/subjects/crm-value/versions/2", {"schema": "", "schemaType": "PROTOBUF"})
        error, text = await of_topic(schemas, "crm")
        assert isinstance(error, DecodeError)
        assert "PROTOBUF, not Avro" in error.detail
        assert text == self.OLD

    async def test_a_topic_without_a_subject_may_have_a_local_schema(self, registry, client, tmp_path):
        """The registry's word counts; without one it is what the directory names."""
        local = directory(tmp_path, {"topic:crm": "contact.avsc"}, contact=SCHEMA)
        schemas = client(registry.url, local=local)
        unknown = {"error_code": 40401, "message": "Subject not found"}
        registry.tell("/subjects/crm-value/versions", unknown, 404)
        assert await of_topic(schemas, "crm") == await of_topic(LocalSchemas(local), "crm") == [SCHEMA]
        assert await of_topic(schemas, "other") == await of_topic(LocalSchemas(local), "other") == []
        registry.tell_subject("crm-value", self.NEW)
        assert await of_topic(schemas, "crm") == [self.NEW]

    async def test_apicurio_is_asked_by_its_own_api(self, registry, client):
        """Where that is what is configured."""
        versions = [{"globalId": 9, "type": "AVRO"}, {"globalId": 12, "type": "JSON"}, {"globalId": 10, "type": "AVRO"}]
        base = "/apis/registry/v2"
        nothing = {"error_code": 404, "message": "HTTP 404 Not Found"}
        registry.tell("/apis/registry/v3/subjects/crm-value/versions", nothing, 404)
        registry.tell(f"{base}/groups/default/artifacts/crm-value/versions?limit=500", {"versions": versions})
        for number, text in ((9, self.OLD), (10, self.NEW)):
            registry.tell(f"{base}/ids/globalIds/{number}", text.encode())
            registry.tell(f"{base}/ids/globalIds/{number}/references", [])
        error, *texts = await of_topic(client(f"{registry.url}/apis/registry/v3"), "crm")
        assert isinstance(error, DecodeError)
        assert texts == [self.NEW, self.OLD]

    @pytest.mark.parametrize(
        ("body", "status"), [([1.5], 200), ({}, 200), (b"", 200), (b"[" * 100_000, 200), ({}, 500), ({}, 404)]
    )
    async def test_an_answer_that_is_none_is_an_outage(self, registry, schemas, body, status):
        """Nothing is known then."""
        registry.tell("/subjects/crm-value/versions", body, status)
        registry.tell("/apis/registry/v2/groups/default/artifacts/crm-value/versions?limit=500", [], 200)
        with pytest.raises(SourceUnavailable):
            await of_topic(schemas, "crm")


class TestOnDisk:
    async def test_what_was_learnt_is_known_after_a_restart(self, registry, client):
        """Also while the registry is down: it is not asked."""
        name = SchemaName(SchemaKind.GUID, GUID)
        registry.tell_schema(7, schema=SCHEMA)
        registry.tell(f"/schemas/guids/{GUID}", {"schema": '"string"'})
        assert (await client(registry.url).fetch(7), await client(registry.url).fetch(name)) == (SCHEMA, '"string"')
        registry.answers = {}
        registry.tell("/schemas/ids/8", {}, 503)
        later = client(registry.url)
        assert (await later.fetch(7), await later.fetch(name)) == (SCHEMA, '"string"')
        assert len(registry.requests) == 2
        with pytest.raises(SourceUnavailable):
            await later.fetch(8)

    async def test_another_registry_is_asked_anew(self, registry, client):
        """The same id means another schema there."""
        registry.tell_schema(7, schema=SCHEMA)
        registry.tell("/other/schemas/ids/7", {"schema": '"string"'})
        assert await client(registry.url).fetch(7) == SCHEMA
        assert await client(f"{registry.url}/other").fetch(7) == '"string"'

    async def test_neither_what_is_unknown_nor_what_is_local_is_kept(self, registry, client, tmp_path):
        """The registry may know it tomorrow."""
        local = directory(tmp_path, {"7": "contact.avsc"}, contact='"string"')
        assert await client(registry.url, local=local).fetch(7) == '"string"'
        registry.tell_schema(7, schema=SCHEMA)
        assert await client(registry.url, local=local).fetch(7) == SCHEMA

    @pytest.mark.parametrize("content", [b"", b'{"schema": "{', b"\0" * 100, b"[]", b'{"schema": 5}', b"\xff"])
    async def test_a_damaged_file_is_asked_for_again(self, registry, client, tmp_path, content):
        """As after a loss of power."""
        registry.tell_schema(7, schema=SCHEMA)
        await client(registry.url).fetch(7)
        (path,) = tmp_path.glob("cache/*/7.json")
        path.write_bytes(content)
        assert await client(registry.url).fetch(7) == SCHEMA
        assert json.loads(path.read_text()) == {"schema": SCHEMA}

    async def test_a_disk_that_refuses_is_no_reason_to_stop(self, registry, client, tmp_path):
        """The schema is known all the same, until the restart."""
        (tmp_path / "cache").write_text("not a directory")
        registry.tell_schema(7, schema=SCHEMA)
        assert await client(registry.url).fetch(7) == SCHEMA


class TestLocalBesideTheRegistry:
    @pytest.fixture
    def both(self, registry: Registry, client: Client, tmp_path: Path) -> RegistrySchemas:
        """A registry with local schemas for id 7."""
        return client(registry.url, local=directory(tmp_path, {"7": "contact.avsc"}, contact='"string"'))

    async def test_it_fills_in_for_an_id_that_the_registry_does_not_know(self, both):
        """Only what nobody knows is unknown."""
        assert await both.fetch(7) == '"string"'
        assert await both.fetch(8) is None

    async def test_the_registry_comes_first(self, registry, both):
        """The same id may mean two things: the producer's registry is right."""
        registry.tell_schema(7, schema=SCHEMA)
        assert await both.fetch(7) == SCHEMA

    async def test_it_does_not_stand_in_for_a_registry_that_is_down(self, registry, both):
        """A wrong schema would decode into wrong contacts: wait instead."""
        registry.tell("/schemas/ids/7", {}, 500)
        with pytest.raises(SourceUnavailable):
            await both.fetch(7)


async def cut_short(request: web.Request) -> web.StreamResponse:
    """An answer that ends before its announced length."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"schema": ')
    assert request.transport is not None
    request.transport.close()
    return response


async def dropped(request: web.Request) -> web.StreamResponse:
    """No answer: the connection is closed."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    """No answer: the connection is reset, as by a registry that was killed."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def garbage(request: web.Request) -> web.StreamResponse:
    """An answer of something else than a web server."""
    assert request.transport is not None
    request.transport.write(b"welcome, token geheim\r\n\r\n")
    request.transport.close()
    return web.Response()


async def silent(_: web.Request) -> web.StreamResponse:
    """No answer, and no end either."""
    await asyncio.Event().wait()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """An answer that goes on for as long as somebody reads it."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 100_000)


class TestOutage:
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (UNKNOWN, 500),
            ({}, 502),
            ({}, 503),
            ({}, 400),
            ({}, 429),
            (b"<html>not here</html>", 404),
            ({"message": "HTTP 404 Not Found"}, 404),
            ({"error_code": [40403]}, 404),
            (b"", 200),
            (b"<html>login</html>", 200),
            (b"\xff\xfe", 200),
            ([], 200),
            (b"[" * 100_000, 200),
            ({}, 200),
            ({"schema": {"type": "string"}}, 200),
            ({"schema": SCHEMA, "references": [{"name": "a"}]}, 200),
            ({"schema": SCHEMA, "references": 5}, 200),
            ({"schema": SCHEMA, "references": [{"name": "a", "subject": "s", "version": "new"}]}, 200),
        ],
    )
    async def test_an_answer_that_is_none_is_an_outage(self, registry, schemas, body, status):
        """Only the registry's own "not found" means that a schema is unknown; everything else is tried again."""
        registry.tell("/schemas/ids/7", body, status)
        with pytest.raises(SourceUnavailable, match="schema registry"):
            await schemas.fetch(7)

    @pytest.mark.parametrize("answer", [cut_short, dropped, silent, endless])
    async def test_a_broken_conversation_is_an_outage(self, registry, schemas, answer, monkeypatch):
        """Cut, dropped, silent or without end: it is over within the time limit and the body limit."""
        monkeypatch.setattr(transport, "_TIMEOUT", aiohttp.ClientTimeout(total=0.5))
        registry.answers["/schemas/ids/7"] = answer
        with pytest.raises(SourceUnavailable):
            await asyncio.wait_for(schemas.fetch(7), 10)

    @pytest.mark.parametrize(
        ("answer", "told"), [(reset, r"ClientOSError \(Connection reset by peer\)$"), (garbage, "ClientResponseError$")]
    )
    async def test_a_failure_is_told_without_what_came_over_the_wire(self, registry, schemas, answer, told):
        """In the words of the operating system, and not of the HTTP library, which quotes."""
        registry.answers["/schemas/ids/7"] = answer
        with pytest.raises(SourceUnavailable, match=told):
            await schemas.fetch(7)

    async def test_an_answer_over_the_limit_is_not_read_to_its_end(self, registry, schemas):
        """No schema is as large, also when it came compressed."""
        registry.tell_schema(7, schema=SCHEMA, padding=" " * 16 * 2**20)
        with pytest.raises(SourceUnavailable, match="longer than"):
            await schemas.fetch(7)

    async def test_nobody_there_is_an_outage(self, client, unused_tcp_port):
        """A refused connection, as while the registry restarts."""
        schemas = client(f"http://127.0.0.1:{unused_tcp_port}", "ann", "s@cret")
        with pytest.raises(SourceUnavailable) as raised:
            await schemas.fetch(7)
        assert "s@cret" not in str(raised.value)

    async def test_a_redirect_is_not_followed(self, registry, schemas):
        """Nothing but the configured host is asked."""
        registry.tell("/schemas/ids/7", {}, 307, Location=f"{registry.url}/schemas/ids/8")
        registry.tell_schema(8, schema=SCHEMA)
        with pytest.raises(SourceUnavailable, match="answered 307"):
            await schemas.fetch(7)
        assert len(registry.requests) == 1

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
    async def test_the_wait_that_the_registry_asks_for_is_passed_on(self, registry, schemas, header, seconds):
        """Seconds as they are; a date is left to the backoff."""
        registry.tell("/schemas/ids/7", {}, 429, **{"Retry-After": header})
        with pytest.raises(SourceUnavailable) as raised:
            await schemas.fetch(7)
        assert raised.value.retry_after == seconds

    async def test_after_an_outage_the_registry_is_asked_again(self, registry, schemas):
        """A failure is not remembered, and neither is an unknown id."""
        registry.tell("/schemas/ids/7", {}, 503)
        with pytest.raises(SourceUnavailable):
            await schemas.fetch(7)
        assert await schemas.fetch(8) is None
        registry.tell_schema(7, schema=SCHEMA)
        registry.tell_schema(8, schema=SCHEMA)
        assert await schemas.fetch(7) == await schemas.fetch(8) == SCHEMA


def record(name: str, *kinds: str) -> str:
    """A record with a field of each of these types, as text."""
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    return json.dumps({"type": "record", "name": name, "fields": fields})


def reference(name: str, subject: str, version: int = 1) -> dict[str, Any]:
    """One reference, as the registry gives it."""
    return {"name": name, "subject": subject, "version": version}


class TestReferences:
    MAIN = """{"type": "record", "name": "crm.Change", "fields": [
        {"name": "address", "type": "crm.Address"},
        {"name": "others", "type": {"type": "array", "items": "Address"}}]}"""
    ADDRESS = """{"type": "record", "name": "Address", "namespace": "crm", "fields": [
        {"name": "country", "type": "geo.Country"}]}"""
    COUNTRY = '{"type": "enum", "name": "geo.Country", "symbols": ["DE", "FR"]}'
    ADDRESS_PATH = "/subjects/crm%2Faddress/versions/3?deleted=true"
    COUNTRY_PATH = "/subjects/country/versions/1?deleted=true"

    async def test_they_may_have_defaults_that_do_not_fit(self, registry, schemas):
        """In the schema and in what it refers to."""
        schema = '{{"type": "record", "name": "{}", "fields": [{{"name": "b", "type": "{}", "default": 5}}]}}'
        registry.tell_schema(7, schema=schema.format("A", "B"), references=[reference("B", "b")])
        registry.tell("/subjects/b/versions/1?deleted=true", {"schema": schema.format("B", "string")})
        text = await schemas.fetch(7)
        assert WriterSchema(text).read(b"\x02x") == {"b": {"b": "x"}}

    async def test_they_are_put_in_place(self, registry, schemas):
        """A type used twice, of another subject and with a reference of its own, makes one schema that decodes."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference("crm.Address", "crm/address", 3)])
        registry.tell(self.ADDRESS_PATH, {"schema": self.ADDRESS, "references": [reference("geo.Country", "country")]})
        registry.tell(self.COUNTRY_PATH, {"schema": self.COUNTRY})
        schema = fastavro.parse_schema(json.loads(await schemas.fetch(7)))
        change = {"address": {"country": "FR"}, "others": [{"country": "DE"}]}
        fastavro.schemaless_writer(written := io.BytesIO(), schema, change)
        assert written.getvalue() == bytes([2, 2, 0, 0])
        written.seek(0)
        assert fastavro.schemaless_reader(written, schema, None) == change

    @pytest.mark.parametrize("text", ["{main}", '["null", {main}]'])
    async def test_nothing_but_the_schema_comes_out(self, registry, schemas, text):
        """Whatever its top is; a union stays one."""
        main = '{"type": "record", "name": "crm.Change", "fields": [{"name": "country", "type": "%s"}]}'
        registry.tell_schema(
            7,
            schema=text.replace("{main}", main % "geo.Country"),
            references=[reference("geo.Country", "country")],
        )
        registry.tell(self.COUNTRY_PATH, {"schema": self.COUNTRY})
        whole = text.replace("{main}", main.replace('"%s"', self.COUNTRY))
        assert json.loads(await schemas.fetch(7)) == json.loads(whole)

    @pytest.mark.parametrize("name", ["crm/address", "address.avsc", "geo.Country", ""])
    async def test_what_one_is_called_says_nothing(self, registry, schemas, name):
        """Writers in Java take what is defined there, whatever the reference calls it; two may have one name."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference(name, "crm/address", 3)])
        registry.tell(self.ADDRESS_PATH, {"schema": self.ADDRESS, "references": [reference(name, "country")]})
        registry.tell(self.COUNTRY_PATH, {"schema": self.COUNTRY})
        text = await schemas.fetch(7)
        assert WriterSchema(text).read(b"\2\2\0\0") == {"address": {"country": "FR"}, "others": [{"country": "DE"}]}

    async def test_each_is_asked_for_once(self, registry, schemas):
        """In a net in which each refers to all below it, there are more ways than anybody could walk."""
        for number in range(40):
            below = [reference(f"N{each}", f"n{each}") for each in range(number)]
            answer = {"schema": record(f"N{number}", *(f"N{each}" for each in range(number))), "references": below}
            registry.tell(f"/subjects/n{number}/versions/1?deleted=true", answer)
        registry.tell_schema(7, schema=record("Main", "N39"), references=[reference("N39", "n39")])
        assert json.loads(await schemas.fetch(7))["name"] == "Main"
        assert len(registry.requests) == 41

    @pytest.mark.parametrize(("count", "told"), [(256, None), (257, "more than 256 others")])
    async def test_they_may_not_be_without_end(self, registry, schemas, count, told):
        """A registry could go on for ever, one behind the other."""
        for number in range(count):
            below = [reference("", f"n{number + 1}")] if number + 1 < count else []
            answer = {"schema": f'{{"type": "enum", "name": "N{number}", "symbols": ["A"]}}', "references": below}
            registry.tell(f"/subjects/n{number}/versions/1?deleted=true", answer)
        registry.tell_schema(7, schema=SCHEMA, references=[reference("", "n0")])
        with pytest.raises(DecodeError, match=told) if told else nullcontext():
            assert json.loads(await schemas.fetch(7)) == json.loads(SCHEMA)

    async def test_they_may_not_be_too_long(self, registry, schemas):
        """All together: what is longer than a schema may be is refused before it is in memory."""
        for number in range(9):
            answer = {"schema": " " * 300_000, "references": [reference("", f"n{number + 1}")]}
            registry.tell(f"/subjects/n{number}/versions/1?deleted=true", answer)
        registry.tell_schema(7, schema=SCHEMA, references=[reference("", "n0")])
        with pytest.raises(DecodeError, match="more than 1,000,000 characters"):
            await schemas.fetch(7)
        assert len(registry.requests) == 5

    async def test_what_leads_back_to_the_schema_is_not_decodable(self, registry, client):
        """Neither for ever nor a crash: two of Apicurio's artifacts may refer to each other."""
        schemas = client(f"{registry.url}/apis/ccompat/v7")
        own = "/apis/registry/v2/"
        texts = {"x": record("X", "Y"), "y": record("Y", "X")}
        for name, other in (("x", "y"), ("y", "x")):
            path = f"{own}groups/default/artifacts/{name}/versions/1"
            registry.tell(path, texts[name].encode())
            registry.tell(f"{path}/references", [{"artifactId": other, "version": "1", "name": other.upper()}])
        registry.tell(f"{own}ids/globalIds/5", texts["x"].encode())
        registry.tell(f"{own}ids/globalIds/5/references", [{"artifactId": "y", "version": "1", "name": "Y"}])
        with pytest.raises(DecodeError, match="nothing defines Y before it is used"):
            await schemas.fetch(SchemaName(SchemaKind.GLOBAL_ID, "5"))

    @pytest.mark.parametrize("version", ["1e999", "NaN", '"latest"', "{}", "null"])
    async def test_a_version_that_is_no_number_is_an_outage(self, registry, schemas, version):
        """It is none of a registry."""
        told = f'{{"name": "B", "subject": "b", "version": {version}}}'
        registry.tell("/schemas/ids/7", f'{{"schema": "{{}}", "references": [{told}]}}'.encode())
        with pytest.raises(SourceUnavailable, match="references are not as a registry gives them"):
            await schemas.fetch(7)

    async def test_a_missing_one_makes_the_schema_unknown(self, registry, schemas):
        """The registry may lag, as with a missing schema."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference("crm.Address", "crm/address", 3)])
        assert await schemas.fetch(7) is None
        registry.tell(self.ADDRESS_PATH, {"schema": self.ADDRESS, "references": [reference("geo.Country", "country")]})
        assert await schemas.fetch(7) is None

    async def test_one_that_leads_back_ends(self, registry, schemas):
        """Each is asked for once."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference("crm.Address", "crm/address", 3)])
        registry.tell(
            self.ADDRESS_PATH, {"schema": self.ADDRESS, "references": [reference("crm.Address", "crm/address", 3)]}
        )
        with pytest.raises(DecodeError, match="references of schema 7"):
            await schemas.fetch(7)
        assert len(registry.requests) == 2

    async def test_one_of_another_kind_is_not_decodable(self, registry, schemas):
        """Avro cannot refer to Protobuf."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference("crm.Address", "crm/address", 3)])
        registry.tell(self.ADDRESS_PATH, {"schema": "", "schemaType": "PROTOBUF"})
        with pytest.raises(DecodeError, match="PROTOBUF"):
            await schemas.fetch(7)

    @pytest.mark.parametrize(
        "text", ["{", '{"type": "record", "name": "crm.Address"', '"crm.Nowhere"', '{"type": "record"}']
    )
    async def test_one_that_does_not_fit_is_not_decodable(self, registry, schemas, text):
        """What the registry has will not change any more."""
        registry.tell_schema(7, schema=self.MAIN, references=[reference("crm.Address", "crm/address", 3)])
        registry.tell(self.ADDRESS_PATH, {"schema": text})
        with pytest.raises(DecodeError, match="references of schema 7"):
            await schemas.fetch(7)


class Gate:
    """Holds the answer for schema 7 back until it is opened."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, _: web.Request) -> web.StreamResponse:
        self.asked.set()
        await self.open.wait()
        return web.json_response({"schema": SCHEMA})


class TestConcurrency:
    @pytest.fixture
    async def gate(self, registry) -> Gate:
        """The answer for schema 7 waits."""
        registry.answers["/schemas/ids/7"] = gate = Gate()
        return gate

    async def test_concurrent_fetches_are_one_request(self, registry, schemas, gate):
        """A new schema arrives in every partition at once; the registry hears of it once."""
        fetches = [asyncio.create_task(schemas.fetch(7)) for _ in range(20)]
        await gate.asked.wait()
        gate.open.set()
        assert await asyncio.gather(*fetches) == [SCHEMA] * 20
        assert len(registry.requests) == 1

    async def test_a_failure_reaches_everyone_who_asked(self, registry, schemas):
        """All of them pause."""
        registry.tell("/schemas/ids/7", {}, 500)
        results = await asyncio.gather(schemas.fetch(7), schemas.fetch(7), return_exceptions=True)
        assert [type(result) for result in results] == [SourceUnavailable] * 2
        assert len(registry.requests) == 1

    async def test_whoever_gives_up_leaves_the_others_waiting(self, schemas, gate):
        """A revoked partition does not take away the schema of the rest."""
        leaving, staying = (asyncio.create_task(schemas.fetch(7)) for _ in range(2))
        await gate.asked.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.open.set()
        assert await staying == SCHEMA

    async def test_closing_ends_what_is_under_way(self, schemas, gate):
        """A drain does not wait for the registry."""
        fetch = asyncio.create_task(schemas.fetch(7))
        await gate.asked.wait()
        await asyncio.wait_for(schemas.close(), 5)
        with pytest.raises(asyncio.CancelledError):
            await fetch


async def test_an_id_of_the_packaged_schemas_is_none_of_the_registry(registry: Registry, tmp_path: Path) -> None:
    """One that the registry does not know yet is asked for again; a directory of one's own may know it."""
    packaged = {**REQUIRED, "SCHEMA_REGISTRY_URL": registry.url, "STATE_DIR": str(tmp_path / "state")}
    own = packaged | {"SCHEMAS_DIR": str(directory(tmp_path, {"1": "own.avsc"}, own=SCHEMA))}
    for environ, text in ((packaged, None), (own, SCHEMA)):
        schemas = opened(load(environ))
        assert await schemas.fetch(1) == text
        await schemas.close()


async def test_what_an_earlier_release_kept_is_not_taken(registry: Registry, tmp_path: Path) -> None:
    """It kept schemas from which references were left, whose records were all rejected."""
    reached = {"SCHEMA_REGISTRY_URL": registry.url, "STATE_DIR": str(tmp_path)}
    SchemaCache(tmp_path / "schemas", registry.url).put(7, TestReferences.MAIN)
    registry.tell_schema(7, schema=SCHEMA)
    schemas = opened(load({**REQUIRED, **reached}))
    assert await schemas.fetch(7) == SCHEMA
    await schemas.close()
