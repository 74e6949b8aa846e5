"""What the probes and the status page tell while the outside is reached, step by step, and the probes afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from consumer import app
from consumer.app import App
from consumer.errors import SinkUnavailable, SourceUnavailable
from consumer.outside import Outside
from tests.lives import settings

STEPS = ("registry", "kafka", "genesys")


class Steps:
    """What is reached at start, each waiting until the test lets it come back, or fail."""

    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Queue[asyncio.Future[Any]]] = {name: asyncio.Queue() for name in STEPS}

    async def come(self, name: str) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked[name].put_nowait(answer)
        return await answer


@asynccontextmanager
async def starting(
    monkeypatch: pytest.MonkeyPatch, folder: Path, **more: str
) -> AsyncIterator[tuple[App, Mapping[str, asyncio.Queue[asyncio.Future[Any]]]]]:
    """A consumer that starts, and what it waits for."""
    steps, stop = Steps(), asyncio.Event()
    monkeypatch.setattr(app, "look", lambda *_: steps.come("registry"))
    monkeypatch.setattr(app, "ensure", lambda *_: steps.come("kafka"))
    monkeypatch.setattr(Outside, "store", lambda _: steps.come("kafka"))
    monkeypatch.setattr(Outside, "sink", lambda _: steps.come("genesys"))
    subject = App(settings(state_dir=folder, http_address="127.0.0.1:0", **more))
    running = asyncio.create_task(subject.run(stop))
    yield subject, steps.asked
    stop.set()
    await running


async def test_each_step_tells_itself_and_checks_that_nobody_has_asked_are_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a registry none is named; nothing of a step stays while the next one runs."""

    def told() -> tuple[object, object, object]:
        assert subject.status() == {"state": "starting", "reason": subject.status()["reason"]}
        ready = subject._ready()
        assert (ready["started"], ready["assigned"], ready["fuse"]) == (False, False, True)
        return subject.status()["reason"], ready["genesys"], ready["kafka"]

    async with starting(monkeypatch, tmp_path) as (subject, asked):
        schemas = await asked["registry"].get()
        assert told() == ("reading the settings", None, None)
        schemas.set_result([])
        kafka = await asked["kafka"].get()
        assert told() == ("reaching Kafka", None, None)
        kafka.set_exception(SourceUnavailable("no broker", 0.01))
        kafka = await asked["kafka"].get()
        assert told() == ("kafka: no broker", None, False)
        kafka.set_result({})
        kafka = await asked["kafka"].get()
        assert told() == ("reaching Kafka", None, True)
        kafka.set_result(None)
        genesys = await asked["genesys"].get()
        assert told() == ("reaching Genesys", None, True)
        genesys.set_exception(SinkUnavailable("nobody there", 0.01))
        _ = await asked["genesys"].get()
        assert told() == ("genesys: nobody there", False, True)


async def test_a_registry_is_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is asked first, for what is registered for the topics."""
    registry = "http://127.0.0.1:1"
    async with starting(monkeypatch, tmp_path, schema_registry_url=registry) as (subject, asked):
        schemas = await asked["registry"].get()
        assert subject.status()["reason"] == "asking the registry for the latest schemas"
        schemas.set_result([])
        _ = await asked["kafka"].get()
        assert subject.status()["reason"] == "reaching Kafka"


class Started:
    """A consumer that has started, with what its probes ask.

    Attributes:
        pipeline: Well.
        source: Well.
    """

    def __init__(self, folder: Path) -> None:
        self.subject = App(settings(state_dir=folder, http_address="127.0.0.1:0"))
        self.pipeline = SimpleNamespace(
            ready=True, genesys_answers=True, fuses=SimpleNamespace(tripped=False), settles=True
        )
        self.source = SimpleNamespace(connected=True, last_poll=time.monotonic())
        self.subject._pipeline, self.subject._source = self.pipeline, self.source  # type: ignore[assignment]

    async def probe(self, path: str) -> tuple[int, dict[str, bool]]:
        """Status and checks, as Kubernetes is told."""
        await self.subject.server.start()
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{self.subject.server.port}{path}") as answer,
            ):
                return answer.status, (await answer.json())["checks"]
        finally:
            await self.subject.server.stop()


@pytest.mark.parametrize(("ago_s", "status"), [(app.STUCK_S - 30, 200), (app.STUCK_S + 1, 503)])
async def test_a_poll_loop_that_does_not_go_round_is_not_live(tmp_path: Path, ago_s: float, status: int) -> None:
    """Kubernetes restarts the pod: nothing else would make it go round again."""
    started = Started(tmp_path)
    started.source.last_poll = time.monotonic() - ago_s
    assert await started.probe("/livez") == (status, {"event_loop": True, "poll_loop": status == 200})


@pytest.mark.parametrize("failing", [None, "assigned", "kafka", "genesys", "fuse", "settling"])
async def test_who_has_started_is_ready_as_long_as_all_is_well(tmp_path: Path, failing: str | None) -> None:
    """Each check has its own reason to fail."""
    started = Started(tmp_path)
    started.pipeline.ready = failing != "assigned"
    started.source.connected = failing != "kafka"
    started.pipeline.genesys_answers = failing != "genesys"
    started.pipeline.fuses.tripped = failing == "fuse"
    started.pipeline.settles = failing != "settling"
    checks = {check: check != failing for check in ("started", "assigned", "kafka", "genesys", "fuse", "settling")}
    assert await started.probe("/readyz") == (503 if failing else 200, checks)
