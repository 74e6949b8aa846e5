"""When the brokers count as away, and when it is this consumer alone that does not find them again."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from consumer.adapters.kafka.reach import (
    LOGICAL,
    LOST_AFTER_S,
    NOBODY,
    PROBE_EVERY_S,
    UNREACHED_AFTER_S,
    Leaders,
    Reach,
)
from consumer.errors import FatalError
from consumer.model import TopicPartition


class Metadata:
    """What a client is told: the brokers, by number."""

    def __init__(self, brokers: Sequence[int]) -> None:
        self.brokers = dict.fromkeys(brokers)


class Client:
    """Gets the same answer each time; None is no answer."""

    def __init__(self, brokers: Sequence[int] | None) -> None:
        self.brokers = brokers
        self.asked = 0

    def list_topics(self, topic: str, timeout: float) -> Metadata:
        assert (topic, timeout > 0) == ("contacts", True)
        self.asked += 1
        if self.brokers is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return Metadata(self.brokers)


class Cluster:
    """Makes admin clients that all get the same answer."""

    def __init__(self, brokers: Sequence[int] | None) -> None:
        self.brokers = brokers

    def admin(self) -> Client:
        return Client(self.brokers)


def reach(others: Cluster) -> Reach:
    """In doubt, as at the start."""
    return Reach(others, "contacts")  # type: ignore[arg-type]


def probe(subject: Reach, client: Client, now: float) -> None:
    """As the poll thread does it; whoever else is asked has answered by the next time."""
    subject.probe(client, now)  # type: ignore[arg-type]
    if subject._others is not None:
        wait([subject._others])


def test_brokers_count_as_away_until_they_answer() -> None:
    """And once they did, they are not asked any more."""
    subject, client = reach(Cluster([1])), Client([1])
    before = subject.connected
    probe(subject, client, 0)
    probe(subject, client, 100)
    assert (before, subject.connected) == (False, True)
    assert client.asked == 1


def test_it_is_told_once_that_they_are_away_and_once_that_they_are_back() -> None:
    """The library says the first again and again, and never the second."""
    subject = reach(Cluster([1]))
    with capture_logs() as logs:
        subject.answered()
        subject.down()
        subject.down()
        subject.answered()
        subject.answered()
        subject.down()
    told = [line["event"] for line in logs]
    assert told == ["brokers_down", "brokers_answer_again", "brokers_down"]


def test_who_was_not_said_to_be_away_is_not_said_to_be_back() -> None:
    """As at every start, when nobody has answered yet."""
    subject = reach(Cluster([1]))
    with capture_logs() as logs:
        probe(subject, Client(None), 0)
        probe(subject, Client([1]), 2 * PROBE_EVERY_S)
    assert subject.connected
    assert logs == []


@pytest.mark.parametrize("brokers", [None, []])
def test_no_answer_and_an_answer_without_brokers_are_the_same(brokers: Sequence[int] | None) -> None:
    """Whoever is told of no broker can fetch nothing."""
    subject = reach(Cluster(None))
    probe(subject, Client(brokers), 0)
    assert not subject.connected


def test_they_are_asked_again_in_a_while() -> None:
    """Not with every turn of the poll thread, which the question holds up."""
    subject, client = reach(Cluster(None)), Client(None)
    probe(subject, client, 0)
    probe(subject, client, PROBE_EVERY_S - 0.01)
    assert client.asked == 1
    probe(subject, client, PROBE_EVERY_S)
    assert client.asked == 2


@pytest.mark.parametrize("cause", ["down", "doubt"])
def test_a_doubt_has_them_asked(cause: str) -> None:
    """Also where the library says nothing; they count as away only if they do not answer then."""
    subject, client = reach(Cluster(None)), Client([1])
    subject.answered()
    getattr(subject, cause)()
    seen = [subject.connected]
    probe(subject, client, 0)
    seen.append(subject.connected)
    client.brokers = None
    getattr(subject, cause)()
    probe(subject, client, PROBE_EVERY_S)
    seen.append(subject.connected)
    assert seen == [cause == "doubt", True, False]


def test_who_alone_does_not_find_them_gives_up() -> None:
    """A new client reaches them all the time: this one never will."""
    subject, client = reach(Cluster([1])), Client(None)
    probe(subject, client, 0)
    probe(subject, client, PROBE_EVERY_S)  # takes the first answer of the others
    probe(subject, client, LOST_AFTER_S)
    with pytest.raises(FatalError, match="answer others"):
        probe(subject, client, LOST_AFTER_S + PROBE_EVERY_S)


@pytest.mark.parametrize("others", [None, []])
def test_an_outage_is_waited_out(others: Sequence[int] | None) -> None:
    """Nobody reaches them, for however long: nothing is to be gained by giving up."""
    subject, client = reach(Cluster(others)), Client(None)
    for now in (0, LOST_AFTER_S, 10 * LOST_AFTER_S, 20 * LOST_AFTER_S):
        probe(subject, client, now)
    assert not subject.connected


def test_an_answer_or_an_outage_begins_the_time_anew() -> None:
    """The library has as long to reconnect each time."""
    cluster = Cluster([1])
    subject, client = reach(cluster), Client(None)
    for now in (0, PROBE_EVERY_S, LOST_AFTER_S):
        probe(subject, client, now)
    subject.answered()
    subject.down()
    cluster.brokers = None
    for now in (2 * LOST_AFTER_S, 3 * LOST_AFTER_S):
        probe(subject, client, now)
    cluster.brokers = [1]
    for now in (4 * LOST_AFTER_S, 5 * LOST_AFTER_S, 6 * LOST_AFTER_S - PROBE_EVERY_S):
        probe(subject, client, now)
    with pytest.raises(FatalError):
        probe(subject, client, 6 * LOST_AFTER_S)


def test_a_question_that_is_not_answered_is_an_outage() -> None:
    """As where names cannot be resolved any more: whoever reaches the brokers is answered within moments."""
    subject, client = reach(Cluster([1])), Client(None)
    for now in (0, PROBE_EVERY_S):
        probe(subject, client, now)
    subject._others = Future()
    for now in (LOST_AFTER_S, 2 * LOST_AFTER_S):
        subject.probe(client, now)  # type: ignore[arg-type]
    assert not subject.connected


P0, P1 = TopicPartition("changes", 0), TopicPartition("changes", 1)
LATER = UNREACHED_AFTER_S


def statistics(up: Sequence[int], led: Sequence[int], source: str = "learned") -> Mapping[str, Any]:
    """Two brokers, of which these are up, and by whom each partition is fetched from."""
    brokers = {
        f"broker/{number}": {"nodeid": number, "source": source, "state": "UP" if number in up else "CONNECT"}
        for number in (NOBODY, 1, 2)
    }
    partitions = {str(number): {"broker": broker} for number, broker in enumerate(led)}
    return {"brokers": brokers, "topics": {"changes": {"partitions": partitions}}}


def test_a_partition_whose_broker_alone_is_away_is_told_after_a_while() -> None:
    """The others go on, so that nothing else shows it."""
    subject, away = Leaders(), statistics(up=[1], led=[1, 2])
    assert not subject.unreached(away, [P0, P1], 100)
    assert not subject.unreached(away, [P0, P1], 99 + LATER)
    assert subject.unreached(away, [P0, P1], 100 + LATER) == {P1}


@pytest.mark.parametrize(
    ("between", "wanted"), [(statistics([1, 2], [1, 2]), [P1]), (statistics([1], [1, 1]), [P1]), (None, [])]
)
def test_the_time_counts_anew(between: Mapping[str, Any] | None, wanted: list[TopicPartition]) -> None:
    """Once the broker was there, another one led the partition, or it was not to be fetched."""
    subject, away = Leaders(), statistics(up=[1], led=[1, 2])
    subject.unreached(away, [P1], 0)
    assert not subject.unreached(between or away, wanted, LATER)
    assert not subject.unreached(away, [P1], LATER + 1)
    assert not subject.unreached(away, [P1], 2 * LATER)
    assert subject.unreached(away, [P1], 2 * LATER + 1) == {P1}


@pytest.mark.parametrize(
    "told",
    [
        statistics(up=[NOBODY, 1], led=[1, NOBODY]),
        statistics(up=[1], led=[1]),
        {**statistics(up=[1], led=[]), "topics": {}},
    ],
)
def test_a_partition_that_nobody_leads_is_not_reached_either(told: Mapping[str, Any]) -> None:
    """Also where the address from the settings is reached, which is of no broker that is known."""
    subject = Leaders()
    subject.unreached(told, [P1], 0)
    assert subject.unreached(told, [P1], LATER) == {P1}


def test_a_connection_for_the_group_is_none_to_fetch_by() -> None:
    """It leads to a broker too, by another socket."""
    subject, told = Leaders(), statistics(up=[1, 2], led=[1, 2], source=LOGICAL)
    subject.unreached(told, [P1], 0)
    assert subject.unreached(told, [P1], LATER) == {P1}
