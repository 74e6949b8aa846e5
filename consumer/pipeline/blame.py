"""Whose fault it is that a request came to nothing: that of Genesys, or of one of the contacts in it.

No answer tells that by itself. What becomes of other requests does: where they are carried out and those with the same
contacts are not, these are taken apart until one stands alone. It is given up only after it failed alone many times,
and others of its kind were carried out each time in between; while everything fails, nobody is to blame. Touches
nothing.
"""

from collections import defaultdict
from collections.abc import Collection
from enum import Enum, auto

from consumer.core.dedupe import releases
from consumer.core.lane import Batch, Effect, Lane, Tally, effect_of

WITHDRAWAL_TRIES = 3
"""How often a withdrawal is blamed before the contact is deleted instead, or what it waits behind is given up."""

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

_WHATEVER: _Kind = (None, False)


class Blame:
    """Remembers what became of requests, by their kind.

    Args:
        releases: Whether grants take numbers off the do-not-call list.
    """

    def __init__(self, *, releases: bool) -> None:
        self._releases = releases
        self._tallies: dict[_Kind, Tally] = defaultdict(Tally)

    def carried_out(self, batch: Batch) -> None:
        """Genesys did what a request asked for."""
        adds = {(Effect.UPSERT, False)} if batch.effect is Effect.AMEND else set[_Kind]()  # by the same endpoint
        for kind in self._kinds(batch) | adds:
            done, failed = self._tallies[kind]
            self._tallies[kind] = Tally(done + 1, failed)

    def failed(self, batch: Batch, *, stopped: bool) -> Blamed:
        """A request came to nothing.

        Args:
            batch: What was sent.
            stopped: Whether the breaker is open for it: there may be no others that could tell more.
        """
        again = [lane for lane in batch.lanes if lane.failed is not None]
        if len(batch.lanes) == 1:
            blamed = self._alone(batch.effect, batch.lanes[0])
        elif (stopped and len(again) == len(batch.lanes)) or any(self._works(batch.effect, lane) for lane in again):
            blamed = Blamed.ONE_OF_SEVERAL
        else:
            blamed = Blamed.NOBODY
        if blamed is not Blamed.THE_ONLY_ONE:
            self._count_failure(batch)
        for lane in batch.lanes:
            lane.failed = self._tallies[self._kind(batch.effect, lane)]
            lane.carried_out = self._tallies[_WHATEVER].done
        return blamed

    def _alone(self, effect: Effect, lane: Lane) -> Blamed:
        """Set a contact apart that failed alone where others did not, and blame it if those were of its kind."""
        if not (lane.alone or self._works(effect, lane)):
            return Blamed.NOBODY
        lane.alone += 1
        others = self._since(effect, lane)
        if others.done > 0:  # fewer than none where it is of another kind by now
            in_trouble = others.done < DONE_FOR_EACH_FAILED * others.failed  # then it begins anew
            lane.blamed, lane.unproven = 1 if in_trouble else lane.blamed + 1, 0
        else:
            lane.unproven += 1
        return Blamed.THE_ONLY_ONE

    def _works(self, effect: Effect, lane: Lane) -> bool:
        """Whether others were carried out since one with the contact came to nothing.

        Others of its kind, or of any where nobody of its kind was tried: it may be the only one. One endpoint may fail
        by itself; then all of its kind would be taken apart and sent one by one.
        """
        if lane.failed is None:
            return False
        alike = self._since(effect, lane)
        return alike.done > 0 or (not alike.failed and self._tallies[_WHATEVER].done > lane.carried_out)

    def _count_failure(self, batch: Batch) -> None:
        for kind in self._kinds(batch):
            done, failed = self._tallies[kind]
            self._tallies[kind] = Tally(done, failed + 1)

    def _since(self, effect: Effect, lane: Lane) -> Tally:
        """What became of requests of its kind since one with the contact came to nothing last."""
        now, then = self._tallies[self._kind(effect, lane)], lane.failed or Tally()
        return Tally(now.done - then.done, now.failed - then.failed)

    def _kinds(self, batch: Batch) -> set[_Kind]:
        kinds: set[_Kind] = {_WHATEVER, (batch.effect, False)}
        if self._releases:  # else there are no others
            kinds.update(self._kind(batch.effect, lane) for lane in batch.lanes)
        return kinds

    def _kind(self, effect: Effect, lane: Lane) -> _Kind:
        """What others have to be like to tell anything of a contact.

        Whoever is given up: who takes a number off the do-not-call list needs that list too. A withdrawal is not, and
        whatever works is reason enough to carry it out in another way, or first to give up the change that it waits
        behind.
        """
        if lane.withdraws:
            return _WHATEVER
        return effect, self._releases and effect is Effect.UPSERT and releases_number(lane)


def releases_number(lane: Lane) -> bool:
    """Whether what is sent is a grant that is provably newer than the withdrawal for which the number was blocked.

    Of what it superseded, which may have been applied, nobody compared it with that; a muted one is no grant.
    """
    return not lane.superseded and not lane.muted and releases(lane.change, lane.base)


def is_under_suspicion(batch: Batch) -> bool:
    """Whether a request holds nobody but one that failed alone before: it tells nothing of Genesys."""
    return len(batch.lanes) == 1 and batch.lanes[0].alone > 0


def shown_by(lane: Lane) -> Collection[Effect]:
    """Effects which, carried out for others, show that it is this contact: `Blame` counts them for its kind."""
    if lane.withdraws:
        return list(Effect)
    effect = effect_of(lane.change)
    return [effect, Effect.AMEND] if effect is Effect.UPSERT else [effect]


def is_given_up(lane: Lane) -> bool:
    """Whether a contact was blamed so often that something else has to become of it."""
    return lane.blamed >= (WITHDRAWAL_TRIES if lane.withdraws else TRIES)


def retry_s(lane: Lane) -> float:
    """How long a contact that failed alone is kept back, seconds."""
    longest = LONGEST_URGENT_RETRY_S if lane.urgent else LONGEST_RETRY_S
    return min(FIRST_RETRY_S * 2.0 ** (min(lane.alone, TRIES) - 1), longest)
