"""Uploads: pictures go to the store as they are; only a worker ever decodes them."""

import hashlib
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import IO, Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, UploadFile
from pydantic import BaseModel
from starlette.datastructures import UploadFile as FormFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.auth import Caller, Requires
from api.openapi import refusals
from api.problems import RequestRefused
from api.services import ServicesOf
from shared.access import Scope
from shared.db.uploads import Upload
from shared.storage import upload_key

log = structlog.get_logger(__name__)

#: Of the whole form: its one file and some hundred bytes around it.
MAX_FORM_BYTES = 32 * 1024 * 1024
FIELD = "file"
#: How files of each type begin: what stands where.
_MAGIC: dict[str, tuple[tuple[int, bytes], ...]] = {
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
}
_HEAD_BYTES = 16
_CHUNK_BYTES = 1024 * 1024

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        }
    },
}


class UploadBody(BaseModel):
    """An upload; the same bytes again are the same upload."""

    id: str
    content_type: str
    bytes: int
    sha256: str
    created_at: datetime


class _FormParser(MultiPartParser):
    """A parser that does not take a form that was cut off for a whole one."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.headers, self._read(request), max_files=1, max_fields=0)
        self._is_whole = False

    def on_end(self) -> None:
        """Note that the last boundary has come."""
        self._is_whole = True

    async def _read(self, request: Request) -> AsyncGenerator[bytes, None]:
        num_bytes = 0
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > MAX_FORM_BYTES:
                raise RequestRefused(
                    f"a form may have {MAX_FORM_BYTES:,} bytes", code="upload_too_large"
                )
            yield chunk
        if not self._is_whole:
            raise MultiPartException("the last boundary is missing")


async def receive_file(request: Request) -> AsyncGenerator[UploadFile, None]:
    """Read a form of one file, beyond the first megabyte on disk.

    Raises:
        RequestRefused: It is too large, or not such a form.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise RequestRefused(
            f"send the picture as field {FIELD!r} of a multipart/form-data body",
            code="unsupported_media_type",
        )
    try:
        form = await _FormParser(request).parse()
    except MultiPartException as error:
        raise _malformed() from error
    try:
        file = form.get(FIELD)
        if not isinstance(file, FormFile) or len(form) != 1:
            raise _malformed()
        yield UploadFile(file.file, size=file.size)
    finally:
        await form.close()


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(Requires(Scope.UPLOADS_WRITE))],
    responses=refusals(400, 413, 415),
    openapi_extra={"requestBody": _FORM},
)
def create_upload(
    file: Annotated[UploadFile, Depends(receive_file)], caller: Caller, services: ServicesOf
) -> UploadBody:
    """Store a PNG, JPEG or WebP picture for `init_image` or `mask` of jobs to come."""
    content_type = _recognize(file.file.read(_HEAD_BYTES))
    file.file.seek(0)
    digest, num_bytes = _digest(file.file)
    file.file.seek(0)
    upload_id = services.uploads.reserve(
        caller.tenant, content_type=content_type, num_bytes=num_bytes, sha256=digest
    )
    services.store.put_file(
        upload_key(caller.tenant, upload_id), file.file, sha256=digest, content_type=content_type
    )
    upload = services.uploads.confirm(caller.tenant, upload_id)
    log.info("upload_stored", upload_id=upload.id, num_bytes=num_bytes, tenant=caller.tenant)
    return _render(upload)


def _recognize(head: bytes) -> str:
    """Tell a picture's type from its first bytes; what the caller says of it does not count."""
    for content_type, marks in _MAGIC.items():
        if all(head[at : at + len(mark)] == mark for at, mark in marks):
            return content_type
    raise RequestRefused("PNG, JPEG and WebP pictures are taken", code="unsupported_image")


def _digest(file: IO[bytes]) -> tuple[str, int]:
    """Return the SHA-256 and the length of a file, read to its end."""
    digest, num_bytes = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        num_bytes += len(chunk)
    return digest.hexdigest(), num_bytes


def _malformed() -> RequestRefused:
    return RequestRefused(
        f"send a form of one file, in the field {FIELD!r}, and nothing else", code="malformed_form"
    )


def _render(upload: Upload) -> UploadBody:
    return UploadBody(
        id=upload.id,
        content_type=upload.content_type,
        bytes=upload.num_bytes,
        sha256=upload.sha256,
        created_at=upload.created_at,
    )
