import hashlib
import json
from io import BytesIO
from pathlib import Path

import fastavro
import pytest
from hypothesis import assume, given, strategies as st
from msgspec.structs import asdict, replace

from consumer.core import changes, fingerprints, state_bytes
from consumer.core.changes import (
    Withdrawn,
    as_delete,
    merged,
    precaution,
    suppression,
    to_change,
    under_new_id,
    withdrawing,
    withdrawn,
)
from consumer.core.dedupe import (
    BEFORE_ALL,
    accepted,
    advanced,
    as_held,
    forgotten,
    from_a_file,
    given_up,
    is_told_again,
    judge,
    judged,
    noted,
    releases,
    repeats,
)
from consumer.core.fingerprints import Flags
from consumer.core.order import goes_back
from consumer.errors import FatalError
from consumer.model import (
    FROM_A_FILE,
    MAX_VERSION,
    UNCHANGED,
    Amendment,
    Change,
    ChangeEvent,
    ChangeType,
    Contact,
    Flag,
    Operation,
    Place,
    State,
    Verdict,
)

PUBLISHED = json.loads((Path(__file__).parents[2] / "schemas" / "dedupe_state.avsc").read_text(encoding="utf-8"))
AVRO = fastavro.parse_schema(PUBLISHED)
AVRO_OF_FORMAT_3 = fastavro.parse_schema(PUBLISHED | {"fields": PUBLISHED["fields"][:-2]})
AVRO_OF_FORMAT_2 = fastavro.parse_schema(PUBLISHED | {"fields": PUBLISHED["fields"][:-4]})
CONTACT = Contact(
    "c-1", "+14155550100", "jane@example.com", consent=True, do_not_call=False, attributes={"a": "1", "b": "2"}
)
EVENT = ChangeEvent(
    ChangeType.UPDATE,
    "c-1",
    1000,
    5,
    "+14155550100",
    "jane@example.com",
    consent=True,
    do_not_call=False,
    attributes={},
)
LIST = "list-a"
SETTLED_MS = 1_800_000_000_123
DELETED = fingerprints.no_content(LIST)
SUPPRESSED = fingerprints.suppressed(LIST, Flags(consent=True, do_not_call=False))


def suppressed(*, version=5, offset=10):
    """The suppression that a rejected event with a withdrawal asks for."""
    made = suppression(replace(EVENT, version=version, consent=False), offset, LIST, "")
    assert made is not None
    return made


def change(*, at=1000, offset=10, version=5, consent=True, list_id=LIST, kind=ChangeType.UPDATE, **fields):
    """The change of a good event, with what a test varies."""
    event = replace(EVENT, change_type=kind, occurred_at=at, version=version)
    return to_change(event, replace(CONTACT, consent=consent, **fields), offset, list_id)


def state(*, at=1000, offset=10, version=5, versioned=True, fingerprint=b"f" * 32, deleted=False, epoch=0):
    """What is remembered of a contact, of another content than any change."""
    return State(fingerprint, version, versioned, at, offset, deleted, epoch=epoch)


# ---- what a change is ----


def test_a_change_carries_what_it_is_judged_by():
    """Identity is the hash of the external id; order and time are the event's, the offset is the record's."""
    made = change(at=7, offset=8, version=9)
    assert made.operation is Operation.UPSERT
    assert made.contact == CONTACT
    assert made.identity == hashlib.sha256(b"c-1").digest()
    assert (made.occurred_at, made.offset, made.version) == (7, 8, 9)
    assert made.withdrawal is False


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        (ChangeType.CREATE, Operation.UPSERT),
        (ChangeType.UPDATE, Operation.UPSERT),
        (ChangeType.UNDELETE, Operation.UPSERT),
        (ChangeType.DELETE, Operation.DELETE),
    ],
)
def test_only_a_delete_deletes(kind, operation):
    """Every other change type makes or keeps the contact."""
    assert change(kind=kind).operation is operation


@pytest.mark.parametrize(
    ("fields", "withdraws"),
    [
        ({}, False),
        ({"consent": False}, True),
        ({"do_not_call": True}, True),
        ({"consent": False, "do_not_call": True}, True),
        ({"kind": ChangeType.DELETE}, True),
    ],
)
def test_what_ends_calling_is_a_withdrawal(fields, withdraws):
    """Consent withdrawn, do-not-call set or the contact deleted; nothing else."""
    assert change(**fields).withdrawal is withdraws


@pytest.mark.parametrize(
    "fields",
    [
        {"external_id": "c-2"},
        {"phone": "+14155550101"},
        {"phone": ""},
        {"email": "joe@example.com"},
        {"consent": False},
        {"do_not_call": True},
        {"attributes": {"a": "1", "b": "3"}},
        {"attributes": {"a": "2", "b": "1"}},
        {"attributes": {"a": "1"}},
        {"list_id": "list-b"},
    ],
    ids=str,
)
def test_each_mapped_field_and_the_list_make_another_fingerprint(fields):
    """Whatever Genesys would show differently is another content."""
    assert change(**fields).fingerprint != change().fingerprint


def test_order_of_attributes_time_version_and_offset_are_no_content():
    """The same contact told again has the same fingerprint."""
    again = change(at=2000, offset=20, version=6, kind=ChangeType.CREATE, attributes={"b": "2", "a": "1"})
    assert again.fingerprint == change().fingerprint


def test_a_fingerprint_does_not_change_over_releases():
    """A release that counted another hash would send every contact once more."""
    content = ["list-a", "c-1", "+14155550100", "jane@example.com", True, False, {"a": "1", "b": "2"}]
    expected = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).digest()
    assert change().fingerprint == expected


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_values_that_move_between_fields_are_another_content(phone, email):
    """No text at the end of one field can look like the beginning of the next."""
    assume(phone != email)
    one, other = change(phone=phone, email=email), change(phone=email, email=phone)
    assert one.fingerprint != other.fingerprint


# ---- suppression ----


@pytest.mark.parametrize(
    ("consent", "do_not_call", "expected"),
    [
        (False, False, (False, UNCHANGED)),
        (False, UNCHANGED, (False, UNCHANGED)),
        (True, True, (UNCHANGED, True)),
        (UNCHANGED, True, (UNCHANGED, True)),
        (False, True, (False, True)),
        (UNCHANGED, UNCHANGED, None),
        (True, False, None),
    ],
)
def test_a_rejected_event_suppresses_when_it_withdraws(consent, do_not_call, expected):
    """Plainly false consent and plainly true do-not-call are withdrawn, whatever else is wrong."""
    made = suppression(replace(EVENT, consent=consent, do_not_call=do_not_call), 3, LIST, "")
    assert (made and (made.contact.consent, made.contact.do_not_call)) == expected


@pytest.mark.parametrize(
    ("consent", "do_not_call", "unclear", "number"),
    [
        (None, False, Flags(True, False), ""),
        ("false", UNCHANGED, Flags(True, False), ""),
        (True, None, Flags(False, True), ""),
        (0, "no", Flags(True, True), ""),
        (False, "maybe", Flags(False, True), "+15550100"),
        (None, True, Flags(True, False), "+15550100"),
    ],
)
def test_a_flag_that_nobody_can_read_suppresses_as_a_precaution(consent, do_not_call, unclear, number):
    """Perhaps it withdraws: the flag stays as Genesys has it, and no number is blocked for that alone."""
    made = suppression(replace(EVENT, consent=consent, do_not_call=do_not_call), 3, LIST, "+15550100")
    assert made is not None
    beside = Flags(consent is False, do_not_call is True)
    assert made.fingerprint == fingerprints.unclear(LIST, unclear, beside)
    known = accepted(merged(made, CONTACT, accepted(change(version=4), None), LIST), None)
    again = suppression(replace(EVENT, version=6, consent=consent, do_not_call=do_not_call), 4, LIST, "")
    assert again is not None
    assert judge(again, known) is Verdict.DUPLICATE
    assert (made.withdrawal, made.undecoded, made.number, made.version) == (True, False, number, 5)
    told = (False if consent is False else UNCHANGED, True if do_not_call is True else UNCHANGED)
    assert (made.contact.consent, made.contact.do_not_call) == told


FLAGS = [Flags(consent, do_not_call) for consent in (False, True) for do_not_call in (False, True)]


@pytest.mark.parametrize("unclear", FLAGS[1:], ids=str)
@pytest.mark.parametrize("told", FLAGS, ids=str)
def test_a_precaution_ends_when_what_was_unclear_is_told(unclear, told):
    """By as many changes as it takes; what is still unclear then is known."""
    state = replace(accepted(change(), None), fingerprint=fingerprints.unclear(LIST, unclear), callable=False)
    flags = (True if told.consent else UNCHANGED, False if told.do_not_call else UNCHANGED)
    amending = replace(change(version=6), contact=Amendment("c-1", "+15550199", UNCHANGED, *flags, {}))
    left = Flags(unclear.consent and not told.consent, unclear.do_not_call and not told.do_not_call)
    assert changes.is_precaution(amending, state, LIST) is left.any
    after = merged(amending, replace(CONTACT, phone="+15550199"), state, LIST)
    assert (after.fingerprint == fingerprints.unclear(LIST, left)) is left.any
    assert accepted(after, state).callable is not left.any


