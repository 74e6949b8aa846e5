"""Large backlogs in virtual time: how many requests they take, what goes first, and what poison costs."""

import asyncio
import math

import pytest

from consumer.core.contact_id import contact_id
from consumer.errors import RefusedByGenesys, TooLarge
from tests.checker import check
from tests.lives import Life, live, world_of
from tests.memory_ports import World
from tests.stories import Event, Story

PARTITIONS = 4
BATCH = 100


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


def test_a_backlog_takes_hardly_more_requests_than_its_contacts_need_and_withdrawals_overtake_it() -> None:
    """10,000 changes at 300 requests a minute, 100 of them withdrawals at the very end, within the read-ahead.

    At most 1.005 of the ideal number of requests; no minute sees more than 300; every withdrawal is applied within the
    first 5 % of the run.
    """
    changes, withdrawals = 9_900, 100
    events = _contacts(changes) + [Event(f"gone-{number}", 1, consent=False) for number in range(withdrawals)]
    world = world_of(_told(events))
    world.poll_s = 0.0001
    starts: list[float] = []
    withdrawn: list[float] = []

    def on_upsert(contacts: list[dict[str, object]]) -> None:
        now = asyncio.get_running_loop().time()
        starts.append(now)
        withdrawn.extend(now for contact in contacts if not contact["callable"])

    world.on_upsert = on_upsert
    live(world, read_ahead_records=100_000)
    assert len(world.list) == len(events)
    assert len(starts) <= 1.005 * _ideal(len(events))
    assert max(sum(1 for other in starts if 0 <= other - start < 60) for start in starts[::50]) <= 300
    assert len(withdrawn) == withdrawals
    assert max(withdrawn) - starts[0] <= 0.05 * (starts[-1] - starts[0])


# -- poison


def _among(poison: int, contacts: int) -> set[str]:
    """So many poison contacts, spread evenly."""
    return {f"contact-{number * contacts // poison + 17}" for number in range(poison)}


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
    live(world)
    check(world, story, world.poison)
    assert len(world.list) == 8_513
    assert {letter[0].key for letter in world.dead_letters} == {name.encode() for name in world.poison}
    assert _cost(world, world.poison, contacts) <= most


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
