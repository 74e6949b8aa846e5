"""What goes wrong in a round: a plan drawn from dice, and how each fault is done and undone.

An act undoes its own fault and no other, so that faults overlap. What is counted as done has had an effect.
"""

import asyncio
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault, FaultKind
from tests.chaos.broker_proxy import BrokerProxy
from tests.chaos.disk import Disk
from tests.chaos.fleet import Member
from tests.chaos.proxy import Proxy
from tests.kafka_cluster import KafkaCluster

CALM = (Fault.parse("slow=0.03:0.5"),)
"""Even on a good day half of the answers take a moment, so that there is something under way to be hit."""

STORM = tuple(map(Fault.parse, (
    "slow=0.03:0.5", "lost_reply:0.06", "503:0.03", "reset:0.03", "429=1:0.02", "truncated:0.03", "bad_json:0.03",
    "502:0.02", "401:0.02", "hang:0.01",
)))  # fmt: skip


@dataclass
class Scene:
    """What a nemesis can lay hands on."""

    members: Sequence[Member]
    cluster: KafkaCluster
    broker_proxies: Sequence[BrokerProxy]
    genesys_proxy: Proxy
    simulator: Simulator
    disk: Disk
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)


Act = Callable[[Scene], Awaitable[None]]


async def kill(scene: Scene) -> None:
    """SIGKILL one to three consumers at once."""
    for member in scene.dice.sample(list(scene.members), scene.dice.randint(1, 3)):
        scene.done["SIGKILL"] += member.signal(signal.SIGKILL)


async def pause(scene: Scene) -> None:
    """SIGSTOP one or two consumers, sometimes for longer than a session lasts, then SIGCONT."""
    chosen = scene.dice.sample(list(scene.members), scene.dice.randint(1, 2))
    try:
        for member in chosen:
            scene.done["SIGSTOP"] += member.signal(signal.SIGSTOP)
        await asyncio.sleep(scene.dice.choice((0.5, 2.0, 5.0)))
    finally:
        for member in chosen:
            member.signal(signal.SIGCONT)


async def roll(scene: Scene) -> None:
    """SIGTERM every consumer, one after the other."""
    for member in scene.members:
        scene.done["SIGTERM"] += member.signal(signal.SIGTERM)
        await asyncio.sleep(scene.dice.uniform(0.5, 2.0))


async def lose_disk(scene: Scene) -> None:
    """Kill a consumer and remove its state directory."""
    killed = scene.dice.choice(scene.members).lose_disk()
    scene.done["SIGKILL"] += killed
    scene.done["state directory removed"] += killed


async def kill_broker(scene: Scene) -> None:
    """Kill a broker, and start it again after a while."""
    number = scene.dice.randint(1, 3)
    scene.done["broker killed"] += 1
    await asyncio.to_thread(scene.cluster.kill, number)
    await asyncio.sleep(scene.dice.uniform(0.5, 3.0))
    await asyncio.to_thread(scene.cluster.restart, number)


async def cut_brokers(scene: Scene) -> None:
    """Cut every connection to the brokers, and let none in for a moment, sometimes for longer than a session lasts."""
    try:
        for proxy in scene.broker_proxies:
            proxy.refuses = True
        scene.done["connections to Kafka cut"] += sum(proxy.cut() for proxy in scene.broker_proxies) > 0
        await asyncio.sleep(scene.dice.choice((0.1, 1.0, 4.0)))
    finally:
        for proxy in scene.broker_proxies:
            proxy.refuses = False


async def delay_brokers(scene: Scene) -> None:
    """Make every piece from and to the brokers late."""
    scene.done["Kafka delayed"] += 1
    try:
        for proxy in scene.broker_proxies:
            proxy.delay_s = scene.dice.choice((0.02, 0.1, 0.3))
        await asyncio.sleep(scene.dice.uniform(1.0, 3.0))
    finally:
        for proxy in scene.broker_proxies:
            proxy.delay_s = 0.0


async def swallow_brokers(scene: Scene) -> None:
    """Let nothing through to one broker or back, without closing anything."""
    scene.done["a broker's packets swallowed"] += 1
    await _swallow(scene.dice.choice(scene.broker_proxies), scene.dice.choice((1.0, 4.0)))


