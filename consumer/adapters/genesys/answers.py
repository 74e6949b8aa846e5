"""What an answer of Genesys means: its JSON, or one of the project's errors. Touches nothing; the time is an argument.

Genesys' own texts may quote contact data, so only these leave here: the status, the code, the correlation id, and the
name of a missing permission, each in its known form.
"""

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec
import orjson

from consumer.adapters.genesys.transport import Answer, Endpoint
from consumer.errors import (
    ConsumerError,
    ContactListMismatch,
    FatalError,
    InUse,
    NoRoom,
    RefusedByGenesys,
    SinkUnavailable,
    Throttled,
    TooLarge,
    Unauthorized,
)

_IN_USE = "contact.in.use"
"""Of a request that changes contacts it tells of one of them; the others can be changed."""

_NOT_NOW = frozenset(
    {
        _IN_USE,
        "contact.list.clear.in.progress",
        "contact.list.import.in.progress",
        "contact.list.export.in.progress",
        "contact.bulk.operation.in.progress",
        "dnc.list.import.in.progress",
        "dnc.list.export.in.progress",
    }
)
"""A list or the contact is busy: that passes, and says nothing against Genesys or the data."""

_NOT_MADE_YET = "no.available.list.export.uri"
NO_CONTACT = "contact.not.found"
"""Says nothing against the list."""

_NO_LIST = frozenset({"contact.list.not.found", "dnc.list.not.found"})

_NO_ROOM = "contacts.per.org.limit.exceeded"
_NOT_THE_DATA = frozenset({"uploads.black.listed", "internal.error"})
"""Codes of a 400 that no other data would avoid: splitting would only dead-letter what somebody can still put right."""

_NOT_THE_COLUMNS = frozenset({"contact.missing.columns", "invalid.contact.columns", "contact.columns.limit.exceeded"})
"""Each contact has exactly the columns that the list had at start: every one would be refused, and none is to blame."""

_NOT_NOW_S = 5.0

MAX_WAIT_S = 300.0
"""Whoever asks for more, as the page of an edge under maintenance, is asked again all the same: withdrawals wait."""

_OK = range(200, 300)
_MOVED = range(300, 400)
_SERVER = range(500, 600)

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_CORRELATION = re.compile(r"[A-Za-z0-9-]{1,64}")
_PERMISSION = re.compile(r"\boutbound:[A-Za-z]+:[A-Za-z]+\b")
_WHOLE_SECONDS = re.compile(r"[0-9]{1,9}")
_SECONDS_IN_TEXT = re.compile(r"\[(\d{1,6})\] seconds")


class NotMadeYet(SinkUnavailable):
    """What was ordered is still being made."""


class ListGone(FatalError):
    """There is no such list, or whatever else was asked for by its name."""


class NotThere(SinkUnavailable):
    """Something is not there, and it need not be the list."""


Parse = Callable[[bytes], object]
"""Reads JSON; raises an error of orjson or msgspec."""


def content(answer: Answer, parse: Parse = orjson.loads) -> object:
    """The JSON of an answer, None when it has no body.

    Raises:
        SinkUnavailable: It is something else, as from a proxy or an edge in trouble.
    """
    if not answer.body:
        return None
    if answer.content_type != "application/json":
        raise SinkUnavailable(f"answer is not JSON{_about(answer)}")
    try:
        return parse(answer.body)
    except msgspec.ValidationError:
        raise SinkUnavailable(f"answer does not match what was asked for{_about(answer)}") from None
    except (orjson.JSONDecodeError, msgspec.DecodeError, RecursionError):
        raise SinkUnavailable(f"answer is broken JSON{_about(answer)}") from None


def checked(answer: Answer, endpoint: Endpoint, now: float, parse: Parse = orjson.loads) -> object:
    """The JSON of an answer to an API request.

    Whatever is before Genesys answers for itself too: a refusal counts only with a code, as Genesys' own always have.

    Args:
        answer: To anything but the login host.
        endpoint: What was asked.
        now: Seconds since the epoch.
        parse: Reads it.

    Raises:
        ConsumerError: Whatever the answer means instead.
    """
    if answer.status in _OK:
        return content(answer, parse)
    error = _properties(answer)
    code = _text(error, "code", _CODE)
    about = _about(answer, code)
    match answer.status:
        case 413:
            raise TooLarge(_limit(error))
        case 429:
            raise Throttled(f"Genesys asks to wait{about}", retry_after(answer, now))
        case _ if _says(error, "code"):
            raise _own_refusal(answer, code, endpoint, about, now)
        case _:
            raise _unavailable(answer, about, now)


def refused_token(answer: Answer, now: float) -> ConsumerError:
    """The error that the login host's refusal means; one without an `error` is of something before it."""
    error = _properties(answer)
    code = _text(error, "error", _CODE)
    about = _about(answer, code)
    throttled = code == "invalid_request" and _description(error).lower().startswith("rate limit exceeded")
    if answer.status == 429 or throttled:  # noqa: PLR2004 -- too many requests
        return Throttled(f"the login host asks to wait{about}", retry_after(answer, now))
    if answer.status in {400, 401, 403} and _says(error, "error"):
        hint = "check the client's id and secret, and that the region is the right one"
        return Unauthorized(f"the login host refuses the OAuth client{about}: {hint}")
    return _unavailable(answer, about, now)


