"""What every `consumer.ports.Sink` promises, as tests: Genesys' sink, on the simulator, and the fake run them."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager

import pytest
from msgspec.structs import replace

from consumer.core.contact_id import contact_id
from consumer.errors import NoneCameBack, RefusedByGenesys, TransientError
from consumer.model import UNCHANGED, Amendment, Contact
from consumer.ports import Amended, Sink

Held = dict[str, tuple[object, object, object]]
"""Phone, consent, and whether it is callable, by external id."""

ANN = Contact("ann", "+15550100001", "ann@example.com", True, False, {})
BEN = replace(ANN, external_id="ben", phone="+15550100002")
SAME = Amendment("ann", UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, {})
WITHDRAWN = replace(SAME, consent=False)


def encoded(sink: Sink, *contacts: Contact) -> list[bytes]:
    """Contacts as `upsert` takes them, callable as they say."""
    return [sink.encode(contact, callable_=contact.callable) for contact in contacts]


class SinkContract:
    """Inherit it, and override `listed`."""

    def listed(
        self,
        *,
        refused: Collection[str] = (),
        left_out: Collection[str] = (),
        in_use: Collection[str] = (),
        lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> AbstractAsyncContextManager[tuple[Sink, Callable[[], Held]]]:
        """A sink on an empty list, and what the list holds.

        Args:
            refused: External ids whose data is refused.
            left_out: External ids that an answer leaves out; of them nothing is done.
            in_use: External ids that cannot be deleted now.
            lag_s: For how long reads show contacts as they were before a write, seconds.
            clock: Of that.
        """
        raise NotImplementedError

    async def test_an_upsert_adds_and_replaces(self):
        """A repeat leaves the list as it is; nobody is missing in the answer."""
        async with self.listed() as (sink, held):
            assert not await sink.upsert(encoded(sink, ANN, BEN))
            for _ in range(2):
                assert not await sink.upsert(encoded(sink, replace(ANN, phone="+15550100009", consent=False)))
            assert held() == {"ann": ("+15550100009", False, False), "ben": (BEN.phone, True, True)}

    async def test_whether_somebody_is_callable_is_as_it_was_encoded(self):
        """Whatever the flags say."""
        async with self.listed() as (sink, held):
            await sink.upsert([sink.encode(ANN, callable_=False)])
            assert held() == {"ann": (ANN.phone, True, False)}

    async def test_a_refused_contact_refuses_the_request(self):
        """Nothing of it is applied."""
        async with self.listed(refused={"ben"}) as (sink, held):
            with pytest.raises(RefusedByGenesys):
                await sink.upsert(encoded(sink, ANN, BEN))
            assert held() == {}

    async def test_who_is_left_out_of_an_answer_is_told(self):
        """By Genesys' id; the others count as applied."""
        async with self.listed(left_out={"ben"}) as (sink, held):
            assert {*await sink.upsert(encoded(sink, ANN, BEN))} == {contact_id("ben")}
            assert held().keys() == {"ann"}

    async def test_an_answer_without_anybody_is_an_error(self):
        """As if there had been none."""
        async with self.listed(left_out={"ben"}) as (sink, held):
            with pytest.raises(NoneCameBack):
                await sink.upsert(encoded(sink, BEN))
            assert held() == {}

    async def test_unknown_contacts_are_deleted_like_others(self):
        """Also a second time."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN, BEN))
            for _ in range(2):
                assert not await sink.delete(["ann", "nobody"])
            assert held().keys() == {"ben"}

    async def test_who_is_in_use_stays_and_is_not_callable(self):
        """And is told, by external id."""
        async with self.listed(in_use={"ann"}) as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            assert {*await sink.delete(["ann"])} == {"ann"}
            assert held() == {"ann": (ANN.phone, True, False)}

    @pytest.mark.parametrize("lag_s", [10.0, 45.0, 100.0])
    async def test_who_shows_after_a_delete_is_gone_once_reads_have_caught_up(self, lag_s):
        """Not callable until then: to make him so is to add him, and is not done again with each delete."""
        now = [0.0]
        async with self.listed(lag_s=lag_s, clock=lambda: now[0]) as (sink, held):
            await sink.upsert(encoded(sink, ANN, BEN))
            now[0] += 200
            left = {*await sink.delete(["ann"])}
            while left:
                assert now[0] < 200 + 3 * lag_s + 60
                assert not held().get("ann", (None, None, False))[2]
                now[0] += 30
                left = {*await sink.delete(["ann"], held=left)}
            assert held().keys() == {"ben"}

    async def test_who_is_in_use_and_callable_again_is_not_so_after_the_next_delete(self):
        """Whoever made him so, and however often he was deleted before."""
        async with self.listed(in_use={"ann"}) as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            assert {*await sink.delete(["ann"])} == {"ann"}
            for _ in range(2):
                await sink.upsert(encoded(sink, ANN))
                assert {*await sink.delete(["ann"], held=["ann"])} == {"ann"}
                assert held() == {"ann": (ANN.phone, True, False)}

    async def test_an_amendment_changes_what_it_says_and_nothing_else(self):
        """The answer is the contact as it is now; who is unknown is missing there, and left alone."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN, BEN))
            amended = await sink.amend([replace(SAME, phone="+15550100009"), replace(WITHDRAWN, external_id="nobody")])
            assert amended == {"ann": Amended(replace(ANN, phone="+15550100009"), sent=True)}
            assert held() == {"ann": ("+15550100009", True, True), "ben": (BEN.phone, True, True)}

    async def test_what_makes_no_difference_is_not_sent_unless_it_withdraws(self):
        """What is read back may lag behind: a withdrawal is sent in any case."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            assert not (await sink.amend([SAME]))["ann"].sent
            assert [(await sink.amend([WITHDRAWN]))["ann"].sent for _ in range(2)] == [True, True]
            assert held() == {"ann": (ANN.phone, False, False)}

    async def test_who_is_withheld_is_not_callable_whatever_the_flags_say(self):
        """And is told as held when it is read the next time; unless that is to be kept, it is callable again."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            assert (await sink.amend([SAME], withheld={"ann"}))["ann"].sent
            assert held() == {"ann": (ANN.phone, True, False)}
            kept = (await sink.amend([SAME], if_held={"ann"}))["ann"]
            assert (kept.sent, kept.held, held()["ann"][2]) == (False, True, False)
            freed = (await sink.amend([SAME]))["ann"]
            assert (freed.sent, freed.held, held()["ann"][2]) == (True, True, True)

    async def test_who_is_not_current_any_more_is_left_alone(self):
        """It is missing in the answer."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            assert await sink.amend([WITHDRAWN], current=lambda contact: contact.phone != ANN.phone) == {}
            assert held() == {"ann": (ANN.phone, True, True)}

    async def test_absent_are_those_who_are_not_in_the_list(self):
        """By external id."""
        async with self.listed() as (sink, _):
            await sink.upsert(encoded(sink, ANN))
            assert {*await sink.absent(["ann", "ben"])} == {"ben"}

    async def test_nothing_is_written_by_who_is_not_sure(self):
        """It may be somebody else's by now."""
        async with self.listed() as (sink, held):
            await sink.upsert(encoded(sink, ANN))
            for effect in (
                sink.upsert(encoded(sink, BEN), lambda: False),
                sink.delete(["ann"], lambda: False),
                sink.amend([WITHDRAWN], lambda: False),
            ):
                with pytest.raises(TransientError):
                    await effect
            assert held() == {"ann": (ANN.phone, True, True)}
