"""One cluster on which rounds are played, in a process of its own: `python -m tests.chaos.lane EVENTS`.

Reads seeds from its input, a line each, and writes what became of each round as a line of JSON. The process may die of
a round: librdkafka reads through a null pointer now and then when a consumer is closed while its coordinator cannot be
reached (librdkafka #5347 is one such place), and this one closes many readers while brokers die.
"""

import asyncio
import shutil
import sys
import tempfile
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

import orjson

from tests.chaos.broker_proxy import BrokerProxy
from tests.chaos.ends import odd_ends
from tests.chaos.round import Played, play
from tests.kafka_cluster import PROJECT, KafkaCluster

KEPT = PROJECT / ".cache" / "chaos"
BROKERS = 3


async def lane(events: int) -> None:
    """Play rounds, one after the other, until the input ends."""
    async with AsyncExitStack() as stack:
        cluster = KafkaCluster(BROKERS)
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await asyncio.to_thread(cluster.start)
        proxies = [await _proxy(stack, port, target) for port, target in cluster.routes.items()]
        while seed := await asyncio.to_thread(sys.stdin.readline):
            answer = await _round(cluster, proxies, int(seed), events)
            sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
            sys.stdout.flush()


async def _proxy(stack: AsyncExitStack, port: int, target: int) -> BrokerProxy:
    proxy = BrokerProxy(target)
    await proxy.start(port)
    stack.push_async_callback(proxy.stop)
    return proxy


async def _round(cluster: KafkaCluster, proxies: list[BrokerProxy], seed: int, events: int) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    try:
        played = await play(cluster, proxies, seed, events, folder)
        kept = {"logs": str(_kept(folder, seed))} if odd_ends(played.ends) else {}
        return _figures(played) | kept
    except Exception:  # noqa: BLE001 -- whatever it is, the round is to be looked at, and the others go on
        return {"failed": f"its logs are in {_kept(folder, seed)}\n{traceback.format_exc()}"}
    finally:
        shutil.rmtree(folder)


def _figures(played: Played) -> dict[str, object]:
    return {
        "events": played.reckoning.events,
        "applied_again": played.reckoning.applied_again,
        "outcomes": dict(played.reckoning.outcomes),
        "done": dict(played.done),
        "ends": dict(played.ends),
        "reasons": dict(played.reasons),
        "seconds": played.seconds,
    }


def _kept(folder: Path, seed: int) -> Path:
    """The logs of a round, out of the way of the next one."""
    kept = KEPT / str(seed)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return kept.relative_to(PROJECT)


if __name__ == "__main__":
    asyncio.run(lane(int(sys.argv[1])))