@pytest.mark.parametrize("first", ["consent", "do_not_call"])
def test_precautions_add_up(first):
    """One for consent and one for do-not-call: either flag may have been withdrawn."""
    content = fingerprints.unclear(LIST, Flags(consent=first == "consent", do_not_call=first != "consent"))
    state = replace(accepted(change(), None), fingerprint=content)
    second = {"do_not_call": "no"} if first == "consent" else {"consent": "yes"}
    other = suppression(replace(EVENT, version=6, **second), 11, LIST, "")
    assert other is not None
    assert judge(other, state) is Verdict.CHANGED
    assert merged(other, CONTACT, state, LIST).fingerprint == fingerprints.undecoded(LIST)


def test_a_suppression_keeps_identity_and_order_but_no_contact_data():
    """It meets the state of its contact, is judged by its version, and says nothing but the two flags."""
    made = suppression(replace(EVENT, consent=False), 3, LIST, "")
    assert made == Change(
        Operation.SUPPRESS,
        Amendment("c-1", UNCHANGED, UNCHANGED, False, UNCHANGED, {}),
        change().identity,
        SUPPRESSED,
        5,
        1000,
        3,
        withdrawal=True,
    )


@pytest.mark.parametrize("external_id", [None, 7, "", "  "])
def test_nobody_is_suppressed_without_an_external_id(external_id):
    """A rejected event that names nobody changes nobody."""
    assert suppression(replace(EVENT, external_id=external_id, consent=False), 3, LIST, "") is None


def test_a_withdrawal_carried_out_as_a_delete_stays_the_same_withdrawal():
    """Only what is done and remembered differs: the contact, its order and its urgency are kept."""
    withdrawal = change(consent=False)
    made = as_delete(withdrawal, LIST)
    assert made == replace(withdrawal, operation=Operation.DELETE, fingerprint=DELETED, withdrew=True)
    assert accepted(made, None).deleted


# ---- judging: the order of changes ----


def test_a_contact_without_a_state_is_new():
    """Nothing was delivered yet, so anything is sent."""
    assert judge(change(consent=False), None) is Verdict.NEW


OLD, NEW = 900, 1100
ORDER = {
    # both have versions: they decide, whatever time and offset say
    "higher version": ({"version": 6, "at": OLD, "offset": 1}, {}, "changed", "changed"),
    "lower version": ({"version": 4, "at": NEW, "offset": 99}, {}, "stale", "stale"),
    "same version, higher offset": ({"offset": 11, "at": OLD}, {}, "changed", "changed"),
    "same version, same offset": ({}, {}, "changed", "changed"),
    "same version, lower offset": ({"offset": 9}, {}, "stale", "stale"),
    "negative versions": ({"version": -4}, {"version": -5}, "changed", "changed"),
    "version 0 is a version": ({"version": 0, "offset": 11}, {"version": 0}, "changed", "changed"),
    # neither has one: the order of the partition, unless the topic was made anew
    "higher offset": (
        {"version": None, "offset": 11, "at": OLD},
        {"version": None, "versioned": False},
        "changed",
        "changed",
    ),
    "same offset": ({"version": None, "at": NEW}, {"version": None, "versioned": False}, "changed", "changed"),
    "lower offset, older": (
        {"version": None, "offset": 9, "at": OLD},
        {"version": None, "versioned": False},
        "stale",
        "stale",
    ),
    "lower offset, same time": (
        {"version": None, "offset": 9},
        {"version": None, "versioned": False},
        "stale",
        "stale",
    ),
    "recreated topic": (
        {"version": None, "offset": 0, "at": NEW},
        {"version": None, "versioned": False},
        "changed",
        "changed",
    ),
    "versionless after versionless after a version": (
        {"version": None, "offset": 11},
        {"version": 5, "versioned": False},
        "changed",
        "changed",
    ),
    "the same, earlier": (  # it may be sent again: a grant needs the later time
        {"version": None, "offset": 11, "at": OLD},
        {"version": 5, "versioned": False},
        "stale",
        "changed",
    ),
    "lower offset, earlier, after a version": (  # it is read again for sure
        {"version": None, "offset": 9, "at": OLD},
        {"version": 5, "versioned": False},
        "stale",
        "stale",
    ),
    # one has a version, the other none: a withdrawal applies, a grant needs the later time
    "versionless after a version, later": ({"version": None, "at": NEW, "offset": 1}, {}, "changed", "changed"),
    "versionless after a version, same time": ({"version": None, "offset": 99}, {}, "stale", "changed"),
    "versionless after a version, earlier": ({"version": None, "at": OLD, "offset": 99}, {}, "stale", "changed"),
    "first version, later": ({"at": NEW, "offset": 1}, {"version": None, "versioned": False}, "changed", "changed"),
    "first version, same time": ({"offset": 99}, {"version": None, "versioned": False}, "stale", "changed"),
    "first version, earlier": ({"at": OLD, "offset": 99}, {"version": None, "versioned": False}, "stale", "changed"),
    # the last accepted change had no version, but an earlier one had
    "higher version after versionless, later": ({"version": 6, "at": NEW}, {"versioned": False}, "changed", "changed"),
    "higher version after versionless, earlier": ({"version": 6, "at": OLD}, {"versioned": False}, "stale", "changed"),
    "same version after versionless, earlier": ({"at": OLD, "offset": 99}, {"versioned": False}, "stale", "changed"),
    "lower version after versionless, later": ({"version": 4, "at": NEW}, {"versioned": False}, "stale", "stale"),
}


@pytest.mark.parametrize(("later", "before", "grant", "withdrawal"), ORDER.values(), ids=ORDER)
def test_the_order_of_changes(later, before, grant, withdrawal):
    """What is older is stale; where the order cannot be told, a withdrawal applies and a grant needs the later time."""
    assert judge(change(**later), state(**before)) == grant
    assert judge(change(**later, consent=False), state(**before)) == withdrawal


@pytest.mark.parametrize(("later", "before", "withdrawal"), [(a, b, d) for a, b, _, d in ORDER.values()], ids=ORDER)
def test_the_same_content_is_a_duplicate_where_it_is_not_older(later, before, withdrawal):
    """A repeat is never sent, and what is certainly older stays stale even with the same content."""
    repeat = change(**later)
    verdict = judge(repeat, state(**before, fingerprint=repeat.fingerprint))
    assert verdict == ("stale" if withdrawal == "stale" else "duplicate")


def test_a_deleted_contact_comes_back_with_a_newer_version_only():
    """The marker of a delete stops late updates and lets a new start through; a second delete is a duplicate."""
    deleted = accepted(change(kind=ChangeType.DELETE), None)
    assert judge(change(version=4), deleted) is Verdict.STALE
    assert judge(change(version=6), deleted) is Verdict.CHANGED
    assert judge(change(version=6, kind=ChangeType.DELETE), deleted) is Verdict.DUPLICATE


def test_after_a_suppression_whatever_the_crm_says_next_is_sent():
    """No content equals that of a suppressed contact, not even the one before."""
    remembered = accepted(suppressed(version=6), accepted(change(), None))
    assert judge(change(version=7), remembered) is Verdict.CHANGED
    assert judge(change(version=7, kind=ChangeType.DELETE), remembered) is Verdict.CHANGED
    assert judge(suppressed(version=7), remembered) is Verdict.DUPLICATE


# ---- partial changes ----

NOTHING = Amendment("c-1", UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, {})


def part(*, at=1000, offset=10, version=5, **told):
    """The change that a partial event asks for, which tells these fields alone."""
    event = replace(EVENT, occurred_at=at, version=version, partial=True)
    return to_change(event, replace(NOTHING, **told), offset, LIST)


@pytest.mark.parametrize(
    ("told", "withdraws"),
    [
        ({"phone": "+14155550101"}, False),
        ({"consent": True}, False),
        ({"do_not_call": False}, False),
        ({"consent": False}, True),
        ({"do_not_call": True, "consent": True}, True),
    ],
    ids=str,
)
def test_a_part_withdraws_by_what_it_tells(told, withdraws):
    """A field that it does not tell says nothing against calling."""
    made = part(**told)
    assert (made.operation, made.withdrawal, made.identity) == (Operation.UPSERT, withdraws, change().identity)


@pytest.mark.parametrize(
    ("told", "callable_"),
    [({"consent": True}, False), ({"do_not_call": False}, False), ({"consent": True, "do_not_call": False}, True)],
    ids=str,
)
def test_a_part_makes_callable_again_by_both_flags_alone(told, callable_):
    """One of them says nothing of the other, by which the contact may have withdrawn."""
    assert accepted(part(version=6, **told), accepted(change(consent=False), None)).callable is callable_


@pytest.mark.parametrize("flag", ["consent", "do_not_call"])
def test_a_flag_that_is_told_again_behind_has_no_place_of_its_own_any_more(flag):
    """Also where all else says the same with the same version."""
    made, place = part(offset=12, **{flag: flag == "consent"}), Place(4, versioned=True, occurred_at=900, offset=3)
    known = replace(state(fingerprint=made.fingerprint), **{f"{flag}_at": place})
    after = advanced(made, known)
    assert after is not None
    assert asdict(after)[f"{flag}_at"] is None
    assert advanced(replace(made, offset=9), known) is None


@pytest.mark.parametrize("callable_", [None, True, False])
def test_who_is_held_in_genesys_is_so_as_a_precaution_where_nobody_knows_how_it_was_left(callable_):
    """The order stays; of whom nothing is known there is none."""
    known = replace(state(), callable=callable_)
    precaution_of_it = replace(known, fingerprint=fingerprints.undecoded(LIST), callable=False)
    assert as_held(known, LIST) == (precaution_of_it if callable_ is None else known)
    assert (as_held(None, LIST).version, as_held(None, LIST).callable) == (None, False)