def retry_after(answer: Answer, now: float) -> float | None:
    """How long an answer asks to wait, as far as anybody is left alone."""
    asked = _asked_to_wait(answer, now)
    return None if asked is None else min(asked, MAX_WAIT_S)


def _asked_to_wait(answer: Answer, now: float) -> float | None:
    """By header in seconds or as a date, or in the text of a 429."""
    header = answer.headers.get("Retry-After", "").strip()
    if _WHOLE_SECONDS.fullmatch(header):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):
        return _seconds_in_text(answer)


def _seconds_in_text(answer: Answer) -> float | None:
    error = _properties(answer)
    text = _SECONDS_IN_TEXT.search(f"{error.get('message')} {_description(error)}")
    return float(text[1]) if text and answer.status not in _SERVER else None


def _own_refusal(answer: Answer, code: str, endpoint: Endpoint, about: str, now: float) -> ConsumerError:
    """What a status means that Genesys itself, not something before it, explains."""
    match answer.status:
        case 401:
            return Unauthorized(f"Genesys refuses the token, even a new one{about}")
        case 403:
            permission = _permissions(_properties(answer)) or endpoint.permission
            return Unauthorized(f"the OAuth client lacks the permission {permission}{about}")
        case 404:
            return _not_found(code, endpoint, about)
        case 405 | 415 | 501:
            return FatalError(f"Genesys does not take requests of this form{about}")
        case _:
            return _refusal(answer, code, endpoint, about, now)


def _not_found(code: str, endpoint: Endpoint, about: str) -> ConsumerError:
    if code == _NOT_MADE_YET:
        return NotMadeYet(f"the export is not there yet{about}")
    if code == NO_CONTACT:
        return RefusedByGenesys(code)
    if endpoint.within is not None and code not in _NO_LIST:
        return NotThere(f"Genesys has not all that it was asked for{about}")
    return ListGone(f"there is no such {endpoint.asks_for}{about}")


def _refusal(answer: Answer, code: str, endpoint: Endpoint, about: str, now: float) -> ConsumerError:
    """What remains: the data is blamed, or something is busy or in trouble."""
    if code == _IN_USE and endpoint.template.endswith("/contacts"):
        return InUse(_named_contacts(_properties(answer)))
    if code in _NOT_NOW:
        return Throttled(f"the list or the contact is busy{about}", _NOT_NOW_S)
    if answer.status == 400 and code in _NOT_THE_COLUMNS:  # noqa: PLR2004 -- bad request
        return ContactListMismatch(f"the contact list has other columns than at start{about}: check it, then restart")
    if answer.status == 400 and code == _NO_ROOM:  # noqa: PLR2004 -- bad request
        return NoRoom(f"Genesys has no room for more contacts{about}", code)
    if answer.status == 400 and code not in _NOT_THE_DATA:  # noqa: PLR2004 -- bad request
        return RefusedByGenesys(code or "bad.request", _named_contacts(_properties(answer)))
    return _unavailable(answer, about, now)


def _unavailable(answer: Answer, about: str, now: float) -> SinkUnavailable:
    what = "a redirect, which is not followed" if answer.status in _MOVED else "no usable answer"
    return SinkUnavailable(f"Genesys gives {what}{about}", retry_after(answer, now))


def _properties(answer: Answer) -> dict[str, object]:
    """The properties of an error's body; none when it is no object of JSON."""
    try:
        parsed = content(answer)
    except SinkUnavailable:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _says(error: dict[str, object], name: str) -> bool:
    """Whether an error's body has a text of this name, be it one that may leave here or not."""
    value = error.get(name)
    return isinstance(value, str) and value != ""


def _text(error: dict[str, object], name: str, form: re.Pattern[str]) -> str:
    value = error.get(name)
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _description(error: dict[str, object]) -> str:
    return str(error.get("description") or error.get("error_description") or "")


def _limit(error: dict[str, object]) -> int | None:
    """The value of the limit that a refusal says was passed."""
    match error.get("limit"):
        case {"value": int(value)}:
            return value
        case _:
            return None


def _named_contacts(error: dict[str, object]) -> set[str]:
    """Ids that an error, its details or the errors in it name."""
    details, errors = error.get("details"), error.get("errors")
    parts = [error, *(part for parts in (details, errors) if isinstance(parts, list) for part in parts)]
    named = (part.get("entityId") for part in parts if isinstance(part, dict))
    return {each for each in named if isinstance(each, str)}


def _permissions(error: dict[str, object]) -> str:
    """The permissions that a refusal names."""
    named = _PERMISSION.findall(f"{error.get('message')} {error.get('messageParams')}")
    return ", ".join(dict.fromkeys(named))


def _about(answer: Answer, code: str = "") -> str:
    """What support needs to find a request: nothing that came from a contact."""
    correlation = answer.headers.get("ININ-Correlation-Id", "")
    parts = [f"status {answer.status}"]
    if code:
        parts.append(code)
    if _CORRELATION.fullmatch(correlation):
        parts.append(f"correlation id {correlation}")
    return f" ({', '.join(parts)})"
