"""Withdrawals that come behind newer changes of other fields, as from the dead letters: each flag has its own order."""

from collections.abc import Sequence
from dataclasses import replace as varied
from random import Random
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from consumer.core import dead_letters
from consumer.model import DeadLetter, Record, TopicPartition
from tests.fills import fill, row
from tests.lives import live, survive
from tests.memory_ports import World
from tests.stories import TOPIC, Event, partly

pytestmark = pytest.mark.usefixtures("partial_events")

P0 = TopicPartition(TOPIC, 0)
OLD, NEW, OTHER = "+15550100", "+15550199", "+15550177"
GARBAGE = b"\1x"
CONFLICT = ("consent_conflicts_with_do_not_call",)


def _comes(world: World, event: Event, **changed: Any) -> Record:
    """An event at the end of the partition."""
    offset = len(world.log.get(P0, ()))
    record = Record(*P0, offset, event.occurred_at, event.external_id.encode(), event.value())
    world.append([replace(record, **changed)])
    return world.log[P0][-1]


def _is_held(world: World, event: Event) -> Record:
    """An event whose record nobody can decode; what it is once somebody can."""
    record = _comes(world, event, value=GARBAGE)
    return replace(record, value=event.value())


def _comes_again(world: World, record: Record) -> None:
    """A dead letter is put back, as `dead-letters replay` does."""
    letter = dead_letters.read(dead_letters.headers(DeadLetter(record, "not_decodable", "", 0)))
    assert letter is not None
    headers = dead_letters.replayed(record.headers, letter)
    world.append([replace(record, offset=len(world.log[P0]), headers=headers)])


def _plays(before: Sequence[Event], held: Event, behind: Sequence[Event], **changed: Any) -> World:
    """Each event is settled before the next one comes; that which is held comes again in the end."""
    world = World()
    for event in before:
        _comes(world, event)
        live(world, **changed)
    letter = _is_held(world, held)
    live(world, **changed)
    for event in behind:
        _comes(world, event)
        live(world, **changed)
    _comes_again(world, letter)
    live(world, **changed)
    return world


def _goes_on(world: World, *events: Event) -> World:
    for event in events:
        _comes(world, event)
        live(world)
    return world


def _outcome(world: World) -> object:
    return world.events()[-1]["outcome"]


def _shown(world: World) -> tuple[object, object, object]:
    """Consent, do-not-call, callable."""
    return tuple(world.list["c"][name] for name in ("consent", "do_not_call", "callable"))  # type: ignore[return-value]


def _unversioned(event: Event) -> Event:
    return varied(event, version=None, occurred_at=event.occurred_at + (event.version or 0))


GRANT = Event("c", 1, phone=OLD)
PHONE = partly("c", 3, phone=NEW)

APPLIES: dict[str, tuple[Event, tuple[bool, bool], str]] = {
    "consent": (partly("c", 2, consent=False), (False, False), "delivered"),
    "do-not-call": (partly("c", 2, do_not_call=True), (True, True), "delivered"),
    "both": (partly("c", 2, do_not_call=True, consent=False), (False, True), "delivered"),
    "a whole contact": (Event("c", 2, phone=OTHER, consent=False), (False, False), "delivered"),
    "rejected": (partly("c", 2, phone="bad", consent=False, reasons=("phone_not_e164",)), (False, False), "rejected"),
    "a whole one, rejected": (Event("c", 2, do_not_call=True, reasons=CONFLICT), (True, True), "rejected"),
}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("held", "flags", "outcome"), APPLIES.values(), ids=APPLIES)
def test_a_withdrawal_applies_behind_a_newer_change_that_tells_no_flag(
    held: Event, flags: tuple[bool, bool], outcome: str, *, versioned: bool
) -> None:
    """Nothing but its flags: the newer phone number stays, and it is the one that is not to be called."""
    told = [GRANT, held, PHONE] if versioned else list(map(_unversioned, (GRANT, held, PHONE)))
    world = _plays([told[0]], told[1], [told[2]])
    assert (_outcome(world), _shown(world)) == (outcome, (*flags, False))
    assert world.list["c"]["phone"] == NEW
    assert NEW in world.blocked
    assert world.events()[-1]["operation"] == ("suppress" if outcome == "rejected" else "upsert")


FROM_A_FILE: dict[str, tuple[dict[str, object], tuple[bool, bool], str]] = {
    "withdrawn": ({"consent": False}, (False, False), "delivered"),
    "rejected": ({"doNotCall": True}, (True, True), "rejected"),
}


