"""Answers for who may send a file and where it belongs: presigned URLs, and the fields of the older form. No socket.

A presigned URL is checked as S3 checks one, and refused in its words: XML, no bearer token, a length told in advance.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

import orjson

from consumer.simulator.api import Action, Call, Done
from consumer.simulator.contacts import Poison
from consumer.simulator.errors import ApiError, Reply, invalid_property, invalid_value
from consumer.simulator.imports import Staging
from consumer.simulator.lists import ContactLists
from consumer.simulator.operations import STORAGE_PATH, Operation

TIMEOUT_MAX_S = 604_800
_TIMEOUT_S = 600
_CSV = "text/csv"
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
class Ticket:
    """A presigned URL.

    Attributes:
        list_id: The list that the file is for.
        id_column: The file's column with the contact id.
        afresh: Whether what is known of the contacts besides their data is forgotten.
        signature: What the URL is signed with.
        headers: What the file must be sent with.
        expires_at: When the URL is good no more.
    """

    list_id: str
    id_column: str | None
    afresh: bool
    signature: str
    headers: Mapping[str, str]
    expires_at: float


def _checked(request: Mapping[str, object]) -> None:
    unknown = request.keys() - _FIELDS
    if unknown:
        raise invalid_property(min(unknown))
    if request.get("contentType") != _CSV:
        raise invalid_value("contentType", f"{_CSV}, the only type that the simulator reads")
    if request.get("importTemplateId") is not None:
        raise ApiError(400, "bad.request", "The simulator has no import templates.", field="importTemplateId")
    if type(request.get("id")) is not str:
        raise invalid_value("id", "the id of a contact list")
    if type(request.get("contactIdName")) not in (str, type(None)):
        raise invalid_value("contactIdName", "a string")
    if type(request.get("clearSystemData")) not in (bool, type(None)):
        raise invalid_value("clearSystemData", "a boolean")
    timeout = request.get("signedUrlTimeoutSeconds", _TIMEOUT_S)
    if type(timeout) is not int or not 1 <= timeout <= TIMEOUT_MAX_S:
        raise invalid_value("signedUrlTimeoutSeconds", f"from 1 to {TIMEOUT_MAX_S}")


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
        contact_list = self._lists.find(request["id"], "not.found")
        seconds = request.get("signedUrlTimeoutSeconds", _TIMEOUT_S)
        key, signature = secrets.token_hex(16), secrets.token_hex(32)
        headers = {"Content-Type": _CSV, "x-amz-tagging": "organizationId=simulator&originPlatform=PureCloud"}
        self._tickets[key] = Ticket(
            list_id=contact_list.id,
            id_column=request.get("contactIdName"),
            afresh=request.get("clearSystemData") or False,
            signature=signature,
            headers=headers,
            expires_at=self._clock() + seconds,
        )
        url = f"{call.origin}{STORAGE_PATH}/uploads/{key}?X-Amz-Expires={seconds}&X-Amz-Signature={signature}"
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

    def stage(self, list_id: str, id_column: str | None, *, afresh: bool = False) -> Staging:
        """A place for the rows of a file for a list."""
        definition = self._lists.find(list_id).definition
        trim = definition.get("trimWhitespace", True)
        return Staging(definition["columnNames"], id_column, self._poison, trim=trim, afresh=afresh)

    def stage_form(self, fields: Mapping[str, str]) -> Staging:
        """A place for the file of the older form.

        Raises:
            ApiError: The form is not one of a file for a contact list.
        """
        if fields.get("fileType") != "contactlist":
            raise invalid_value("fileType", "contactlist")
        if not fields.get("id"):
            raise invalid_value("id", "the id of a contact list")
        return self.stage(fields["id"], fields.get("contact-id-name") or None)

    def begin(self, list_id: str, staging: Staging) -> None:
        """Import a file that has arrived whole.

        Raises:
            ApiError: The list is gone.
        """
        self._lists.begin_import(self._lists.find(list_id), staging)