@pytest.mark.parametrize(
    ("told", "known", "expected"),
    [
        ({}, {}, True),
        ({"version": 6}, {}, False),
        ({"epoch": 1}, {}, False),
        ({"version": None}, {"version": None, "versioned": False}, False),
        ({}, {"deleted": True}, False),
    ],
    ids=str,
)
def test_a_change_is_told_again_with_the_version_of_a_contact_that_is_there(told, known, expected):
    """Without one nobody knows, and with that of a delete it is another row's."""
    assert is_told_again(replace(change(), **told), replace(state(), **known)) is expected


def test_a_part_comes_to_the_whole_contact():
    """What it does not tell stays; the state is that of the whole contact, so that a repeat of it is a duplicate."""
    told = replace(NOTHING, phone="+14155550101", do_not_call=True, attributes={"b": "3"})
    contact = told.onto(CONTACT)
    assert contact == replace(CONTACT, phone="+14155550101", do_not_call=True, attributes={"a": "1", "b": "3"})
    after_it = accepted(merged(part(version=6), contact, None, LIST), accepted(change(), None))
    whole = change(version=7, phone="+14155550101", do_not_call=True, attributes={"a": "1", "b": "3"})
    assert judge(whole, after_it) is Verdict.DUPLICATE
    assert judge(part(version=5, consent=True), after_it) is Verdict.STALE


def test_a_part_is_never_taken_for_the_content_of_another():
    """Before it is merged nobody knows what it comes to: only another part that tells the same is the same."""
    parts = [part(phone="+14155550101"), part(phone=""), part(email=""), part(consent=True), part(consent=False)]
    assert len({made.fingerprint for made in [*parts, change(), suppressed()]}) == 7


@pytest.mark.parametrize(("later", "before", "grant", "withdrawal"), ORDER.values(), ids=ORDER)
def test_parts_have_the_order_of_whole_changes(later, before, grant, withdrawal):
    """Older is stale; where the order cannot be told a withdrawal applies, and all else needs the later time."""
    assert judge(part(**later, consent=True), state(**before)) == grant
    assert judge(part(**later, phone=""), state(**before)) == grant
    assert judge(part(**later, consent=False), state(**before)) == withdrawal


# ---- what is remembered ----


def test_the_state_is_that_of_the_accepted_change():
    """Content, version, time and offset; a delete leaves a marker."""
    made = change(version=7, at=3, offset=4)
    assert accepted(made, None) == State(made.fingerprint, 7, True, 3, 4, deleted=False, callable=True)
    assert accepted(change(kind=ChangeType.DELETE), None) == State(DELETED, 5, True, 1000, 10, deleted=True)


def test_a_versionless_change_keeps_the_highest_version_known():
    """So that what is older than an earlier version stays stale."""
    first = accepted(change(version=None), None)
    assert (first.version, first.versioned) == (None, False)
    after = accepted(change(version=None, offset=11), state(version=5))
    assert (after.version, after.versioned) == (5, False)
    assert judge(change(version=4, at=9999, consent=False), after) is Verdict.STALE


def test_a_noted_suppression_stops_older_grants_of_a_contact_that_is_not_in_genesys():
    """The contact is remembered as not there, with the version of the withdrawal."""
    remembered = noted(suppressed(), None)
    never = Place(None, versioned=False, occurred_at=BEFORE_ALL, offset=FROM_A_FILE)  # nothing told of do-not-call
    assert remembered == State(
        SUPPRESSED, 5, True, 1000, 10, deleted=True, callable=False, consent_at=None, do_not_call_at=never
    )
    assert judge(change(version=4), remembered) is Verdict.STALE
    assert judge(change(version=6), remembered) is Verdict.CHANGED


@pytest.mark.parametrize(
    ("version", "known", "moves"),
    [(6, 5, True), (5, 5, False), (4, 5, False), (0, None, True), (None, 5, False)],
)
def test_a_duplicate_moves_the_version_forward_only(version, known, moves):
    """A newer version is remembered with its time and offset, the content stays; otherwise nothing is written."""
    before = state(version=known, versioned=known is not None)
    after = advanced(change(version=version, at=2000, offset=20), before)
    expected = State(before.fingerprint, version, True, 2000, 20, deleted=False) if moves else None
    assert after == expected


def test_a_duplicate_moves_the_place_where_that_is_the_order():
    """What stood between the two is older than the second one."""
    before = state(version=None, versioned=False)
    after = advanced(change(version=None, at=2000, offset=20), before)
    assert after == replace(before, occurred_at=2000, offset=20)
    assert advanced(change(version=None, at=2000, offset=9), before) is None


def test_a_record_that_nobody_can_read_again_moves_its_place_alone():
    """What follows is compared with what was read last."""
    held = accepted(precaution("c-1", 20, LIST), accepted(change(), None))
    assert advanced(precaution("c-1", 30, LIST), held) == replace(held, offset=30)
    assert held.versioned


def test_a_second_tombstone_moves_its_place_and_no_time():
    """Its time is Kafka's: a row that is made at once may be earlier. For rows of a file it is kept beside."""
    gone = replace(change(kind=ChangeType.DELETE, version=None, at=3000, offset=20), tombstone=True)
    deleted = accepted(gone, state())
    assert deleted.occurred_at == state().occurred_at
    place = Place(5, versioned=False, occurred_at=9000, offset=30)
    moved = replace(deleted, offset=30, consent_at=place, do_not_call_at=place)
    assert advanced(replace(gone, occurred_at=9000, offset=30), deleted) == moved
    assert accepted(gone, state()).consent_at == replace(place, occurred_at=3000, offset=20)
    assert accepted(gone, state(version=None, versioned=False)).consent_at is None  # there it is the time of the delete


def test_a_duplicate_does_not_bring_a_deleted_contact_back():
    """Moving the version of a delete's marker keeps it a marker."""
    after = advanced(change(kind=ChangeType.DELETE, version=6), state(deleted=True, fingerprint=DELETED))
    assert after is not None
    assert after.deleted
    assert after.version == 6


# ---- the do-not-call list ----


def blocked(**fields):
    """The state after a withdrawal whose number went on the list."""
    return accepted(change(**{"consent": False} | fields), None, blocks=True)


@pytest.mark.parametrize(
    ("withdrew", "made", "expected"),
    [
        pytest.param(blocked(version=5), change(version=6, offset=3), True, id="newer version"),
        pytest.param(blocked(version=5), change(version=5, offset=11), True, id="same version, later record"),
        pytest.param(blocked(version=None), change(version=None, offset=11), True, id="no versions, later record"),
        pytest.param(blocked(version=5), change(version=4, offset=11, at=9999), False, id="older version"),
        pytest.param(blocked(version=5), change(version=None, offset=11, at=9999), False, id="only one has a version"),
        pytest.param(blocked(version=None), change(version=5, offset=11, at=9999), False, id="only the other has one"),
        pytest.param(blocked(version=None), change(version=None, offset=9, at=9999), False, id="later by time alone"),
        pytest.param(blocked(version=5), change(version=6, do_not_call=True), False, id="no grant"),
        pytest.param(blocked(version=5), change(version=6, kind=ChangeType.DELETE), False, id="a delete"),
        pytest.param(blocked(version=5), suppressed(version=6), False, id="a suppression"),
        pytest.param(state(version=5), change(version=6), False, id="nothing was blocked"),
        pytest.param(None, change(version=6), False, id="nothing is known"),
    ],
)
def test_only_a_grant_that_is_provably_newer_lets_a_number_off_the_list(withdrew, made, expected):
    """Whatever cannot be compared leaves the number where it is."""
    assert releases(made, withdrew) is expected


NO_UPSERT = {
    "a delete": change(version=6, kind=ChangeType.DELETE),
    "a suppression": suppressed(version=6),
    "a suppression, perhaps": suppression(replace(EVENT, version=6, consent=None), 10, LIST, ""),
    "a suppression that took a place": withdrawing(suppressed(version=6), Withdrawn.DO_NOT_CALL, LIST),
    "a suppression as it came to": merged(suppressed(version=6), CONTACT, None, LIST),
    "a precaution": precaution("c-1", 20, LIST),
    "a withdrawal as a delete": as_delete(change(version=6, consent=False), LIST),
    "a suppression as a delete": as_delete(suppressed(version=6), LIST),
}


@pytest.mark.parametrize(
    "made",
    [part(consent=True), change(consent=False), merged(suppressed(), CONTACT, None, LIST)],
    ids=["part", "whole", "merged"],
)
def test_only_a_suppression_takes_on_what_withdrew_before_it(made):
    """Any other change is what the CRM says now; one that is merged tells all by itself."""
    assert withdrawing(made, Withdrawn.DO_NOT_CALL, LIST) == made


@pytest.mark.parametrize("made", NO_UPSERT.values(), ids=NO_UPSERT)
def test_whatever_is_no_upsert_is_a_withdrawal(made):
    """So nothing but a grant lets a number off the list."""
    assert made.operation is not Operation.UPSERT
    assert made.withdrawal
    assert not releases(made, blocked(version=5))


