"""Epochs of a source's log: what begins one, what does not, and who is called after failovers and repeats."""

from functools import partial

import pytest
from hypothesis import example, given, settings, strategies as st
from msgspec.structs import replace

from consumer.core.changes import to_change
from consumer.core.connect_json import JsonReader
from consumer.core.dedupe import accepted, advanced, judge
from consumer.core.epochs import MAX_BEGINNINGS, MAX_SOURCES, Epochs, decode
from consumer.model import ChangeEvent, ChangeType, Contact, Verdict
from tests.captured import captured
from tests.envelopes import TOPIC, envelopes

places = st.lists(
    st.tuples(st.none() | st.integers(0, 30), st.integers(0, 30), st.sampled_from(["", "b"]), st.booleans()),
    max_size=40,
)


def seen(*those):
    """Epochs of a partition in which these positions and times of one source were seen."""
    epochs = Epochs()
    follow(epochs, those)
    return epochs


def follow(epochs, those):
    """See more of the same source."""
    return epochs.follow([(*each, "", True) for each in those])


def test_a_log_that_goes_on_has_one_epoch():
    """Positions rise, whatever the clock does: MySQL tells when a statement began, and clocks are set back."""
    epochs = seen((1, 50), (2, 49), (2, 60), (7, 3))
    assert epochs.last == 0
    assert {epochs.of(time, "") for time in range(100)} == {0}


def test_a_lower_position_at_a_later_time_begins_an_epoch():
    """From its time on; whatever was seen before keeps the epoch that it had."""
    epochs = seen((100, 10), (101, 20))
    assert follow(epochs, [(102, 30), (3, 31), (4, 32)]) == [1]
    assert [epochs.of(time, "") for time in (10, 30, 31, 32)] == [0, 0, 1, 1]


@pytest.mark.parametrize("again", [(100, 10), (101, 20), (60, 20), (60, 5)])
def test_a_lower_position_at_a_time_that_was_seen_begins_none(again):
    """So it is with everything that is told again, one by one or among others."""
    epochs = seen((100, 10), (101, 20))
    assert follow(epochs, [again]) == follow(epochs, [again, (102, 21)]) == []


def test_what_a_snapshot_reads_begins_none_and_keeps_its_epoch():
    """Its clock may be ahead of the source's: an epoch begins later than that, or its reads would count as newer."""
    epochs = seen((100, 10), (None, 50))
    assert follow(epochs, [(3, 40)]) == []
    assert follow(epochs, [(4, 51)]) == [0]
    assert (epochs.of(50, ""), epochs.of(51, "")) == (0, 1)


def place_of(record):
    """Where the change of a real record stands."""
    event = JsonReader(partial(envelopes("debezium").mapper, TOPIC))(record.value, record)
    assert isinstance(event, ChangeEvent)
    return event.log


def test_where_times_are_whole_seconds_an_epoch_begins_with_the_next_one():
    """MariaDB tells no more: in the second of the snapshot behind a log made anew, a change may be one told again."""
    names = ("last before its log began anew", "read by a snapshot of the new log")
    changed = ("changed in the second of that snapshot", "changed in the next second")
    places = [place_of(captured(f"mariadb, {name}")) for name in (*names, *changed)]
    assert Epochs().follow(places) == [3]


def test_the_next_failover_begins_the_next_epoch():
    """The highest position is that of the last epoch: what an older one had is told again, and does not count."""
    epochs = seen((100, 10), (3, 20), (100, 10), (5, 25))
    assert epochs.last == 1
    assert follow(epochs, [(4, 30)]) == [0]
    assert [epochs.of(time, "") for time in (19, 20, 29, 30)] == [0, 1, 1, 2]


def test_what_an_older_epoch_had_counts_for_nothing_also_behind_what_is_new():
    """Polled at once with what goes on, it is no position of the last epoch, below which the next would begin."""
    epochs = seen((100, 10), (3, 20))
    assert follow(epochs, [(4, 25), (101, 12)]) == []
    assert follow(epochs, [(5, 30)]) == []


