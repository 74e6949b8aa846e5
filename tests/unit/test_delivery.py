"""How patient the gate is: the client-side limit, Retry-After, backoff, and the breaker."""

import math
from collections.abc import Sequence
from itertools import cycle, islice, pairwise

import pytest
from hypothesis import given, strategies as st

from consumer.core.delivery import BREAKER_FAILURES, BREAKER_OPEN_S, THROTTLED_DEFAULT_S, Breaker, Gate, Throttle

WINDOW_S = 60.0
PLENTY = 100_000
BEGIN = 1000.0
"""Any moment: the clock is monotonic and begins anywhere."""


def gate(requests_per_minute: int = PLENTY, max_in_flight: int = 4, max_records: int = 100) -> Gate:
    """A gate that holds nothing back, save what a test says."""
    return Gate(Throttle(requests_per_minute), max_in_flight, max_records)


def fail(tried: Gate, times: int, now: float = BEGIN, dice: float = 0.0) -> Gate:
    """Start so many requests and let each of them fail, one after the other."""
    for _ in range(times):
        tried.started(now)
        tried.failed(now, dice)
    return tried


def opened(max_records: int = 100) -> Gate:
    """A gate whose breaker has just opened."""
    return fail(gate(max_records=max_records), BREAKER_FAILURES)


def opened_beside(under_way: int) -> Gate:
    """A gate whose breaker was opened by failures that followed one another, while so many others are under way."""
    tried = gate(max_in_flight=PLENTY)
    for _ in range(under_way):
        tried.started(BEGIN)
    while tried.breaker(BEGIN) is Breaker.CLOSED:
        fail(tried, 1)
    return tried


def half_open(max_records: int = 100) -> tuple[Gate, float]:
    """A gate whose breaker lets one request through, and the moment at which it does."""
    return opened(max_records), BEGIN + BREAKER_OPEN_S


def waits(tried: Gate, now: float) -> float:
    """How long the gate waits, which must not hang on an answer."""
    wait = tried.wait(now)
    assert wait is not None
    return wait


def starts(tried: Gate, idle: Sequence[float]) -> list[float]:
    """Moments at which requests start when each waits as it must and then a while."""
    now, made = BEGIN, []
    for pause in idle:
        now += pause
        while (wait := waits(tried, now)) > 0:
            now = max(now + wait, math.nextafter(now, math.inf))
        tried.started(now)
        tried.succeeded()
        made.append(now)
    return made


def busiest_minute(made: Sequence[float]) -> int:
    """The most requests in any window of a minute."""
    window = WINDOW_S - 1e-6  # sums of waits are not exact
    return max(sum(begin <= at < begin + window for at in made) for begin in made)


# -- the client-side limit


@given(st.integers(2, 60), st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.3, 2.0, 61.0]), min_size=1))
def test_no_minute_sees_more_requests_than_the_limit(limit: int, pattern: list[float]) -> None:
    """However requests come, no window of sixty seconds holds more of them than the setting."""
    assert busiest_minute(starts(gate(limit), list(islice(cycle(pattern), 3 * limit)))) <= limit


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 30, 60, 299, 300, 1000])
def test_a_steady_stream_gets_the_limit(limit: int) -> None:
    """Requests that are made as soon as they may be never pass the limit, and come near it."""
    made = starts(gate(limit), [0.0] * (4 * limit + 4))
    assert busiest_minute(made) <= limit
    minutes = (made[-1] - BEGIN) / WINDOW_S
    assert len(made) / minutes >= limit * (0.9 if limit >= 30 else 0.5)


@pytest.mark.parametrize("idle", [0.0, 1.0, 60.0, 86_400.0])
def test_an_idle_time_saves_no_more_than_a_burst(idle: float) -> None:
    """However long nothing was sent, two seconds' worth may go at once, and then the rest at its pace."""
    tried = gate(300, max_in_flight=PLENTY)
    at_once = 0
    while tried.wait(BEGIN + idle) == 0:
        tried.started(BEGIN + idle)
        at_once += 1
    assert at_once == 10
    assert 0 < waits(tried, BEGIN + idle) <= 60 / 290 + 1e-9