def test_a_number_counts_as_blocked_after_a_withdrawal_alone():
    """Not after a grant, a delete, or where nobody knows what Genesys has; a duplicate changes nothing."""
    assert blocked().blocked
    assert accepted(suppressed(), blocked(), blocks=True).blocked
    assert not accepted(change(version=6), blocked(), blocks=True).blocked
    assert not accepted(change(version=6, kind=ChangeType.DELETE), blocked(), blocks=True).blocked
    assert not noted(suppressed(version=6), None).blocked
    assert not forgotten(blocked(), LIST).blocked
    assert not accepted(precaution("c-1", 20, LIST), blocked(), blocks=True).blocked
    moved_on = advanced(change(version=8, consent=False), blocked())
    assert moved_on is not None
    assert moved_on.blocked
    assert not releases(change(version=7), moved_on)


# ---- bytes ----

longs = st.integers(-(2**63), 2**63 - 1)
places = st.builds(
    Place,
    version=st.none() | longs,
    versioned=st.booleans(),
    occurred_at=longs,
    offset=longs,
    epoch=st.integers(0, 2**32 - 1),
    concurrent=st.booleans(),
)
states = st.builds(
    State,
    fingerprint=st.binary(min_size=32, max_size=32),
    version=st.none() | longs,
    versioned=st.booleans(),
    occurred_at=longs,
    offset=longs,
    deleted=st.booleans(),
    blocked=st.booleans(),
    epoch=st.just(0) | st.integers(0, 2**32 - 1),
    callable=st.none() | st.booleans(),
    imprint=st.just(b"") | st.binary(min_size=16, max_size=16).filter(any),
    concurrent=st.booleans(),
    consent_at=st.none() | places,
    do_not_call_at=st.none() | places,
    granted=st.none() | st.sampled_from(Flag),
).map(lambda it: it if it.callable is False else replace(it, granted=None))


def as_avro(it):
    """The state as a datum of the schema; without places it is the long format, without all else the short one."""
    flags = (it.version is not None) | it.versioned << 1 | it.deleted << 2 | it.blocked << 3
    flags |= (
        (it.callable is False and it.granted is not Flag.CONSENT) << 4 | (it.callable is True) << 5 | it.concurrent << 6
    )
    flags |= (it.granted is not None) << 7
    more = {"epoch": it.epoch.to_bytes(4, "big"), "imprint": it.imprint or bytes(16)} if is_long(it) else {}
    if has_places(it):
        more |= {"consentAt": place_as_avro(it.consent_at), "doNotCallAt": place_as_avro(it.do_not_call_at)}
    return more | {
        "format": b"\4" if has_places(it) else b"\3" if more else b"\2",
        "flags": bytes([flags]),
        "fingerprint": it.fingerprint,
        "version": (it.version or 0).to_bytes(8, "big", signed=True),
        "occurredAt": it.occurred_at.to_bytes(8, "big", signed=True),
        "offset": it.offset.to_bytes(8, "big", signed=True),
        "settledAt": SETTLED_MS.to_bytes(8, "big", signed=True),
    }


def place_as_avro(it):
    """A place as a datum of the schema, zeros where it is the state's own."""
    it, flags = it or Place(0, False, 0, 0), 0 if it is None else 1 << 7
    flags |= (flags and it.version is not None) | it.versioned << 1 | it.concurrent << 6
    return {
        "flags": bytes([flags]),
        "version": (it.version or 0).to_bytes(8, "big", signed=True),
        "occurredAt": it.occurred_at.to_bytes(8, "big", signed=True),
        "offset": it.offset.to_bytes(8, "big", signed=True),
        "epoch": it.epoch.to_bytes(4, "big"),
    }


def has_places(it):
    """Whether a flag was told before what was accepted last."""
    return it.consent_at is not None or it.do_not_call_at is not None


def is_long(it):
    """Whether a state says what the short format has no room for."""
    return bool(it.epoch or it.imprint) or has_places(it)


@given(states)
def test_an_avro_reader_and_writer_see_the_same_bytes(it):
    """What is packed is what fastavro writes and reads with the schema; each older format lacks its last two fields."""
    schema = AVRO if has_places(it) else AVRO_OF_FORMAT_3 if is_long(it) else AVRO_OF_FORMAT_2
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, as_avro(it))
    assert state_bytes.encode(it, SETTLED_MS) == out.getvalue()
    assert fastavro.schemaless_reader(BytesIO(state_bytes.encode(it, SETTLED_MS)), schema, None) == as_avro(it)


@given(states)
def test_a_state_comes_back_from_its_bytes(it):
    """Version 0 and no version are told apart, as is everything else; and so does the time of settling."""
    assert state_bytes.decode(state_bytes.encode(it, SETTLED_MS)) == it
    assert state_bytes.settled_ms(state_bytes.encode(it, SETTLED_MS)) == SETTLED_MS


def test_a_state_that_an_earlier_release_wrote_lets_nothing_off_the_do_not_call_list():
    """It does not say whether a number was blocked, so none is taken for one."""
    withdrawn = accepted(change(consent=False), None)
    assert not state_bytes.decode(state_bytes.encode(withdrawn, SETTLED_MS)).blocked
    assert not releases(change(version=6), state_bytes.decode(state_bytes.encode(withdrawn, SETTLED_MS)))


def test_a_state_that_an_earlier_release_wrote_is_of_the_first_epoch():
    """Its bytes, as they are in stores and changelogs of today."""
    raw = bytes.fromhex("0203" + "66" * 32 + f"{5:016x}{1000:016x}{10:016x}{SETTLED_MS:016x}")
    assert state_bytes.decode(raw) == state()
    assert state_bytes.settled_ms(raw) == SETTLED_MS
    assert state_bytes.encode(state(), SETTLED_MS) == raw


def test_whether_a_contact_is_callable_is_not_known_by_bits_that_nobody_writes():
    """As a newer release may set them; nobody is taken for callable."""
    raw = bytearray(state_bytes.encode(state(), SETTLED_MS))
    for bits in (0x30, 0xA0, 0xB0):
        raw[1] = raw[1] & 0x4F | bits
        assert state_bytes.decode(bytes(raw)) == state()


@pytest.mark.parametrize("read", [state_bytes.decode, state_bytes.settled_ms])
@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\2", bytes(66), b"\1" + bytes(65), b"\2" + bytes(64), b"\2" + bytes(66)),
        *(b"\2" + bytes(85), b"\3" + bytes(65), b"\3" + bytes(84), b"\3" + bytes(86), b"\4" + bytes(85)),
        *(b"\4" + bytes(142), b"\4" + bytes(144), b"\5" + bytes(143)),
    ],
)
def test_bytes_of_another_format_are_refused(raw, read):
    """A store of another release is not misread; the message tells the length alone."""
    with pytest.raises(FatalError, match=f"unknown format \\({len(raw)} bytes\\)"):
        read(raw)


# ---- whatever comes ----

versions = st.none() | st.integers(-2, 4)
any_change = st.builds(
    change,
    at=st.integers(0, 4),
    offset=st.integers(0, 6),
    version=versions,
    consent=st.booleans(),
    phone=st.sampled_from(["+14155550100", "+14155550101"]),
    kind=st.sampled_from([ChangeType.UPDATE, ChangeType.DELETE]),
)
in_epochs = st.builds(
    lambda made, epoch, *, read: replace(made, positional=made.withdrawal, epoch=epoch, read=read),
    any_change,
    st.integers(0, 2),
    read=st.booleans(),
)
histories = st.lists(any_change, min_size=1, max_size=8)


def after(made, before):
    """The state once a change was dealt with as its verdict asks."""
    verdict = judge(made, before)
    if verdict in {Verdict.NEW, Verdict.CHANGED}:
        return accepted(made, before)
    return (advanced(made, before) if verdict is Verdict.DUPLICATE and before else None) or before


def told(history):
    """The states that a history leaves behind, one for each of its changes."""
    states = [None]
    for each in history:
        states.append(after(each, states[-1]))
    return states[1:]


def in_offset_order(history):
    """The changes as one partition gives them."""
    return [replace(each, offset=n) for n, each in enumerate(history)]


@given(any_change, st.none() | states)
def test_what_was_accepted_last_is_a_duplicate_when_it_comes_again(made, before):
    """Nobody is called twice because an event was replayed."""
    assume(before is None or before.epoch == 0 or made.withdrawal)  # else it is not accepted
    assert judge(made, accepted(made, before)) is Verdict.DUPLICATE


@given(st.lists(any_change | in_epochs, min_size=1, max_size=8))
def test_the_highest_version_known_never_goes_down(history):
    """Whatever is accepted or repeated, in whatever order, what is older than it stays stale."""
    known = [(it.epoch, it.version) for it in told(history) if it.version is not None]
    assert known == sorted(known)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.CHANGED),
        ({"before": {"version": None}}, Verdict.CHANGED),
        ({"version": 4}, Verdict.STALE),
        ({"version": None, "before": {"versioned": True}}, Verdict.STALE),
        ({"at": 999}, Verdict.STALE),
        ({"offset": 10}, Verdict.STALE),
        ({"offset": FROM_A_FILE}, Verdict.STALE),
        ({"before": {"offset": FROM_A_FILE}}, Verdict.STALE),
        ({"before": {"epoch": 1}}, Verdict.STALE),
        ({"before": {"deleted": False}}, Verdict.STALE),
        ({"before": {"callable": False}}, Verdict.STALE),
    ],
)
def test_who_was_deleted_without_a_version_may_come_again_at_the_same_moment(changes, verdict):
    """If that stands behind the delete in their partition, and the contact had not withdrawn before."""
    told = {"offset": 11} | changes
    before = {"deleted": True, "versioned": False, "callable": True} | told.pop("before", {})
    kept = replace(state(), **before)
    assert judge(change(**told), kept) is verdict


