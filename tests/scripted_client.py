"""A consumer of the Kafka library that follows a script, on a clock that only its waiting moves."""

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Message


class Clock:
    """Stands where the module's `time` does; only waiting moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Client:
    """A consumer that hands over what the script says, None being a wait for nothing."""

    def __init__(self, clock: Clock, script: Iterable[Message | None]) -> None:
        self._clock = clock
        self._script: Iterator[Message | None] = iter(script)

    def reader(self, *_: object, **__: object) -> Any:
        """Is the connection too."""
        return self

    def assign(self, partitions: object) -> None:
        assert partitions

    def poll(self, wait_s: float) -> Message | None:
        self._clock.now += wait_s
        return next(self._script)

    def consume(self, *_: object) -> list[Message]:
        return []
