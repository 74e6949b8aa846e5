"""A start asks the registry whether the mappings work with the latest schemas: refuses a mistake, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from consumer import app
from consumer.app import App
from consumer.errors import SettingsError
from consumer.operate import check as checking
from consumer.settings import load
from tests.envelopes import COLUMNS, record_type
from tests.lives import REQUIRED
from tests.registry import Registry, running
from tests.waiting import eventually

WITHIN_S = 30
TABLE = """
[default]
external_id = "id"
phone = "phone"
consent = { value = true }
do_not_call = { value = false }
"""


def row(*without: str) -> str:
    """The schema of a row, without some columns."""
    return json.dumps(record_type("Row", {name: kind for name, kind in COLUMNS.items() if name not in without}))


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """An empty registry on loopback."""
    async with running() as registry:
        yield registry


@pytest.fixture
def environ(registry: Registry, tmp_path: Path, unused_tcp_port: int) -> dict[str, str]:
    """Settings with two topics and a mapping; neither Kafka nor Genesys is there."""
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(TABLE)
    nobody = f"127.0.0.1:{unused_tcp_port}"
    return {
        **REQUIRED,
        "KAFKA_BOOTSTRAP_SERVERS": nobody,
        "KAFKA_SOURCE_TOPICS": "a,b",
        "SOURCE_ENVELOPE": "flattened",
        "SOURCE_MAPPING": str(mapping),
        "SCHEMA_REGISTRY_URL": registry.url,
        "GENESYS_LOGIN_URL": f"http://{nobody}",
        "GENESYS_API_URL": f"http://{nobody}",
        "HTTP_ADDRESS": "127.0.0.1:0",
        "STATE_DIR": str(tmp_path / "state"),
    }


async def started(environ: dict[str, str]) -> list[dict[str, object]]:
    """What is logged until it waits for Genesys, which comes after the mappings.

    Raises:
        SettingsError: It refuses to start.
    """
    stop = asyncio.Event()
    with capture_logs() as logged:
        run = asyncio.create_task(App(load(environ)).run(stop))
        reached = lambda: run.done() or any(line["event"] == "waiting_for" for line in logged)  # noqa: E731
        await eventually(reached, WITHIN_S)
        stop.set()
        await run
    return [dict(line) for line in logged if str(line["event"]).startswith("mapping_")]


async def test_a_mapping_that_fits_no_schema_is_refused(registry: Registry, environ: dict[str, str]) -> None:
    """Every problem of every topic at once."""
    registry.tell_subject("a-value", row("phone"))
    registry.tell_subject("b-value", row("id", "phone"))
    with pytest.raises(SettingsError) as caught:
        await started(environ)
    told = "SOURCE_ENVELOPE, SOURCE_MAPPING: no schema that is registered for {} can be read: the schema has none of "
    told += "the fields that SOURCE_MAPPING names for {}"
    assert caught.value.problems == (
        told.format("a", "phone (phone)"),
        told.format("b", "external_id (id), phone (phone)"),
    )


async def test_a_schema_that_somebody_registers_stops_nobody(registry: Registry, environ: dict[str, str]) -> None:
    """Records of the version before may still come; it is logged with what is missing."""
    registry.tell_subject("a-value", row(), row("phone"))
    (line,) = await started(environ)
    assert (line["event"], line["topic"], line["log_level"]) == ("mapping_rejects", "a", "warning")
    assert "phone (phone)" in str(line["problems"])


async def test_a_null_that_may_grant_is_told(registry: Registry, environ: dict[str, str]) -> None:
    """Nothing is rejected for it, so that nothing else would tell."""
    mapping = environ["STATE_DIR"] + ".toml"
    await asyncio.to_thread(Path(mapping).write_text, TABLE.replace("{ value = true }", '"ok"'))
    granting = {"ok": [{"type": "boolean", "connect.default": True}, "null"]}
    registry.tell_subject("a-value", json.dumps(record_type("Row", {**COLUMNS, **granting})))
    (line,) = await started(environ | {"SOURCE_MAPPING": mapping})
    assert (line["event"], line["topic"], line["log_level"]) == ("mapping_null_grants", "a", "warning")
    assert "consent: ok may be null, and its default is true" in str(line["problems"])


async def test_a_column_that_no_mapping_fills_is_told(environ: dict[str, str]) -> None:
    """It may be meant; it may be a slip too, and then every contact has nothing there."""
    (line,) = await started(environ | {"GENESYS_ATTRIBUTE_COLUMNS": "segment"})
    assert (line["event"], line["log_level"]) == ("mapping_columns_differ", "warning")
    assert "no mapping has an attribute segment" in str(line["problem"])


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_registry_that_cannot_tell_stops_nobody(
    registry: Registry, environ: dict[str, str], status: int
) -> None:
    """Down, or without the right to read the subject. The other topic is looked at all the same."""
    registry.tell("/subjects/a-value/versions", {}, status)
    registry.tell_subject("b-value", row())
    (line,) = await started(environ)
    assert (line["event"], line["topic"]) == ("mapping_not_checked", "a")


async def test_a_registry_that_is_silent_holds_up_nobody(
    registry: Registry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for longer than its time."""

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    monkeypatch.setattr(app, "MAPPINGS_S", 0.1)
    registry.answers["/subjects/a-value/versions"] = silent
    (line,) = await started(environ)
    assert line["event"] == "mapping_not_checked"
    assert "took longer" in str(line["error"])


async def test_topics_without_subjects_stop_nobody(registry: Registry, environ: dict[str, str]) -> None:
    """As where schemas are registered by the names of their records."""
    assert await started(environ) == []
    assert {request.raw_path for request in registry.requests} == {
        "/subjects/a-value/versions",
        "/subjects/b-value/versions",
    }


async def test_check_tells_of_each_topic(
    registry: Registry, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each, with what is wrong by name; nothing is kept."""
    registry.tell_subject("a-value", row("phone"))
    registry.tell_subject("b-value", row())
    monkeypatch.setattr(checking, "load", lambda config: load(environ, config))
    lines = {line.what: line for line in await checking.check(None, lambda _: None)}
    assert not lines["mapping a"].holds
    assert "phone (phone)" in lines["mapping a"].detail
    assert "SOURCE_MAPPING" in lines["mapping a"].detail
    assert lines["mapping b"].holds
    assert not Path(environ["STATE_DIR"]).exists()  # noqa: ASYNC240 -- nothing is awaited here
