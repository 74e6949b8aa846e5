"""Files into the contact list, streamed: to a presigned URL, or in the older form where that is refused.

Touches Genesys through the client, and the file store that Genesys names: it gets the file and the headers that belong
to the URL, and neither the token nor the trace context. A file that breaks off half way is imported by neither. Where
no answer came, the file may have arrived; sent again, it meets the same contacts, since their ids come with it.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple

import orjson
import structlog
from yarl import URL

from consumer.adapters.genesys.addresses import safe
from consumer.adapters.genesys.answers import checked
from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.contact_list import LIST_PATH, LISTS_PATH
from consumer.adapters.genesys.export_file import ID_COLUMN
from consumer.adapters.genesys.transport import Answer, Endpoint, FileBody
from consumer.columns import VALUE_CHARACTERS, values_of
from consumer.command_ports import ImportStatus
from consumer.core.contact_id import contact_id
from consumer.errors import FatalError, RefusedByGenesys, SinkUnavailable
from consumer.model import Contact

log = structlog.get_logger(__name__)

_FORM_PATH = "/uploads/v2/contactlist"
_URL = Endpoint("get_upload_url", "POST", f"{LISTS_PATH}/uploads", "outbound:contactList:upload")
_PUT = Endpoint("upload_file", "PUT", "{uploadUrl}")
_FORM = Endpoint("upload_form", "POST", _FORM_PATH)
_STATUS = Endpoint("get_import_status", "GET", f"{LIST_PATH}/importstatus", "outbound:contactList:view")

_CSV = "text/csv"
_OK = range(200, 300)
_UNKNOWN_OR_FORBIDDEN = frozenset({403, 404})
_REFUSED = frozenset(range(400, 500)) - {408, 429}
_STORE_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_STORE_TIMED_OUT = "RequestTimeout"
"""S3's code of a connection that stood still: a 400, but nothing against the file."""


class _Place(NamedTuple):
    """Where a file is to be put.

    Attributes:
        url: As Genesys gave it: it is signed.
        headers: What it must be sent with.
    """

    url: URL
    headers: Mapping[str, str]


class GenesysUploads:
    """`consumer.command_ports.ContactUpload` of one contact list.

    Args:
        client: Asks Genesys.
        list_id: Of the list.
        column_names: All columns of the list, in the order of `columns.values_of`.
        upload_url: Host of the older form.
    """

    def __init__(self, client: Client, list_id: str, column_names: Sequence[str], upload_url: str) -> None:
        self._client = client
        self._list_id = list_id
        self._columns = column_names
        self._form_url = URL(upload_url + _FORM_PATH)
        self._refusal: FatalError | None = None

    @property
    def header(self) -> bytes:
        """The first line of the file."""
        return _line([ID_COLUMN, *self._columns])

    def encode(self, contact: Contact) -> bytes | None:
        """The line of a contact.

        An imported row is callable, its values have a greatest length, and white space around them is dropped.
        """
        values = values_of(contact)
        if not contact.callable or any(len(value) > VALUE_CHARACTERS or value != value.strip() for value in values):
            return None
        return _line([contact_id(contact.external_id), *values])

    async def upload(self, size: int, body: Callable[[], AsyncIterator[bytes]]) -> None:
        file = FileBody(size, body)
        if self._refusal is None and await self._put(file):
            return
        await self._send_form(file)

    async def import_status(self) -> ImportStatus:
        return await import_status(self._client, self._list_id)

    async def _put(self, file: FileBody) -> bool:
        """Put the file where Genesys says; whether it is taken there."""
        try:
            place = await self._ask_where()
        except FatalError as refused:
            return self._refuse(refused)
        answer = await self._client.send_file(_PUT, place.url, place.headers, file, with_token=False)
        code = _store_code(answer)
        if answer.status in _REFUSED and code != _STORE_TIMED_OUT:
            about = ", ".join(filter(None, [f"status {answer.status}", code]))
            return self._refuse(FatalError(f"the file store refuses the file ({about})"))
        _check_taken(answer)
        return True

    def _refuse(self, refusal: FatalError) -> bool:
        self._refusal = refusal
        log.warning("upload_url_refused", error=str(refusal), remedy="the older form of uploads is used")
        return False

    async def _ask_where(self) -> _Place:
        request = {"contentType": _CSV, "id": self._list_id, "contactIdName": ID_COLUMN}
        answer = await self._client.call(_URL, deadline=self._client.deadline(), body=orjson.dumps(request))
        match answer:
            case {"url": str(text), **more} if url := safe(text):
                return _Place(url, _headers(more.get("headers")))
            case _:
                raise SinkUnavailable("the answer does not match: it is no place for a file")

    async def _send_form(self, file: FileBody) -> None:
        boundary = secrets.token_hex(16)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        fields = {"id": self._list_id, "fileType": "contactlist", "contact-id-name": ID_COLUMN}
        form = _form(boundary, fields, file)
        answer = await self._client.send_file(_FORM, self._form_url, headers, form, with_token=True)
        if answer.status not in _OK:
            self._explain(answer)
        _check_taken(answer)

    def _explain(self, answer: Answer) -> None:
        """Raise what the older form's refusal means; where it does not say, why the first way was refused comes before.

        Raises:
            ConsumerError: In any case.
        """
        refusal = self._refusal or FatalError(f"Genesys takes no uploads (status {answer.status})")
        if answer.status in _UNKNOWN_OR_FORBIDDEN:
            raise refusal
        try:
            checked(answer, _FORM, time.time())
        except SinkUnavailable as unexplained:
            if answer.status in _REFUSED:
                raise FatalError(f"{refusal}, and in the older form {unexplained}") from None
            raise