def test_what_goes_on_counts_also_behind_what_an_older_epoch_had():
    """It is the highest position of the last epoch, below which the next failover shows."""
    epochs = seen((100, 10), (3, 20))
    assert follow(epochs, [(5, 12), (6, 25)]) == []
    assert follow(epochs, [(5, 30)]) == [0]


def test_only_the_last_beginnings_are_kept():
    """What is older counts as of the first epoch, which no later one was ever compared with as newer."""
    failovers = MAX_BEGINNINGS + 5
    epochs = seen((100, 0), *((failovers - n, n + 1) for n in range(failovers)))
    assert epochs.last == failovers
    assert [epochs.of(time, "") for time in (1, 5, 6, failovers, failovers + 9)] == [0, 0, 6, failovers, failovers]


def test_nothing_is_known_of_a_source_without_a_log():
    """Then nothing is kept either."""
    assert not seen().known
    assert seen((0, 0)).known


def test_shards_that_share_a_topic_have_logs_of_their_own():
    """Their positions have nothing to do with each other; only that of the shard that failed over goes back."""
    epochs = Epochs()
    assert epochs.follow([(900, 1, "a", True), (5, 2, "b", True), (901, 3, "a", True), (6, 4, "b", True)]) == []
    assert [epochs.of(4, "a"), epochs.of(4, "b")] == [0, 1]
    assert epochs.follow([(7, 5, "b", True), (3, 6, "a", True), (8, 7, "b", True), (4, 8, "a", True)]) == [1]
    assert [epochs.of(8, "a"), epochs.of(8, "b"), epochs.of(8, "c"), epochs.of(8, None)] == [2, 1, 0, 0]
    assert decode(epochs.encode()).encode() == epochs.encode()


def test_a_change_that_does_not_tell_its_place_is_of_the_only_source():
    """The connector was told to leave its time out: what it grants must not count as from before the failover."""
    epochs = seen((100, 10), (3, 20))
    assert [epochs.of(time, None) for time in (19, 20)] == [0, 1]


def test_what_is_kept_of_sources_is_bounded():
    """Names come from records."""
    epochs = Epochs()
    epochs.follow([(9, 1, f"{n}", True) for n in range(MAX_SOURCES + 5)])
    assert epochs.follow([(3, 2, "0", True), (3, 2, f"{MAX_SOURCES}", True)]) == [0]
    assert len(epochs.encode()) < 2000


@given(places, st.data())
def test_how_records_come_together_does_not_matter(those, data):
    """Polled at once or one by one, with the process begun anew in between, the epochs are the same."""
    whole, single = Epochs(), Epochs()
    begun = whole.follow(those)
    for place in those:
        single.follow([place])
        if data.draw(st.booleans()):
            single = decode(single.encode())
    assert single.encode() == whole.encode()
    assert len(begun) <= whole.last <= len(begun) + 1


@given(places, st.integers(0, 40))
def test_records_that_come_again_change_nothing(those, start):
    """Whatever is read again from wherever on: no epoch begins, and each record has the epoch that it had."""
    epochs, first = Epochs(), []
    for place in those:
        epochs.follow([place])
        first.append(epochs.of(*place[1:3]))
    before = epochs.encode()
    assert epochs.follow(those[start:]) == []
    assert epochs.encode() == before
    if epochs.last <= MAX_BEGINNINGS:
        assert [epochs.of(*place[1:3]) for place in those] == first


# -- together with judging

CONTACTS = ("a", "b", "c")
SHARDS = {"a": "one", "b": "one", "c": "two"}
shards = st.sampled_from(["one", "two"])
story = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(CONTACTS), st.booleans()),
        st.tuples(st.just("delete"), st.sampled_from(CONTACTS)),
        st.tuples(st.just("failover"), shards, st.integers(2, 50)),
        st.tuples(st.just("sent again"), shards, st.integers(1, 12)),
        st.tuples(st.just("read again"), st.integers(1, 20)),
        st.tuples(st.just("restart"), st.integers(1, 5)),
    ),
    max_size=40,
)