def test_tokens_tell_what_may_start_at_once() -> None:
    """They fall with each request, whoever makes it, and come back with time, up to the burst."""
    throttle = Throttle(300)
    tried = Gate(throttle, PLENTY, 100)
    assert tried.tokens(BEGIN) == 10
    tried.started(BEGIN)
    throttle.started(BEGIN)
    throttle.started(BEGIN)
    assert tried.tokens(BEGIN) == pytest.approx(7)
    assert tried.tokens(BEGIN + 0.6) == pytest.approx(7 + 0.6 * 290 / 60)
    assert tried.tokens(BEGIN + 3600) == 10


def test_waiting_as_long_as_told_is_enough() -> None:
    """After the wait the next request may start; the gate does not let it wait for ever in small steps."""
    tried = gate(1)
    tried.started(BEGIN)
    tried.succeeded()
    wait = waits(tried, BEGIN)
    assert wait == pytest.approx(120)
    assert waits(tried, BEGIN + wait) <= 1e-6


def test_the_lower_of_two_limits_holds() -> None:
    """Genesys may allow less than we would send, from then on; that it allows more is no reason to send more."""
    throttle = Throttle(300)
    tried = Gate(throttle, PLENTY, 100)
    throttle.go_by(60)
    begun = starts(tried, [0.0] * 120)
    assert max(sum(1 for other in begun if 0 <= other - one < WINDOW_S) for one in begun) <= 60
    throttle.go_by(3000)
    assert tried.tokens(BEGIN + 86_400) == 10


# -- in flight


@pytest.mark.parametrize("most", [1, 4, 64])
def test_no_more_than_the_set_number_is_in_flight(most: int) -> None:
    """With so many unanswered, the next one hangs on an answer, and any kind of answer makes room."""
    tried = gate(max_in_flight=most)
    for _ in range(most):
        assert waits(tried, BEGIN) == 0
        tried.started(BEGIN)
    assert tried.wait(BEGIN) is None
    assert tried.wait(BEGIN + 3600) is None, "time alone gives no room"
    tried.succeeded()
    assert (tried.in_flight, tried.wait(BEGIN)) == (most - 1, 0)


@pytest.mark.parametrize("answer", ["succeeded", "throttled", "failed", "abandoned"])
def test_every_answer_gives_its_place_back(answer: str) -> None:
    """Whatever becomes of a request, it is not in flight any more."""
    tried = gate(max_in_flight=2)
    tried.started(BEGIN)
    tried.started(BEGIN)
    match answer:
        case "throttled":
            tried.throttled(BEGIN, None, 0.0)
        case "failed":
            tried.failed(BEGIN, 0.0)
        case _:
            getattr(tried, answer)()
    assert tried.in_flight == 1


def test_an_abandoned_call_tells_nothing() -> None:
    """It neither fails nor mends: failures before it still count, and the limit stays."""
    tried = fail(gate(), BREAKER_FAILURES - 1)
    tried.started(BEGIN)
    tried.abandoned()
    assert (tried.breaker(BEGIN), tried.limit) == (Breaker.CLOSED, 100)
    assert fail(tried, 1).breaker(BEGIN) is Breaker.OPEN


# -- concurrency


def rounds(tried: Gate, times: int) -> Gate:
    """Start as many requests as may be in flight, and let all of them succeed, so many times."""
    for _ in range(times):
        together = tried.concurrency
        for _ in range(together):
            tried.started(BEGIN)
        for _ in range(together):
            tried.succeeded()
    return tried


def test_concurrency_halves_with_a_failure_and_grows_by_one_a_round() -> None:
    """Of eight, four after one failure, two after the next; then one more with each round, up to the setting."""
    tried = gate(max_in_flight=8)
    assert tried.concurrency == 8
    assert [fail(tried, 1).concurrency for _ in range(2)] == [4, 2]
    assert [rounds(tried, 1).concurrency for _ in range(8)] == [3, 4, 5, 6, 7, 8, 8, 8]


def test_it_is_saturated_while_all_requests_are_under_way_and_when_one_was_just_answered() -> None:
    """Then everything waits for answers; with a single request it always does."""
    tried = gate(max_in_flight=3)
    found = []
    for _ in range(3):
        found.append(tried.saturated())
        tried.started(BEGIN)
    assert [*found, tried.saturated()] == [False, False, True, True]
    assert gate(max_in_flight=1).saturated()


def test_requests_that_fail_together_halve_once() -> None:
    """They all met the same trouble; one that starts after it and fails as well halves again."""
    tried = gate(max_in_flight=8)
    for _ in range(2):
        tried.started(BEGIN)
    tried.failed(BEGIN, 0.0)
    tried.failed(BEGIN, 0.0)
    assert tried.concurrency == 4
    assert fail(rounds(tried, 1), 1).concurrency == 2


