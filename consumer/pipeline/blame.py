"""Whose fault it is that a request came to nothing: that of Genesys, or of one of the contacts in it.

No answer tells that by itself. What becomes of other requests does: where they are carried out and those with the same
contacts are not, these are taken apart until one stands alone. It is given up only after it failed alone many times,
and others of its kind were carried out each time in between; while everything fails, nobody is to blame. Touches
nothing.
"""

from collections import defaultdict
from enum import Enum, auto

from consumer.core.dedupe import releases
from consumer.core.lane import Batch, Effect, Lane, Tally

WITHDRAWAL_TRIES = 3
"""How often a withdrawal is blamed before the contact is deleted instead."""

TRIES = 7
"""How often any other change is blamed before it is given up: the last time is five minutes after the first."""

FIRST_RETRY_S = 5.0
"""How long what failed alone is kept back after the first time; twice as long after each further one."""

LONGEST_RETRY_S = 600.0
LONGEST_URGENT_RETRY_S = 30.0

DONE_FOR_EACH_FAILED = 4
"""So many requests of others must have been carried out for each that failed: otherwise Genesys is in trouble."""


class Blamed(Enum):
    """Whom the failure of a request is laid to."""

    NOBODY = auto()
    ONE_OF_SEVERAL = auto()
    THE_ONLY_ONE = auto()


_Kind = tuple[Effect | None, bool]
"""What a request needs of Genesys: what it does, whether with the do-not-call list; None for whatever it does."""


class Blame:
    """Remembers what became of requests, by their kind."""

    def __init__(self) -> None:
        self._tallies: dict[_Kind, Tally] = defaultdict(Tally)

    def carried_out(self, batch: Batch) -> None:
        """Genesys did what a request asked for."""
        for kind in _kinds(batch):
            done, failed = self._tallies[kind]
            self._tallies[kind] = Tally(done + 1, failed)

    def failed(self, batch: Batch, *, stopped: bool) -> Blamed:
        """A request came to nothing.

        Args:
            batch: What was sent.
            stopped: Whether the breaker is open for it: there may be no others that could tell more.
        """
        since = [self._since(batch, lane) for lane in batch.lanes if lane.failed is not None]
        again = stopped and len(since) == len(batch.lanes)
        if len(batch.lanes) == 1:
            blamed = self._alone(batch.lanes[0], since)
        else:
            blamed = Blamed.ONE_OF_SEVERAL if again or any(each.done for each in since) else Blamed.NOBODY
        if blamed is not Blamed.THE_ONLY_ONE:
            self._count_failure(batch)
        for lane in batch.lanes:
            lane.failed = self._tallies[_kind(batch.effect, lane)]
        return blamed

    def _alone(self, lane: Lane, since: list[Tally]) -> Blamed:
        """Blame a contact that failed alone, if others did not; where too many of those did, it begins anew."""
        others = since[0] if since else Tally()
        if others.done:
            in_trouble = others.done < DONE_FOR_EACH_FAILED * others.failed
            lane.blamed = 1 if in_trouble else lane.blamed + 1
        if not lane.blamed:
            return Blamed.NOBODY
        lane.alone += 1
        return Blamed.THE_ONLY_ONE

    def _count_failure(self, batch: Batch) -> None:
        for kind in _kinds(batch):
            done, failed = self._tallies[kind]
            self._tallies[kind] = Tally(done, failed + 1)

    def _since(self, batch: Batch, lane: Lane) -> Tally:
        """What became of requests of its kind since one with the contact came to nothing last."""
        now, then = self._tallies[_kind(batch.effect, lane)], lane.failed or Tally()
        return Tally(now.done - then.done, now.failed - then.failed)


def releases_number(lane: Lane) -> bool:
    """Whether what is sent is a grant that is provably newer than the withdrawal for which the number was blocked.

    Of what it superseded, which may have been applied, nobody compared it with that; a withheld one is no grant.
    """
    return not lane.superseded and not lane.withheld and releases(lane.change, lane.base)


def is_under_suspicion(batch: Batch) -> bool:
    """Whether a request holds nobody but one that failed alone before: it tells nothing of Genesys."""
    return len(batch.lanes) == 1 and batch.lanes[0].alone > 0


def is_given_up(lane: Lane) -> bool:
    """Whether a contact was blamed so often that something else has to become of it."""
    return lane.blamed >= (WITHDRAWAL_TRIES if lane.change.withdrawal else TRIES)


def retry_s(lane: Lane) -> float:
    """How long a contact that failed alone is kept back, seconds."""
    longest = LONGEST_URGENT_RETRY_S if lane.urgent else LONGEST_RETRY_S
    return min(FIRST_RETRY_S * 2.0 ** (min(lane.alone, TRIES) - 1), longest)


def _kind(effect: Effect, lane: Lane) -> _Kind:
    """What others have to be like to tell anything of a contact.

    Whoever is given up: who takes a number off the do-not-call list needs that list too. A withdrawal is not, and
    whatever works is reason enough to carry it out in another way.
    """
    if lane.change.withdrawal:
        return None, False
    return effect, effect is Effect.UPSERT and releases_number(lane)


def _kinds(batch: Batch) -> set[_Kind]:
    return {(None, False), (batch.effect, False), *(_kind(batch.effect, lane) for lane in batch.lanes)}
