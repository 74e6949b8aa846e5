"""Faults of a round of chaos overlap, are undone by nobody but themselves, and count only where they had an effect."""

import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from consumer.simulator.app import Simulator
from tests import virtual_time
from tests.chaos import nemesis
from tests.chaos.broker_proxy import BrokerProxy
from tests.chaos.disk import Disk
from tests.chaos.fleet import Member
from tests.chaos.nemesis import Act, Plan, Scene
from tests.chaos.proxy import Proxy


class _Longest(random.Random):
    """Dice that let every fault last as long as it may."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]

    def uniform(self, a: float, b: float) -> float:
        return b


class _Disk:
    """One that may be filled, or may not."""

    def __init__(self, *, can_fill: bool = True) -> None:
        self._can_fill = can_fill
        self.full = False

    def fill(self) -> bool:
        self.full = self._can_fill
        return self.full

    def free(self) -> None:
        self.full = False


class _Member:
    """A consumer that lives, or that nobody has started yet."""

    def __init__(self, *, lives: bool = True) -> None:
        self.lives = lives
        self.stopped = False

    def signal(self, number: int) -> bool:
        if self.lives and number in {signal.SIGSTOP, signal.SIGCONT}:
            self.stopped = number == signal.SIGSTOP
        return self.lives

    def lose_disk(self) -> bool:
        return self.lives


def scene(*, can_fill: bool = True, lives: bool = True) -> Scene:
    """One without brokers, whose Genesys nobody asks anything."""
    members = cast("list[Member]", [_Member(lives=lives) for _ in range(3)])
    proxies = [BrokerProxy(0) for _ in range(3)]
    disk = cast("Disk", _Disk(can_fill=can_fill))
    return Scene(members, cast("Any", None), proxies, Proxy(0), Simulator(faults=nemesis.CALM), disk, _Longest(1))


LASTING: dict[Act, Callable[[Any], bool]] = {
    nemesis.pause: lambda scene: any(member.stopped for member in scene.members),
    nemesis.cut_brokers: lambda scene: scene.broker_proxies[0].refuses,
    nemesis.delay_brokers: lambda scene: scene.broker_proxies[0].delay_s > 0,
    nemesis.swallow_brokers: lambda scene: scene.broker_proxies[-1].swallows,
    nemesis.count_brokers_out: lambda scene: scene.broker_proxies[0].counted_out,
    nemesis.swallow_genesys: lambda scene: scene.genesys_proxy.swallows,
    nemesis.storm: lambda scene: tuple(scene.simulator.faults._rates) == nemesis.STORM,
    nemesis.fill_disk: lambda scene: scene.disk.full,
}
"""Acts whose fault lasts for two seconds or more, and what shows it."""


async def _seen(
    plan: Sequence[tuple[float, Act]], moments: Sequence[float], is_on: Callable[[Any], bool]
) -> list[bool]:
    """Whether a fault is on at those moments of a plan, and after its end."""
    seen: list[bool] = []

    async def look(scene: Scene) -> None:
        seen.append(is_on(scene))

    here = scene()
    await nemesis.carry_out(Plan([*plan, *((moment, look) for moment in moments)]), here)
    return [*seen, is_on(here)]


@pytest.mark.parametrize("act", LASTING, ids=lambda act: act.__name__)
def test_a_fault_outlasts_what_ends_beside_it(act: Act) -> None:
    """A kill takes no time, and every round has one: no fault may end with it, and each ends by itself."""
    others: list[tuple[float, Act]] = [(1.5, nemesis.kill), (6.5, nemesis.storm), (9.0, nemesis.delay_brokers)]
    plan: list[tuple[float, Act]] = [(1.0, act), *(other for other in others if other[1] is not act)]
    assert virtual_time.run(_seen(plan, (1.9, 6.1), LASTING[act])) == [True, False, False]


def test_of_two_faults_of_one_kind_the_second_is_whole() -> None:
    """It begins when the first is over."""
    plan: list[tuple[float, Act]] = [(1.0, nemesis.cut_brokers), (2.0, nemesis.cut_brokers)]
    is_on = LASTING[nemesis.cut_brokers]
    assert virtual_time.run(_seen(plan, (4.9, 5.1, 8.9, 9.1), is_on)) == [True, True, True, False, False]


@pytest.mark.parametrize(
    "act", [nemesis.kill, nemesis.pause, nemesis.roll, nemesis.lose_disk, nemesis.fill_disk, nemesis.cut_brokers,
            nemesis.count_brokers_out, nemesis.cut_genesys, nemesis.storm], ids=lambda act: act.__name__
)  # fmt: skip
def test_what_has_no_effect_does_not_count(act: Act) -> None:
    """Nobody lives, nothing can be mounted, nobody is connected and nobody asks: nothing was done."""

    async def done() -> Counter[str]:
        here = scene(can_fill=False, lives=False)
        await act(here)
        return +here.done

    assert virtual_time.run(done()) == Counter()
