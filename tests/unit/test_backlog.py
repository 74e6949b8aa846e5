"""Large backlogs in virtual time: how many requests they take, what goes first, and what poison costs."""

import asyncio
import math
from collections.abc import Sequence
from itertools import pairwise

import orjson
import pytest

from consumer.core.contact_id import contact_id
from consumer.core.delivery import Gate
from consumer.core.offsets import Tracker
from consumer.errors import RefusedByGenesys, Throttled, TooLarge
from consumer.model import Assignment, Record, TopicPartition
from consumer.pipeline import intake
from consumer.pipeline.intake import Intake
from consumer.pipeline.partitions import Partition
from consumer.simulator.access import Access
from consumer.simulator.errors import ApiError
from tests import virtual_time
from tests.checker import check
from tests.lives import Life, live, world_of
from tests.memory_ports import World
from tests.stories import TOPIC, Event, Story

pytestmark = pytest.mark.no_cover  # a long story reaches lines by chance

PARTITIONS = 4
BATCH = 100
LIMIT = 300
WINDOW_S = 60.0


def _told(events: list[Event]) -> Story:
    """The events, dealt out to the partitions."""
    story = Story()
    for partition in range(PARTITIONS):
        story.tell(partition, *events[partition::PARTITIONS])
    return story


def _contacts(count: int) -> list[Event]:
    return [Event(f"contact-{number}", 1) for number in range(count)]


def _ideal(count: int) -> int:
    return math.ceil(count / BATCH)


# -- requests and withdrawals


class Limiter:
    """The simulator's own limit of requests in the place of Genesys', by virtual time.

    Args:
        age_s: How old the token's minute is when the first request comes.
        used: Requests that somebody made in it before.

    Attributes:
        refused: When a request got 429.
    """

    def __init__(self, age_s: float = 0.0, used: int = 0) -> None:
        self._now = virtual_time.START - age_s
        self._access = Access(
            lambda: self._now,
            clients=None,
            token_lifetime_s=86_400,
            requests_per_minute=LIMIT,
            withheld_permissions=(),
        )
        form = b"grant_type=client_credentials&client_id=id&client_secret=secret"
        token = orjson.loads(self._access.issue("", "application/x-www-form-urlencoded", form))["access_token"]
        self._authorization = f"Bearer {token}"
        for _ in range(used):
            self._access.admit(self._authorization, "")
        self.refused: list[float] = []

    def answer(self) -> None:
        """Let a request in, or not."""
        self._now = asyncio.get_running_loop().time()
        try:
            self._access.admit(self._authorization, "")
        except ApiError as error:
            self.refused.append(self._now)
            raise Throttled("429", error.retry_after) from None


class Times:
    """When requests started, and which of them took withdrawals."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.withdrawn: list[float] = []

    def on_upsert(self, contacts: list[dict[str, object]]) -> None:
        """Take down a request."""
        now = asyncio.get_running_loop().time()
        self.starts.append(now)
        self.withdrawn.extend(now for contact in contacts if not contact["callable"])


@pytest.mark.timeout(300)  # a hundred thousand of anything take their time
def test_a_backlog_takes_hardly_more_requests_than_its_contacts_need_and_withdrawals_overtake_it() -> None:
    """100,000 changes at 300 requests a minute, 1,000 of them withdrawals at the very end, within the read-ahead.

    At most 1.005 of the ideal number of requests; none gets 429; every withdrawal is applied within the first 5 % of
    the run.
    """
    changes, withdrawals = 99_000, 1_000
    events = _contacts(changes) + [Event(f"gone-{number}", 1, consent=False) for number in range(withdrawals)]
    world, times, limiter = world_of(_told(events)), Times(), Limiter()
    world.poll_s, world.poll_records = 0.001, 200
    world.on_upsert, world.answer = times.on_upsert, limiter.answer
    live(world, genesys_requests_per_minute=LIMIT, read_ahead_records=len(events))
    assert len(world.list) == len(events)
    assert len(times.starts) <= 1.005 * _ideal(len(events))
    assert limiter.refused == []
    assert len(times.withdrawn) == withdrawals
    assert max(times.withdrawn) - times.starts[0] <= 0.05 * (times.starts[-1] - times.starts[0])


@pytest.mark.parametrize("used", [1, LIMIT // 2, LIMIT])
@pytest.mark.parametrize("age_s", [0.0, 17.0, 42.0, 59.9])
def test_after_the_first_minute_no_request_is_throttled(age_s: float, used: int) -> None:
    """Whenever Genesys' minute began, however many requests of it are gone: from the next one on none gets 429."""
    contacts = 4 * LIMIT
    world, limiter = world_of(_told(_contacts(contacts))), Limiter(age_s, used)
    world.answer = limiter.answer
    live(world, genesys_requests_per_minute=LIMIT, batch_max_records=1, batch_linger_ms=0)
    assert len(world.list) == contacts
    assert all(moment < virtual_time.START - age_s + WINDOW_S for moment in limiter.refused)
    assert len(world.requested) == contacts + len(limiter.refused)