@pytest.mark.parametrize(("told", "flags", "outcome"), FROM_A_FILE.values(), ids=FROM_A_FILE)
def test_so_does_that_of_a_row_of_a_file(told: dict[str, object], flags: tuple[bool, bool], outcome: str) -> None:
    """The stream has lost it. A grant that is as old stays stale; the row told again in another file does no harm."""
    world = _goes_on(World(), GRANT, PHONE)
    rows = [row("c", version=2, phone=OTHER, **told), row("c", version=2, phone=OTHER)]
    for number in range(2):
        rows.append(row(f"other-{number}"))  # another file
        fill(world, rows)
        assert (world.list["c"]["phone"], *_shown(world)) == (NEW, *flags, False)
    ends = [event["outcome"] for event in world.events()[2:]]
    assert ends == [outcome, "stale", "delivered", outcome, "stale", "duplicate", "delivered"]
    _goes_on(world, Event("c", 4, phone=NEW))
    assert _shown(world) == (True, False, True)


@pytest.mark.parametrize("versioned", [True, False])
def test_what_is_granted_later_ends_it(*, versioned: bool) -> None:
    """The order of the contact is where it was, and what is told again then is stale."""
    held, grant = partly("c", 2, consent=False), partly("c", 4, consent=True)
    told = [GRANT, held, PHONE, grant] if versioned else list(map(_unversioned, (GRANT, held, PHONE, grant)))
    world = _goes_on(_plays([told[0]], told[1], [told[2]]), told[3])
    assert _shown(world) == (True, False, True)
    _comes_again(world, replace(world.log[P0][1], value=told[1].value()))
    live(world)
    assert (_outcome(world), _shown(world)) == ("stale", (True, False, True))


def test_the_order_of_the_contact_stays() -> None:
    """What is older than the last change, and no withdrawal, stays stale behind a late withdrawal."""
    world = _goes_on(_plays([GRANT], partly("c", 2, consent=False), [PHONE]), Event("c", 2, phone=OTHER))
    assert (_outcome(world), world.list["c"]["phone"]) == ("stale", NEW)
    _goes_on(world, Event("c", 4, phone=OTHER))
    assert (_outcome(world), _shown(world)) == ("delivered", (True, False, True))


STALE: dict[str, tuple[list[Event], Event, list[Event]]] = {
    "a newer grant": ([GRANT], partly("c", 2, consent=False), [partly("c", 3, consent=True)]),
    "and a change behind that": ([GRANT], partly("c", 2, consent=False), [partly("c", 3, consent=True), PHONE]),
    "a newer whole contact": ([GRANT], partly("c", 2, do_not_call=True), [Event("c", 3, phone=NEW)]),
    "one that says what is known": (
        [GRANT],
        partly("c", 2, consent=False),
        [partly("c", 3, phone=NEW), Event("c", 4, phone=NEW)],
    ),
    "and has the version of the last change": (
        [GRANT],
        partly("c", 2, consent=False),
        [partly("c", 3, phone=NEW), Event("c", 3, phone=NEW)],
    ),
    "a grant, behind a withdrawal": (
        [Event("c", 1, consent=False)],
        partly("c", 2, consent=True),
        [partly("c", 3, phone=NEW)],
    ),
    "a delete": ([GRANT], Event("c", 2, delete=True), [PHONE]),
}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("before", "held", "behind"), STALE.values(), ids=STALE)
def test_what_is_older_than_what_told_its_flags_is_stale(
    before: Sequence[Event], held: Event, behind: Sequence[Event], *, versioned: bool
) -> None:
    """Also where that said what was known already. A contact that was told of since a delete is there again."""
    if not versioned:
        before, held, behind = list(map(_unversioned, before)), _unversioned(held), list(map(_unversioned, behind))
    world = _plays(before, held, behind)
    granted = before[0].consent is True
    assert (_outcome(world), _shown(world)) == ("stale", (granted, False, granted))


def test_a_repeat_that_is_not_newer_for_sure_makes_no_withdrawal_late() -> None:
    """A grant without a version, perhaps sent again, says nothing of when it was told."""
    world = _plays([GRANT], partly("c", 2, consent=False), [PHONE, Event("c", None, phone=NEW)])
    assert (_outcome(world), _shown(world)) == ("delivered", (False, False, False))


def test_of_two_flags_the_one_that_was_told_since_stays_as_it_was() -> None:
    """Each has its own place."""
    both = partly("c", 2, consent=False, do_not_call=True)
    world = _plays([GRANT], both, [partly("c", 3, do_not_call=False), partly("c", 4, phone=NEW)])
    assert (_outcome(world), _shown(world)) == ("delivered", (False, False, False))


