"""Pictures for inputs: as a form, as the address of one that was sent, or as a data: URI."""

import base64
import binascii
import io
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile

from api.auth import Caller, Requires
from api.forms import reading_form
from api.ids import check_id
from api.openapi import refusals
from api.pictures import store_picture
from api.problems import RequestRefused
from api.replicate.place import BaseUrl
from api.replicate.schemas import FileBody, FileUrls
from api.services import Services, ServicesOf
from shared.access import Scope
from shared.db.uploads import Upload
from shared.errors import NotFound

_FIELD = "content"
_EXPECTED = f"send a form with the picture in the field {_FIELD!r}"
_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
#: Where any service of ours describes a file: it is never fetched, only its id is read.
_FILE_URL = re.compile(r"https?://[^?#]+/files/(upl_[0-9a-f]{32})", re.ASCII)
_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [_FIELD],
                "properties": {
                    _FIELD: {"type": "string", "format": "binary"},
                    "metadata": {"type": "string"},
                },
            }
        }
    },
}

router = APIRouter(
    prefix="/replicate/v1/files",
    tags=["replicate"],
    dependencies=[Depends(Requires(Scope.UPLOADS_WRITE))],
)


async def receive_content(request: Request) -> AsyncIterator[UploadFile]:
    """Read the form of a file.

    Raises:
        RequestRefused: It is too large, or not such a form.
    """
    async with reading_form(request, max_files=1, max_fields=8, expected=_EXPECTED) as form:
        file = form.get(_FIELD)
        if not isinstance(file, UploadFile):
            raise RequestRefused(_EXPECTED, code="malformed_form")
        yield file


@router.post(
    "",
    status_code=201,
    responses=refusals(400, 413, 415),
    openapi_extra={"requestBody": _FORM},
)
def create_replicate_file(
    file: Annotated[UploadFile, Depends(receive_content)],
    caller: Caller,
    services: ServicesOf,
    base_url: BaseUrl,
) -> FileBody:
    """Store a PNG, JPEG or WebP picture for inputs of predictions to come."""
    return _show(store_picture(services, caller.tenant, file.file), base_url)


@router.get("/{file_id}", responses=refusals(404))
def get_replicate_file(
    file_id: str, caller: Caller, services: ServicesOf, base_url: BaseUrl
) -> FileBody:
    """Read what is known of a picture."""
    upload = services.uploads.find(caller.tenant, check_id(file_id, of="file"))
    if upload is None:
        raise NotFound("there is no such file")
    return _show(upload, base_url)


def read_file_input(services: Services, tenant: str, value: str) -> str:
    """Return the id of the upload that an input stands for; a data: URI is stored as one.

    Raises:
        RequestRefused: What it holds is no picture of a supported type.
        ValueError: It can be none; says what would work.
    """
    if match := _FILE_URL.fullmatch(value):
        return match[1]
    if match := _DATA_URI.match(value):
        try:
            data = base64.b64decode(value[match.end() :], validate=True)
        except binascii.Error as error:
            raise ValueError("the data: URI is no valid base64") from error
        return store_picture(services, tenant, io.BytesIO(data)).id
    if ":" in value:
        raise ValueError(
            "nothing is fetched from elsewhere; send a data: URI, or POST it to /files"
        )
    return value


def _show(upload: Upload, base_url: str) -> FileBody:
    return FileBody(
        id=upload.id,
        name=upload.id,
        content_type=upload.content_type,
        size=upload.num_bytes,
        etag=upload.sha256,
        checksums={"sha256": upload.sha256},
        created_at=upload.created_at,
        urls=FileUrls(get=f"{base_url}/files/{upload.id}"),
    )