# -- poison


def _among(poison: int, contacts: int) -> set[str]:
    """So many poison contacts, spread evenly."""
    return {f"contact-{number * contacts // poison + 17}" for number in range(poison)}


def _counted(life: Life) -> float:
    """Requests of searches for each contact that they found, as the metrics tell."""
    return life.telemetry.search_requests / life.telemetry.refused_contacts


def _cost(world: World, poison: set[str], contacts: int) -> float:
    """Requests spent beyond those that the good contacts need, for each poison one."""
    return (len(world.requested) - _ideal(contacts - len(poison))) / len(poison)


@pytest.mark.parametrize(
    ("named", "most"), [pytest.param(False, 9, id="a code alone"), pytest.param(True, 2, id="the contact is named")]
)
def test_twelve_poison_contacts_among_8525_cost_no_good_one(named: bool, most: float) -> None:
    """8,513 are delivered, 12 are undeliverable, and each costs as many requests as a search needs."""
    contacts = 8_525
    story = _told(_contacts(contacts))
    world = world_of(story)
    world.poison = _among(12, contacts)
    if named:
        world.refusal = Naming(world.poison)
    life = live(world)
    check(world, story, world.poison)
    assert len(world.list) == 8_513
    assert {letter[0].key for letter in world.dead_letters} == {name.encode() for name in world.poison}
    assert _cost(world, world.poison, contacts) <= most
    assert life.telemetry.refused_contacts == 12
    assert _cost(world, world.poison, contacts) <= _counted(life) <= most + 2


class Naming(RefusedByGenesys):
    """A refusal that names the contacts."""

    def __init__(self, poison: set[str]) -> None:
        super().__init__("contact.datum.length.limit.exceeded", [contact_id(name) for name in poison])


def test_good_contacts_do_not_wait_for_the_end_of_a_search() -> None:
    """A batch in which every contact is poison is searched beside the flow: others get every second request."""
    story = _told([Event(f"bad-{number}", 1) for number in range(BATCH)] + _contacts(2_000))
    world = world_of(story)
    world.poison = {f"bad-{number}" for number in range(BATCH)}
    delivered: list[int] = []
    world.answer = lambda: delivered.append(len(world.list))
    live(world, genesys_requests_per_minute=300, genesys_max_in_flight=1)
    check(world, story, world.poison)
    assert delivered[50] >= 1_500, "of fifty requests far fewer than half were for others"


def test_a_request_that_is_too_large_is_made_smaller_for_good() -> None:
    """After a 413 batches keep below what Genesys takes, and nobody is blamed."""
    story = _told(_contacts(1_000))
    world = world_of(story)
    sizes: list[int] = []
    refused: list[int] = []

    def on_upsert(contacts: list[dict[str, object]]) -> None:
        sizes.append(len(contacts))
        if len(contacts) > 60:
            refused.append(len(contacts))
            raise TooLarge(None)

    world.on_upsert = on_upsert
    life: Life = live(world, genesys_max_in_flight=1)
    check(world, story, set())
    assert len(refused) == 1
    assert max(sizes[1:]) <= 60
    assert life.telemetry.retries == {}


@pytest.mark.parametrize(("saturated", "turns"), [(True, intake.TURNS), (False, 1)])
def test_answers_come_before_the_next_chunk_where_everything_waits_for_them(
    monkeypatch: pytest.MonkeyPatch, saturated: bool, turns: int
) -> None:
    """A turn of the loop is what its clock goes on by."""
    moments: list[float] = []

    def taken(_: Intake, partition: Partition, records: Sequence[Record]) -> tuple[int, None]:
        moments.append(asyncio.get_running_loop().time())
        return len(partition.tracker.add(records)), None

    async def main() -> None:
        place = Assignment(TopicPartition(TOPIC, 0))
        records = [Record(TOPIC, 0, offset, 0, None, b"") for offset in range(3 * intake.CHUNK)]
        await Life(World()).pipeline._feed._intake.take(Partition(place, Tracker(place, 0), 0), records)

    monkeypatch.setattr(Intake, "_take_chunk", taken)
    monkeypatch.setattr(Gate, "saturated", lambda _: saturated)
    virtual_time.run(main())
    passed = [round((later - moment) / virtual_time.TURN_S) for moment, later in pairwise(moments)]
    assert passed == [turns, turns]