def test_what_a_late_withdrawal_grants_beside_is_late() -> None:
    """As it is without the withdrawal: nobody is called by an old word."""
    before = Event("c", 1, consent=False, do_not_call=True)
    late = Event("c", 3, consent=False, do_not_call=False)
    world = _plays([before, partly("c", 2, consent=True)], late, [partly("c", 4, phone=NEW)])
    assert (_outcome(world), _shown(world)) == ("delivered", (False, True, False))


def test_a_late_withdrawal_by_the_other_flag_outlives_the_grant_of_the_first() -> None:
    """A rejected record withdrew consent meanwhile, and said nothing of do-not-call."""
    rejected = partly("c", 3, phone="bad", consent=False, reasons=("phone_not_e164",))
    world = _plays([GRANT], partly("c", 2, do_not_call=True), [rejected])
    assert (_outcome(world), _shown(world)) == ("delivered", (False, True, False))
    assert _shown(_goes_on(world, partly("c", 4, consent=True))) == (True, True, False)


def test_a_withdrawal_is_late_for_nothing_that_was_never_told() -> None:
    """Somebody else made the contact, and all that is known of it is that consent was withdrawn."""
    world = _plays([Event("c", 1)], partly("c", 4, do_not_call=True), [])
    contact = world.list["c"] | {"do_not_call": False, "callable": True}
    world = World()
    world.list["c"] = contact
    _goes_on(world, partly("c", 5, consent=False), partly("c", 4, do_not_call=True), partly("c", 6, consent=True))
    assert _shown(world) == (True, True, False)


def test_who_is_deleted_has_to_come_whole() -> None:
    """No late withdrawal is looked for then; the contact is as it comes."""
    world = _plays([GRANT, PHONE], partly("c", 2, consent=False), [Event("c", 4, delete=True)])
    assert (_outcome(world), world.list) == ("stale", {})
    assert _shown(_goes_on(world, Event("c", 5))) == (True, False, True)


@pytest.mark.parametrize(
    ("behind", "callable_"),
    [
        ([PHONE], False),
        ([partly("c", 3, consent=True), PHONE], False),
        ([partly("c", 3, consent=True, do_not_call=False)], True),
    ],
    ids=str,
)
@pytest.mark.parametrize("versioned", [True, False])
def test_a_letter_that_still_cannot_be_decoded_is_a_precaution_for_what_was_not_told_since(
    behind: Sequence[Event], *, callable_: bool, versioned: bool
) -> None:
    """It may have withdrawn either flag, and whoever replays it may have settled since that it suppresses."""
    told = [GRANT, *behind] if versioned else list(map(_unversioned, (GRANT, *behind)))
    world = World()
    _goes_on(world, told[0])
    letter = _comes(world, GRANT, value=GARBAGE)
    _goes_on(world, *told[1:])
    _comes_again(world, letter)
    live(world, suppress_undecodable="true")
    assert (_outcome(world), world.list["c"]["callable"]) == ("rejected", callable_)
    both = partly("c", 9 if versioned else None, consent=True, do_not_call=False, occurred_at=GRANT.occurred_at + 9)
    _comes(world, both)
    live(world, suppress_undecodable="true")
    assert world.list["c"]["callable"] is True


@pytest.mark.parametrize(
    ("first", "partition"), [(partly("c", 4, phone=OTHER), 0), (Event("c", 4, phone=OTHER), 1)], ids=["same", "another"]
)
def test_before_a_late_withdrawal_nothing_goes_out_as_callable(first: Event, partition: int) -> None:
    """It waits behind what is not sent yet of its contact, also of another partition."""
    world = _goes_on(World(), GRANT, PHONE)
    key = TopicPartition(TOPIC, partition)
    world.append([Record(*key, len(world.log.get(key, ())), first.occurred_at, b"c", first.value())])
    _comes(world, partly("c", 2, consent=False))
    world.log = dict(reversed(world.log.items()))  # the other one is polled first
    seen = []
    world.answer = lambda: seen.append((world.list["c"]["phone"], world.list["c"]["callable"]))
    live(world)
    assert (OTHER, True) not in seen
    assert len(seen) == 2
    assert (*_shown(world), world.list["c"]["phone"]) == (False, False, False, OTHER)


def test_a_late_withdrawal_that_is_refused_is_carried_out_as_a_delete() -> None:
    """As others are; an older whole contact does not come after it."""
    world = World()
    _goes_on(world, GRANT, PHONE)
    world.poison = {"c"}
    _goes_on(world, partly("c", 2, consent=False))
    assert (world.list, _outcome(world), world.events()[-1]["operation"]) == ({}, "delivered", "delete")
    world.poison = set()
    assert _goes_on(world, Event("c", 2)).list == {}
    assert _shown(_goes_on(world, Event("c", 4))) == (True, False, True)


