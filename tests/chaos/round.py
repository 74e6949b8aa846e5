"""One round: a story told while things go wrong, then a quiet end, then the reckoning."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.model import TopicPartition
from consumer.simulator.app import Simulator
from consumer.simulator.contacts import Poison
from tests import harvest
from tests.chaos import nemesis
from tests.chaos.broker_proxy import BrokerProxy
from tests.chaos.disk import Disk
from tests.chaos.fleet import Member, environ
from tests.chaos.nemesis import Scene
from tests.chaos.proxy import Proxy
from tests.chaos.reckoning import Reckoning, reckon
from tests.checker import check_store
from tests.kafka_clients import QUIET
from tests.kafka_cluster import KafkaCluster
from tests.memory_ports import World
from tests.stories import Story, random_story
from tests.waiting import eventually

PARTITIONS = 6
MEMBERS = 3
CONTACTS = 1_500
SLICES = 25
SETTLED_WITHIN_S = 120.0
LIST = "chaos"
LAST_WORDS = "genesys-consumer: stopped:"
POISON_CODE = "contact.datum.length.limit.exceeded"
PROTOCOLS = ("classic", "classic", "consumer")
PROPERTIES = {
    "classic": "session.timeout.ms=3000\nheartbeat.interval.ms=500\n",
    "consumer": "group.protocol=consumer\nmax.poll.interval.ms=20000\n",
}


@dataclass(frozen=True)
class Round:
    """What was drawn from a seed.

    Attributes:
        seed: Gives all the rest.
        story: What the CRM says.
        poison: Contacts whose data Genesys refuses.
        plan: What goes wrong.
        protocol: Of the consumer group.
        static: Whether its members are static.
        lasts_s: How long the story takes to tell.
    """

    seed: int
    story: Story
    poison: set[str]
    plan: nemesis.Plan
    protocol: str
    static: bool
    lasts_s: float
    dice: random.Random

    @classmethod
    def drawn(cls, seed: int, topic: str, events: int) -> "Round":
        """Everything that the seed decides."""
        dice = random.Random(seed)
        story, poison = random_story(
            dice.randrange(2**32), contacts=CONTACTS, events=events, partitions=PARTITIONS, topic=topic
        )
        lasts_s = dice.uniform(3.0, 6.0)
        plan = nemesis.draw(dice, lasts_s)
        return cls(seed, story, poison, plan, dice.choice(PROTOCOLS), dice.random() < 1 / 3, lasts_s, dice)

    def __str__(self) -> str:
        membership = "static" if self.static else "dynamic"
        return f"{self.protocol}, {membership}: {self.plan}"


@dataclass(frozen=True)
class Played:
    """A round that broke no rule.

    Attributes:
        reckoning: What it came to.
        done: How often each fault was done.
        ends: How the lives of the members ended, by exit code.
        reasons: Why those ended that stopped by themselves.
        seconds: How long it took.
    """

    reckoning: Reckoning
    done: Mapping[str, int]
    ends: Mapping[int, int]
    reasons: Mapping[str, int]
    seconds: float


class Topics(NamedTuple):
    """The topics of a round."""

    source: str
    audit: str
    dead_letters: str
    changelog: str


async def play(
    cluster: KafkaCluster, broker_proxies: list[BrokerProxy], seed: int, events: int, folder: Path
) -> Played:
    """Play the round of a seed.

    Args:
        cluster: Three brokers.
        broker_proxies: Through which the members reach them.
        seed: Of the round.
        events: How many change events.
        folder: Where the members' logs go.

    Raises:
        AssertionError: A rule is broken, or the group did not get to the end.
    """
    started = time.monotonic()
    topics = await asyncio.to_thread(_create_topics, cluster)
    drawn = Round.drawn(seed, topics.source, events)
    world = World()
    world.append(drawn.story.records())
    poison = Poison(lambda data: data["external_id"] in drawn.poison, POISON_CODE)
    simulator = Simulator(poison=poison, journal_limit=200_000, clock=time.time, faults=nemesis.CALM, seed=seed)
    async with simulator, _genesys(simulator) as genesys, _disk(folder) as disk:
        members = _members(drawn, topics, cluster.proxied_bootstrap, genesys, disk)
        scene = Scene(members, cluster, broker_proxies, genesys, simulator, disk, drawn.dice)
        async with _alive(members):
            await _act(drawn, world, scene)
            await _settled(cluster.bootstrap, topics, world)
        reckoning = await asyncio.to_thread(_reckon, drawn, world, topics, cluster.bootstrap, simulator)
        await asyncio.to_thread(_check_stores, members, world, topics, cluster.bootstrap)
    await asyncio.to_thread(_delete_topics, cluster.bootstrap, topics)
    ends = sum((member.ends for member in members), Counter[int]())
    return Played(reckoning, scene.done, ends, _reasons(members), time.monotonic() - started)


def _create_topics(cluster: KafkaCluster) -> Topics:
    """Those that need something special; the members create the others."""
    keep = {"retention.ms": "-1"}  # the times of a story lie years back
    source = cluster.create_topic("chaos", partitions=PARTITIONS, config=keep)
    brokers_time = {"message.timestamp.type": "LogAppendTime"}
    audit = cluster.create_topic("audit", partitions=PARTITIONS, config=brokers_time)
    return Topics(source, audit, f"{source}.dead-letters", f"{source}-dedupe-changelog")


@asynccontextmanager
async def _alive(members: Sequence[Member]) -> AsyncIterator[None]:
    """The members, started, and in the end stopped in an orderly way."""
    for member in members:
        member.start()
    try:
        yield
    finally:
        await asyncio.gather(*(member.stop() for member in members))


def _reasons(members: Sequence[Member]) -> Counter[str]:
    """Why members stopped by themselves: the last words of the program, without what is particular to a case."""
    words = [line for member in members for line in member.log.read_text(errors="replace").splitlines()]
    stopped = [line for line in words if line.startswith(LAST_WORDS)]
    return Counter(":".join(line.removeprefix(LAST_WORDS).split(":")[:2]).strip() for line in stopped)


@asynccontextmanager
async def _genesys(simulator: Simulator) -> AsyncIterator[Proxy]:
    proxy = Proxy(int(simulator.url.rpartition(":")[2]))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def _disk(folder: Path) -> AsyncIterator[Disk]:
    disk = Disk(folder / "disk")
    try:
        yield disk
    finally:
        disk.remove()


def _members(drawn: Round, topics: Topics, bootstrap: str, genesys: Proxy, disk: Disk) -> list[Member]:
    folder = disk.folder.parent
    properties = folder / "kafka.properties"
    properties.write_text(PROPERTIES[drawn.protocol])
    common = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_GROUP_ID": topics.source,
        "KAFKA_SOURCE_TOPICS": topics.source,
        "KAFKA_AUDIT_TOPIC": topics.audit,
        "KAFKA_DEAD_LETTER_TOPIC": topics.dead_letters,
        "KAFKA_CHANGELOG_TOPIC": topics.changelog,
        "KAFKA_PROPERTIES_FILE": str(properties),
        "SCHEMA_UNKNOWN_TIMEOUT_S": "1",
        "GENESYS_OAUTH_CLIENT_ID": "id",
        "GENESYS_OAUTH_CLIENT_SECRET": "secret",
        "GENESYS_CONTACT_LIST": LIST,
        "GENESYS_LOGIN_URL": f"http://127.0.0.1:{genesys.port}",
        "GENESYS_API_URL": f"http://127.0.0.1:{genesys.port}",
        "GENESYS_REQUESTS_PER_MINUTE": "100000",
        "GENESYS_REQUEST_TIMEOUT_S": "2",
        "BATCH_LINGER_MS": "100",
        "HTTP_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
    }
    names = [f"member-{number}" for number in range(MEMBERS)]
    own = [{"KAFKA_GROUP_INSTANCE_ID": name} if drawn.static else {} for name in names]
    return [Member(name, environ(common | mine), disk, folder) for name, mine in zip(names, own, strict=True)]


async def _act(drawn: Round, world: World, scene: Scene) -> None:
    """Tell the story; things go wrong from the first contact on."""
    telling = asyncio.create_task(asyncio.to_thread(_tell, scene.cluster.bootstrap, world, drawn.lasts_s))
    await eventually(lambda: scene.simulator.stats()["contacts"].get("applied", 0) > 0, SETTLED_WITHIN_S)
    await nemesis.carry_out(drawn.plan, scene)
    await telling


def _tell(bootstrap: str, world: World, lasts_s: float) -> None:
    """Put the records on the topic bit by bit, so that the group is never idle."""
    producer = harvest.producer(bootstrap)
    for number in range(SLICES):
        for log in world.log.values():
            for record in log[len(log) * number // SLICES : len(log) * (number + 1) // SLICES]:
                harvest.produce(producer, record)
        producer.flush(lasts_s / SLICES)
        time.sleep(lasts_s / SLICES)
    assert producer.flush(60) == 0, "the brokers did not take the story"


async def _settled(bootstrap: str, topics: Topics, world: World) -> None:
    """Wait until the group has committed everything."""
    consumer = harvest.asking(bootstrap, topics.source)
    expected: dict[TopicPartition, int] = {key: len(log) for key, log in world.log.items()}
    found: dict[TopicPartition, int] = {}
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while found != expected:
                await asyncio.sleep(0.1)
                try:
                    found = await asyncio.to_thread(harvest.committed, consumer, list(expected))
                except KafkaException:  # a coordinator has just died
                    continue
    except TimeoutError:
        behind = {key: f"{found.get(key)} of {end}" for key, end in expected.items() if found.get(key) != end}
        admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
        members = await asyncio.to_thread(_members_of, admin, topics.source)
        raise AssertionError(f"not settled within {SETTLED_WITHIN_S:.0f} s: {behind}; members: {members}") from None


def _members_of(admin: AdminClient, group: str) -> list[str]:
    """Who has what, as the brokers see it."""
    described = admin.describe_consumer_groups([group])[group].result(10)
    return [
        f"{member.member_id}: {[(p.topic, p.partition) for p in member.assignment.topic_partitions]}"
        for member in described.members
    ]


def _reckon(drawn: Round, world: World, topics: Topics, bootstrap: str, simulator: Simulator) -> Reckoning:
    audit = harvest.harvest(
        world,
        bootstrap=bootstrap,
        group=topics.source,
        audit_topic=topics.audit,
        dead_letter_topic=topics.dead_letters,
        contacts=simulator.contacts(LIST),
    )
    return reckon(world, drawn.story, drawn.poison, simulator.journal, audit)


def _check_stores(members: Sequence[Member], world: World, topics: Topics, bootstrap: str) -> None:
    """Every store that is left, also of partitions that somebody else had in the end."""
    offsets = harvest.changelogs(world, bootstrap=bootstrap, topic=topics.changelog)
    stores = [store for member in members for store in harvest.stores(member.state_dir, offsets)]
    assert stores, "whoever had partitions in the end has their stores"
    for key, entries, position in stores:
        check_store(key, entries, world.changelog[key][:position])


def _delete_topics(bootstrap: str, topics: Topics) -> None:
    """A thousand topics would slow the brokers down."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})  # which must outlive the futures
    for future in admin.delete_topics([*topics]).values():
        future.result(30)
