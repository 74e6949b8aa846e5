"""What becomes of a contact for which one request was not enough: it is sent again later, in another way, or given up.

Whatever waits to be sent again can be replaced by a newer change, or dropped with its partition. A withdrawal is never
given up: where Genesys does not take it, the contact is deleted.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from consumer.core.batch import Lanes
from consumer.core.changes import as_delete
from consumer.core.lane import Effect, Lane
from consumer.errors import NoRoom, TransientError
from consumer.model import Amendment, Contact
from consumer.pipeline.admission import Admission
from consumer.pipeline.apart import Apart
from consumer.pipeline.blame import is_given_up, retry_s
from consumer.pipeline.busy import Busy
from consumer.pipeline.often import Often
from consumer.pipeline.partitions import Partitions

log = structlog.get_logger(__name__)

DELETE_RETRY_S = 30.0
"""How long a delete waits that could not be done, and any change of a contact that is in use: dialled, for example."""

MISSED_RETRY_S = 10.0
MISSES = 3
"""How often a contact that is to be amended is looked for, or others are tried before something else becomes of them,
and the seconds between."""

LEFT_OUT = "contact.left.out"
"""Why a change is given up that Genesys leaves out of its answers, as if nobody had asked for it."""

NO_ANSWER = "no.usable.answer"
"""Why a change is given up for which Genesys answers nothing that can be used, while it answers for others."""


class Again:
    """Keeps contacts back, and decides how they go on.

    Args:
        partitions: The assigned ones.
        lanes: Contacts on their way.
        admission: Told how they end.
        contact_list_id: Of the list that they are in.
        clock: Monotonic seconds.
        wake: Called when one is due.
        withdrawal_refused: As of `consumer.ports.Telemetry`.

    Attributes:
        apart: Contacts that are tried by themselves.
        busy: Contacts that Genesys neither changes nor deletes now.
    """

    def __init__(
        self,
        *,
        partitions: Partitions,
        lanes: Lanes,
        admission: Admission,
        contact_list_id: str,
        clock: Callable[[], float],
        wake: Callable[[], None],
        withdrawal_refused: Callable[[str], None],
    ) -> None:
        self._partitions = partitions
        self._lanes = lanes
        self._admission = admission
        self._contact_list_id = contact_list_id
        self._clock = clock
        self._wake = wake
        self._withdrawal_refused = withdrawal_refused
        self.apart = Apart(partitions, lanes)
        self.busy = Busy(lanes)
        self._often = Often(clock)

    def queued(self, lanes: Sequence[Lane]) -> None:
        """Forget what belongs to partitions that move away, and let newer changes take the place of the rest."""
        for partition in list(self._partitions.values()):
            if partition.closing:
                self._admission.drop(partition.assignment)
        self._admission.reconsider(lanes)

    def later(self, lane: Lane, seconds: float, *, alone: bool = False, urgent: bool = False) -> None:
        """Keep a contact back for a while.

        One for which Genesys refuses a whole request goes alone then: others in it would wait for another search.
        """
        self._lanes.park(lane)
        self.go_on(lane, seconds, alone=alone, urgent=urgent)
        self.queued([lane])

    def go_on(self, lane: Lane, seconds: float, *, alone: bool = False, urgent: bool = False) -> None:
        """Let a contact that is kept back go on after a while, if it has not gone on before."""
        release = partial(self._release, lane, lane.parkings, alone=alone, urgent=urgent)
        asyncio.get_running_loop().call_later(seconds, release)

    def _release(self, lane: Lane, parkings: int, *, alone: bool, urgent: bool) -> None:
        if lane.parkings != parkings:
            return  # it went on before, and is kept back for another reason by now
        if alone:
            self._lanes.release_alone(lane, self._clock(), urgent=urgent)
        else:
            self._lanes.release(lane)
        self._wake()

    def by_delete(self, lane: Lane, code: str) -> None:
        """Carry out a withdrawal that Genesys does not take by deleting the contact."""
        remedy = "the contact is deleted instead"
        if self._admission.blocks and _needs_its_number_read(lane.change.contact):
            remedy += ": unless its number is on the do-not-call list, put it there by hand"
        log.error("withdrawal_refused", code=code, remedy=remedy, record=name(lane))
        self._withdrawal_refused("contact")
        lane.work.reasons = (*lane.work.reasons, f"genesys:{code}")
        lane.become(as_delete(lane.change, self._contact_list_id))
        lane.answered()
        self._lanes.put_back([lane])
        self.queued([lane])

    def number_refused(self, lane: Lane, code: str) -> None:
        """The do-not-call list does not take the number of who withdraws: he is not callable, and that is all.

        Told once for each record, however often its request has to be made, and an alarm once: each later change of who
        withdrew before asks for his number again.
        """
        if (reason := f"genesys:{code}") not in lane.work.reasons:
            remedy = "not callable in this list; put its number on the do-not-call list by hand"
            log.error("number_refused", code=code, remedy=remedy, record=name(lane))
            if lane.base is None or lane.base.callable is not False:
                self._withdrawal_refused("number")
            lane.work.reasons = (*lane.work.reasons, reason)

    def postpone_delete(self, lane: Lane, applied_at: float, *, alone: bool) -> None:
        """A contact is in use: it is not callable any more, and deleted later."""
        lane.work.applied_at = lane.work.applied_at or applied_at
        if (left_out := self._often.left_out("delete_postponed")) is not None:
            remedy = "none needed: not callable, deleted later"
            log.warning("delete_postponed", record=name(lane), remedy=remedy, **left_out)
        self._busy(lane, "it shows yet after its delete, as one does that a campaign uses", alone=alone)

    def delete_refused(self, lane: Lane, code: str) -> None:
        """A delete is never given up."""
        log.error("delete_refused", code=code, record=name(lane), remedy="it is tried again")
        self._busy(lane, f"its delete is refused: {code}", alone=True)

    def in_use(self, lane: Lane) -> None:
        """A contact can be changed later, as it is to be: a delete in place of a withdrawal would meet the same."""
        log.warning("contact_in_use", record=name(lane), remedy="none needed: it is tried again by itself")
        self._busy(lane, "a campaign uses it", alone=True, urgent=lane.urgent)

    def _busy(self, lane: Lane, why: str, *, alone: bool, urgent: bool = False) -> None:
        self.busy.add(lane, why, self._clock())
        self.later(lane, DELETE_RETRY_S, alone=alone, urgent=urgent)

    def missed(self, lane: Lane, applied_at: float) -> None:
        """Genesys does not show the contact, or not as it was accepted: reads may lag behind writes."""
        lane.misses += 1
        if lane.misses < MISSES:
            self.look_again(lane)
        else:
            log.warning("contact_unknown", record=name(lane), remedy=_remedy(lane))
            self._admission.miss(lane, applied_at=applied_at)

    def look_again(self, lane: Lane) -> None:
        """A contact may show yet."""
        if (left_out := self._often.left_out("contact_not_shown")) is not None:
            remedy = "none needed: it is looked for again"
            log.warning("contact_not_shown", record=name(lane), remedy=remedy, **left_out)
        self.later(lane, MISSED_RETRY_S)

    def confirm(self, lane: Lane, applied_at: float, seconds: float) -> None:
        """A withdrawal is done, and may be undone for so long by what nobody answered: then it is sent once more."""
        lane.work.applied_at = lane.work.applied_at or applied_at
        log.info("withdrawal_sent_again", record=name(lane), seconds=round(seconds))
        self.later(lane, seconds)

    def left_out(self, lane: Lane) -> None:
        """Genesys took others of a request and left this one out, which is told by itself from then on."""
        lane.misses += 1
        if lane.change.withdrawal:
            self.by_delete(lane, LEFT_OUT)
        elif lane.misses < MISSES:
            log.warning("contact_left_out", record=name(lane), remedy="none needed: it is tried again by itself")
            self.later(lane, MISSED_RETRY_S, alone=True, urgent=lane.urgent)
        else:
            self._give_up(lane, LEFT_OUT)

    def no_room(self, lane: Lane, error: NoRoom) -> None:
        """A withdrawal does not wait for room: its own number is on the do-not-call list; one behind it may need it."""
        if lane.change.withdrawal:
            self.by_delete(lane, error.code)
            return
        lane.misses += 1
        if lane.misses < MISSES:
            log.warning("contact_without_room", record=name(lane), remedy="none needed: a withdrawal follows")
            self.later(lane, MISSED_RETRY_S, alone=True, urgent=lane.urgent)
        else:
            self._admission.refuse(lane, error.code)

    def unanswered_alone(self, lane: Lane, effect: Effect, error: TransientError) -> None:
        """Others are carried out and this one is not: it waits beside them, until something else becomes of it."""
        if effect is Effect.DELETE:
            self._keep_apart(lane, error)
        elif not is_given_up(lane):
            self.apart.ask_for_others(lane)
            self._keep_apart(lane, error)
        elif lane.change.withdrawal:
            self.by_delete(lane, NO_ANSWER)
        else:
            self._give_up(lane, NO_ANSWER)

    def _keep_apart(self, lane: Lane, error: TransientError) -> None:
        self.apart.add(lane, str(error))
        remedy = "none needed: others go on, and it is tried again by itself"
        log.warning("contact_unanswered", record=name(lane), error=str(error), tries=lane.alone, remedy=remedy)
        self.later(lane, max(retry_s(lane), error.retry_after or 0.0), alone=True, urgent=lane.urgent)

    def _give_up(self, lane: Lane, code: str) -> None:
        remedy = "ask Genesys about requests with this contact, then replay the dead letter"
        log.error("contact_given_up", code=code, record=name(lane), remedy=remedy)
        self._admission.refuse(lane, code, "Genesys carries out the changes of others, and not this one")


def _needs_its_number_read(contact: Contact | Amendment) -> bool:
    """Whether Genesys is asked for who withdraws before any number is put on the do-not-call list."""
    return contact.withdraws if isinstance(contact, Amendment) else not contact.phone


def _remedy(lane: Lane) -> str:
    if lane.change.withdrawal:
        return "none needed: Genesys has no such contact"
    return "have the CRM send the whole contact: Genesys does not have it"


def name(lane: Lane) -> str:
    """How a log line names a record: by its position."""
    return str(lane.work.record.position)
