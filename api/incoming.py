"""Uploads that go straight to the store, by a link that allows one file, and are checked after."""

import tempfile
from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, Requires
from api.caching import forbid_storing
from api.ids import check_id
from api.openapi import refusals
from api.pictures import (
    MAX_UPLOAD_BYTES,
    PictureType,
    UploadBody,
    digest,
    recognize,
    show_upload,
    store_picture,
)
from api.problems import RequestRefused
from api.services import Services, ServicesOf
from shared.access import Scope
from shared.db.incoming import LINK_TTL_S, IncomingUpload
from shared.db.uploads import Upload
from shared.errors import Conflict, NotFound
from shared.storage import incoming_key

log = structlog.get_logger(__name__)

#: Larger files wait on disk while they are checked.
_IN_MEMORY_BYTES = 1024 * 1024

router = APIRouter(
    prefix="/v1/uploads", tags=["uploads"], dependencies=[Depends(Requires(Scope.UPLOADS_WRITE))]
)


class UploadCreate(BaseModel):
    """What will be sent: a file of this type and length, of this SHA-256 if that is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    content_type: PictureType
    bytes: Annotated[int, Field(ge=1, le=MAX_UPLOAD_BYTES)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class PresignedUploadBody(BaseModel):
    """Where to send the file: as the last field, `file`, of a form of these fields.

    Then `POST /v1/uploads/{id}/complete` answers the id that jobs take.
    """

    id: str
    url: str
    fields: dict[str, str]
    expires_at: datetime


def offer_upload(services: Services, tenant: str, body: UploadCreate) -> PresignedUploadBody:
    """Note an upload and sign the form that brings it."""
    incoming = services.incoming.add(
        tenant, content_type=body.content_type, num_bytes=body.bytes, sha256=body.sha256
    )
    url, fields = services.store.presign_post(
        incoming_key(tenant, incoming.id),
        content_type=body.content_type,
        num_bytes=body.bytes,
        ttl_s=LINK_TTL_S,
    )
    log.info("upload_offered", incoming_id=incoming.id, num_bytes=body.bytes, tenant=tenant)
    return PresignedUploadBody(
        id=incoming.id, url=url, fields=fields, expires_at=incoming.expires_at
    )


@router.post("/{incoming_id}/complete", responses=refusals(404, 409, 415, 422))
def complete_upload(
    incoming_id: str, response: Response, caller: Caller, services: ServicesOf
) -> UploadBody:
    """Check what was sent to the store, and make it usable. Once more answers the same upload."""
    check_id(incoming_id, of="upload")
    forbid_storing(response)
    incoming = services.incoming.get(caller.tenant, incoming_id)
    if incoming.upload_id is None:
        upload = _take(services, caller.tenant, incoming)
        if upload is not None:
            return show_upload(upload)
        # Nothing has come, or another call has taken it meanwhile.
        incoming = services.incoming.get(caller.tenant, incoming_id)
    if incoming.upload_id is None:
        raise Conflict("send the file first", code="upload_incomplete")
    known = services.uploads.find(caller.tenant, incoming.upload_id)
    if known is None:
        raise NotFound("the upload is kept no longer; send it again")
    return show_upload(known)


def _take(services: Services, tenant: str, incoming: IncomingUpload) -> Upload | None:
    """Make an upload of what was sent; None if there is nothing.

    What is checked is what is stored: whoever has the link may go on changing what it leads to.

    Raises:
        RequestRefused: It is not what was announced.
    """
    key = incoming_key(tenant, incoming.id)
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
        try:
            num_bytes = services.store.get_file(key, file, max_bytes=incoming.num_bytes)
        except NotFound:
            return None
        _check(incoming, num_bytes, file)
        upload = store_picture(services, tenant, file)
    services.incoming.finish(tenant, incoming.id, upload_id=upload.id)
    services.store.delete([key])
    return upload


def _check(
    incoming: IncomingUpload, num_bytes: int, file: "tempfile.SpooledTemporaryFile[bytes]"
) -> None:
    """Compare a file with what was said of it.

    Raises:
        RequestRefused: It is another one.
    """
    if num_bytes != incoming.num_bytes:
        raise _mismatch(f"it has {num_bytes:,} bytes, not {incoming.num_bytes:,}")
    content_type = recognize(file)
    if content_type != incoming.content_type:
        raise _mismatch(f"it is {content_type}, not {incoming.content_type}")
    if incoming.sha256 is not None and digest(file)[0] != incoming.sha256:
        raise _mismatch("it has another SHA-256")


def _mismatch(detail: str) -> RequestRefused:
    return RequestRefused(f"{detail}; send the right one", code="upload_mismatch")
