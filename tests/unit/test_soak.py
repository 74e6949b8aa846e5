"""What `make soak` calls growth, and whom its story expects in the list."""

from dataclasses import replace
from itertools import islice

import pytest

from tests.soak import BAD_PHONE, Quarter, Sample, Story, by_quarter, grown, memory_slope

MB = 2**20
STEADY = Quarter(rss_mb=100.0, files=60, threads=30, cpu_us_per_event=900.0)


def test_what_is_as_before_has_not_grown() -> None:
    """Neither has what grew in the first quarter, or fell."""
    assert grown([replace(STEADY, rss_mb=50.0, files=9), STEADY, STEADY, replace(STEADY, rss_mb=104.9, files=70)]) == []


@pytest.mark.parametrize(
    ("what", "last"),
    [
        ("memory", replace(STEADY, rss_mb=105.1)),
        ("files", replace(STEADY, files=77)),
        ("threads", replace(STEADY, threads=31)),
    ],
)
def test_what_is_more_than_in_the_second_quarter_has_grown(what: str, last: Quarter) -> None:
    """Each of them is told by its name."""
    assert grown([STEADY, STEADY, STEADY, last]) == [what]


def test_a_quarter_tells_what_was_taken_in_it() -> None:
    """Medians of what is there, and CPU by the events that came in meanwhile."""
    samples = [Sample(float(n), 100 * n, n * MB, 10 * n, n, cpu_s=n * n / 100) for n in range(9)]
    first, *_, last = by_quarter(samples)
    assert first == Quarter(rss_mb=1.0, files=10, threads=1, cpu_us_per_event=200.0)
    assert last == Quarter(rss_mb=7.0, files=70, threads=7, cpu_us_per_event=1400.0)


def test_memory_that_grows_by_a_megabyte_a_second_has_that_slope() -> None:
    """Per hour."""
    assert memory_slope([Sample(float(n), 0, n * MB, 0, 0, 0.0) for n in range(10)]) == 3600.0


def test_the_story_expects_what_its_last_valid_events_say() -> None:
    """Withdrawals are not callable, deletes are gone, what breaks a rule or repeats changes nothing."""
    story = Story(contacts=50, seed=3)
    told = list(islice(story, 2_000))
    expected: dict[str, tuple[str, bool]] = {}
    for event in told:
        if event["changeType"] == "DELETE":
            expected.pop(event["externalId"], None)
        elif event["phone"] != BAD_PHONE:
            expected[event["externalId"]] = event["phone"], event["consent"]
    assert story.expected == expected
    assert story.told == len(told)
    assert {consent for _, consent in expected.values()} == {True, False}
    assert len(expected) < 50
    assert len({event["version"] for event in told}) < len(told)