@given(in_epochs, st.tuples(*[st.integers(0, 4)] * 4), st.integers(0, 2), st.integers(1, 2))
def test_a_grant_of_another_epoch_needs_a_later_time(made, numbers, epoch, step):
    """However its position stands to the one that is known: versions of two logs say nothing of each other."""
    version, at, offset, known = numbers
    made = replace(made, version=version, epoch=(epoch + step) % 3)
    remembered = state(version=known, at=at, offset=offset, epoch=epoch)
    if judge(made, remembered) is Verdict.CHANGED and not made.withdrawal:
        assert made.occurred_at > at
        assert not made.read


@pytest.mark.parametrize(
    ("epoch", "offset", "expected"),
    [(0, 9, Verdict.STALE), (0, 11, Verdict.CHANGED), (2, 9, Verdict.CHANGED), (2, 11, Verdict.CHANGED)],
)
def test_a_withdrawal_of_another_epoch_is_older_only_where_it_stands_before(epoch, offset, expected):
    """What is of the newer one was told since, wherever it stands: the topic may have been made anew."""
    made = replace(change(version=4, offset=offset, consent=False), epoch=epoch, positional=True)
    assert judge(made, state(epoch=1)) is expected


@pytest.mark.parametrize(("version", "left"), [(4, 6), (9, 9)])
def test_only_a_position_that_went_back_leaves_one_above_the_highest(version, left):
    """Of a log that goes on, a withdrawal leaves its own."""
    made = replace(change(version=version, at=NEW, consent=False), positional=True)
    assert goes_back(made, state()) is (version < 5)
    assert accepted(made, state()).version == left


@pytest.mark.parametrize(("offset", "expected"), [(9, Verdict.STALE), (11, Verdict.CHANGED)])
def test_a_replayed_grant_without_an_order_needs_its_place_and_a_later_time(offset, expected):
    """From before what is known it is older, whatever its time."""
    made = replace(change(version=6, at=NEW, offset=offset), replayed=True)
    assert judge(made, state(version=None, versioned=False)) is expected


@given(st.booleans(), histories)
def test_a_replay_of_a_whole_partition_sends_nothing(versioned, history):
    """Offsets set back to the beginning: whatever was delivered in order is a duplicate or stale now."""
    ordered = [replace(each, version=n if versioned else None, occurred_at=n) for n, each in enumerate(history)]
    *_, remembered = told(in_offset_order(ordered))
    assert {judge(each, remembered) for each in in_offset_order(ordered)} <= {Verdict.DUPLICATE, Verdict.STALE}


@given(histories)
def test_what_counts_is_the_newest_whatever_the_order(history):
    """Distinct versions in any order leave what the highest of them says."""
    versioned = in_offset_order(history)
    shuffled = sorted(versioned, key=lambda each: (each.occurred_at, each.fingerprint))
    *_, remembered = told([replace(each, version=each.offset) for each in shuffled])
    assert (remembered.version, remembered.fingerprint) == (len(history) - 1, versioned[-1].fingerprint)


@pytest.mark.parametrize("versions", [(1, 2, 3), (None, None, None), (1, None, 2), (None, 1, None)], ids=str)
def test_grant_revoke_grant_are_three_deliveries(versions):
    """The third equals the first in content, and still is sent, with versions or without."""
    remembered = None
    for n, version in enumerate(versions):
        made = change(version=version, offset=n, at=n, consent=n != 1)
        assert judge(made, remembered) in {Verdict.NEW, Verdict.CHANGED}
        remembered = accepted(made, remembered)


@given(histories, any_change)
def test_a_withdrawal_is_sent_unless_it_is_a_repeat_or_certainly_older(history, made):
    """A withdrawal is stale only to a higher version, or to what came behind it in its own order."""
    assume(made.withdrawal)
    *_, remembered = told(in_offset_order(history))
    if judge(made, remembered) is Verdict.STALE:
        lower = made.version is not None and remembered.version is not None and made.version < remembered.version
        behind = made.offset < remembered.offset and remembered.versioned is (made.version is not None)
        assert lower or behind


@given(histories, any_change)
def test_what_is_certainly_newer_is_never_stale(history, made):
    """A version above all, or a later place of the partition where there are no versions."""
    *_, remembered = told([replace(each, version=None) for each in in_offset_order(history)])
    assert judge(replace(made, version=None, offset=len(history)), remembered) is not Verdict.STALE
    *_, remembered = told([replace(each, version=1) for each in in_offset_order(history)])
    assert judge(replace(made, version=2), remembered) is not Verdict.STALE


@given(any_change)
def test_judging_changes_nothing(made):
    """The same question has the same answer."""
    remembered = state(version=2, offset=3, at=2)
    assert judge(made, remembered) is judge(made, remembered)
    assert remembered == state(version=2, offset=3, at=2)


# ---- another contact list ----


@pytest.mark.parametrize("consent", [True, False])
@pytest.mark.parametrize("version", [5, None])
def test_a_state_of_another_contact_list_does_not_hide_a_contact(version, consent):
    """The settings name another list: what the first one got is sent to the second."""
    first = accepted(change(version=version, consent=consent), None)
    assert judge(change(version=version, consent=consent, list_id="list-b"), first) is Verdict.CHANGED


@pytest.mark.parametrize("version", [5, None])
def test_a_state_of_another_contact_list_does_not_hide_a_delete(version):
    """Deleted from the first list, the person may still stand in the second: the delete is sent there too."""
    first = accepted(change(version=version, kind=ChangeType.DELETE), None)
    again = change(version=version, kind=ChangeType.DELETE, list_id="list-b")
    assert judge(again, first) is Verdict.CHANGED


# ---- what came from a file ----


def of_file(**fields):
    """What a row leaves behind for the stream, of time 1000 unless a test says otherwise."""
    return from_a_file(accepted(change(**{"version": None, "offset": 7} | fields), None))


streamed = st.lists(
    st.tuples(st.integers(0, 1000), st.booleans(), st.sampled_from(["+14155550100", "+14155550101"])), max_size=8
)
versioned_how = st.sampled_from([lambda _: None, lambda n: n, lambda n: None if n % 2 else n])


@given(streamed, versioned_how, st.sampled_from([None, 0]))
def test_a_stream_that_is_no_later_than_a_file_grants_nothing_that_the_file_withdraws(history, version_of, version):
    """Whatever it tells, in its order, with versions, without, or with some: withdrawals apply, grants do not."""
    remembered = of_file(consent=False, version=version)
    for offset, (at, consent, phone) in enumerate(history):
        made = change(at=at, offset=offset, version=version_of(offset), consent=consent, phone=phone)
        if version is not None and made.version is not None:
            continue  # then versions tell which is newer, whatever the times are
        verdict = judge(made, remembered)
        assert verdict is not Verdict.CHANGED or made.withdrawal
        if verdict is Verdict.CHANGED:
            remembered = accepted(made, remembered)
        elif verdict is Verdict.DUPLICATE:
            remembered = advanced(made, remembered) or remembered
    later = change(at=1001, offset=len(history), version=None if version is not None else version_of(99))
    assert judge(later, remembered) is Verdict.CHANGED


@given(streamed, versioned_how)
def test_a_withdrawal_of_the_stream_applies_to_what_a_file_grants(history, version_of):
    """Once something of the stream withdraws, its order counts: who granted again, behind that, is callable.

    Where that order is not known, with versions now and then, he is withdrawn until something later than the file.
    """
    remembered, withdrawn = of_file(consent=True), False
    mixed = version_of(0) != version_of(1) is None
    for offset, (at, consent, phone) in enumerate(history):
        made = change(at=at, offset=offset, version=version_of(offset), consent=consent, phone=phone)
        verdict = judge(made, remembered)
        if verdict is Verdict.CHANGED:
            remembered, withdrawn = accepted(made, remembered), made.withdrawal
        elif verdict is Verdict.DUPLICATE:
            remembered = advanced(made, remembered) or remembered
        told = [consent for _, consent, _ in history[: offset + 1]]
        if not mixed:
            assert withdrawn is (False in told and not told[-1])
        elif not told[-1]:
            assert withdrawn


@pytest.mark.parametrize(("version", "verdict"), [(4, "stale"), (5, "stale"), (6, "changed")])
def test_versions_order_a_row_and_a_record(version, verdict):
    """Offsets do not: with equal versions the time decides."""
    assert judge(change(version=version, offset=0, phone="+14155550101"), of_file(version=5)) == verdict
    assert judge(change(version=5, at=1001, offset=0, phone="+14155550101"), of_file(version=5)) is Verdict.CHANGED


def test_a_record_that_nobody_can_decode_does_not_begin_the_order_of_the_partition():
    """It withdraws for now; what is no later than the file does not grant, what is later does."""
    blind = precaution("c-1", 3, LIST)
    assert judge(blind, of_file()) is Verdict.CHANGED
    remembered = accepted(blind, of_file())
    assert judge(change(version=None, at=1000, offset=4), remembered) is Verdict.STALE
    assert judge(change(version=None, at=1001, offset=4), remembered) is Verdict.CHANGED