def _headers(told: object) -> Mapping[str, str]:
    """The headers that a place names; it may need none.

    Raises:
        SinkUnavailable: They are something else.
    """
    match told:
        case dict(headers):
            return {str(name): str(value) for name, value in headers.items()}
        case None:
            return {}
        case _:
            raise SinkUnavailable("the answer does not match: a place for a file has headers by name")


async def import_status(client: Client, list_id: str) -> ImportStatus:
    """How far the import into a list is that goes on, or went on last.

    Raises:
        TransientError: Not now.
        FatalError: As for every call, or Genesys refuses to tell: no data is in the request that could be blamed.
    """
    try:
        told = await client.call(_STATUS, deadline=client.deadline(), path={"contactListId": list_id})
    except RefusedByGenesys as refused:
        remedy = "ask its support what that is about, then start it again"
        raise FatalError(f"Genesys does not tell of imports into the contact list: {refused.code}; {remedy}") from None
    if not isinstance(told, dict):
        raise SinkUnavailable("the answer does not match: it is no import status")
    return _status(told)


def _form(boundary: str, fields: Mapping[str, str], file: FileBody) -> FileBody:
    """A multipart form around a file, which comes last: so whoever reads it knows by then what it is for."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    disposition = 'Content-Disposition: form-data; name="file"; filename="contacts.csv"'
    before = "".join([*parts, f"--{boundary}\r\n{disposition}\r\nContent-Type: {_CSV}\r\n\r\n"]).encode()
    after = f"\r\n--{boundary}--\r\n".encode()

    async def chunks() -> AsyncIterator[bytes]:
        yield before
        async for chunk in file.chunks():
            yield chunk
        yield after

    return FileBody(len(before) + file.size + len(after), chunks)


def _check_taken(answer: Answer) -> None:
    """Refuse what no file store answers; what a page says is of an edge in trouble, or of a network that wants a login.

    Raises:
        SinkUnavailable: It is not known whether the file was taken.
    """
    if answer.status not in _OK or answer.content_type == "text/html":
        raise SinkUnavailable(f"the file was not taken (status {answer.status})")


def _store_code(answer: Answer) -> str:
    """The code of a file store's refusal, in S3's XML; none where it has another form."""
    found = _STORE_CODE.search(answer.body)
    return found[1].decode() if found else ""


def _status(told: Mapping[str, object]) -> ImportStatus:
    state, reason = told.get("state"), told.get("failureReason")
    failed = state == "FAILED"
    known = reason if isinstance(reason, str) and reason.replace("_", "").isalnum() else "no reason given"
    return ImportStatus(
        state == "IN_PROGRESS", known if failed else "", _count(told, "totalRecords"), _count(told, "completedRecords")
    )


def _count(told: Mapping[str, object], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) else 0


def _line(values: Sequence[str]) -> bytes:
    """Values as a line of CSV."""
    line = ",".join(values)
    if '"' in line or "\n" in line or "\r" in line or line.count(",") >= len(values):
        line = ",".join(map(_quoted, values))
    return line.encode() + b"\n"


def _quoted(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"'