def test_throttled_leaves_concurrency_alone() -> None:
    """A 429 is about the number of requests in a minute, not about how many Genesys can answer at a time."""
    tried = gate(max_in_flight=8)
    tried.started(BEGIN)
    tried.throttled(BEGIN, 1, 0.0)
    assert tried.concurrency == 8


def test_concurrency_never_falls_below_one() -> None:
    """However much failed before, after a success one request may be in flight."""
    tried = fail(gate(max_in_flight=2), 10)
    tried.started(BEGIN)
    tried.succeeded()
    assert tried.concurrency >= 1


# -- throttled


@given(st.floats(0, 3600), st.floats(0, 1, exclude_max=True))
def test_throttled_waits_as_asked_and_a_little_more(asked: float, dice: float) -> None:
    """Retry-After is kept, plus up to a second of jitter, so that instances do not come back together."""
    tried = gate()
    tried.started(BEGIN)
    tried.throttled(BEGIN, asked, dice)
    assert waits(tried, BEGIN) == pytest.approx(asked + dice, abs=0.002)
    assert waits(tried, BEGIN + asked + dice + 0.002) == 0


def test_throttled_without_a_time_waits_the_default() -> None:
    """A 429 that does not say how long asks for five seconds."""
    tried = gate()
    tried.started(BEGIN)
    tried.throttled(BEGIN, None, 0.25)
    assert waits(tried, BEGIN) == THROTTLED_DEFAULT_S + 0.25 == 5.25


@pytest.mark.parametrize("first", [30, 3])
def test_of_two_waits_the_longer_one_holds(first: int) -> None:
    """A shorter Retry-After that comes later does not cut the longer one short."""
    tried = gate()
    tried.started(BEGIN)
    tried.started(BEGIN)
    tried.throttled(BEGIN, first, 0.0)
    tried.throttled(BEGIN, 33 - first, 0.0)
    assert waits(tried, BEGIN) == 30


def test_throttled_spends_what_was_saved() -> None:
    """The other side counts otherwise: after the wait there is no burst, requests go on at their pace."""
    tried = gate(300, max_in_flight=PLENTY)
    tried.started(BEGIN)
    tried.throttled(BEGIN, 0, 0.0)
    assert tried.tokens(BEGIN) == 0
    assert waits(tried, BEGIN) == pytest.approx(60 / 290)


def test_throttled_is_no_failure() -> None:
    """Any number of 429 leaves the breaker closed and batches whole, and does not count with the failures after it."""
    tried = gate()
    for _ in range(BREAKER_FAILURES * 3):
        tried.started(BEGIN)
        tried.throttled(BEGIN, 1, 0.0)
    assert (tried.breaker(BEGIN), tried.limit) == (Breaker.CLOSED, 100)
    assert fail(tried, BREAKER_FAILURES - 1).breaker(BEGIN) is Breaker.CLOSED


# -- backoff


@given(st.floats(0, 1, exclude_max=True))
def test_backoff_is_anything_up_to_a_bound_that_doubles(dice: float) -> None:
    """Full jitter: a share of one second after the first failure, of two after the second."""
    tried = fail(gate(), 1, dice=dice)
    assert waits(tried, BEGIN) == pytest.approx(dice * 1.0)
    assert waits(fail(tried, 1, dice=dice), BEGIN) == pytest.approx(dice * 2.0)


@pytest.mark.parametrize(("asked", "dice", "wait"), [(7, 0.5, 7), (0, 0.5, 0.5), (0.2, 0.5, 0.5), (None, 0.5, 0.5)])
def test_a_failure_that_names_a_time_is_given_it(asked: float | None, dice: float, wait: float) -> None:
    """A 503 may say how long to wait: at least so long, and at least the backoff."""
    tried = gate()
    tried.started(BEGIN)
    tried.failed(BEGIN, dice, asked)
    assert waits(tried, BEGIN) == pytest.approx(wait)


@pytest.mark.parametrize(("asked", "wait"), [(45, 45), (5, BREAKER_OPEN_S)])
def test_the_open_breaker_waits_longer_when_asked(asked: float, wait: float) -> None:
    """What the failure that opens it asks for is kept, also beyond the pause."""
    tried = fail(gate(), BREAKER_FAILURES - 1)
    tried.started(BEGIN)
    tried.failed(BEGIN, 0.0, asked)
    assert (tried.breaker(BEGIN), waits(tried, BEGIN)) == (Breaker.OPEN, wait)