def test_what_is_later_than_the_file_begins_the_order_of_the_partition():
    """From then on the offset decides again."""
    remembered = accepted(change(version=None, at=1001, offset=3, phone="+14155550101"), of_file())
    assert judge(change(version=None, at=900, offset=4, phone="+14155550102"), remembered) is Verdict.CHANGED
    assert judge(change(version=None, at=900, offset=2, phone="+14155550102"), remembered) is Verdict.STALE


def test_nothing_repeats_what_a_file_told():
    """Nobody knows what of the stream stands before it: the same bytes are decoded, and judged as ever."""
    made = replace(change(offset=7), imprint=b"of the record")
    assert repeats(7, b"of the record", accepted(made, None))
    assert not repeats(7, b"of the record", from_a_file(accepted(made, None)))


@pytest.mark.parametrize("fields", [{"consent": False}, {"kind": ChangeType.DELETE}], ids=["withdrawal", "delete"])
def test_a_withdrawal_that_is_repeated_behind_has_to_be_judged(fields):
    """Its place is remembered anew: a grant that stood between must not come after it."""
    grant = replace(change(offset=7), imprint=b"of the record")
    withdrawal = replace(change(offset=7, **fields), imprint=b"of the record")
    assert [repeats(offset, b"of the record", accepted(grant, None)) for offset in (6, 7, 8)] == [False, True, True]
    told = [repeats(offset, b"of the record", accepted(withdrawal, None)) for offset in (6, 7, 8)]
    assert told == [False, True, False]


def test_what_has_no_imprint_repeats_nothing():
    """Two records of which nothing is noted are not the same for that."""
    assert not repeats(7, b"", accepted(change(offset=7), None))


def test_the_mark_of_a_file_is_kept_in_bytes():
    """The changelog carries it."""
    assert state_bytes.decode(state_bytes.encode(of_file(), 0)).offset == FROM_A_FILE


# ---- a source that counts anew ----


def positional(**told):
    """A withdrawal whose version is a position in a log."""
    return replace(change(**told), positional=True)


@pytest.mark.parametrize("kind", [{"consent": False}, {"kind": ChangeType.DELETE}])
def test_a_withdrawal_whose_position_went_back_applies_when_it_is_later(kind):
    """After a failover positions begin anew: nobody is called who withdrew since; an old one told again is stale."""
    known = state(version=10, at=1000)
    assert judge(positional(version=3, at=1001, **kind), known) is Verdict.CHANGED
    assert judge(positional(version=3, at=1000, **kind), known) is Verdict.STALE
    assert judge(change(version=3, at=1001, **kind), known) is Verdict.STALE
    assert judge(change(version=3, at=1001), known) is Verdict.STALE


def test_after_a_withdrawal_that_went_back_no_grant_from_before_applies():
    """Also not the one that was accepted last, told again at a higher offset; a position above all of them does."""
    granted = change(version=10, at=1000, offset=1)
    withdrawn = accepted(positional(version=3, at=2000, offset=2, consent=False), accepted(granted, None))
    assert (withdrawn.version, withdrawn.occurred_at) == (11, 2000)
    assert judge(replace(granted, offset=3), withdrawn) is Verdict.STALE
    assert judge(change(version=4, at=3000, offset=4), withdrawn) is Verdict.STALE
    assert judge(change(version=11, at=3000, offset=5), withdrawn) is Verdict.CHANGED


def test_the_highest_version_of_all_stays_when_one_goes_back():
    """What is remembered fits into the state."""
    known = state(version=MAX_VERSION, at=1)
    after = accepted(positional(version=3, at=2, consent=False), known)
    assert after.version == MAX_VERSION
    assert state_bytes.decode(state_bytes.encode(after, 0)) == after


# ---- withdrawals behind newer changes of other fields ----


def amending(*, version=3, offset=10, **told):
    """The change of an event that tells only this."""
    kept = dict.fromkeys(("phone", "email", "consent", "do_not_call"), UNCHANGED)
    amendment = Amendment("c-1", **kept | told, attributes={})
    return to_change(replace(EVENT, version=version, partial=True), amendment, offset, LIST)


def late(held, known):
    """What a late withdrawal comes to."""
    made, verdict = judged(held, known, LIST)
    assert verdict is Verdict.CHANGED
    return made


def amended(known=None):
    """A contact whose phone number changed last, and before that all of it."""
    return accepted(amending(phone="+14155550199"), known or accepted(change(version=1, offset=5), None))


def test_a_late_withdrawal_leaves_the_order_as_it_is():
    """Nor is what repeats a record taken for a repeat by its imprint."""
    known = replace(amended(), imprint=b"i" * 16)
    held = late(replace(change(version=2, offset=7, consent=False), imprint=b"j" * 16), known)
    assert held.contact == amending(consent=False).contact
    after = accepted(held, known, blocks=True)
    assert after == replace(known, fingerprint=held.fingerprint, blocked=True, callable=False, imprint=b"")
    assert not accepted(held, known).blocked


def test_the_flag_that_a_late_withdrawal_leaves_as_granted_is_remembered():
    """As behind one that comes in its order."""
    known = replace(amended(), callable=True)
    held = merged(late(amending(version=2, consent=False), known), replace(CONTACT, consent=False), known, LIST)
    assert accepted(held, known).granted is Flag.DO_NOT_CALL


def test_a_late_withdrawal_that_is_carried_out_as_a_delete_is_remembered_as_one():
    """With the order of what came before it, on no do-not-call list, and with no flag as granted."""
    known = amended()
    held = replace(as_delete(late(amending(version=2, consent=False), known), LIST), granted=Flag.DO_NOT_CALL)
    after = accepted(held, known, blocks=True)
    assert after == replace(known, fingerprint=DELETED, deleted=True, callable=False)


def test_a_late_precaution_leaves_the_order_as_it_is():
    """It is none for a flag that was told since, and nothing at all where it is known already."""
    known = accepted(amending(version=4, offset=12, consent=True), amended())
    held = late(precaution("c-1", 7, LIST), known)
    assert held.fingerprint == fingerprints.unclear(LIST, Flags(consent=False, do_not_call=True))
    after = accepted(held, known)
    assert after == replace(known, fingerprint=held.fingerprint, callable=False)
    assert judged(precaution("c-1", 7, LIST), after, LIST)[1] is Verdict.STALE


def test_what_is_late_for_the_stream_is_not_for_a_file():
    """Its offset says nothing against those of a file, and so the withdrawal applies."""
    known = amended(accepted(change(version=None, offset=5), None))
    held = replace(amending(version=None, offset=4, consent=False), replayed=True)
    assert judged(held, known, LIST)[1] is Verdict.STALE
    known = replace(from_a_file(known), offset=known.offset)  # the stream went on
    assert judged(held, known, LIST)[1] is Verdict.CHANGED


def test_a_later_row_that_says_the_same_tells_all():
    """It was told behind what the stream may send late."""
    known = replace(accepted(change(version=2, offset=5), None), do_not_call_at=amended().do_not_call_at)
    row = change(version=None, offset=FROM_A_FILE, at=2000)
    after = advanced(row, known)
    assert after is not None
    assert (after.consent_at, after.do_not_call_at) == (None, None)


def test_a_delete_leaves_no_place():
    """Also that in whose form a withdrawal by one flag is carried out: who comes again comes whole."""
    after = accepted(as_delete(amending(version=4, consent=False), LIST), amended())
    assert (after.consent_at, after.do_not_call_at) == (None, None)


# ---- epochs of a source's log ----

EPOCHS = {
    # of the change; then what becomes of it as a grant and as a withdrawal, where epoch 1 is known
    "the same, higher position": ({"epoch": 1, "version": 6, "at": OLD}, "changed", "changed"),
    "the same, lower position, told again": ({"epoch": 1, "version": 4, "at": OLD, "offset": 11}, "stale", "stale"),
    "the same, lower position, later": ({"epoch": 1, "version": 4, "at": NEW}, "stale", "changed"),
    "newer, lower position": ({"epoch": 2, "version": 1, "at": NEW}, "changed", "changed"),
    "newer, higher position": ({"epoch": 2, "version": 9, "at": NEW}, "changed", "changed"),
    "newer, but not later": ({"epoch": 2, "version": 9}, "stale", "changed"),
    "newer, read by a snapshot": ({"epoch": 2, "version": 9, "at": NEW, "read": True}, "stale", "changed"),
    "older, before": ({"epoch": 0, "version": 9, "at": OLD, "offset": 9}, "stale", "stale"),
    "older, before, later by another clock": ({"epoch": 0, "version": 9, "at": NEW, "offset": 9}, "stale", "stale"),
    "older, behind": ({"epoch": 0, "version": 9, "at": OLD, "offset": 11}, "stale", "changed"),
    "older, behind, later": ({"epoch": 0, "version": 9, "at": NEW, "offset": 11}, "changed", "changed"),
    "older, behind, read": ({"epoch": 0, "version": 9, "at": NEW, "offset": 11, "read": True}, "stale", "changed"),
    "a row of a file, which is in no log": ({"epoch": 0, "version": 6, "offset": FROM_A_FILE}, "changed", "changed"),
    "a row of a file, lower": ({"epoch": 0, "version": 4, "at": OLD, "offset": FROM_A_FILE}, "stale", "stale"),
}