def test_late_withdrawals_survive_every_crash() -> None:
    """Killed before and after every call of a port: in the end nobody is called who has denied it."""
    for after_effect in (False, True):
        step = 1
        while _dies_and_lives_on(step, after_effect=after_effect):
            step += 1
        assert step > 10


def _dies_and_lives_on(step: int, *, after_effect: bool) -> bool:
    world = World()
    for event in (GRANT, PHONE, partly("c", 2, consent=False), partly("c", 4, phone=OTHER)):
        _comes(world, event)
    died = survive(world, step, after_effect=after_effect, settle_interval_ms=1, batch_linger_ms=1)
    assert not survive(world, None, after_effect=False)
    assert (*_shown(world), world.list["c"]["phone"]) == (False, False, False, OTHER)
    return died


# -- random histories


class Flag(NamedTuple):
    """What a flag of a contact is, and which change said so."""

    value: bool
    number: int


class Model:
    """Each flag by the newest change that told it, of those that came; what comes late only withdraws."""

    def __init__(self) -> None:
        self.flags = {"consent": Flag(True, 0), "do_not_call": Flag(False, 0)}
        self.phone: str | None = OLD
        self._newest = 0

    def take(self, number: int, event: Event) -> None:
        """What comes, by its number in the order in which the CRM changed the contact."""
        if event.tells_nothing or (event.reasons and not event.withdraws):
            return
        late, self._newest = number < self._newest, max(number, self._newest)
        for name, granting in (("consent", True), ("do_not_call", False)):
            value = getattr(event, name)
            counts = not (value is granting and (late or event.reasons))
            if isinstance(value, bool) and counts and number > self.flags[name].number:
                self.flags[name] = Flag(value, number)
        if event.phone is not None and not (late or event.reasons):
            self.phone = event.phone

    @property
    def shown(self) -> tuple[bool, bool, bool]:
        """Consent, do-not-call, callable."""
        consent, do_not_call = (flag.value for flag in self.flags.values())
        return consent, do_not_call, consent and not do_not_call


def _random_event(dice: Random, number: int) -> Event:
    consent, do_not_call = dice.random() < 0.6, dice.random() < 0.4
    phone = f"+155501{dice.randrange(3):02d}"
    kind = dice.choices(["part", "whole", "rejected"], [6, 2, 1])[0]
    if kind == "whole":
        if consent and do_not_call:
            return Event("c", number, phone=phone, do_not_call=True, reasons=CONFLICT)
        return Event("c", number, consent=consent, do_not_call=do_not_call, phone=phone)
    told = {"consent": consent, "do_not_call": do_not_call, "phone": phone}
    told = {name: value for name, value in told.items() if dice.random() < 0.4}
    if kind == "rejected":
        return partly("c", number, **told | {"phone": "bad"}, reasons=("phone_not_e164",))
    both = told.get("consent") is True and told.get("do_not_call") is True
    return partly("c", number, **told, reasons=CONFLICT if both else ())


def _random_history(dice: Random) -> list[tuple[int, Event, bool]]:
    """Changes by their numbers, as they come; some withdrawals are held at first, and come again."""
    coming: list[tuple[float, int, Event, bool]] = [(0, 1, GRANT, False)]
    for number in range(2, dice.randrange(4, 9)):
        event = _random_event(dice, number)
        held = event.withdraws and dice.random() < 0.6
        coming.append((number, number, event, held))
        if held:
            coming.append((number + dice.randrange(5) + 0.5, number, event, False))
    return [(number, event, held) for _, number, event, held in sorted(coming, key=lambda each: each[0])]


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("versioned", [True, False])
def test_each_flag_is_as_the_newest_word_on_it_says_however_late_that_comes(
    *, versioned: bool, one_by_one: bool
) -> None:
    """By the numbers of versions, or by where a letter stood first. The newest word is that of all that came so far."""
    for seed in range(150):
        try:
            _play(Random(seed), versioned=versioned, one_by_one=one_by_one)
        except AssertionError as error:
            error.add_note(f"in the history of seed {seed}")
            raise


def _play(dice: Random, *, versioned: bool, one_by_one: bool) -> None:
    world, model, letters = World(), Model(), dict[int, Record]()
    for number, told, held in _random_history(dice):
        event = told if versioned else _unversioned(told)
        if held:
            letters[number] = _is_held(world, event)
            continue
        if number in letters:
            _comes_again(world, letters[number])
        else:
            _comes(world, event)
        model.take(number, event)
        if one_by_one or dice.random() < 0.3:
            live(world)
            _check(world, model)
    live(world)
    _check(world, model)


def _check(world: World, model: Model) -> None:
    assert (*_shown(world), world.list["c"]["phone"]) == (*model.shown, model.phone)