class Sources:
    """Two databases with a log each, and the topic on which their connectors put what is in it."""

    def __init__(self):
        self.positions, self.time = {"one": 10_000, "two": 50_000}, 0
        self.logs: dict[str, list[ChangeEvent]] = {"one": [], "two": []}
        self.topic: list[ChangeEvent] = []

    def change(self, external_id, *, consent, kind=ChangeType.UPDATE):
        """Somebody is changed, later than whoever was before."""
        shard = SHARDS[external_id]
        self.positions[shard] += 1
        self.time += 1
        log = (self.positions[shard], self.time, shard, True)
        event = ChangeEvent(kind, external_id, self.time, log[0], "+1555", None, consent, False, {}, log=log)
        self.logs[shard].append(event)
        self.topic.append(event)

    def fail_over(self, shard, back):
        """Another server takes over, whose log is not as long."""
        self.positions[shard] -= back

    def send_again(self, shard, count):
        """The connector died, and goes on at an earlier place."""
        self.topic += self.logs[shard][-count:]


class Consumer:
    """What the program does with a partition, but for Genesys."""

    def __init__(self):
        self.epochs, self.states, self.next = Epochs(), {}, 0
        self.contacts, self.last = {}, {}

    def read(self, topic, poll):
        """Take what is new, some records at a time; who withdrew last is never callable, not for a moment."""
        while self.next < len(topic):
            polled = topic[self.next : self.next + poll]
            self.epochs.follow([event.log for event in polled])
            for offset, event in enumerate(polled, self.next):
                self.take(event, offset)
                for external_id, last in self.last.items():
                    assert last.change_type is not ChangeType.DELETE or not self.contacts[external_id]
                    assert last.consent or not self.contacts[external_id]
            self.next += len(polled)

    def take(self, event, offset):
        """Judge, and have it delivered."""
        contact = Contact(event.external_id, event.phone, "", event.consent, event.do_not_call, {})
        change = to_change(event, contact, offset, "list")
        change = replace(change, positional=change.withdrawal, epoch=self.epochs.of(*event.log[1:3]))
        state = self.states.get(event.external_id)
        verdict = judge(change, state)
        if verdict in {Verdict.NEW, Verdict.CHANGED}:
            self.states[event.external_id] = accepted(change, state)
            self.contacts[event.external_id] = not change.withdrawal
        elif verdict is Verdict.DUPLICATE and state is not None:
            self.states[event.external_id] = advanced(change, state) or state
        if event.occurred_at >= self.last.get(event.external_id, event).occurred_at:
            self.last[event.external_id] = event


WITHDREW, GRANTED, FAILOVER, DELETED = (
    ("change", "c", False),
    ("change", "c", True),
    ("failover", "two", 2),
    ("delete", "c"),
)


@example([WITHDREW, GRANTED, FAILOVER, DELETED, ("sent again", "two", 3)], 1)
@example([WITHDREW, FAILOVER, DELETED, GRANTED, ("sent again", "two", 3)], 1)
@settings(max_examples=500)
@given(story, st.integers(1, 5))
def test_whoever_withdrew_last_is_not_called_and_whoever_granted_last_is(told, poll):
    """Through failovers, records that a connector sends again or that are read again, and processes that begin anew."""
    source, consumer = Sources(), Consumer()
    for act, *how in told:
        match act:
            case "change":
                source.change(how[0], consent=how[1])
            case "delete":
                source.change(how[0], consent=None, kind=ChangeType.DELETE)
            case "failover":
                source.fail_over(*how)
            case "sent again":
                source.send_again(*how)
            case "read again":
                consumer.read(source.topic, poll)
                consumer.next = max(0, consumer.next - how[0])
            case _:
                consumer.read(source.topic, how[0])
                consumer.epochs = decode(consumer.epochs.encode())
    consumer.read(source.topic, poll)
    changes = [event for log in source.logs.values() for event in log]
    expected = {event.external_id: event.consent is True for event in changes}
    assert consumer.contacts == expected
