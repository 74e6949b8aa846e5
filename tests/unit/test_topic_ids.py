"""What tells a topic from a former one of its name, where brokers tell it."""

from collections.abc import Collection
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition as NativePartition, Uuid

from consumer.adapters.kafka import topics
from consumer.adapters.kafka.group_offsets import GroupMember, Mark
from consumer.adapters.kafka.starts import Start
from consumer.adapters.kafka.topics import TopicIds, id_of_seen
from consumer.model import TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)
UNKNOWN = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)


@pytest.mark.parametrize(
    ("committed", "now", "believed"),
    [("a", "a", True), ("a", "b", False), ("", "b", True), ("a", "", True), ("", "", True)],
)
def test_an_offset_is_believed_unless_it_is_another_topics(*, committed: str, now: str, believed: bool) -> None:
    """Where one of the two is not known, nothing tells that it is."""
    assert Mark(7, committed).is_of(now) is believed


def test_an_offset_is_committed_with_the_id_under_which_its_partition_began() -> None:
    """Not beside an id that is not known."""
    membership = GroupMember(None, frozenset({P0, P1}), {P0: Mark(3, "a"), P1: Mark(4)})
    told: list[NativePartition] = membership.marked({P0: 3, P1: 4})
    assert [(each.partition, each.offset, each.metadata) for each in told] == [(0, 3, "topic-id:a"), (1, 4, "")]


@pytest.mark.parametrize(
    ("offset", "expected", "goes_back"),
    [
        (0, Mark(20, "a"), True),
        (0, Mark(20, ""), True),
        (25, Mark(20, "b"), True),
        (25, Mark(20, "a"), False),
        (25, None, False),
    ],
    ids=["cut off", "no id", "another topic", "retention", "new"],
)
def test_what_is_under_way_counts_unless_offsets_come_again(
    *, offset: int, expected: Mark | None, goes_back: bool
) -> None:
    """Records of a log that was cut off are others too, although its topic is the same."""
    assert Start(offset, 30, expected, "a").goes_back is goes_back


class Admin:
    """Brokers that answer with these ids, or errors."""

    def __init__(self, **told: Uuid | KafkaError) -> None:
        self._told = told

    def list_topics(self, timeout: float) -> object:
        return SimpleNamespace(cluster_id="real")

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> dict[str, Future[object]]:
        answers: dict[str, Future[object]] = {name: Future() for name in self._told}
        for name, told in self._told.items():
            if isinstance(told, KafkaError):
                answers[name].set_exception(KafkaException(told))
            else:
                answers[name].set_result(SimpleNamespace(topic_id=told))
        return answers


def ids(names: Collection[str], admin: Any) -> dict[str, str | None]:
    """As they are asked for."""
    return TopicIds().of(admin, names)


def test_a_topic_from_before_there_were_ids_has_none() -> None:
    """Else all its offsets would be those of a former topic as soon as it gets one."""
    assert ids(["old", "new"], Admin(old=Uuid(0, 0), new=Uuid(1, 2))) == {"old": "", "new": str(Uuid(1, 2))}


def test_a_topic_that_is_gone_keeps_no_other_from_being_told() -> None:
    """Nor does that end anything where it is alone: a broker may not know yet what was just made."""
    assert ids(["gone", "there"], Admin(gone=UNKNOWN, there=Uuid(1, 2))) == {"gone": None, "there": str(Uuid(1, 2))}
    assert ids(["gone"], Admin(gone=UNKNOWN)) == {"gone": None}


def test_a_topic_of_which_nothing_is_told_does_not_count_as_gone() -> None:
    """What is under way of it would be given up."""
    away = KafkaError(KafkaError._TIMED_OUT)
    assert ids(["away", "there"], Admin(away=away, there=Uuid(1, 2))) == {"there": str(Uuid(1, 2))}


def test_what_keeps_all_from_being_told_is_an_error() -> None:
    """As a right that is missing is."""
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        ids(["gone", "secret"], Admin(gone=UNKNOWN, secret=refused))


class Behind(Admin):
    """A broker that knows a topic only when it is asked for the third time."""

    asked = 0

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> dict[str, Future[object]]:
        self.asked += 1
        told = Uuid(1, 2) if self.asked == 3 else UNKNOWN
        return Admin(made=told).describe_topics(topics, request_timeout)


def test_a_broker_that_does_not_know_what_was_just_made_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first start ends wherever two brokers tell of the changelog at different moments."""
    monkeypatch.setattr(topics, "LOOK_AGAIN_S", 0.0)
    assert id_of_seen(cast("Any", Behind()), "made") == str(Uuid(1, 2))


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_what_is_refused_or_never_known_is_an_error(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been deleted in that moment."""
    monkeypatch.setattr(topics, "VISIBLE_WITHIN_S", 0.0 if code == UNKNOWN.code() else 1e9)
    with pytest.raises(KafkaException, match=KafkaError(code).name()):
        id_of_seen(cast("Any", Admin(made=KafkaError(code))), "made")
