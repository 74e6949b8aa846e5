"""Writer schemas: from a directory, or from a registry that speaks Confluent's REST API.

It answers for telling "there is no such schema" from "the registry cannot tell now", and touches the schemas directory
and the registry alone. It keeps no schema of the registry: who parses them keeps what was parsed.

The registry is asked with aiohttp, which the project has anyway. `AsyncSchemaRegistryClient` of confluent-kafka would
bring authlib, cachetools, httpx2 and what these bring, for two GET requests.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from fastavro.repository import SchemaRepositoryError
from fastavro.repository.base import AbstractSchemaRepository
from fastavro.schema import SchemaParseException, load_schema, parse_schema
from yarl import URL

from consumer.errors import DecodeError, SettingsError, SourceUnavailable, TransientError
from consumer.model import Reason

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_BODY_LIMIT = 1_000_000
_HIGHEST_ID = 2**32 - 1
_UNKNOWN = (40401, 40402, 40403)
"""Error codes of the registry: no such subject, version, schema."""

_MALFORMED = (SchemaParseException, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What fastavro and json raise at something that is not a schema."""


class LocalSchemas:
    """`consumer.ports.Schemas` from a directory: its `ids.json` maps ids to files. All are read at construction.

    Raises:
        SettingsError: `ids.json` or a file that it names cannot be read, or is not what it must be.
    """

    def __init__(self, schemas_dir: Path) -> None:
        problems: list[str] = []
        self._schemas = dict(
            _read_schema(schemas_dir, key, name, problems) for key, name in _read_ids(schemas_dir, problems).items()
        )
        if problems:
            raise SettingsError(problems)

    async def fetch(self, schema_id: int) -> str | None:
        return self._schemas.get(schema_id)

    async def close(self) -> None:
        """Nothing is held."""


def _read_ids(schemas_dir: Path, problems: list[str]) -> Mapping[str, object]:
    path = schemas_dir / "ids.json"
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"SCHEMAS_DIR: {path} cannot be read: {error}")
        return {}
    if not isinstance(ids, dict):
        problems.append(f"SCHEMAS_DIR: {path} must be an object of ids and file names")
        return {}
    return ids


def _read_schema(schemas_dir: Path, key: str, name: object, problems: list[str]) -> tuple[int, str]:
    """Id and text of one line of `ids.json`; (-1, "") and a problem when it is wrong."""
    if not (key.isascii() and key.isdigit() and int(key) <= _HIGHEST_ID and isinstance(name, str)):
        problems.append(f"SCHEMAS_DIR: ids.json must map ids from 0 to {_HIGHEST_ID} to file names, not {key!r}")
        return -1, ""
    path = schemas_dir / name
    try:
        text = path.read_text(encoding="utf-8")
        parse_schema(json.loads(text))
    except OSError as error:
        problems.append(f"SCHEMAS_DIR: schema {key} cannot be read: {error}")
    except _MALFORMED as error:
        problems.append(f"SCHEMAS_DIR: {path} is not an Avro schema: {error}")
    else:
        return int(key), text
    return -1, ""


