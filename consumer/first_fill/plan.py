"""What becomes of each row, decided of the whole file before anything is done.

A row is judged as the stream's changes are: against the state of its contact, which is what the store says, or what
the rows before it would make of that. Of the rows of a contact that are to be sent the last one stays chosen, the
others are superseded. Of a rejected row nothing counts but what it withdraws, so if that one stays chosen it withdraws
what they did too. What is decided lies in the scratch, so that memory does not grow with the file: for each chunk of
rows a byte a row, for each contact its choice.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import IntEnum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from consumer.command_ports import ContactUpload, Scratch
from consumer.core import changes, dedupe, state_bytes
from consumer.core.changes import Withdrawn
from consumer.first_fill.candidates import Candidate, Candidates
from consumer.model import Change, Contact, FileRow, Operation, Outcome, State, TopicPartition, Verdict
from consumer.ports import Store


class Fate(IntEnum):
    """What a row is, as far as it can be told from the rows up to it."""

    REJECTED = 0
    STALE = 1
    DUPLICATE = 2
    CHOSEN = 3
    """It is to be sent, unless a later row of its contact is: then it is superseded."""

    SETTLED = 4
    """A load before this one has settled it."""


class Way(IntEnum):
    """How a change reaches Genesys."""

    UPLOAD = 0
    REQUEST = 1
    WITHDRAWAL = 2
    """By request, before all others."""


class Result(Struct, frozen=True, array_like=True):
    """What came of a change that went by request."""

    outcome: Outcome
    operation: Operation | None
    reasons: tuple[str, ...]
    detail: str
    batch_id: str | None
    trace_id: str | None


class Choice(Struct, frozen=True, array_like=True):
    """The row that stands for its contact.

    Attributes:
        row: Its number.
        way: How its change reaches Genesys.
        known: Something was delivered of the contact before.
        size: Bytes of its line in the file to be uploaded; 0 when it goes by request.
        state: Of the contact once Genesys accepts it, encoded; None when nothing is to be remembered.
        withdrawn: By the row, and by those whose place it took.
        result: What came of it, once that is known.
    """

    row: int
    way: Way
    known: bool
    size: int
    state: bytes | None
    withdrawn: Withdrawn
    result: Result | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Choice).decode


class Plan:
    """The decisions of one load.

    Args:
        candidates: Make candidates of rows.
        scratch: Where decisions lie.
        store: What was delivered.
        uploads: Know what a file can say.
        partition_of: Where the state of an external id is.
        contact_list_id: Part of each fingerprint.
        settled_rows: So many rows are settled already, from the first on.

    Attributes:
        rows: Rows decided.
        ways: Contacts that go each way.
        upload_bytes: Size of all lines to be uploaded.
    """

    def __init__(
        self,
        *,
        candidates: Candidates,
        scratch: Scratch,
        store: Store,
        uploads: ContactUpload,
        partition_of: Callable[[str], TopicPartition],
        contact_list_id: str,
        settled_rows: int,
    ) -> None:
        self._candidates = candidates
        self._scratch = scratch
        self._store = store
        self._uploads = uploads
        self._partition_of = partition_of
        self._contact_list_id = contact_list_id
        self._settled_rows = settled_rows
        self.rows = 0
        self.ways = dict.fromkeys(Way, 0)
        self.upload_bytes = 0

    def decide(self, chunk: int, rows: Sequence[FileRow]) -> None:
        """Decide of the next chunk of rows."""
        settled = sum(row.number <= self._settled_rows for row in rows)
        candidates = self._candidates.of(rows[settled:])
        choices = self._choices(candidates)
        states = self._delivered(candidates, choices)
        before = dict(choices)
        fates = bytes([Fate.SETTLED] * settled + [self._fate(each, choices, states) for each in candidates])
        changed = [(key, _encode(choice)) for key, choice in choices.items() if before.get(key) is not choice]
        self._scratch.write([(_key_of(chunk), fates), *changed])
        self.rows += len(rows)

    def chosen(self, chunk: int, rows: Sequence[FileRow], ways: Collection[Way]) -> list[tuple[Candidate, Choice]]:
        """The rows of a chunk that go to Genesys by one of these ways."""
        candidates = self._candidates.of([row for row, fate in self._told(chunk, rows) if fate is Fate.CHOSEN])
        choices = self._choices(candidates)
        standing = ((candidate, _standing(candidate, choices)) for candidate in candidates)
        return [
            (self._joined(candidate, choice), choice)
            for candidate, choice in standing
            if choice is not None and choice.way in ways
        ]

    def fates(self, chunk: int, rows: Sequence[FileRow]) -> list[tuple[Candidate, Fate, Choice | None]]:
        """The rows of a chunk that are to be settled, each with its choice if it is the one that stands."""
        told = [(row, fate) for row, fate in self._told(chunk, rows) if fate is not Fate.SETTLED]
        candidates = self._candidates.of([row for row, _ in told])
        choices = self._choices(candidates)
        return [
            (candidate, fate, _standing(candidate, choices))
            for candidate, (_, fate) in zip(candidates, told, strict=True)
        ]

    def _told(self, chunk: int, rows: Sequence[FileRow]) -> list[tuple[FileRow, Fate]]:
        """Rows with what was decided of them."""
        (fates,) = self._scratch.read([_key_of(chunk)])
        if fates is None:
            raise AssertionError("a chunk is read that was not decided")
        return list(zip(rows, map(Fate, fates), strict=True))

    def resolve(self, results: Mapping[bytes, tuple[Choice, Result, State | None]]) -> None:
        """Take down what came of changes that went by request, by identity."""
        self._scratch.write(
            [
                (identity, _encode(replace(choice, result=result, state=_encoded(state))))
                for identity, (choice, result, state) in results.items()
            ]
        )

    # -- what is known

    def _choices(self, candidates: Sequence[Candidate]) -> dict[bytes, Choice]:
        identities = list({each.change.identity for each in candidates if each.change})
        found = zip(identities, self._scratch.read(identities), strict=True)
        return {identity: _decode(raw) for identity, raw in found if raw is not None}

    def _delivered(self, candidates: Sequence[Candidate], choices: Mapping[bytes, Choice]) -> dict[bytes, State]:
        """States in the stores, of contacts of which no row was chosen so far."""
        wanted: dict[TopicPartition, list[bytes]] = {}
        for candidate in candidates:
            if candidate.change and candidate.external_id and candidate.change.identity not in choices:
                wanted.setdefault(self._partition_of(candidate.external_id), []).append(candidate.change.identity)
        return {
            identity: state_bytes.decode(raw)
            for partition, identities in wanted.items()
            for identity, raw in zip(identities, self._store.read(partition, identities), strict=True)
            if raw is not None
        }

    # -- judging

    def _joined(self, candidate: Candidate, choice: Choice) -> Candidate:
        """A candidate that also withdraws what was withdrawn before, if its row tells nothing else."""
        if candidate.change is not None:
            candidate.change = changes.withdrawing(candidate.change, choice.withdrawn, self._contact_list_id)
        return candidate

    def _fate(self, candidate: Candidate, choices: dict[bytes, Choice], states: Mapping[bytes, State]) -> Fate:
        before = choices.get(candidate.change.identity) if candidate.change else None
        change = self._joined(candidate, before).change if before is not None else candidate.change
        if change is None:
            return Fate.REJECTED
        chosen = before.state if before is not None else None
        base = states.get(change.identity) if chosen is None else state_bytes.decode(chosen)
        if base is not None:
            change = replace(change, epoch=base.epoch)  # a row stands in no log
        if chosen is None:
            change, verdict = dedupe.judged(change, base, self._contact_list_id)
        else:
            verdict = dedupe.judge(_in_file(change, candidate), base)
        if not _is_to_be_done(change, base, verdict):
            return Fate.REJECTED if candidate.reasons else _FATES[verdict]
        known = before.known if before else base is not None
        self._choose(candidate, dedupe.accepted(_in_file(change, candidate), base), choices, known=known)
        return Fate.CHOSEN

    def _choose(self, candidate: Candidate, state: State, choices: dict[bytes, Choice], *, known: bool) -> None:
        change = candidate.change
        if change is None:
            raise AssertionError("only a change is chosen")
        withdrawn = Withdrawn.NOTHING
        if before := choices.get(change.identity):
            self._count(before, -1)
            withdrawn = before.withdrawn
        line = None
        if isinstance(change.contact, Contact) and not known:  # a rejected withdrawal tells only the flags
            line = self._uploads.encode(change.contact)
        way = Way.UPLOAD if line else Way.WITHDRAWAL if change.withdrawal else Way.REQUEST
        withdrawn = changes.withdrawn(change, self._contact_list_id, withdrawn)
        choice = Choice(candidate.row.number, way, known, len(line or b""), _encoded(state), withdrawn)
        choices[change.identity] = choice
        self._count(choice, 1)

    def _count(self, choice: Choice, sign: int) -> None:
        self.ways[choice.way] += sign
        self.upload_bytes += sign * choice.size


_FATES = {Verdict.STALE: Fate.STALE, Verdict.DUPLICATE: Fate.DUPLICATE}


def _in_file(change: Change, candidate: Candidate) -> Change:
    """The change of a row by its place among rows, whose order counts."""
    return replace(change, offset=candidate.row.number)


def _is_to_be_done(change: Change, base: State | None, verdict: Verdict) -> bool:
    """Whether there is anything to send or to remember.

    A repeat may bring a newer version, or be a suppression whose number is not on the do-not-call list yet.
    """
    if verdict is Verdict.DUPLICATE and base is not None:
        return change.number != "" or dedupe.advanced(change, base) is not None
    return verdict is not Verdict.STALE


def _standing(candidate: Candidate, choices: Mapping[bytes, Choice]) -> Choice | None:
    """The choice of a contact, if this row is the chosen one."""
    choice = choices.get(candidate.change.identity) if candidate.change else None
    return choice if choice is not None and choice.row == candidate.row.number else None


def _encoded(state: State | None) -> bytes | None:
    return None if state is None else state_bytes.encode(state, 0)


def _key_of(chunk: int) -> bytes:
    """Shorter than an identity, so that the two are never mixed up."""
    return b"chunk" + chunk.to_bytes(8)
