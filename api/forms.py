"""Read a multipart form: bounded, and whole."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from api.pictures import MAX_UPLOAD_BYTES
from api.problems import RequestRefused

MEDIA_TYPE = "multipart/form-data"


class _FormParser(MultiPartParser):
    """A parser that does not take a form that was cut off for a whole one."""

    def __init__(self, request: Request, *, max_files: int, max_fields: int) -> None:
        stream = self._read(request)
        super().__init__(request.headers, stream, max_files=max_files, max_fields=max_fields)
        self._is_whole = False

    def on_end(self) -> None:
        """Note that the last boundary has come."""
        self._is_whole = True

    async def _read(self, request: Request) -> AsyncGenerator[bytes, None]:
        num_bytes = 0
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > MAX_UPLOAD_BYTES:
                raise RequestRefused(
                    f"a form may have {MAX_UPLOAD_BYTES:,} bytes", code="upload_too_large"
                )
            yield chunk
        if not self._is_whole:
            raise MultiPartException("the last boundary is missing")


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def reading_form(
    request: Request, *, max_files: int, max_fields: int, expected: str
) -> AsyncIterator[FormData]:
    """Read a form, its files beyond the first megabyte on disk for as long as the context lasts.

    `expected` tells a client that sent another one what to send.

    Raises:
        RequestRefused: It is too large, or not such a form.
    """
    if media_type_of(request) != MEDIA_TYPE:
        raise RequestRefused(expected, code="unsupported_media_type")
    try:
        form = await _FormParser(request, max_files=max_files, max_fields=max_fields).parse()
    except MultiPartException as error:
        raise RequestRefused(expected, code="malformed_form") from error
    try:
        yield form
    finally:
        await form.close()
