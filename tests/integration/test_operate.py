"""The commands beside the consumer, as processes on what the consumer itself left on real Kafka."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from consumer.simulator.app import Simulator
from tests import commands
from tests.kafka_clients import produce
from tests.kafka_cluster import KafkaCluster
from tests.stories import Event, encode

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

REGISTERED_LATER = 7


def _environ(kafka: KafkaCluster, topic: str, simulator: Simulator, folder: Path) -> dict[str, str]:
    return commands.environ(kafka.bootstrap, topic, simulator, folder / "state", SCHEMA_UNKNOWN_TIMEOUT_S="0")


async def _command(environ: Mapping[str, str], *arguments: str) -> tuple[int | None, list[Any]]:
    """Exit code, and the JSON documents on standard output."""
    code, out, error = await commands.ended(environ, *arguments)
    assert "Traceback" not in error, error
    return code, [json.loads(line) for line in out.splitlines()]


async def _caught_up(environ: Mapping[str, str]) -> None:
    code, _ = await _command(environ, "run", "--until-caught-up")
    assert code == 0


async def test_a_letter_comes_back_and_the_trail_stays_whole(kafka: KafkaCluster, tmp_path: Path) -> None:
    """Dead twice, then its schema is there: delivered at the third attempt, and every offset has one event."""
    topic = kafka.create_topic("operate")
    fields = Event("contact-0", None, phone="+15550177").fields()
    produce(kafka.bootstrap, topic, [encode(fields, REGISTERED_LATER)], key=b"contact-0")
    produce(kafka.bootstrap, topic, [Event(f"contact-{n}", 1).value() for n in range(1, 50)])
    async with Simulator() as simulator:
        environ = _environ(kafka, topic, simulator, tmp_path)
        for attempt in range(2):
            await _caught_up(environ)
            *_, letter, _ = (await _command(environ, "dead-letters", "list", "--records", "--output", "json"))[1]
            assert (letter["reason"], letter["attempt"], letter["replayed"]) == ("schema_unknown", attempt, False)
            code, (replayed,) = await _command(environ, "dead-letters", "replay", "--output", "json")
            assert (code, replayed["replayed"]) == (0, 1)
        schema = (Path(__file__).parents[2] / "schemas" / "crm_contact_change.avsc").read_text()
        (tmp_path / "change.avsc").write_text(schema)
        (tmp_path / "ids.json").write_text(json.dumps({1: "change.avsc", REGISTERED_LATER: "change.avsc"}))
        await _caught_up(environ | {"SCHEMAS_DIR": str(tmp_path)})
        numbers = {contact["data"]["phone_number"] for contact in simulator.contacts("list").values()}
        assert "+15550177" in numbers
        code, (verified,) = await _command(environ, "audit", "verify", "--output", "json")
        assert (code, verified["whole"], verified["partitions"][0]["events"]) == (0, True, 52)
        code, (checked,) = await _command(environ, "check", "--output", "json")
        assert (code, checked["ok"]) == (0, True)
