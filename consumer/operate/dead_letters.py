"""`dead-letters list` and `dead-letters replay`: what was given up, and another try for it.

Answers for which letters are meant and what is told of them: reasons, positions, times and counts, never what a letter
holds. Reads the dead letter topic, writes through `Replays`; constant memory whatever the topic holds.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import Message

from consumer.adapters.kafka.bounded import BoundedReader, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.messages import headers_of
from consumer.adapters.kafka.replays import Replays, Returned, recall
from consumer.adapters.kafka.topics import partition_counts
from consumer.core import dead_letters
from consumer.core.dead_letters import Letter
from consumer.core.replayed import Replayed
from consumer.errors import Unauthorized
from consumer.model import Headers
from consumer.operate import printing
from consumer.settings import Settings

PORTION_RECORDS, PORTION_BYTES = 500, 5_000_000
"""What goes back in one transaction."""

BY_KEY = -1
"""The partition is chosen by the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which letters are meant.

    Attributes:
        reason: With this first reason; None: any.
        topic: From this source topic; None: any.
        since_ms: Given up at this time or later, milliseconds since the epoch; None: at any time.
        until_ms: Given up before this time; None: at any time.
        limit: At most so many, the oldest first; None: all.
    """

    reason: str | None = None
    topic: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int | None = None

    def means(self, letter: Letter) -> bool:
        """Whether a letter is one of them, the limit aside."""
        return (
            self.reason in {None, letter.reason}
            and self.topic in {None, letter.source.topic}
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


class Found(NamedTuple):
    """A record of the dead letter topic.

    Attributes:
        message: As it stands there.
        headers: All of them.
        letter: What they say; None when it is no dead letter of this program.
    """

    message: Message
    headers: Headers
    letter: Letter | None

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset in the dead letter topic."""
        return self.message.partition() or 0, self.message.offset() or 0


@dataclass(slots=True)
class Group:
    """Letters of one reason and one source topic.

    Attributes:
        letters: How many.
        replayed: How many of them were put back; None where nobody can tell.
        oldest: When the first was given up, milliseconds since the epoch.
        newest: When the last was.
    """

    letters: int = 0
    replayed: int | None = 0
    oldest: int | None = None
    newest: int | None = None

    def add(self, time_ms: int, *, replayed: bool | None) -> None:
        """Count a letter."""
        self.letters += 1
        self.replayed = None if replayed is None or self.replayed is None else self.replayed + replayed
        self.oldest = time_ms if self.oldest is None else min(self.oldest, time_ms)
        self.newest = time_ms if self.newest is None else max(self.newest, time_ms)


@dataclass(slots=True)
class Tally:
    """Letters by reason and source topic."""

    groups: dict[tuple[str, str], Group] = field(default_factory=dict)

    @property
    def letters(self) -> int:
        """All of them."""
        return sum(group.letters for group in self.groups.values())

    def add(self, letter: Letter, *, replayed: bool | None) -> None:
        """Count a letter."""
        key = (letter.reason, letter.source.topic)
        self.groups.setdefault(key, Group()).add(letter.time_ms, replayed=replayed)

    def print_table(self, *, replayed: str = "replayed") -> None:
        """For people; `replayed` is what the number of those that were put back is called."""
        rows = [
            (reason, topic, str(group.letters), _or_unknown(group.replayed), *map(printing.moment, _times(group)))
            for (reason, topic), group in sorted(self.groups.items())
        ]
        printing.table(("reason", "topic", "letters", replayed, "oldest", "newest"), rows)

    def document(self) -> list[dict[str, object]]:
        """For programs."""
        return [
            {
                "reason": reason,
                "topic": topic,
                "letters": group.letters,
                "replayed": group.replayed,
                "oldest": printing.moment(group.oldest),
                "newest": printing.moment(group.newest),
            }
            for (reason, topic), group in sorted(self.groups.items())
        ]


def list_letters(settings: Settings, query: Query, *, records: bool, output: str) -> None:
    """Print which letters there are: a table, and before it a line for each where `records` asks for them.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: There is no dead letter topic, or it may not be read.
    """
    connection = Connection.of(settings)
    replayed, untold = _recalled(connection, settings)
    tally, unreadable = Tally(), 0
    with closing(_read(connection, settings, query)) as letters:
        for found in letters:
            if found.letter is None:
                unreadable += 1
                continue
            was_replayed = None if replayed is None else found.place in replayed
            tally.add(found.letter, replayed=was_replayed)
            if records:
                _print_record(found, found.letter, output, replayed=was_replayed)
            if tally.letters == query.limit:
                break
    unknown = query.topic if query.topic not in {None, *settings.kafka_source_topics} else None
    _print_list(tally, unreadable, untold, unknown, output)


def _recalled(connection: Connection, settings: Settings) -> tuple[Replayed | None, str]:
    """Which letters were replayed; None, and why, where that may not be read: the letters may be all the same."""
    try:
        return recall(connection, settings), ""
    except Unauthorized as error:
        return None, str(error)


def _read(connection: Connection, settings: Settings, query: Query) -> Generator[Found, None, None]:
    """The letters that are meant, and whatever cannot be read; the oldest first, nearly."""
    topic = settings.kafka_dead_letter_topic
    wanted = spans(Admin(connection), topic, query.since_ms)
    with closing(BoundedReader(connection, settings.kafka_group_id, wanted)) as reader:
        for message in reader:
            found = headers_of(message)
            letter = dead_letters.read(found)
            if letter is None or query.means(letter):
                yield Found(message, found, letter)


