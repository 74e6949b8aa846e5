"""What a batch asks of Genesys, and what of it is done: its effect on the contacts, and on the do-not-call list."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from msgspec import Struct

from consumer.core.changes import grants_nothing, is_applied, is_precaution
from consumer.core.contact_id import contact_id
from consumer.core.dedupe import as_held
from consumer.core.fingerprints import is_content
from consumer.core.lane import Batch, Effect, Lane
from consumer.errors import ConsumerError, NoneCameBack, NoRoom
from consumer.model import Amendment, Contact, Operation, State
from consumer.pipeline.again import MISSES
from consumer.pipeline.blame import releases_number
from consumer.ports import Amended, Sink, Sure


class Answer(Struct, frozen=True):
    """What Genesys has done.

    Attributes:
        unfinished: External ids of contacts for which it is not all done yet.
        amended: What became of contacts that were read back, by external id.
    """

    unfinished: Collection[str] = ()
    amended: Mapping[str, Amended] = {}


class Requests:
    """Makes them.

    Args:
        sink: Genesys.
        number_refused: Told of whom the do-not-call list does not take the number, and Genesys' error code.
    """

    def __init__(self, sink: Sink, number_refused: Callable[[Lane, str], None]) -> None:
        self._sink = sink
        self._number_refused = number_refused

    async def make(self, batch: Batch, sure: Sure, *, asks: bool) -> Answer:
        """Have Genesys do what a batch is for.

        Args:
            batch: What is to be done.
            sure: As for the sink.
            asks: Whether the do-not-call list may be asked.

        Raises:
            ConsumerError: As the sink does.
        """
        contacts = [lane.change.contact for lane in batch.lanes]
        match batch.effect:
            case Effect.UPSERT:
                return Answer(await self._upsert(batch, sure, asks=asks))
            case Effect.DELETE:
                return Answer(await self._delete(batch, sure))
            case Effect.AMEND:
                amended = await self._amend(batch, sure, asks=asks)
                return Answer({contact.external_id for contact in contacts} - amended.keys(), amended)

    async def _upsert(self, batch: Batch, sure: Sure, *, asks: bool) -> Collection[str]:
        """Send contacts; the external ids of those that Genesys leaves out.

        Raises:
            NoneCameBack: It leaves out all, of whom some were never left out of an answer with others.
            NoRoom: Some are new, the absent. Numbers of those that withdraw are on the do-not-call list, if any.
        """
        withdrawn = [lane.change.whole for lane in batch.lanes if lane.change.withdrawal]
        granted = [lane.change.whole for lane in batch.lanes if releases_number(lane)]
        external_ids = [lane.change.contact.external_id for lane in batch.lanes]
        try:
            payloads = [lane.payload for lane in batch.lanes]
            refused = partial(self._refused, batch)
            missing = await self._sink.upsert(payloads, sure, withdrawn, granted, asks=asks, number_refused=refused)
        except NoneCameBack:
            if all(lane.misses for lane in batch.lanes):
                return external_ids
            raise
        except NoRoom as error:
            raise NoRoom(str(error), error.code, await self._absent(batch)) from error
        return {each for each in external_ids if contact_id(each) in missing} if missing else ()

    async def _delete(self, batch: Batch, sure: Sure) -> Collection[str]:
        """Delete contacts; the external ids of those that show yet. Who was applied before is not callable since."""
        external_ids = [lane.change.contact.external_id for lane in batch.lanes]
        held = [lane.change.contact.external_id for lane in batch.lanes if lane.work.applied_at is not None]
        return await self._sink.delete(external_ids, sure, tried=any(lane.tried for lane in batch.lanes), held=held)

    async def _absent(self, batch: Batch) -> Collection[str]:
        """Whom of a batch Genesys does not have. Of one that stands alone, the answer says so.

        Whom nobody delivered as far as is known it may have all the same; where it does not tell, that one is new.
        """
        if len(batch.lanes) == 1:
            return [batch.lanes[0].change.contact.external_id]
        new = [lane.change.contact.external_id for lane in batch.lanes if lane.base is None or lane.base.deleted]
        if not new:
            return new
        try:
            return await self._sink.absent(new)
        except ConsumerError:
            return new

    async def _amend(self, batch: Batch, sure: Sure, *, asks: bool) -> Mapping[str, Amended]:
        """Amend contacts that Genesys shows as it accepted them last."""
        lanes = {lane.change.contact.external_id: lane for lane in batch.lanes}
        amendments = [lane.change.contact for lane in batch.lanes if isinstance(lane.change.contact, Amendment)]
        return await self._sink.amend(
            amendments,
            sure,
            {external_id for external_id, lane in lanes.items() if self._is_withheld(lane, lane.base)},
            lambda shown: self._is_current(lanes[shown.external_id], shown),
            [lane.change.number for lane in batch.lanes],
            if_held={each for each, lane in lanes.items() if self._is_withheld(lane, self._as_held(lane))},
            asks=asks,
            number_refused=partial(self._refused, batch),
        )

    def _refused(self, batch: Batch, external_id: str, code: str) -> None:
        for lane in batch.lanes:
            if lane.change.contact.external_id == external_id:
                self._number_refused(lane, code)

    def _as_held(self, lane: Lane) -> State:
        """What is known of the contact if Genesys shows it as not callable although its flags let somebody call."""
        return as_held(lane.base, self._sink.contact_list_id)

    def _is_withheld(self, lane: Lane, base: State | None) -> bool:
        """Whether the contact is not callable whatever its flags say then, with what is known of it."""
        not_callable = grants_nothing(lane.change, base) or lane.muted
        return not_callable or is_precaution(lane.change, base, self._sink.contact_list_id)

    def _is_current(self, lane: Lane, shown: Contact) -> bool:
        """Whether the contact may be amended as it is shown: older content, sent again, could undo a withdrawal.

        A withdrawal does not wait for that, nor what one waits behind. In the end it is taken for somebody's edit.
        """
        list_id, base = self._sink.contact_list_id, lane.base
        current = base is None or is_content(shown, base, list_id) or is_applied(lane.change, shown, base, list_id)
        lane.blind = lane.urgent and not current
        return current or lane.urgent or lane.misses >= MISSES - 1


def suppresses(lane: Lane) -> bool:
    """Whether a rejected record is what lets nobody call the contact."""
    return lane.change.operation is Operation.SUPPRESS
