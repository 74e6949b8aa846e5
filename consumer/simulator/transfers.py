"""Answers for files on the wire: they are read and written as they stream, never held whole.

A file that breaks off half way leaves nothing behind: its rows wait apart until its last byte is there.
"""

import secrets
import tempfile
from collections.abc import AsyncIterator
from typing import IO, NamedTuple

import aiohttp
from aiohttp import web

from consumer.simulator.errors import ApiError, Reply
from consumer.simulator.exports import export
from consumer.simulator.imports import Staging
from consumer.simulator.lists import ContactLists
from consumer.simulator.uploads import StorageRefusal, Uploads

_CHUNK_BYTES = 65_536
_FIELD_BYTES_MAX = 4_096
_SPOOL_BYTES = 1_000_000


class Arrived(NamedTuple):
    """A file that has arrived whole, and the list it is for."""

    list_id: str
    staging: Staging


class Transfers:
    """The files of uploads and exports."""

    def __init__(self, lists: ContactLists, uploads: Uploads) -> None:
        self._lists = lists
        self._uploads = uploads

    async def receive_file(self, request: web.Request) -> Arrived:
        """Read what is PUT to a presigned URL.

        Raises:
            StorageRefusal: It may not be put there.
        """
        key, signature = request.match_info["upload_key"], request.query.get("X-Amz-Signature", "")
        ticket = self._uploads.presented(key, signature, request.headers)
        try:
            staging = self._uploads.stage(ticket.list_id, ticket.id_column, afresh=ticket.afresh)
        except ApiError:
            raise StorageRefusal(403, "AccessDenied", "Access Denied") from None
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            staging.feed(chunk)
        return Arrived(ticket.list_id, staging)

    async def receive_form(self, request: web.Request) -> Arrived:
        """Read the older form, whatever the order of its fields.

        Raises:
            ApiError: It is not such a form.
        """
        if request.content_type != "multipart/form-data":
            raise ApiError(415, "unsupported.media.type", "The content type must be multipart/form-data.")
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            return await self._read_form(await request.multipart(), spool)

    async def _read_form(self, form: aiohttp.MultipartReader, spool: IO[bytes]) -> Arrived:
        """A file that comes before the fields that say what it is for is put aside on disk until they are there."""
        fields: dict[str, str] = {}
        staging: Staging | None = None
        spooled = False
        while (part := await form.next()) is not None:
            if not isinstance(part, aiohttp.BodyPartReader):
                raise ApiError(400, "bad.request", "The form is nested.")
            if part.name != "file":
                fields[part.name or ""] = await _text(part)
            elif fields.keys() >= {"id", "fileType", "contact-id-name"}:
                staging = self._uploads.stage_form(fields)
                async for chunk in _chunks(part):
                    staging.feed(chunk)
            else:
                spooled = True
                async for chunk in _chunks(part):
                    spool.write(chunk)
        if staging is None and not spooled:
            raise ApiError(400, "bad.request", "The form has no file.", field="file")
        return Arrived(fields.get("id", ""), staging or self._unspooled(fields, spool))

    def _unspooled(self, fields: dict[str, str], spool: IO[bytes]) -> Staging:
        staging = self._uploads.stage_form(fields)
        spool.seek(0)
        while chunk := spool.read(_CHUNK_BYTES):
            staging.feed(chunk)
        return staging

    def begin(self, arrived: Arrived) -> None:
        """Import what has arrived."""
        arrived.staging.close()
        self._uploads.begin(arrived.list_id, arrived.staging)

    def fetch(self, request: web.Request) -> Reply:
        """The exported file.

        Raises:
            StorageRefusal: There is none, or the URL is not the one that was signed.
        """
        # A token is let pass: whoever follows a redirect keeps it on the same host, and the real store is another host.
        found = self._lists.exported(request.match_info["download_id"])
        signature = request.query.get("X-Amz-Signature", "")
        if found is None or not secrets.compare_digest(found[1].signature, signature):
            raise StorageRefusal(403, "SignatureDoesNotMatch", "The request signature does not match.")
        contact_list, made = found
        headers = {"Content-Disposition": 'attachment; filename="export.csv"'}
        return Reply(200, b"", headers, "text/csv", export(contact_list.definition, made.rows))


async def _text(part: aiohttp.BodyPartReader) -> str:
    value = bytearray()
    async for chunk in _chunks(part):
        value += chunk
        if len(value) > _FIELD_BYTES_MAX:
            raise ApiError(400, "bad.request", "A field of the form is too long.")
    return value.decode(errors="replace")


async def _chunks(part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        yield chunk
