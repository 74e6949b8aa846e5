"""A row of PostgreSQL in random histories of transactions and snapshots, whose topic is read again here and there.

Nobody is to be called who has denied it last, as far as the topic was ever read, however it is read again.
"""

from random import Random
from typing import NamedTuple

import pytest

from consumer.core import dedupe, fingerprints
from consumer.core.epochs import Epochs
from consumer.model import Change, Contact, Operation, State, Verdict

LIST = "list"


class Told(NamedTuple):
    """A record of the row: what a snapshot read of it, or a change that a transaction made and committed."""

    read: bool
    lsn: int
    commit: int
    at: int
    granted: bool


class Log:
    """The database's log and clock, which go on by chance, the clock by some milliseconds or more.

    That of the snapshots may be behind.
    """

    def __init__(self, dice: Random, behind: int, least_ms: int) -> None:
        self._dice = dice
        self._behind = behind
        self._least_ms = least_ms
        self._lsn = self._at = 100
        self._granted = dice.random() < 0.5
        self.told: list[Told] = []

    def _goes_on(self) -> int:
        self._at += self._dice.randrange(self._least_ms, 4)
        self._lsn += self._dice.randrange(1, 4)
        return self._lsn

    def transaction(self) -> None:
        """One takes the row's lock, changes it once or twice, and commits; a snapshot may read meanwhile.

        Nobody hears of one that the connector missed, but by a snapshot.
        """
        made = [(self._goes_on(), self._dice.random() < 0.5) for _ in range(self._dice.randrange(1, 3))]
        if self._dice.random() < 0.5:
            self.snapshot()
        commit = self._goes_on()
        if self._dice.random() < 0.8:
            self.told += [Told(read=False, lsn=lsn, commit=commit, at=self._at, granted=each) for lsn, each in made]
        self._granted = made[-1][1]

    def snapshot(self) -> None:
        """It sees what was committed before."""
        lsn = self._goes_on() - 1
        self.told.append(Told(read=True, lsn=lsn, commit=lsn, at=self._at - self._behind, granted=self._granted))


def _change(told: Told, offset: int, epoch: int) -> Change:
    contact = Contact("c-1", "+14155550100", "", told.granted, False, {})  # as the model has them
    return Change(
        Operation.UPSERT,
        contact,
        fingerprints.identity("c-1"),
        fingerprints.fingerprint(contact, LIST),
        told.lsn,
        told.at,
        offset,
        not told.granted,
        positional=not told.granted,
        epoch=epoch,
        read=told.read,
        concurrent=told.read,
    )


class Reader:
    """Judges records of the row as the pipeline does."""

    def __init__(self) -> None:
        self._epochs = Epochs()
        self._state: State | None = None

    def takes(self, told: Told, offset: int) -> bool | None:
        """Whether the contact is callable after a record."""
        self._epochs.follow([(None if told.read else told.commit, told.at, "", False)])
        change = _change(told, offset, self._epochs.of(told.at, ""))
        verdict = dedupe.judge(change, self._state)
        if verdict in {Verdict.NEW, Verdict.CHANGED}:
            self._state = dedupe.accepted(change, self._state)
        elif verdict is Verdict.DUPLICATE and self._state is not None:
            self._state = dedupe.advanced(change, self._state) or self._state
        return None if self._state is None else self._state.callable


def _play(dice: Random, behind: int, least_ms: int) -> None:
    log = Log(dice, behind, least_ms)
    for _ in range(dice.randrange(2, 7)):
        log.transaction()
        if dice.random() < 0.2:
            log.snapshot()
    reader, offset, highest = Reader(), 0, -1
    while offset < len(log.told):
        told = log.told[offset]
        callable_ = reader.takes(told, offset)
        if offset > highest and least_ms and not (behind and told.read):  # else a grant may count as old: no call
            assert callable_ is told.granted
        highest = max(highest, offset)
        assert not (callable_ and not log.told[highest].granted)
        offset = dice.randrange(offset + 1) if dice.random() < 0.2 else offset + 1


@pytest.mark.parametrize(("behind", "least_ms"), [(0, 1), (8, 1), (0, 0)])
def test_who_denied_last_is_not_called_however_the_topic_is_read_again(behind: int, least_ms: int) -> None:
    """Also where the clock of the snapshots is behind that of the commits, or much happens in one millisecond."""
    for seed in range(5000):
        try:
            _play(Random(seed), behind, least_ms)
        except AssertionError as error:
            error.add_note(f"in the history of seed {seed}")
            raise
