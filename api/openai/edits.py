"""`images/edits`: a form with a picture to start from, and perhaps a mask."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from api.forms import reading_form
from api.openai.order import Order, read_order
from api.openai.schemas import ImageCreate
from api.pictures import store_picture
from api.services import Services
from api.translation import Translation
from api.validation import explain_body
from shared.errors import FieldProblem, InvalidRequest

#: OpenAI's API takes up to 16 pictures and a mask; more than one picture is refused by its name.
MAX_FILES = 17
MAX_FIELDS = 64
_IMAGE, _MASK = "image", "mask"
_EXPECTED = "send a form with an image, a prompt, and perhaps a mask"
#: What the form is, for the document.
EDIT_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image", "prompt"],
                "properties": {
                    "image": {"type": "string", "format": "binary"},
                    "mask": {"type": "string", "format": "binary"},
                    "prompt": {"type": "string"},
                },
                "additionalProperties": {"type": "string"},
            }
        }
    },
}


@dataclass(frozen=True, slots=True)
class Edit:
    """A form that was read: its files, and a body of its fields."""

    body: ImageCreate
    image: UploadFile
    mask: UploadFile | None
    #: Files that have no effect.
    others: list[str]


async def receive_edit(request: Request) -> AsyncIterator[Edit]:
    """Read the form of an edit.

    Raises:
        InvalidRequest: Something is missing or wrong.
        RequestRefused: It is too large, or no form.
    """
    sizes = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS}
    async with reading_form(request, **sizes, expected=_EXPECTED) as form:
        fields: dict[str, str] = {}
        files: dict[str, list[UploadFile]] = {}
        for said_as, value in form.multi_items():
            name = said_as.removesuffix("[]")
            if isinstance(value, UploadFile):
                files.setdefault(name, []).append(value)
            elif name in fields:
                raise InvalidRequest([FieldProblem("#", "a field may stand once")])
            else:
                fields[name] = value
        try:
            body = ImageCreate.model_validate(fields, strict=False)
        except ValidationError as error:
            raise explain_body(error) from error
        image, mask = _only(files, _IMAGE), _only(files, _MASK)
        if image is None:
            raise InvalidRequest([FieldProblem(f"#/{_IMAGE}", "this field is required")])
        yield Edit(body, image, mask, [name for name in files if name not in (_IMAGE, _MASK)])


EditForm = Annotated[Edit, Depends(receive_edit)]


def read_edit(services: Services, tenant: str, edit: Edit) -> Order:
    """Store the pictures of an edit, and turn it into a job's body.

    Raises:
        InvalidRequest: It cannot be one.
        RequestRefused: A file is no picture of a supported type.
    """
    translation = Translation(strict=False)
    for name, field, file in (("init_image", _IMAGE, edit.image), ("mask", _MASK, edit.mask)):
        if file is not None:
            upload = store_picture(services, tenant, file.file)
            translation.put(name, upload.id, said_as=field)
    for name in edit.others:
        translation.ignore(name)
    return read_order(edit.body, translation)


def _only(files: dict[str, list[UploadFile]], name: str) -> UploadFile | None:
    found = files.get(name, [])
    if len(found) > 1:
        detail = "a job starts from one picture; send one"
        raise InvalidRequest([FieldProblem(f"#/{name}", detail)], code="not_supported_yet")
    return found[0] if found else None