def of_epoch(epoch, *, read=False, **fields):
    """The change of an epoch, as the pipeline marks it."""
    made = change(**fields)
    return replace(made, positional=made.withdrawal, epoch=epoch, read=read)


@pytest.mark.parametrize(("told_", "grant", "withdrawal"), EPOCHS.values(), ids=EPOCHS)
def test_changes_of_other_epochs(told_, grant, withdrawal):
    """A withdrawal applies unless it certainly is an old one, a grant needs the later time."""
    known = state(epoch=1)
    assert judge(of_epoch(**told_), known) == grant
    assert judge(of_epoch(**told_, consent=False), known) == withdrawal


def test_a_newer_epoch_is_known_from_then_on():
    """Its positions count, be they ever so low; the same content moves there without a request."""
    known = state(version=900)
    after = accepted(of_epoch(1, version=3, at=NEW, offset=11), known)
    assert (after.epoch, after.version, after.versioned) == (1, 3, True)
    assert judge(of_epoch(1, version=4, at=NEW, offset=12, consent=False), after) is Verdict.CHANGED
    assert judge(of_epoch(0, version=901, at=OLD, offset=13, phone="+14155550101"), after) is Verdict.STALE
    same = of_epoch(1, version=3, at=NEW, offset=11)
    moved = advanced(same, state(version=900, fingerprint=same.fingerprint))
    assert moved is not None
    assert (moved.epoch, moved.version) == (1, 3)
    assert advanced(replace(same, epoch=0, version=900), moved) is None


def test_a_withdrawal_of_a_newer_epoch_went_back_in_no_log():
    """Its lower position is one of the new log: the old one's says nothing of it, and is not kept."""
    after = accepted(of_epoch(1, version=3, at=NEW, offset=11, consent=False), state(version=900))
    assert (after.epoch, after.version) == (1, 3)
    assert judge(of_epoch(1, version=4, at=NEW, offset=12), after) is Verdict.CHANGED


def test_a_withdrawal_of_an_older_epoch_leaves_what_is_known_of_the_newer_one():
    """The grant that came after it is told again behind it and applies; what came before both is older than both."""
    granted = of_epoch(1, version=3, at=NEW, offset=11)
    known = accepted(granted, state(version=900))
    after = accepted(of_epoch(0, version=899, at=OLD, offset=12, consent=False), known)
    assert (after.epoch, after.version, after.versioned, after.occurred_at) == (1, 3, True, NEW)
    assert judge(replace(granted, offset=13), after) is Verdict.CHANGED
    assert judge(of_epoch(1, version=2, at=NEW, offset=13), after) is Verdict.STALE
    assert judge(of_epoch(0, version=898, at=OLD - 1, offset=13), after) is Verdict.STALE


def test_a_grant_of_a_newer_epoch_lets_no_number_off_the_do_not_call_list():
    """Versions of two logs prove nothing."""
    withdrew = accepted(of_epoch(0, version=900, consent=False), None, blocks=True)
    assert judge(of_epoch(1, version=3, at=NEW), withdrew) is Verdict.CHANGED
    assert not releases(of_epoch(1, version=3, at=NEW), withdrew)
    assert releases(of_epoch(0, version=901, at=NEW), withdrew)


def test_a_file_keeps_holding_back_an_older_grant_of_a_newer_epoch():
    """A withdrawal that is no later than the file applies, and does not begin the order of the partition."""
    known = of_file(version=900, consent=False)
    after = accepted(of_epoch(1, version=3, at=1000, offset=3, consent=False, phone="+14155550101"), known)
    assert judge(of_epoch(1, version=4, at=1000, offset=4), after) is Verdict.STALE
    assert judge(of_epoch(1, version=5, at=1001, offset=5), after) is Verdict.CHANGED


# ---- whether a contact is callable, and what a new id makes of that ----

GRANTED, WITHDREW = state(version=1), replace(state(version=1), callable=False)


def whole_of(made, **fields):
    """A part, merged with the contact that Genesys has."""
    return merged(made, made.contact.onto(replace(CONTACT, **fields)), None, LIST)


CALLABLE = {
    "a grant": (change(), WITHDREW, True),
    "a withdrawal": (change(consent=False), None, False),
    "do-not-call": (change(do_not_call=True), None, False),
    "a suppression": (suppressed(), None, False),
    "a precaution": (precaution("c-1", 20, LIST), replace(state(), callable=True), False),
    "a first precaution": (precaution("c-1", 20, LIST), None, False),
    "a delete keeps it": (change(kind=ChangeType.DELETE), WITHDREW, False),
    "a delete keeps that it is callable": (change(kind=ChangeType.DELETE), replace(state(), callable=True), True),
    "a delete of nobody known": (change(kind=ChangeType.DELETE), None, None),
    "a delete in place of a withdrawal": (replace(change(kind=ChangeType.DELETE), withdrew=True), GRANTED, False),
    "a withdrawal as a delete": (as_delete(change(consent=False), LIST), GRANTED, False),
    "a delete as a delete": (as_delete(change(kind=ChangeType.DELETE), LIST), GRANTED, None),
    "a part of one who withdrew": (whole_of(part(phone="+14155550101"), consent=False), WITHDREW, False),
    "a part of one who did not": (whole_of(part(phone="+14155550101")), GRANTED, True),
    "a part that is not merged yet": (part(phone="+14155550101"), WITHDREW, False),
    "a part that grants half": (part(consent=True), WITHDREW, False),
    "a part that grants": (part(consent=True, do_not_call=False), WITHDREW, True),
}


@pytest.mark.parametrize(("made", "before", "expected"), CALLABLE.values(), ids=CALLABLE)
def test_the_state_tells_whether_the_contact_is_callable(made, before, expected):
    """As far as it is known; what an earlier release wrote does not tell."""
    assert accepted(made, before).callable is expected


def test_a_part_of_a_contact_that_is_held_back_leaves_it_so():
    """As a precaution it is not callable, whatever its flags say."""
    held = accepted(precaution("c-1", 9, LIST), accepted(change(), None))
    made = merged(part(version=6, phone="+14155550101"), CONTACT, held, LIST)
    assert accepted(made, held).callable is False


def renamed(**fields):
    """The change of a contact that was `c-0` before."""
    return to_change(replace(EVENT, former="c-0"), replace(CONTACT, **fields), 10, LIST)


def test_who_was_not_callable_is_not_under_a_new_id():
    """The consent of the row is not enough; what comes later, and says the same, is."""
    made = under_new_id(renamed(), WITHDREW, LIST)
    assert made.contact == replace(CONTACT, consent=False)
    assert (made.withdrawal, made.fingerprint) == (True, change(consent=False).fingerprint)
    assert judge(change(version=6), accepted(made, None)) is Verdict.CHANGED


@pytest.mark.parametrize("former", [None, GRANTED, replace(state(), callable=True)])
def test_who_was_callable_or_not_known_has_the_consent_of_the_row(former):
    """What an earlier release wrote does not tell, and a row that withdraws does so in any case."""
    assert renamed().former == hashlib.sha256(b"c-0").digest()
    assert under_new_id(renamed(), former, LIST) == change()
    assert under_new_id(renamed(consent=False), WITHDREW, LIST) == change(consent=False)


@pytest.mark.parametrize("flags", [{"consent": False}, {"do_not_call": True}, {"consent": False, "do_not_call": True}])
def test_suppressions_by_other_flags_are_told_apart(flags):
    """A rejected record that withdraws the one flag is no repeat of one that withdrew the other."""
    others = [{"consent": False}, {"do_not_call": True}, {"consent": False, "do_not_call": True}]
    event = replace(EVENT, consent=None, do_not_call=None, version=None)

    def withdrawn(offset, told):
        change = suppression(replace(event, **told), offset, LIST, "")
        assert change is not None
        return change

    state = accepted(withdrawn(3, flags), None)
    verdicts = [judge(withdrawn(4, other), state) for other in others]
    assert verdicts == [Verdict.DUPLICATE if other == flags else Verdict.CHANGED for other in others]


def test_a_repeat_of_another_epoch_sets_no_time_back():
    """The grant that was older than the withdrawal would else be news, once all is told again."""
    withdrawn = accepted(change(version=100, consent=False, offset=11), None)
    repeat = replace(change(version=5, consent=False, at=900, offset=50), epoch=1)
    assert judge(repeat, withdrawn) is Verdict.DUPLICATE
    after = advanced(repeat, withdrawn)
    assert after is not None
    grant = change(version=99, at=950, offset=60)
    assert [judge(grant, each) for each in (withdrawn, after)] == [Verdict.STALE, Verdict.STALE]


@pytest.mark.parametrize("before", [None, accepted(change(version=5, consent=False), None)])
def test_of_what_was_given_up_nothing_is_known(before):
    """Neither whether it is there nor who may be called; but what was older stays older, and all else is sent."""
    after = given_up(change(version=6), before, LIST)
    assert (after.deleted, after.callable, after.imprint) == (False, None, b"")
    assert before is not None or judge(change(version=None, at=0), after) is Verdict.CHANGED
    judged = [judge(change(version=version, at=version), after) for version in (4, 5, 6)]
    assert judged == [Verdict.CHANGED if before is None else Verdict.STALE, Verdict.CHANGED, Verdict.CHANGED]
    assert judge(change(version=None, at=1, consent=False), after) is Verdict.CHANGED


