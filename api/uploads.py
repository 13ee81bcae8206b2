"""Routes of uploads: a picture in a form, or a form to send one straight to the store with."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, UploadFile
from pydantic import ValidationError
from starlette.datastructures import UploadFile as FormFile

from api.auth import Caller, Requires
from api.body import MAX_BODY_BYTES, JsonRequest
from api.caching import forbid_storing
from api.forms import MEDIA_TYPE, media_type_of, reading_form
from api.incoming import PresignedUploadBody, UploadCreate, offer_upload
from api.openapi import refusals
from api.pictures import UploadBody, show_upload, store_picture
from api.problems import RequestRefused
from api.services import ServicesOf
from api.validation import explain_body
from shared.access import Scope

FIELD = "file"
_EXPECTED = f"send a form of one file, in the field {FIELD!r}, and nothing else"

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        },
        "application/json": {"schema": UploadCreate.model_json_schema()},
    },
}


async def receive(request: Request) -> AsyncGenerator[UploadFile | UploadCreate, None]:
    """Read a form of one file, beyond the first megabyte on disk; or what is said of a file.

    Raises:
        RequestRefused: It is too large, or not such a form.
        InvalidRequest: What is said of a file is not valid.
    """
    media_type = media_type_of(request)
    if media_type == "application/json":
        yield await _read_description(request)
        return
    if media_type != MEDIA_TYPE:
        raise RequestRefused(
            f"send the picture as field {FIELD!r} of a multipart/form-data body, or what you will"
            " send as application/json",
            code="unsupported_media_type",
        )
    async with reading_form(request, max_files=1, max_fields=0, expected=_EXPECTED) as form:
        file = form.get(FIELD)
        if not isinstance(file, FormFile) or len(form) != 1:
            raise RequestRefused(_EXPECTED, code="malformed_form")
        yield UploadFile(file.file, size=file.size)


async def _read_description(request: Request) -> UploadCreate:
    body = JsonRequest(request.scope, request.receive, max_bytes=MAX_BODY_BYTES)
    document = await body.json()
    try:
        return UploadCreate.model_validate(document, from_attributes=True)
    except ValidationError as error:
        raise explain_body(error) from error


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(Requires(Scope.UPLOADS_WRITE))],
    responses=refusals(400, 413, 415, 422),
    openapi_extra={"requestBody": _BODY},
)
def create_upload(
    sent: Annotated[UploadFile | UploadCreate, Depends(receive)],
    response: Response,
    caller: Caller,
    services: ServicesOf,
) -> UploadBody | PresignedUploadBody:
    """Store a PNG, JPEG or WebP picture for `init_image` or `mask` of jobs to come.

    Where JSON says what the picture will be, the answer is a form to send it straight to the store.
    """
    if isinstance(sent, UploadCreate):
        forbid_storing(response)
        return offer_upload(services, caller.tenant, sent)
    return show_upload(store_picture(services, caller.tenant, sent.file))
