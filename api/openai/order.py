"""From a request for pictures to a job's body."""

import re
from dataclasses import dataclass

from api.openai.schemas import ImageCreate, ResponseFormat
from api.schemas import JobCreate
from api.translation import Translation

_SIZE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for."""

    job: JobCreate
    response_format: ResponseFormat
    num_partials: int
    #: Fields that have no effect.
    warnings: list[str]
    translation: Translation


def read_order(body: ImageCreate, translation: Translation) -> Order:
    """Turn a request for pictures into a job's body.

    Raises:
        InvalidRequest: It cannot be one; names the fields as the client did.
    """
    translation.put("prompt", body.prompt)
    translation.put("model", body.model)
    translation.put("num_outputs", body.n, said_as="n")
    translation.put("output_format", body.output_format)
    if body.size not in (None, "auto"):
        match = _SIZE.fullmatch(body.size or "")
        if match is None:
            translation.refuse("size", "must be WIDTHxHEIGHT in pixels, or auto")
        else:
            translation.put("width", int(match[1]), said_as="size")
            translation.put("height", int(match[2]), said_as="size")
    translation.put_all(body.others)
    if body.partial_images and not body.stream:
        translation.ignore("partial_images")
    if body.stream and body.response_format == "url":
        translation.refuse("response_format", "a stream sends b64_json only")
    return Order(
        job=translation.read(),
        response_format=body.response_format or "b64_json",
        num_partials=(body.partial_images or 0) if body.stream else 0,
        warnings=translation.warnings(),
        translation=translation,
    )
