"""Answers for which fault, if any, strikes a request: by script first, else by a seeded roll. Touches nothing."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from consumer.simulator.operations import Operation


class FaultKind(StrEnum):
    """What goes wrong. Those from lost_reply on, but hang, leave the request applied."""

    INTERNAL_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"
    THROTTLED = "429"
    TOKEN_EXPIRED = "401"  # noqa: S105 - a name, not a secret
    TOO_LARGE = "413"
    REDIRECT = "302"
    CLEARING = "clearing"
    IMPORTING = "importing"
    BULK_JOB = "bulk_job"
    HTML = "html"
    RESET = "reset"
    LOST_REPLY = "lost_reply"
    SLOW = "slow"
    LAG = "lag"
    HANG = "hang"
    TRUNCATED = "truncated"
    BAD_JSON = "bad_json"
    DRIP = "drip"
    ENDLESS = "endless"
    DEEP = "deep"


T = TypeVar("T", bound=StrEnum)

_FULL = 1 + 1e-9  # sums of decimals are not exact
_NEEDS_SECONDS = {FaultKind.SLOW, FaultKind.LAG, FaultKind.DRIP}
_TAKES_SECONDS = _NEEDS_SECONDS | {FaultKind.THROTTLED, FaultKind.UNAVAILABLE}
_WRITES = frozenset(
    {Operation.ADD_CONTACTS, Operation.UPDATE_CONTACT, Operation.DELETE_CONTACTS, Operation.DELETE_CONTACT}
)
_SPELLING = re.compile(
    r"(?P<kind>\w+)(?:=(?P<seconds>\d+(?:\.\d+)?))?(?:@(?P<operation>[a-z_]+))?(?::(?P<rate>\d*\.?\d+))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with a request.

    Attributes:
        kind: What goes wrong.
        rate: Share of the matching requests it strikes, above 0 and at most 1; a script ignores it.
        seconds: The delay of `slow`, for how long reads lag behind a write, the time from one byte to the next of
            `drip`, or the `Retry-After` of 429 and 503.
        operation: The only operation it strikes; None is every one except the token's, of `lag` every one that writes
            contacts.
    """

    kind: FaultKind
    rate: float = 1.0
    seconds: float | None = None
    operation: Operation | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"the rate of fault {self.kind} must be above 0 and at most 1")
        if self.seconds is not None and self.kind not in _TAKES_SECONDS:
            raise ValueError(f"fault {self.kind} takes no seconds")
        if self.kind in _NEEDS_SECONDS and self.seconds is None:
            raise ValueError(f"fault {self.kind} needs seconds, as in {self.kind}=0.2")
        if self.kind is FaultKind.LAG and self.operation not in {None, *_WRITES}:
            raise ValueError(f"fault {self.kind} strikes only {', '.join(sorted(_WRITES))}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kind[=seconds][@operation][:rate]`, such as `503:0.05` or `slow=0.2@add_contacts:0.5`.

        Raises:
            ValueError: It is not spelled so, or names what does not exist.
        """
        match = _SPELLING.fullmatch(text)
        if match is None:
            raise ValueError(f"a fault is spelled kind[=seconds][@operation][:rate], not {text!r}")
        seconds, operation = match["seconds"], match["operation"]
        return cls(
            kind=_one_of(FaultKind, match["kind"], "kind"),
            rate=float(match["rate"] or 1),
            seconds=None if seconds is None else float(seconds),
            operation=None if operation is None else _one_of(Operation, operation, "operation"),
        )

    def strikes(self, operation: Operation) -> bool:
        """Whether it can strike this operation at all."""
        if self.kind is FaultKind.LAG and operation not in _WRITES:
            return False
        return operation is not Operation.TOKEN if self.operation is None else operation is self.operation


def _one_of(names: type[T], name: str, what: str) -> T:
    if name not in {*names}:
        raise ValueError(f"the {what} of a fault is one of {', '.join(names)}, not {name!r}")
    return names(name)


class FaultPlan:
    """Deals out faults: those of the script in order, to requests they match; then by rate.

    One roll is made per request, so the same seed and the same order of requests give the same faults.
    """

    def __init__(self, rates: Iterable[Fault] = (), script: Iterable[Fault] = (), seed: int = 0) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - chaos, not cryptography
        self._script = list(script)
        self._rates: Sequence[Fault] = ()
        self.set_rates(rates)

    def set_rates(self, faults: Iterable[Fault]) -> None:
        """Replace the faults by rate.

        Raises:
            ValueError: More than every request of an operation would be struck.
        """
        rates = tuple(faults)
        for operation in Operation:
            if sum(fault.rate for fault in rates if fault.strikes(operation)) > _FULL:
                raise ValueError(f"the rates of the faults of {operation} add up to more than 1")
        self._rates = rates

    def inject(self, *faults: Fault) -> None:
        """Put faults at the end of the script."""
        self._script.extend(faults)

    @property
    def pending(self) -> int:
        """How many faults of the script have not struck yet."""
        return len(self._script)

    def draw(self, operation: Operation) -> Fault | None:
        """The fault that strikes this request."""
        for place, fault in enumerate(self._script):
            if fault.strikes(operation):
                return self._script.pop(place)
        return self._roll(operation) if self._rates else None

    def _roll(self, operation: Operation) -> Fault | None:
        roll = self._dice.random()
        for fault in self._rates:
            if fault.strikes(operation):
                roll -= fault.rate
                if roll < 0:
                    return fault
        return None
