"""`dead-letters replay`: another try for what was given up.

Answers for which letters go back, and for what is told of those that do not. Reads the dead letter topic, writes
through `Replays`; constant memory whatever the topic holds.
"""

from collections import Counter
from contextlib import closing
from enum import StrEnum

from consumer.adapters.kafka.bounded import spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.replays import Replays, Returned, doubt, recall
from consumer.adapters.kafka.topics import partition_counts
from consumer.core import dead_letters
from consumer.core.dead_letters import Letter
from consumer.core.replayed import Replayed
from consumer.errors import FatalError
from consumer.operate import printing
from consumer.operate.dead_letters import Found, Query, Tally, read
from consumer.settings import Settings

PORTION_RECORDS, PORTION_BYTES = 500, 5_000_000
"""What goes back in one transaction."""

BY_KEY = -1
"""The partition is chosen by the key."""


class Treatment(StrEnum):
    """What a replay does with a letter."""

    REPLAYED = "replayed"
    REPLAYED_BEFORE = "replayed_before"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    NO_SOURCE_TOPIC = "no_source_topic"
    UNREADABLE = "unreadable"


_EXPLAINED = {
    Treatment.REPLAYED_BEFORE: "replayed before",
    Treatment.TOO_MANY_ATTEMPTS: "no attempts left (--max-attempts)",
    Treatment.NO_SOURCE_TOPIC: "of a topic that is not in KAFKA_SOURCE_TOPICS, or does not exist",
    Treatment.UNREADABLE: "no dead letters of this program",
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
            FatalError: They refuse, or there is no dead letter topic, or no such group.
        """
        spans(Admin(self._connection), self._settings.kafka_dead_letter_topic)  # where there is none nothing is made
        if why := doubt(self._connection, self._settings):
            raise FatalError(why)
        if self._replays is not None:
            self._replays.open()  # before the marks are read: whoever wrote some is locked out now
        self._replayed = recall(self._connection, self._settings)
        self._sources = partition_counts(self._connection, self._settings.kafka_source_topics)
        with closing(read(self._connection, self._settings, self._query)) as letters:
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
                printing.line(f"{self._treatments[treatment]} left out: {text}")

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
