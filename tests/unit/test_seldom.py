"""The same is told a few times a minute at most, whatever else is told meanwhile."""

from consumer.core.seldom import SAME_EVERY_S, Seldom, kind_of


def test_the_same_is_told_again_when_it_was_not_for_a_while() -> None:
    """What is something else is told at once."""
    now = 0.0
    subject = Seldom(lambda: now)
    assert [subject.told("one"), subject.told("one"), subject.told("other")] == [False, True, False]
    now = SAME_EVERY_S - 1
    assert subject.told("one")
    now = SAME_EVERY_S
    assert [subject.told("one"), subject.told("one")] == [False, True]


def test_an_error_is_of_one_kind_whatever_numbers_it_names() -> None:
    """Times, files, brokers and offsets are others each time."""
    assert kind_of(OSError("no space left on 000123.sst")) == kind_of(OSError("no space left on 000124.sst"))
    assert kind_of(OSError("no space left")) != kind_of(OSError("no brokers left"))
