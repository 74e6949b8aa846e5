"""Answers for every refusal: Genesys's `ErrorBody` and the login host's OAuth error. Touches nothing.

No text here carries a contact's data: a message names a column, a limit or an operation, never a value.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

REQUEST_BYTES_MAX = 512_000
_NO_HEADERS: Mapping[str, str] = {}


class Reply(NamedTuple):
    """An answer before it is written to a socket."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS
    content_type: str = "application/json"
    chunks: Iterator[bytes] | None = None
    """What is streamed instead of the body."""


class ApiError(Exception):
    """A request is refused with an `ErrorBody`."""

    def __init__(  # noqa: D417 - the rest are the ErrorBody's own words
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        limit: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Describe the refusal.

        Args:
            field: The property or column at fault, told in `details`.
            limit: The limit that was exceeded.
            retry_after: Whole seconds for the `Retry-After` header.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.limit = limit
        self.retry_after = retry_after

    def reply(self, correlation_id: str) -> Reply:
        """The refusal as an answer; the body's `contextId` is the correlation id."""
        body: dict[str, Any] = {
            "message": str(self),
            "code": self.code,
            "status": self.status,
            "contextId": correlation_id,
            "details": [{"errorCode": self.code, "fieldName": self.field}] if self.field else [],
            "errors": [],
        }
        if self.limit is not None:
            body["limit"] = self.limit
        headers = _NO_HEADERS if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Reply(self.status, orjson.dumps(body), headers)


class OAuthRefusal(Exception):
    """The login host refuses a token."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.status = status

    def reply(self) -> Reply:
        """The refusal as an answer."""
        body = {"error": self.error, "description": str(self), "error_description": str(self)}
        return Reply(self.status, orjson.dumps(body))


def throttled(seconds: int) -> ApiError:
    """Too many requests, in the words Genesys uses since November 2021."""
    message = f"Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds"
    return ApiError(429, "too.many.requests.retry.after", message, retry_after=seconds)


def bad_credentials() -> ApiError:
    """The token is unknown, expired or revoked."""
    return ApiError(401, "bad.credentials", "Invalid login credentials.")


def unsupported_media_type() -> ApiError:
    """The content type is another one than the platform takes."""
    return ApiError(415, "unsupported.media.type", "The content type must be application/json.")


def too_large() -> ApiError:
    """The body is larger than the platform accepts."""
    limit = {"key": "request.bytes.max", "namespace": "platform.api", "value": REQUEST_BYTES_MAX}
    message = f"The request payload is too large. Maximum bytes: {REQUEST_BYTES_MAX}"
    return ApiError(413, "request.entity.too.large", message, limit=limit)


def invalid_value(field: str, expected: str) -> ApiError:
    """A property has the wrong type or an impossible value."""
    return ApiError(400, "invalid.value", f"The value of '{field}' must be {expected}.", field=field)


def invalid_parameter(name: str, expected: str) -> ApiError:
    """A query parameter has an impossible value."""
    return ApiError(400, "invalid.query.param.value", f"The query parameter '{name}' must be {expected}.", field=name)


def invalid_property(name: str) -> ApiError:
    """A property that the schema does not have."""
    return ApiError(400, "invalid.property", f"The property '{name}' is not known.", field=name)
