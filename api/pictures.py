"""Pictures on their way into the store, as they are; only a worker ever decodes them."""

import hashlib
from datetime import datetime
from typing import IO, Literal

import structlog
from pydantic import BaseModel

from api.problems import RequestRefused
from api.services import Services
from shared.db.uploads import Upload
from shared.storage import upload_key

log = structlog.get_logger(__name__)

#: Of a picture, or of the form around it.
MAX_UPLOAD_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024

PictureType = Literal["image/png", "image/jpeg", "image/webp"]
#: How files of each type begin: what stands where.
_MAGIC: dict[PictureType, tuple[tuple[int, bytes], ...]] = {
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
}
_HEAD_BYTES = 16


class UploadBody(BaseModel):
    """An upload; the same bytes again are the same upload."""

    id: str
    content_type: str
    bytes: int
    sha256: str
    created_at: datetime


def recognize(file: IO[bytes]) -> PictureType:
    """Tell a picture's type from its first bytes; what the caller says of it does not count.

    Raises:
        RequestRefused: It is none of a supported type.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    for content_type, marks in _MAGIC.items():
        if all(head[at : at + len(mark)] == mark for at, mark in marks):
            return content_type
    raise RequestRefused("PNG, JPEG and WebP pictures are taken", code="unsupported_image")


def digest(file: IO[bytes]) -> tuple[str, int]:
    """Return the SHA-256 and the length of a file."""
    file.seek(0)
    made, num_bytes = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        made.update(chunk)
        num_bytes += len(chunk)
    return made.hexdigest(), num_bytes


def store_picture(services: Services, tenant: str, file: IO[bytes]) -> Upload:
    """Store a picture under the name that its bytes give it.

    Raises:
        RequestRefused: It is none of a supported type.
    """
    content_type = recognize(file)
    sha256, num_bytes = digest(file)
    file.seek(0)
    upload_id = services.uploads.reserve(
        tenant, content_type=content_type, num_bytes=num_bytes, sha256=sha256
    )
    services.store.put_file(
        upload_key(tenant, upload_id), file, sha256=sha256, content_type=content_type
    )
    upload = services.uploads.confirm(tenant, upload_id)
    log.info("upload_stored", upload_id=upload.id, num_bytes=num_bytes, tenant=tenant)
    return upload


def show_upload(upload: Upload) -> UploadBody:
    """Write an upload for clients."""
    return UploadBody(
        id=upload.id,
        content_type=upload.content_type,
        bytes=upload.num_bytes,
        sha256=upload.sha256,
        created_at=upload.created_at,
    )