@pytest.mark.parametrize("before", list(Withdrawn))
def test_what_is_withdrawn_stays_so_behind_a_suppression_alone(before):
    """A delete leaves nothing of a contact to withdraw, and whoever tells the whole contact tells both flags."""
    suppression_ = suppressed()
    assert withdrawn(suppression_, LIST, before) == before | Withdrawn.CONSENT
    assert withdrawn(as_delete(suppression_, LIST), LIST, before) == Withdrawn.CONTACT
    assert withdrawn(change(), LIST, before) == Withdrawn.NOTHING
    assert withdrawn(change(consent=False), LIST, before) == Withdrawn.CONSENT
    assert withdrawn(change(consent=False, do_not_call=True), LIST, before) == Withdrawn.CONSENT | Withdrawn.DO_NOT_CALL


def test_a_suppression_withdraws_what_it_takes_the_place_of_withdrew():
    """It is the one that a record would make which tells all of it; any other change stays as it is."""
    told = replace(EVENT, consent=False, do_not_call=UNCHANGED, partial=True)
    by_consent = suppression(told, 3, LIST, "+15550100")
    by_both = suppression(replace(told, do_not_call=True), 3, LIST, "+15550100")
    perhaps = suppression(replace(told, do_not_call="no"), 3, LIST, "+15550100")
    assert perhaps is not None
    assert by_consent is not None
    assert by_both is not None
    assert withdrawing(by_consent, Withdrawn.DO_NOT_CALL, LIST) == by_both
    assert withdrawing(by_both, Withdrawn.NOTHING, LIST) == by_both
    assert withdrawing(by_consent, Withdrawn.CONSENT | Withdrawn.CONTACT, LIST) == by_consent
    assert withdrawing(by_consent, withdrawn(perhaps, LIST), LIST) == perhaps
    assert withdrawing(change(), Withdrawn.CONSENT | Withdrawn.DO_NOT_CALL, LIST) == change()


def test_no_row_of_a_file_was_committed_since_a_snapshot():
    """Its version is none of the log: it is older, whatever its time."""
    read = replace(state(version=5, at=1000), concurrent=True)
    assert judge(change(version=4, at=2000, offset=read.offset + 1), read) is Verdict.CHANGED
    assert judge(change(version=4, at=2000, offset=FROM_A_FILE), read) is Verdict.STALE


PHONE_ALONE = replace(change(version=7), contact=Amendment("c-1", "+14155550199", UNCHANGED, UNCHANGED, UNCHANGED, {}))


def test_who_is_not_callable_stays_so_when_a_change_without_flags_was_given_up():
    """It lets nobody call, whether or not it was applied."""
    precaution_ = replace(accepted(change(), None), fingerprint=fingerprints.undecoded(LIST), callable=False)
    assert given_up(PHONE_ALONE, precaution_, LIST) == precaution_
    withdrawn_ = accepted(change(consent=False), None)
    assert given_up(PHONE_ALONE, withdrawn_, LIST).callable is False
    assert given_up(PHONE_ALONE, accepted(change(), None), LIST).callable is None


@pytest.mark.parametrize("blocked", [False, True])
def test_a_number_stays_known_as_blocked_when_a_grant_was_given_up(blocked):
    """The next one that is provably newer takes it off the list."""
    withdrawn_ = replace(accepted(change(consent=False), None), blocked=blocked)
    after = given_up(change(version=6), withdrawn_, LIST)
    assert releases(change(version=7), after) is blocked


BY_CONSENT = accepted(change(consent=False), None)
BY_BOTH = accepted(change(consent=False, do_not_call=True), None)
LETS_CALL = accepted(change(), None)


def suppressed_by(flag, value):
    """The suppression that a rejected event asks for which tells one flag."""
    made = suppression(replace(EVENT, **{"consent": UNCHANGED, "do_not_call": UNCHANGED, flag: value}), 10, LIST, "")
    assert made is not None
    return made


def onto(before, made, *, blind=False, **shown):
    """The state after an amendment of a contact that Genesys shows with these flags."""
    return accepted(merged(made, made.contact.onto(replace(CONTACT, **shown)), before, LIST, blind=blind), before)


BY_DO_NOT_CALL = onto(LETS_CALL, part(do_not_call=True))
KNOWN_AS_GRANTED = {
    "a whole contact that withdraws consent": (BY_CONSENT, Flag.DO_NOT_CALL),
    "a whole contact that withdraws both": (BY_BOTH, None),
    "a whole contact that grants": (LETS_CALL, None),
    "a new id of who was not callable": (accepted(under_new_id(renamed(), WITHDREW, LIST), None), Flag.DO_NOT_CALL),
    "do-not-call of who consents": (BY_DO_NOT_CALL, Flag.CONSENT),
    "a suppression of who was callable": (onto(LETS_CALL, suppressed_by("do_not_call", True)), Flag.CONSENT),
    "an unreadable flag of who was callable": (onto(LETS_CALL, suppressed_by("consent", "no")), Flag.DO_NOT_CALL),
    "the same told again": (onto(BY_DO_NOT_CALL, part(do_not_call=True), do_not_call=True), Flag.CONSENT),
    "a phone number": (onto(BY_CONSENT, part(phone="+14155550101"), consent=False), Flag.DO_NOT_CALL),
    "the other flag too": (onto(BY_CONSENT, part(do_not_call=True), consent=False), None),
    "one of both back": (onto(BY_BOTH, part(consent=True), consent=False, do_not_call=True), Flag.CONSENT),
    "what Genesys shows of nobody known": (onto(None, part(do_not_call=True)), None),
    "what somebody set in Genesys": (onto(BY_BOTH, part(consent=False)), None),
    "what somebody withdrew in Genesys": (onto(BY_CONSENT, part(consent=False), do_not_call=True), None),
    "what an older read may hide": (onto(BY_BOTH, part(consent=False), blind=True), None),
    "a grant behind which it may": (onto(BY_BOTH, part(consent=True), blind=True), None),
    "an undecodable record": (accepted(precaution("c-1", 20, LIST), BY_CONSENT), None),
    "a delete": (accepted(change(kind=ChangeType.DELETE, consent=False), BY_CONSENT), None),
    "a withdrawal as a delete": (accepted(as_delete(change(consent=False), LIST), BY_CONSENT), None),
    "a change that was given up": (given_up(part(phone="+14155550101"), BY_CONSENT, LIST), None),
    "content that nobody knows": (forgotten(BY_CONSENT, LIST), None),
}


@pytest.mark.parametrize(("after", "granted"), KNOWN_AS_GRANTED.values(), ids=KNOWN_AS_GRANTED)
def test_the_state_tells_which_flag_the_crm_granted(after, granted):
    """By what the CRM told, and not by what Genesys shows; of who is callable both are, and nobody has to say so."""
    assert after.granted is granted
    assert state_bytes.decode(state_bytes.encode(after, SETTLED_MS)) == after


READS = {
    "the flag that is not told is known as granted": (
        BY_CONSENT,
        part(consent=False),
        {"phone": "+14155550101"},
        False,
    ),
    "it is, of two": (BY_DO_NOT_CALL, suppressed_by("do_not_call", True), {"phone": "+14155550101"}, False),
    "it was withdrawn": (BY_BOTH, part(consent=False), {}, True),
    "it alone was withdrawn": (BY_DO_NOT_CALL, part(consent=False), {}, True),
    "it is shown as withdrawn": (BY_BOTH, part(consent=False), {"do_not_call": True}, False),
    "both are told": (BY_BOTH, part(consent=False, do_not_call=False), {}, False),
    "it is granted, and the other is shown as withdrawn": (BY_BOTH, part(consent=True), {"do_not_call": True}, False),
    "it is granted, and the other was withdrawn": (BY_BOTH, part(consent=True), {}, True),
    "none is told, and one was granted": (BY_CONSENT, part(email=""), {}, True),
    "none is told, and the other is shown": (BY_CONSENT, part(email=""), {"consent": False}, False),
    "nothing is known": (forgotten(BY_CONSENT, LIST), part(consent=False), {}, True),
    "an earlier release wrote what is known": (WITHDREW, part(consent=False), {}, True),
    "who was callable withdrew nothing": (LETS_CALL, part(consent=False), {"phone": "+14155550101"}, False),
}


@pytest.mark.parametrize(("before", "made", "shown", "hides"), READS.values(), ids=READS)
def test_what_an_older_read_may_hide_is_not_known(before, made, shown, hides):
    """Then nobody is to call, and only who tells both flags lets anybody; otherwise the state is of what was made."""
    after = onto(before, made, blind=True, **shown)
    assert (after.fingerprint == fingerprints.undecoded(LIST)) is hides
    assert not (hides and after.callable)


def test_who_stays_withdrawn_has_the_content_that_genesys_shows_as_withdrawn():
    """What says the same is a duplicate then; where Genesys shows flags that let somebody call, nothing is."""
    made, whole = part(version=6, phone="+14155550101"), change(version=7, consent=False, phone="+14155550101")
    assert judge(whole, onto(BY_CONSENT, made, consent=False)) is Verdict.DUPLICATE
    assert judge(whole, onto(BY_CONSENT, made)) is Verdict.CHANGED


def test_what_was_sent_as_not_callable_stays_so_whatever_it_comes_to():
    """A grant, too: `withdrew` says that nobody is to call, whatever the flags say."""
    made = replace(part(consent=True, do_not_call=False), withdrew=True)
    assert onto(BY_CONSENT, made).callable is False
