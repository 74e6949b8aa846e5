"""Which dead letters are meant, and how many there are, for `dead-letters list` and `dead-letters replay`.

Answers for reading them as they were given up, the oldest first. Touches the dead letter topic, and only to read it.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import Message

from consumer.adapters.kafka.bounded import BoundedReader, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.adapters.kafka.messages import headers_of
from consumer.core import dead_letters
from consumer.core.dead_letters import Letter
from consumer.errors import SettingsError
from consumer.model import Headers
from consumer.operate import printing
from consumer.settings import Settings


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

    def refuse_other_topics(self, settings: Settings) -> None:
        """Whoever names a topic that is no source gets no answer that looks like one.

        Raises:
            SettingsError: The topic is not in KAFKA_SOURCE_TOPICS.
        """
        if self.topic not in {None, *settings.kafka_source_topics}:
            topics = ", ".join(settings.kafka_source_topics)
            raise SettingsError([f"--topic: {self.topic} is not in KAFKA_SOURCE_TOPICS ({topics})"])


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


def read(connection: Connection, settings: Settings, query: Query) -> Generator[Found, None, None]:
    """The letters that are meant, whatever their limit, and all that cannot be read; the oldest first, nearly.

    Raises:
        SourceUnavailable: The brokers do not answer.
        FatalError: There is no dead letter topic, or it may not be read.
    """
    topic = settings.kafka_dead_letter_topic
    wanted = spans(Admin(connection), topic, query.since_ms)
    with closing(BoundedReader(connection, settings.kafka_group_id, wanted)) as reader:
        for message in reader:
            found = headers_of(message)
            letter = dead_letters.read(found)
            if letter is None or query.means(letter):
                yield Found(message, found, letter)


def _times(group: Group) -> tuple[int | None, int | None]:
    return group.oldest, group.newest


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else str(count)
