"""The errors of the project: a tree in which each branch is a policy.

::

    ConsumerError
    ├─ SettingsError                      refuse to start, every bad setting at once        exit 2
    ├─ RecordError(reasons)               this record, for ever: rejected
    │    ├─ DecodeError ─ ManyChanged(cause), OtherColumns, ReaderFailed(error)   └─ ValidationError
    ├─ RefusedByGenesys(code)             the data of a request is blamed: split it until one contact stands alone
    │    ├─ TooLarge                      send fewer bytes at a time
    │    └─ InUse                         this contact later
    ├─ TransientError(retry_after)        pause, back off, try again, for as long as it takes
    │    ├─ Throttled   ├─ SinkUnavailable ─ NoRoom, NoneCameBack, TakesNoNumbers, Withheld
    │    └─ SourceUnavailable ─ Rebalancing
    └─ FatalError                         stop with a clear last line; Kubernetes restarts  exit 1
         ├─ Unauthorized (credentials or the permission's name)   └─ ContactListMismatch

Adapters map foreign errors to these, once, at the edge. No message holds contact data.
"""

from collections.abc import Collection, Sequence

from consumer.model import FuseCause, Reason

_MAX_DETAIL = 2_000


class ConsumerError(Exception):
    """Root of all errors that the project raises on purpose."""


class SettingsError(ConsumerError):
    """One or more settings are missing or wrong.

    Attributes:
        problems: One sentence each: the setting, the rule, the remedy.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class RecordError(ConsumerError):
    """This record can never succeed.

    Attributes:
        reasons: Every violated rule, in the order of the rules; at least one.
        detail: What to look at, without contact data: 2,000 characters at the most, all of which UTF-8 has.
    """

    def __init__(self, reasons: Sequence[Reason], detail: str = "") -> None:
        # Names of schemas and fields are in it as others wrote them.
        detail = detail[:_MAX_DETAIL].encode(errors="replace").decode()
        super().__init__(detail or ", ".join(reasons))
        self.reasons = tuple(reasons)
        self.detail = detail


class DecodeError(RecordError):
    """The bytes are not a change event."""


def undecodable(detail: str) -> DecodeError:
    """The error of a record that does not hold what its framing, its schema or its envelope promises."""
    return DecodeError((Reason.NOT_DECODABLE,), detail)


class OtherColumns(DecodeError):
    """The key is a record without the column of the external id."""


class ReaderFailed(DecodeError):
    """The program itself fails on the record, in a way that nobody foresaw.

    Args:
        error: What left a reader. It may quote the record: only its type and its place are told.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__((Reason.NOT_DECODABLE,), f"the program fails on it: {type(error).__name__} at {_place(error)}")


def _place(error: Exception) -> str:
    """The file and the line that raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}"


class ManyChanged(DecodeError):
    """The record says that contacts changed, perhaps all of them, and not which.

    Attributes:
        cause: What it says.
    """

    def __init__(self, cause: FuseCause, detail: str) -> None:
        super().__init__((Reason.RESYNC_NEEDED,), detail)
        self.cause = cause


class ValidationError(RecordError):
    """The change event breaks rules of the contact list."""


class RefusedByGenesys(ConsumerError):
    """Genesys blames the data of a request.

    Attributes:
        code: Genesys' error code, for example `contact.datum.length.limit.exceeded`.
        contact_ids: Genesys' ids of the contacts that it names, if it names any.
    """

    def __init__(self, code: str, contact_ids: Collection[str] = ()) -> None:
        super().__init__(f"Genesys refused the request: {code}")
        self.code = code
        self.contact_ids = frozenset(contact_ids)


class TooLarge(RefusedByGenesys):
    """The body of a request has too many bytes.

    Attributes:
        limit: Bytes that a body may have; None when Genesys does not say, or nothing that could be.
    """

    def __init__(self, limit: int | None) -> None:
        super().__init__("request.entity.too.large")
        self.limit = limit


class InUse(RefusedByGenesys):
    """A contact of a request is in use, as by a call: nothing is wrong with its data, and it can be changed later."""

    def __init__(self, contact_ids: Collection[str] = ()) -> None:
        super().__init__("contact.in.use", contact_ids)


class TransientError(ConsumerError):
    """An outage: what was tried may be tried again, for as long as it takes.

    Attributes:
        retry_after: Seconds that the other side asked to wait; None when it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Throttled(TransientError):
    """Too many requests: wait, it is no failure."""


class SinkUnavailable(TransientError):
    """Genesys did not answer, or not as a working service does; the request may have been applied."""


class NoRoom(SinkUnavailable):
    """Genesys takes no contact that it does not have yet until somebody makes room; those that it has can be changed.

    Attributes:
        code: What it says.
        absent: External ids of those that it does not have, as far as somebody has asked.
    """

    def __init__(self, message: str, code: str, absent: Collection[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.absent = frozenset(absent)


class NoneCameBack(SinkUnavailable):
    """The answer holds none of the contacts: Genesys leaves them out, or is in trouble."""


class TakesNoNumbers(SinkUnavailable):
    """The do-not-call list is full, or none that takes numbers, whichever they are, until somebody does something."""


class Withheld(SinkUnavailable):
    """The do-not-call list takes no numbers. Who withdrew is not callable meanwhile, and has to be sent again.

    Attributes:
        external_ids: Of those who wait for the list; of all others of the request nothing was sent.
        throttles: Whether it was because of too many requests.
        for_good: Whether it takes none until somebody does something.
        asked: Whether the list was asked; where others wait for it already, it is not.
    """

    def __init__(self, cause: ConsumerError, external_ids: Collection[str], *, asked: bool = True) -> None:
        super().__init__(str(cause), cause.retry_after if isinstance(cause, TransientError) else None)
        self.external_ids = frozenset(external_ids)
        self.throttles = isinstance(cause, Throttled)
        self.for_good = isinstance(cause, FatalError | TakesNoNumbers)
        self.asked = asked


class SourceUnavailable(TransientError):
    """Kafka or the schema registry cannot be reached."""


class Rebalancing(SourceUnavailable):
    """Partitions are moving between the members of the group: nothing is settled for a moment. It is no outage."""


class FatalError(ConsumerError):
    """Going on would be wrong. Stop, say why, let Kubernetes restart."""


class Unauthorized(FatalError):
    """Credentials are wrong, or a permission is missing; the message names it."""


class ContactListMismatch(FatalError):
    """The contact list in Genesys does not have the columns that the settings ask for."""
