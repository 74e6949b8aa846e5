"""Answers for who may send a file and where it belongs: presigned URLs, and the fields of the older form. No socket.

A presigned URL is checked as S3 checks one, and refused in its words: XML, no bearer token, a length told in advance.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from xml.sax.saxutils import escape

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.contacts import Poison
from consumer.simulator.errors import ApiError, Reply, invalid_property, invalid_value
from consumer.simulator.imports import StagedFile, Staging
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import STORAGE_PATH, Operation

CSV = "text/csv"
TIMEOUT_MAX_S = 604_800
URL_LIFETIME_S = 600
_FIELDS = frozenset({
    "signedUrlTimeoutSeconds", "contentType", "id", "contactIdName", "importTemplateId", "listNamePrefix",
    "clearSystemData", "divisionIdForTargetContactLists", "fileSpecificationTemplateId", "retentionTypeColumn",
    "retentionDaysColumn", "retentionDateExpirationColumn",
})  # fmt: skip


class StorageRefusal(Exception):
    """The file store refuses a file, as S3 does."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def reply(self) -> Reply:
        """The refusal as an answer."""
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{self.code}</Code>'
        body += f"<Message>{escape(str(self))}</Message></Error>"
        return Reply(self.status, body.encode(), content_type="application/xml")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A file on its way in.

    Attributes:
        list_id: The list that it is for.
        staging: Where its rows wait until it is whole.
        begin_import: What follows then; refused when the list is gone.
    """

    list_id: str
    staging: StagedFile
    begin_import: Callable[[], None]

    def arrive(self) -> None:
        """The file is whole.

        Raises:
            ApiError: The list is gone.
        """
        self.staging.close()
        self.begin_import()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A presigned URL.

    Attributes:
        open: Makes a place for the file.
        signature: What the URL is signed with.
        headers: What the file must be sent with.
        expires_at: When the URL is good no more.
    """

    open: Callable[[], Incoming]
    signature: str
    headers: Mapping[str, str]
    expires_at: float


def check_url_request(request: Mapping[str, object]) -> None:
    """Refuse a request for a URL that is wrong whatever the list is."""
    if request.get("contentType") != CSV:
        raise invalid_value("contentType", f"{CSV}, the only type that the simulator reads")
    if type(request.get("id")) is not str:
        raise invalid_value("id", "the id of a list")
    timeout = request.get("signedUrlTimeoutSeconds", URL_LIFETIME_S)
    if type(timeout) is not int or not 1 <= timeout <= TIMEOUT_MAX_S:
        raise invalid_value("signedUrlTimeoutSeconds", f"from 1 to {TIMEOUT_MAX_S}")


def _checked(request: Mapping[str, object]) -> None:
    unknown = request.keys() - _FIELDS
    if unknown:
        raise invalid_property(min(unknown))
    check_url_request(request)
    if request.get("importTemplateId") is not None:
        raise ApiError(400, "bad.request", "The simulator has no import templates.", field="importTemplateId")
    if type(request.get("contactIdName")) not in (str, type(None)):
        raise invalid_value("contactIdName", "a string")
    if type(request.get("clearSystemData")) not in (bool, type(None)):
        raise invalid_value("clearSystemData", "a boolean")


class Uploads:
    """The presigned URLs, and the files that come in."""

    def __init__(self, lists: ContactLists, poison: Poison | None, clock: Callable[[], float]) -> None:
        self._lists = lists
        self._poison = poison
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}

    @property
    def actions(self) -> Mapping[Operation, Action]:
        """The operation that issues a URL."""
        return {Operation.GET_UPLOAD_URL: self._issue}

    def _issue(self, call: Call) -> Done:
        request = call.json_object()
        _checked(request)
        list_id = self._lists.find(request["id"], "not.found").id
        id_column, afresh = request.get("contactIdName"), request.get("clearSystemData") or False
        opened = partial(self._open, list_id, id_column, afresh=afresh)
        return self.issue(opened, call.origin, request.get("signedUrlTimeoutSeconds", URL_LIFETIME_S))

    def issue(self, opened: Callable[[], Incoming], origin: str, seconds: int) -> Done:
        """A presigned URL.

        Args:
            opened: Makes a place for the file.
            origin: Where the simulator was reached.
            seconds: How long the URL is good.
        """
        key, signature = secrets.token_hex(16), secrets.token_hex(32)
        headers = {"Content-Type": CSV, "x-amz-tagging": "organizationId=simulator&originPlatform=PureCloud"}
        self._tickets[key] = Ticket(opened, signature, headers, self._clock() + seconds)
        url = f"{origin}{STORAGE_PATH}/uploads/{key}?X-Amz-Expires={seconds}&X-Amz-Signature={signature}"
        return Done(orjson.dumps({"url": url, "uploadKey": key, "headers": headers}))

    def presented(self, key: str, signature: str, headers: Mapping[str, str]) -> Ticket:
        """The ticket that a PUT presents.

        Args:
            key: From the URL's path.
            signature: From its query.
            headers: The request's, whatever the case of their names.

        Raises:
            StorageRefusal: There is none, it is over, or the request is not the one that was signed.
        """
        ticket = self._tickets.get(key)
        if ticket is None or not secrets.compare_digest(ticket.signature, signature):
            raise StorageRefusal(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if "Authorization" in headers:
            raise StorageRefusal(400, "InvalidArgument", "Only one auth mechanism allowed.")
        if self._clock() >= ticket.expires_at:
            raise StorageRefusal(403, "AccessDenied", "Request has expired")
        if any(headers.get(name) != value for name, value in ticket.headers.items()):
            raise StorageRefusal(403, "SignatureDoesNotMatch", "The request headers are not those that were signed.")
        if "Content-Length" not in headers:
            message = "You must provide the Content-Length HTTP header."
            raise StorageRefusal(411, "MissingContentLength", message)
        return ticket

    def _open(self, list_id: str, id_column: str | None, *, afresh: bool = False) -> Incoming:
        """A place for the rows of a file for a contact list."""
        definition = self._lists.find(list_id).definition
        trim = definition.get("trimWhitespace", True)
        staging = Staging(definition["columnNames"], id_column, self._poison, trim=trim, afresh=afresh)
        return Incoming(list_id, staging, lambda: self._lists.begin_import(self._lists.find(list_id), staging))

    def open_form(self, fields: Mapping[str, str]) -> Incoming:
        """A place for the file of the older form.

        Raises:
            ApiError: The form is not one of a file for a contact list.
        """
        if fields.get("fileType") != "contactlist":
            raise invalid_value("fileType", "contactlist")
        if not fields.get("id"):
            raise invalid_value("id", "the id of a contact list")
        return self._open(fields["id"], fields.get("contact-id-name") or None)