def _print_record(found: Found, letter: Letter, output: str, *, replayed: bool | None) -> None:
    told = {
        "time": printing.moment(letter.time_ms),
        "source": str(letter.source),
        "reason": letter.reason,
        "attempt": letter.attempt,
        "replayed": replayed,
        "letter": "/".join(map(str, found.place)),
        "detail": letter.detail,
    }
    if output == "json":
        printing.document(told)
    else:
        state = {True: "replayed", False: "open", None: "open or replayed"}[replayed]
        printing.line(
            f"{told['time']}  {letter.source}  {letter.reason}  attempt {letter.attempt}  {state}  {letter.detail}"
        )


def _print_list(tally: Tally, unreadable: int, untold: str, unknown: str | None, output: str) -> None:
    if output == "json":
        why = {"replayedUnknown": untold} if untold else {}
        printing.document({"letters": tally.letters, "unreadable": unreadable, **why, "groups": tally.document()})
        return
    if tally.letters:
        tally.print_table()
    else:
        printing.line("no dead letters" + (f": {unknown} is not in KAFKA_SOURCE_TOPICS either" if unknown else ""))
    if untold:
        printing.line(f"which of them were replayed cannot be told: {untold}")
    if unreadable:
        printing.line(f"{unreadable} records of the topic are not dead letters of this program")


class Treatment(StrEnum):
    """What a replay does with a letter."""

    REPLAYED = "replayed"
    REPLAYED_BEFORE = "replayed_before"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    NO_SOURCE_TOPIC = "no_source_topic"
    UNREADABLE = "unreadable"


_EXPLAINED = {
    Treatment.REPLAYED_BEFORE: "were replayed before",
    Treatment.TOO_MANY_ATTEMPTS: "have had all their attempts (--max-attempts)",
    Treatment.NO_SOURCE_TOPIC: "are of a topic that is not in KAFKA_SOURCE_TOPICS, or does not exist",
    Treatment.UNREADABLE: "are not dead letters of this program",
}


class Replay:
    """Puts letters back on their source topics.

    Args:
        settings: Topics and group.
        query: Which letters; the limit counts those that are put back.
        max_attempts: A letter that was replayed so often is left out.
        dry_run: Only tell what would be done.
    """

    def __init__(self, settings: Settings, query: Query, *, max_attempts: int, dry_run: bool) -> None:
        self._settings = settings
        self._query = query
        self._max_attempts = max_attempts
        self._connection = Connection.of(settings)
        self._sources: dict[str, int] = {}
        self._replays = None if dry_run else Replays(self._connection, settings)
        self._replayed = Replayed("")
        self._portion: list[Returned] = []
        self._bytes = 0
        self._tally = Tally()
        self._treatments: Counter[Treatment] = Counter()

    def run(self) -> None:
        """Replay, portion by portion.

        Raises:
            SourceUnavailable: The brokers do not answer: the next replay goes on where this one ended.
            FatalError: They refuse, or there is no dead letter topic.
        """
        spans(Admin(self._connection), self._settings.kafka_dead_letter_topic)  # where there is none nothing is made
        if self._replays is not None:
            self._replays.open()  # before the marks are read: whoever wrote some is locked out now
        self._replayed = recall(self._connection, self._settings)
        self._sources = partition_counts(self._connection, self._settings.kafka_source_topics)
        with closing(_read(self._connection, self._settings, self._query)) as letters:
            for found in letters:
                self._take(found)
                if self._treatments[Treatment.REPLAYED] == self._query.limit:
                    break
        self._put_back()

    def print_result(self, output: str) -> None:
        """Say what was done, or would be."""
        skipped = {treatment.value: self._treatments[treatment] for treatment in _EXPLAINED}
        count = self._treatments[Treatment.REPLAYED]
        if output == "json":
            result = {"dryRun": self._replays is None, "replayed": count, "skipped": skipped}
            printing.document({**result, "groups": self._tally.document()})
            return
        letters, were = ("dead letter", "was") if count == 1 else ("dead letters", "were")
        printing.line(f"{count} {letters} {were if self._replays is not None else 'would be'} replayed")
        if count:
            self._tally.print_table(replayed="replayed" if self._replays is not None else "would be")
        for treatment, text in _EXPLAINED.items():
            if self._treatments[treatment]:
                printing.line(f"{self._treatments[treatment]} left out: they {text}")

    def _take(self, found: Found) -> None:
        treatment = self._treatment(found)
        self._treatments[treatment] += 1
        if treatment is Treatment.REPLAYED and found.letter is not None:
            self._tally.add(found.letter, replayed=True)
            self._replayed.add(*found.place)
            self._add(self._returned(found, found.letter))

    def _treatment(self, found: Found) -> Treatment:
        letter = found.letter
        if letter is None:
            return Treatment.UNREADABLE
        if found.place in self._replayed:
            return Treatment.REPLAYED_BEFORE
        if letter.source.topic not in self._sources:
            return Treatment.NO_SOURCE_TOPIC
        return Treatment.TOO_MANY_ATTEMPTS if letter.attempt >= self._max_attempts else Treatment.REPLAYED

    def _returned(self, found: Found, letter: Letter) -> Returned:
        topic, partition, _ = letter.source
        return Returned(
            topic,
            partition if partition < self._sources[topic] else BY_KEY,
            found.message.key(),
            found.message.value(),
            dead_letters.replayed(found.headers, letter),
        )

    def _add(self, record: Returned) -> None:
        self._portion.append(record)
        self._bytes += len(record.value or b"")
        if len(self._portion) >= PORTION_RECORDS or self._bytes >= PORTION_BYTES:
            self._put_back()

    def _put_back(self) -> None:
        if self._replays is not None and self._portion:
            self._replays.put_back(self._portion, self._replayed.take_changes())
        self._portion, self._bytes = [], 0


def _times(group: Group) -> tuple[int | None, int | None]:
    return group.oldest, group.newest


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else str(count)