class RegistrySchemas:
    """`consumer.ports.Schemas` from a registry. Concurrent fetches of one id are one request.

    The registry's word counts: a local schema is taken only for an id that the registry does not know. It never stands
    in for a registry that is down, since the same id may mean something else there.
    """

    def __init__(self, url: str, username: str | None, password: str | None, local: LocalSchemas | None) -> None:
        """Prepare; nothing is asked before the first `fetch`.

        Args:
            url: Where the API is; a user name and password in it count when none are given.
            username: For basic authentication.
            password: For basic authentication.
            local: Schemas for ids that the registry does not know.
        """
        base = URL(url)
        login = username or base.user
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if login:
            credentials = f"{login}:{password or base.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {b64encode(credentials).decode()}"
        self._base = str(base.with_user(None)).rstrip("/")
        self._local = local
        self._session: aiohttp.ClientSession | None = None
        self._flights: dict[int, asyncio.Task[str | None]] = {}

    async def fetch(self, schema_id: int) -> str | None:
        flight = self._flights.get(schema_id)
        if flight is None:
            flight = asyncio.create_task(self._resolve(schema_id))
            self._flights[schema_id] = flight
            flight.add_done_callback(lambda _: self._flights.pop(schema_id))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Give up what is being asked, and let go of the connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _resolve(self, schema_id: int) -> str | None:
        found = await self._get(f"/schemas/ids/{schema_id}")
        if found is None:
            return await self._local.fetch(schema_id) if self._local else None
        text = _avro_text(found, schema_id)
        referenced: dict[str, str] = {}
        if not await self._collect(found, schema_id, referenced):
            return None
        return _inlined(text, referenced, schema_id) if referenced else text

    async def _collect(self, found: Mapping[str, Any], schema_id: int, referenced: dict[str, str]) -> bool:
        """Fetch what the schema refers to, and what that refers to; False when the registry lacks some of it."""
        for name, subject, version in _references(found):
            if name in referenced:
                continue
            path = f"/subjects/{quote(subject, safe='')}/versions/{version}?deleted=true"
            other = await self._get(path)
            if other is None:
                return False
            referenced[name] = _avro_text(other, schema_id)
            if not await self._collect(other, schema_id, referenced):
                return False
        return True

    async def _get(self, path: str) -> Mapping[str, Any] | None:
        """The answer; None when the registry says that there is no such thing."""
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT, trust_env=False)
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                return await _read(response, path)
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise SourceUnavailable(f"schema registry: GET {path}: {type(error).__name__}: {error}") from error


async def _read(response: aiohttp.ClientResponse, path: str) -> Mapping[str, Any] | None:
    """What an answer means."""
    status = response.status
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise TransientError(
            f"schema registry: GET {path} answered {status}: "
            "check SCHEMA_REGISTRY_USERNAME, SCHEMA_REGISTRY_PASSWORD and what that user may read"
        )
    if status not in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
        raise SourceUnavailable(f"schema registry: GET {path} answered {status}", _retry_after(response))
    answer = json.loads(await _body(response))
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")  # noqa: TRY004 -- of what came, not of what was passed
    if status == HTTPStatus.OK:
        return answer
    if answer.get("error_code") in _UNKNOWN:
        return None
    raise SourceUnavailable(f"schema registry: GET {path} answered 404, not as a registry does: check its URL")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise ValueError(f"the answer is longer than {_BODY_LIMIT} bytes")
    return bytes(body)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None


def _avro_text(found: Mapping[str, Any], schema_id: int) -> str:
    """The schema's text in an answer of the registry, which leaves the type out when it is Avro."""
    kind = found.get("schemaType") or "AVRO"
    if kind != "AVRO":
        raise _not_decodable(f"schema {schema_id} is, or refers to, {kind!s:.20}, not Avro")
    text = found.get("schema")
    if not isinstance(text, str):
        raise SourceUnavailable(f"schema registry: the answer for schema {schema_id} holds no schema")
    return text


def _references(found: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Name, subject and version of what a schema refers to."""
    references = found.get("references") or []
    try:
        return [(str(each["name"]), str(each["subject"]), int(each["version"])) for each in references]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceUnavailable("schema registry: references are not as a registry gives them") from error


class _Referenced(AbstractSchemaRepository):
    """Lets fastavro put each referenced type where it is used first. The schema itself has the name ""."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def load(self, name: str) -> Any:  # type: ignore[explicit-override]  # `typing.override` is of Python 3.12
        if name not in self._texts:
            raise SchemaRepositoryError(f"nothing defines {name}")
        return json.loads(self._texts[name])


def _inlined(text: str, referenced: Mapping[str, str], schema_id: int) -> str:
    """One schema without references."""
    try:
        schema = load_schema("", repo=_Referenced({**referenced, "": text}))
    except (SchemaRepositoryError, *_MALFORMED) as error:
        raise _not_decodable(f"references of schema {schema_id} do not fit: {error}") from error
    return json.dumps(_unmarked(schema))


def _unmarked(schema: Any) -> Any:
    """The schema without what fastavro notes in it, at its top or in the branches of a union there."""
    if isinstance(schema, list):
        return [_unmarked(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: value for key, value in schema.items() if not key.startswith("__")}
    return schema


def _not_decodable(detail: str) -> DecodeError:
    return DecodeError((Reason.NOT_DECODABLE,), detail)