def test_a_success_forgets_failures() -> None:
    """Failures must come in a row to open the breaker, and backoff begins small again."""
    tried = fail(gate(), BREAKER_FAILURES - 1)
    tried.started(BEGIN)
    tried.succeeded()
    fail(tried, BREAKER_FAILURES - 1, now=BEGIN + 10, dice=0.5)
    assert tried.breaker(BEGIN + 10) is Breaker.CLOSED
    assert waits(tried, BEGIN + 10) == pytest.approx(1.0)


# -- the breaker


def test_the_breaker_opens_at_the_third_failure_in_a_row() -> None:
    """Two are backoff, the third lets nothing through for thirty seconds."""
    assert BREAKER_FAILURES == 3
    tried = fail(gate(), 2)
    assert tried.breaker(BEGIN) is Breaker.CLOSED
    fail(tried, 1, dice=0.9)
    assert tried.breaker(BEGIN) is Breaker.OPEN
    assert waits(tried, BEGIN) == BREAKER_OPEN_S == 30
    assert waits(tried, BEGIN + 29) == 1
    assert tried.breaker(BEGIN + 29.999) is Breaker.OPEN


@pytest.mark.parametrize("together", [2, 4, 64])
def test_requests_that_fail_together_count_once(together: int) -> None:
    """A connection that breaks takes all of them with it: two more failures have to follow before the breaker opens."""
    tried = gate(max_in_flight=PLENTY)
    for _ in range(together):
        tried.started(BEGIN)
    for _ in range(together):
        tried.failed(BEGIN, 0.5)
    assert waits(tried, BEGIN) == pytest.approx(0.5), "the backoff is that of a first failure"
    assert fail(tried, 1).breaker(BEGIN) is Breaker.CLOSED
    assert fail(tried, 1).breaker(BEGIN) is Breaker.OPEN


def test_half_open_lets_one_through() -> None:
    """After the pause one request may start; the next hangs on its answer, however many are allowed otherwise."""
    tried, now = half_open()
    assert (tried.breaker(now), waits(tried, now)) == (Breaker.HALF_OPEN, 0)
    tried.started(now)
    assert tried.wait(now) is None
    assert tried.wait(now + 3600) is None


def test_a_failure_in_half_open_opens_it_again() -> None:
    """One is enough, and the thirty seconds begin anew."""
    tried, now = half_open()
    fail(tried, 1, now=now + 5)
    assert tried.breaker(now + 5) is Breaker.OPEN
    assert waits(tried, now + 5) == BREAKER_OPEN_S


def test_a_success_in_half_open_closes_it() -> None:
    """One is enough, and it takes three failures to open it again."""
    tried, now = half_open()
    tried.started(now)
    tried.succeeded()
    assert tried.breaker(now) is Breaker.CLOSED
    assert waits(tried, now) == 0
    for _ in range(2):
        tried.started(now)
        tried.failed(now, 0.0)
    assert tried.breaker(now) is Breaker.CLOSED


def test_throttled_in_half_open_is_no_answer_to_its_question() -> None:
    """It stays half-open: after the wait one more request asks."""
    tried, now = half_open()
    tried.started(now)
    tried.throttled(now, 7, 0.0)
    assert (tried.breaker(now), waits(tried, now)) == (Breaker.HALF_OPEN, 7)
    tried.started(now + 7)
    assert tried.wait(now + 7) is None


@pytest.mark.parametrize("most", [2, 4])
def test_a_late_failure_prolongs_the_pause(most: int) -> None:
    """Requests that were under way as the breaker opened fail too: the pause counts from the last of them."""
    tried = opened_beside(most)
    for late in range(1, most + 1):
        assert tried.wait(BEGIN + late) is None, "a request under way may tell more"
        tried.failed(BEGIN + late, 0.0)
        assert tried.breaker(BEGIN + late) is Breaker.OPEN
    assert waits(tried, BEGIN + most) == BREAKER_OPEN_S


def test_a_late_success_closes_the_breaker() -> None:
    """Genesys answers: there is nothing to wait for, and batches grow from the tenth on."""
    tried = opened_beside(1)
    tried.succeeded()
    assert (tried.breaker(BEGIN), waits(tried, BEGIN), tried.limit) == (Breaker.CLOSED, 0, 20)


