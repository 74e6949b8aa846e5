"""Answers for files on the wire: they are read and written as they stream, never held whole.

A file that breaks off half way leaves nothing behind: its rows wait apart until its last byte is there.
"""

import secrets
import tempfile
from collections.abc import AsyncIterator
from typing import IO

import aiohttp
from aiohttp import web

from consumer.simulator.downloads import Downloads
from consumer.simulator.errors import ApiError, Reply
from consumer.simulator.uploads import Incoming, StorageRefusal, Uploads

_CHUNK_BYTES = 65_536
_FIELD_BYTES_MAX = 4_096
_SPOOL_BYTES = 1_000_000


class Transfers:
    """The files of uploads and exports."""

    def __init__(self, downloads: Downloads, uploads: Uploads) -> None:
        self._downloads = downloads
        self._uploads = uploads

    async def receive_file(self, request: web.Request) -> Incoming:
        """Read what is PUT to a presigned URL.

        Raises:
            StorageRefusal: It may not be put there.
        """
        key, signature = request.match_info["upload_key"], request.query.get("X-Amz-Signature", "")
        ticket = self._uploads.presented(key, signature, request.headers)
        try:
            incoming = ticket.open()
        except ApiError:
            raise StorageRefusal(403, "AccessDenied", "Access Denied") from None
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            incoming.staging.feed(chunk)
        return incoming

    async def receive_form(self, request: web.Request) -> Incoming:
        """Read the older form, whatever the order of its fields.

        Raises:
            ApiError: It is not such a form.
        """
        if request.content_type != "multipart/form-data":
            raise ApiError(415, "unsupported.media.type", "The content type must be multipart/form-data.")
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            return await self._read_form(await request.multipart(), spool)

    async def _read_form(self, form: aiohttp.MultipartReader, spool: IO[bytes]) -> Incoming:
        """A file that comes before the fields that say what it is for is put aside on disk until they are there."""
        fields: dict[str, str] = {}
        incoming: Incoming | None = None
        spooled = False
        while (part := await form.next()) is not None:
            if not isinstance(part, aiohttp.BodyPartReader):
                raise ApiError(400, "bad.request", "The form is nested.")
            if part.name != "file":
                fields[part.name or ""] = await _text(part)
            elif fields.keys() >= {"id", "fileType", "contact-id-name"}:
                incoming = self._uploads.open_form(fields)
                async for chunk in _chunks(part):
                    incoming.staging.feed(chunk)
            else:
                spooled = True
                async for chunk in _chunks(part):
                    spool.write(chunk)
        if incoming is None and not spooled:
            raise ApiError(400, "bad.request", "The form has no file.", field="file")
        return incoming or self._unspooled(fields, spool)

    def _unspooled(self, fields: dict[str, str], spool: IO[bytes]) -> Incoming:
        incoming = self._uploads.open_form(fields)
        spool.seek(0)
        while chunk := spool.read(_CHUNK_BYTES):
            incoming.staging.feed(chunk)
        return incoming

    def fetch(self, request: web.Request) -> Reply:
        """The exported file.

        Raises:
            StorageRefusal: There is none, or the URL is not the one that was signed.
        """
        # A token is let pass: whoever follows a redirect keeps it on the same host, and the real store is another host.
        made = self._downloads.find(request.match_info["download_id"])
        signature = request.query.get("X-Amz-Signature", "")
        if made is None or not secrets.compare_digest(made.signature, signature):
            raise StorageRefusal(403, "SignatureDoesNotMatch", "The request signature does not match.")
        headers = {"Content-Disposition": 'attachment; filename="export.csv"'}
        return Reply(200, b"", headers, "text/csv", made.chunks())


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
