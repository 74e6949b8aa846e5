"""Partitions that are nobody's: when a member that is back rejoins for them, and when it stops to look."""

from concurrent.futures import Future
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException

from consumer.adapters.kafka import orphans
from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.orphans import LOOK_AGAIN_S, PATIENCE_S, Orphans
from consumer.errors import SettingsError
from consumer.model import TopicPartition
from tests.lives import settings

LEFT = {TopicPartition("contacts", 3)}
BOTH = [TopicPartition("one", 0), TopicPartition("two", 0)]
Answer = set[TopicPartition] | KafkaError | SettingsError | None


class _Inline:
    """A worker that is done at once."""

    def __init__(self, _: str) -> None:
        self.stopped = False

    def submit(self, call: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(call())
        except (KafkaException, SettingsError) as failure:
            future.set_exception(failure)
        return future

    def stop(self) -> None:
        self.stopped = True


def watched(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> tuple[Orphans, list[float]]:
    """What looks, once all these answers were given, the last one again and again; and when it asked to rejoin."""
    told = list(answers)

    def ask(_: Orphans) -> set[TopicPartition] | None:
        answer = told.pop(0) if len(told) > 1 else told[0]
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
        if isinstance(answer, SettingsError):
            raise answer
        return answer

    monkeypatch.setattr(orphans, "Worker", _Inline)
    monkeypatch.setattr(Orphans, "_ask", ask)
    subject = Orphans(Connection("unused:9092"), settings())
    moments = [tenth / 10 for tenth in range(600)]
    return subject, [now for now in moments if subject.poll(now)]


def test_what_nobody_has_for_a_while_is_adopted_and_a_rejoin_in_vain_is_repeated_later_and_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five seconds, then ten, then twenty: who decides may not know of a partition yet."""
    subject, rejoined = watched(monkeypatch, LEFT)
    waits = [later - moment for moment, later in zip([0.0, *rejoined], rejoined, strict=False)]
    assert len(waits) == 3
    for number, wait in enumerate(waits):
        assert PATIENCE_S * 2**number <= wait <= PATIENCE_S * 2**number + 3 * LOOK_AGAIN_S
    assert not subject.finished


def test_the_brokers_are_not_asked_at_every_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while there is something to wait for: once every two seconds, whoever polls ten times as often."""
    asked: list[float] = []

    def decide(_: Orphans, __: object, now: float) -> set[TopicPartition]:
        asked.append(now)
        return set()

    monkeypatch.setattr(Orphans, "_decide", decide)
    watched(monkeypatch, LEFT)
    assert len(asked) > 20
    assert all(later - moment >= LOOK_AGAIN_S for moment, later in pairwise(asked))


@pytest.mark.parametrize("answers", [[set()], [None, LEFT, set()], [LEFT, None, LEFT, None]], ids=str)
def test_what_finds_its_owner_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch, answers: list[Answer]) -> None:
    """A group at rest that lacks nothing ends it; one that is not at rest says nothing."""
    subject, rejoined = watched(monkeypatch, *answers)
    assert rejoined == []
    assert subject.finished == (answers[-1] is not None)


class _Cluster:
    """Tells of a group at rest whose only member has nothing."""

    def admin(self) -> "_Cluster":
        return self

    def describe_consumer_groups(self, groups: list[str], **_: float) -> dict[str, "Future[Any]"]:
        told = Future[Any]()
        nothing = SimpleNamespace(topic_partitions=[])
        told.set_result(SimpleNamespace(state=ConsumerGroupState.STABLE, members=[SimpleNamespace(assignment=nothing)]))
        return dict.fromkeys(groups, told)


@pytest.mark.parametrize(("there", "answer"), [([], None), ([TopicPartition("one", 0)], None), (BOTH, {*BOTH})])
def test_a_topic_of_which_a_broker_does_not_know_yet_is_not_one_without_partitions(
    monkeypatch: pytest.MonkeyPatch, there: list[TopicPartition], answer: set[TopicPartition] | None
) -> None:
    """Otherwise the group would seem to lack nothing, and nobody would look again."""
    monkeypatch.setattr(orphans, "partitions_of", lambda *_: there)
    subject = Orphans(cast("Connection", _Cluster()), settings(kafka_source_topics="one,two"))
    assert subject._ask() == answer


@pytest.mark.parametrize(
    ("code", "finished"), [(KafkaError.GROUP_AUTHORIZATION_FAILED, True), (KafkaError._TIMED_OUT, False)]
)
def test_whoever_may_not_ask_stops(monkeypatch: pytest.MonkeyPatch, code: int, finished: bool) -> None:
    """An outage is another matter."""
    subject, rejoined = watched(monkeypatch, KafkaError(code))
    assert rejoined == []
    assert subject.finished is finished


def test_files_that_are_being_exchanged_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client can be made with half of a certificate; whoever runs on has one."""
    subject, rejoined = watched(monkeypatch, SettingsError(["KAFKA_PROPERTIES_FILE: no such file"]), LEFT)
    assert rejoined
    assert not subject.finished