def test_a_late_throttled_leaves_the_breaker_open() -> None:
    """Being told to slow down is no sign of health, and a longer wait than the pause is kept."""
    tried = opened_beside(1)
    tried.throttled(BEGIN, 45, 0.5)
    assert tried.breaker(BEGIN) is Breaker.OPEN
    assert waits(tried, BEGIN) == 45.5


def test_a_request_that_outlives_the_pause_is_the_one_that_asks() -> None:
    """While it is unanswered, half-open lets no other through."""
    tried = opened_beside(1)
    later = BEGIN + BREAKER_OPEN_S + 1
    assert tried.breaker(later) is Breaker.HALF_OPEN
    assert tried.wait(later) is None
    tried.failed(later, 0.0)
    assert waits(tried, later) == BREAKER_OPEN_S


# -- how much a request may hold


@pytest.mark.parametrize(
    ("max_records", "limits"),
    [(100, [10, 20, 40, 80, 100, 100]), (1000, [100, 200, 400, 800, 1000]), (7, [1, 2, 4, 7]), (1, [1, 1])],
)
def test_batches_shrink_to_a_tenth_and_double_back(max_records: int, limits: list[int]) -> None:
    """After the breaker opened, each success doubles what a request may hold, up to the setting; at least one."""
    tried, now = half_open(max_records)
    seen = [tried.limit]
    for _ in limits[1:]:
        tried.started(now)
        tried.succeeded()
        seen.append(tried.limit)
    assert seen == limits


def test_batches_are_whole_until_the_breaker_opens() -> None:
    """Neither a start, nor successes, nor single failures shrink a batch."""
    tried = gate()
    assert tried.limit == 100
    tried.started(BEGIN)
    tried.succeeded()
    assert tried.limit == 100
    assert fail(tried, BREAKER_FAILURES - 1).limit == 100


def test_a_breaker_that_opens_again_shrinks_again() -> None:
    """What a batch grew to is lost with the next failure of a half-open breaker."""
    tried, now = half_open()
    tried.started(now)
    tried.succeeded()
    fail(tried, BREAKER_FAILURES, now=now + 1)
    assert tried.limit == 10


# -- all of it together


@given(
    st.lists(st.tuples(st.sampled_from(["start", "succeed", "throttle", "fail", "abandon"]), st.floats(0, 40))),
    st.integers(1, 8),
)
def test_whatever_happens_work_can_go_on(steps: list[tuple[str, float]], most: int) -> None:
    """After any answers in any order: in flight is the unanswered, the limit is a size, and the gate opens in time."""
    tried, now, in_flight = gate(300, most), BEGIN, 0
    for what, pause in steps:
        now += pause
        if what == "start" and tried.wait(now) == 0:
            tried.started(now)
            in_flight += 1
        elif what != "start" and in_flight:
            in_flight -= 1
            if what == "throttle":
                tried.throttled(now, pause, 0.5)
            elif what == "fail":
                tried.failed(now, 0.5)
            elif what == "succeed":
                tried.succeeded()
            else:
                tried.abandoned()
        assert tried.in_flight == in_flight <= most
        assert 10 <= tried.limit <= 100
    for _ in range(in_flight):
        tried.succeeded()
    assert waits(tried, now) <= 41


def test_states_are_those_of_the_metric() -> None:
    """Dashboards read 0, 1 and 2, in the order of alarm."""
    assert [(state.name, state.value) for state in Breaker] == [("CLOSED", 0), ("HALF_OPEN", 1), ("OPEN", 2)]
    assert all(less < more for less, more in pairwise(Breaker))


def test_a_part_of_a_batch_that_succeeds_by_itself_makes_batches_no_larger() -> None:
    """It tells nothing of larger ones; the breaker closes all the same."""
    tried, now = half_open()
    tried.started(now)
    tried.succeeded(part=True)
    assert (tried.breaker(now), tried.limit) == (Breaker.CLOSED, 10)


def test_it_is_in_doubt_after_a_failure_until_something_succeeds() -> None:
    """Whoever is sent then tries whether Genesys works."""
    tried = gate()
    seen = [tried.in_doubt, fail(tried, 1).in_doubt, fail(tried, 3).in_doubt]
    tried.started(BEGIN)
    tried.succeeded()
    assert [*seen, tried.in_doubt] == [False, True, True, False]
