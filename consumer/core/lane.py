"""A contact on its way to Genesys, and what such contacts are gathered in. Values only; `batch` acts on them.

A lane holds one work, which waits in one queue or is sent, and the works behind it.
"""

from collections import deque
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct, field

from consumer.model import Amendment, BatchReport, Change, Operation, State, Work


class Effect(StrEnum):
    """What a batch does in Genesys: contacts in it are changed in the same way."""

    UPSERT = "upsert"
    DELETE = "delete"
    AMEND = "amend"


# Bound once, since each record needs them: to find a member in its class takes Python 3.11 longer than all else here.
_UPSERT, _DELETE_EFFECT, _AMEND = Effect
_DELETE = Operation.DELETE


def effect_of(change: Change) -> Effect:
    """The effect that carries out a change."""
    if change.operation is _DELETE:
        return _DELETE_EFFECT
    return _AMEND if isinstance(change.contact, Amendment) else _UPSERT


MAX_PER_REQUEST = {_DELETE_EFFECT: 50, _AMEND: 50}
"""Contacts in a request where they are read back, of which Genesys allows fewer than in an upsert."""


class Queue(deque["Lane"]):
    """Lanes that wait. A lane that has left for another queue stays in it as a ghost, skipped when met."""

    def head(self) -> "Lane | None":
        """The first living lane; ghosts before it are dropped."""
        while self and self[0].queue is not self:
            self.popleft()
        return self[0] if self else None

    def living(self) -> "list[Lane]":
        """All lanes that still wait in it."""
        return [lane for lane in self if lane.queue is self]


Works = list[Work] | tuple[()]
"""In order. Most lanes have none, and no list for them."""


class Tally(NamedTuple):
    """Requests of one kind: those that Genesys carried out, and those that came to nothing."""

    done: int = 0
    failed: int = 0


class Lane(Struct, eq=False):
    """One contact on its way to Genesys.

    Attributes:
        work: What is sent next, or is being sent.
        change: What that asks for.
        base: State of the contact that the work was judged against.
        expected: State of the contact once the work and all that waits behind it are accepted; None where nobody asked.
        payload: The encoded contact of an upsert once somebody asked: until then a newer work may take its place.
        since: When the work began to wait, seconds of the monotonic clock.
        urgent: Goes ahead of everything that is not.
        muted: A withdrawal waits behind this change: it is sent as not callable.
        waiting: Later works of the contact, judged once this one has its answer.
        superseded: Earlier works whose place the work took. They end with it, not before: one of them may have been
            applied, and must come again together with the work if that is not delivered.
        queue: Where the lane waits; None while it is sent.
        report: Of the batch that took it.
        misses: How often Genesys did not know the contact, although it should, left it out of an answer, or had
            no room for it.
        blind: Whether an urgent amendment was merged into something else than what was accepted last.
        failed: Requests of its kind until one with it came to nothing last; None where none did since it was answered.
        put_off: Since when Genesys asks to wait with it, and has not answered it; None where it does not.
        carried_out: Requests of any kind that were carried out until then.
        alone: How often it came to nothing all by itself since it is under suspicion.
        blamed: How often others of its kind were carried out between two of these.
        unproven: How often in a row none were.
        parkings: How often it was kept back; when one of these is over, a later one is not.
        mixed: Whether works of several assignments may be among those that wait.
    """

    work: Work
    change: Change
    base: State | None
    since: float
    urgent: bool
    payload: bytes = b""
    muted: bool = False
    expected: State | None = None
    waiting: Works = ()
    superseded: Works = ()
    queue: Queue | None = None
    report: BatchReport | None = None
    misses: int = 0
    blind: bool = False
    failed: Tally | None = None
    put_off: float | None = None
    carried_out: int = 0
    alone: int = 0
    blamed: int = 0
    unproven: int = 0
    parkings: int = 0
    mixed: bool = False

    def become(self, change: Change) -> None:
        """The work asks for something else from now on."""
        self.work.change = self.change = change

    def answered(self) -> None:
        """It is under no suspicion: Genesys has answered, or it is not the same any more."""
        self.failed, self.put_off, self.alone, self.blamed, self.unproven = None, None, 0, 0, 0

    @property
    def beneath(self) -> State | None:
        """What the work is accepted on top of: all that it took the place of counts as told."""
        return self.superseded[-1].expected if self.superseded else self.base

    @property
    def withdraws(self) -> bool:
        """Whether a withdrawal is what counts of it: that of the work, or one that waits behind it."""
        return self.muted or self.change.withdrawal

    @property
    def tried(self) -> bool:
        """Whether a request with it was made for nothing since it was answered."""
        return self.put_off is not None or self.failed is not None

    @property
    def sent(self) -> bool:
        """Whether a request with this contact is under way."""
        return self.queue is None


class Batch(Struct, frozen=True, eq=False):
    """Contacts for one request.

    Attributes:
        effect: What the request does.
        lanes: Its contacts, withdrawals first.
        doubted: The other part of a batch that was refused: one of them is to blame if this request is accepted.
        search: Whether the request is made to find out who is to blame.
    """

    effect: Effect
    lanes: list[Lane]
    doubted: Queue = field(default_factory=Queue)
    search: bool = False

    def still_doubted(self) -> list[Lane]:
        """Who of the doubted still waits for the answer."""
        return self.doubted.living()
