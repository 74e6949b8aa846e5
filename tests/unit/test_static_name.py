"""For how long a refused static name is tried, and when it no longer counts as refused."""

import pytest

from consumer.adapters.kafka.static_name import LET_IN_AFTER_S, RELEASED_WITHIN_S, RETRY_S, StaticName
from consumer.errors import FatalError

START = 50.0


def refused(name: StaticName, since: float, for_s: float) -> float:
    """Have it refused, tried again and refused again for less than so long; when that was last."""
    now = since
    while now + RETRY_S < since + for_s:
        name.refuse(now)
        now += RETRY_S
        assert name.is_due(now)
    name.refuse(now)
    return now


def test_a_name_counts_as_refused_between_a_try_and_its_answer() -> None:
    """Each try is a client of its own, of which nothing is known yet."""
    name = StaticName("ours")
    assert not name.is_refused(0.0)
    name.refuse(START)
    assert not name.is_due(START + RETRY_S - 1)
    assert name.is_due(START + RETRY_S)
    assert name.is_refused(START + RETRY_S + 1)
    name.accept()
    assert not name.is_refused(START + RETRY_S + 2)


def test_a_name_that_somebody_has_for_good_is_given_up() -> None:
    """Every try was refused, for longer than a session lasts."""
    name = StaticName("ours")
    last = refused(name, START, RELEASED_WITHIN_S)
    with pytest.raises(FatalError, match="KAFKA_GROUP_INSTANCE_ID=ours"):
        name.is_due(last + RETRY_S)


def test_who_was_let_in_without_a_partition_has_all_the_time_again() -> None:
    """Nothing tells that it was let in, but that it was refused no more; the refusal of hours ago is over."""
    name = StaticName("ours")
    last = refused(name, START, RELEASED_WITHIN_S / 2)
    assert name.is_due(last + RETRY_S)
    assert not name.is_refused(last + LET_IN_AFTER_S)
    refused(name, last + LET_IN_AFTER_S, RELEASED_WITHIN_S)
