"""The log says it when most records of a topic are rejected: nothing else would show that its framing does not fit."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from consumer.model import Assignment, Outcome, Reason, Record, TopicPartition, Work
from consumer.pipeline.rejections import A_HANDFUL, TOLD_EVERY_S, Rejections
from tests.lives import live, world_of
from tests.stories import Event, Story

GOOD, BAD = Outcome.DELIVERED, Outcome.REJECTED


def work(outcome: Outcome, offset: int = 0, reason: str = Reason.NOT_DECODABLE, topic: str = "a") -> Work:
    """A record that ended so."""
    made = Work(Record(topic, 3, offset, 0, None, b""), Assignment(TopicPartition(topic, 3)), outcome=outcome)
    if outcome is BAD:
        made.reasons, made.detail = (reason,), f"what is wrong at {offset}"
    return made


class Heard:
    """Rejections, a clock, and what the log says."""

    def __init__(self) -> None:
        self.now = 0.0
        self._subject = Rejections(lambda: self.now)

    def after(self, works: Sequence[Work], topic: str = "a") -> Sequence[object]:
        """What is logged as these are settled."""
        with capture_logs() as lines:
            self._subject.note(topic, works)
        return lines


def test_it_is_said_with_the_commonest_reason_and_where_to_look() -> None:
    """One that is rarer may be the fault of its record."""
    works = [work(BAD, offset) for offset in range(6)] + [work(BAD, 6, Reason.EMAIL_INVALID), work(GOOD, 7)]
    (line,) = Heard().after(works)
    assert line == {
        "event": "records_are_rejected",
        "log_level": "warning",
        "topic": "a",
        "records": 7,
        "share": 0.88,
        "reason": "not_decodable",
        "detail": "what is wrong at 5",
        "record": "a/3/5",
        "remedy": "see check --explain a/3/5: do SOURCE_FRAMING, SOURCE_ENVELOPE and SOURCE_MAPPING fit? "
        "Then dead-letters replay --topic a, without --reason: one cause has letters of several",
    }


def test_it_is_said_every_30_seconds_while_it_lasts() -> None:
    """What was said is not counted again: the reason may be another one meanwhile."""
    heard = Heard()
    assert heard.after([work(BAD)] * 10)
    heard.now = TOLD_EVERY_S - 1
    assert not heard.after([work(BAD, reason=Reason.EMAIL_INVALID)] * 5)
    heard.now = TOLD_EVERY_S
    (line,) = heard.after([work(BAD)])
    assert isinstance(line, dict)
    assert line["reason"] == "email_invalid"
    heard.now = 10 * TOLD_EVERY_S
    assert not heard.after([work(GOOD)] * 10)


@pytest.mark.parametrize(
    "works",
    [
        [work(BAD)] * 5 + [work(GOOD)] * 5,
        [work(BAD)] * (A_HANDFUL - 1),
        [work(Outcome.UNDELIVERABLE)] * 10,
        [],
    ],
    ids=["half", "a few", "Genesys refuses", "nothing"],
)
def test_otherwise_nothing_is_said(works: Sequence[Work]) -> None:
    """Bad records are usual."""
    assert not Heard().after(works)


def test_a_topic_that_cannot_be_read_does_not_hide_among_others() -> None:
    """Each topic has a framing and a mapping of its own."""
    heard = Heard()
    assert not heard.after([work(GOOD, topic="b")] * 1_000, "b")
    assert heard.after([work(BAD)] * 10)


def test_what_is_over_is_no_reason() -> None:
    """What was wrong before most were fine again is not what is wrong now."""
    heard = Heard()
    for heard.now in (0.0, 1.0):
        heard.after([work(BAD, reason=Reason.EMAIL_INVALID)] * 20)
    heard.after([work(GOOD)] * 60)
    heard.now = 70.0
    (line,) = heard.after([work(BAD)] * 10)
    assert isinstance(line, dict)
    assert line["reason"] == "not_decodable"


def test_a_consumer_says_it_as_it_settles() -> None:
    """Not only whoever looks at the dead letters learns of it."""
    bad = [Event(f"contact-{n}", n, phone="nonsense", reasons=("phone_not_e164",)) for n in range(1, 9)]
    with capture_logs() as lines:
        live(world_of(Story().tell(0, *bad)))
    (line,) = [line for line in lines if line["event"] == "records_are_rejected"]
    assert (line["records"], line["share"], line["reason"]) == (8, 1.0, "phone_not_e164")