async def count_brokers_out(scene: Scene) -> None:
    """Have all clients ask for the cluster anew, and be told of one without brokers: they may forget what they knew."""
    try:
        for proxy in scene.broker_proxies:
            proxy.counted_out = True
        scene.done["brokers counted out"] += sum(proxy.cut() for proxy in scene.broker_proxies) > 0
        await asyncio.sleep(scene.dice.choice((1.0, 4.0)))
    finally:
        for proxy in scene.broker_proxies:
            proxy.counted_out = False


async def cut_genesys(scene: Scene) -> None:
    """Cut the connections to Genesys: what was under way may have been applied."""
    for _ in range(scene.dice.randint(1, 4)):
        scene.done["connections to Genesys cut"] += scene.genesys_proxy.cut() > 0
        await asyncio.sleep(scene.dice.uniform(0.1, 0.6))


async def swallow_genesys(scene: Scene) -> None:
    """Let nothing through to Genesys or back until requests time out."""
    scene.done["Genesys' packets swallowed"] += 1
    await _swallow(scene.genesys_proxy, 2.5)


async def _swallow(proxy: Proxy, seconds: float) -> None:
    try:
        proxy.swallows = True
        await asyncio.sleep(seconds)
    finally:
        proxy.swallows = False


async def storm(scene: Scene) -> None:
    """Have Genesys answer with faults of every kind, lost replies among them."""
    struck = _struck(scene.simulator)
    try:
        scene.simulator.faults.set_rates(STORM)
        await asyncio.sleep(scene.dice.uniform(2.0, 4.0))
    finally:
        scene.simulator.faults.set_rates(CALM)
    scene.done["Genesys faults"] += _struck(scene.simulator) > struck


def _struck(simulator: Simulator) -> int:
    """How many requests something worse than slowness has struck."""
    return sum(times for kind, times in simulator.stats()["faults"].items() if kind != FaultKind.SLOW)


async def fill_disk(scene: Scene) -> None:
    """Leave no room for the stores for a while."""
    try:
        scene.done["disk full"] += scene.disk.fill()
        await asyncio.sleep(scene.dice.uniform(1.0, 3.0))
    finally:
        scene.disk.free()


async def step_clocks(scene: Scene) -> None:
    """Set the wall clocks of the consumers an hour or more forward or back."""
    scene.done["clock stepped"] += 1
    for member in scene.members:
        member.step_clock(scene.dice.choice((-3600, 3600, 86_400)))


ACTS: dict[Act, int] = {
    kill: 6, pause: 3, roll: 1, lose_disk: 1, kill_broker: 2, cut_brokers: 2, delay_brokers: 1, swallow_brokers: 1,
    count_brokers_out: 1, cut_genesys: 2, swallow_genesys: 1, storm: 3, fill_disk: 1, step_clocks: 1,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What happens in a round, and when.

    Attributes:
        acts: Seconds from the start, and what is done then.
    """

    acts: Sequence[tuple[float, Act]]

    def __str__(self) -> str:
        return ", ".join(f"{act.__name__} at {at:.1f}" for at, act in self.acts)


def draw(dice: random.Random, lasts_s: float) -> Plan:
    """At least one kill in each round, and some more of anything."""
    drawn = [kill, *dice.choices(list(ACTS), list(ACTS.values()), k=dice.randint(1, 3))]
    moments = sorted(dice.uniform(1.0, lasts_s) for _ in drawn)
    return Plan(list(zip(moments, drawn, strict=True)))


async def carry_out(plan: Plan, scene: Scene) -> None:
    """Do all of it, overlapping as it may; in the end everything is healed.

    Acts of one kind come one after the other: the first to end would end the fault of the next, and with two brokers
    away at a time nothing could be settled at all.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def one_kind(act: Act, moments: Sequence[float]) -> None:
        for at in moments:
            await asyncio.sleep(started + at - loop.time())
            await act(scene)

    try:
        await asyncio.gather(*(one_kind(act, moments) for act, moments in _by_kind(plan).items()))
    finally:
        heal(scene)


def _by_kind(plan: Plan) -> dict[Act, list[float]]:
    moments: dict[Act, list[float]] = defaultdict(list)
    for at, act in plan.acts:
        moments[act].append(at)
    return moments


def heal(scene: Scene) -> None:
    """Undo whatever still lasts, when acts were broken off."""
    for proxy in (*scene.broker_proxies, scene.genesys_proxy):
        proxy.heal()
    scene.disk.free()
    scene.simulator.faults.set_rates(CALM)
