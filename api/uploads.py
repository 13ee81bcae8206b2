"""Routes of uploads: a picture in a form, or a form to send one straight to the store with."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, UploadFile
from pydantic import ValidationError
from starlette.datastructures import UploadFile as FormFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.auth import Caller, Requires
from api.body import MAX_BODY_BYTES, JsonRequest
from api.caching import forbid_storing
from api.incoming import PresignedUploadBody, UploadCreate, offer_upload
from api.openapi import refusals
from api.pictures import MAX_UPLOAD_BYTES, UploadBody, show_upload, store_picture
from api.problems import RequestRefused
from api.services import ServicesOf
from api.validation import explain
from shared.access import Scope

FIELD = "file"

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
            if num_bytes > MAX_UPLOAD_BYTES:
                raise RequestRefused(
                    f"a form may have {MAX_UPLOAD_BYTES:,} bytes", code="upload_too_large"
                )
            yield chunk
        if not self._is_whole:
            raise MultiPartException("the last boundary is missing")


async def receive(request: Request) -> AsyncGenerator[UploadFile | UploadCreate, None]:
    """Read a form of one file, beyond the first megabyte on disk; or what is said of a file.

    Raises:
        RequestRefused: It is too large, or not such a form.
        InvalidRequest: What is said of a file is not valid.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        yield await _read_description(request)
        return
    if media_type != "multipart/form-data":
        raise RequestRefused(
            f"send the picture as field {FIELD!r} of a multipart/form-data body, or what you will"
            " send as application/json",
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


async def _read_description(request: Request) -> UploadCreate:
    body = JsonRequest(request.scope, request.receive, max_bytes=MAX_BODY_BYTES)
    document = await body.json()
    try:
        return UploadCreate.model_validate(document, from_attributes=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise explain([{**one, "loc": ("body", *one["loc"])} for one in found]) from error


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


def _malformed() -> RequestRefused:
    return RequestRefused(
        f"send a form of one file, in the field {FIELD!r}, and nothing else", code="malformed_form"
    )
