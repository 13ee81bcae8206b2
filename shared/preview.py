"""A preview on its way from a worker to whoever watches: a line of JSON, then the picture."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: All previews are WebP.
CONTENT_TYPE: Literal["image/webp"] = "image/webp"
#: Most bytes of a picture, and of a header.
MAX_BYTES, MAX_HEADER_BYTES = 64_000, 300
#: Least time between two previews of a job, in seconds.
INTERVAL_S = 0.5


class _Header(BaseModel):
    """What is said of a picture; strict, for anybody who reaches Redis may have written it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    job_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    output_index: Annotated[int, Field(ge=0, lt=1_000)]
    iteration: Annotated[int, Field(ge=1, lt=1_000_000)]
    content_type: Literal["image/webp"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What one output of a job looks like after so many forwards, roughly."""

    job_id: str
    output_index: int
    #: Forwards of this output so far.
    iteration: int
    data: bytes
    content_type: Literal["image/webp"] = CONTENT_TYPE

    def encode(self) -> bytes:
        """Pack it into a message.

        Raises:
            ValueError: No reader would take it.
        """
        header = _Header(
            job_id=self.job_id,
            output_index=self.output_index,
            iteration=self.iteration,
            content_type=self.content_type,
        )
        _check_size(self.data)
        return header.model_dump_json().encode() + b"\n" + self.data


def decode_preview(message: bytes) -> Preview:
    """Unpack a message.

    Raises:
        ValueError: It is none.
    """
    end = message.find(b"\n", 0, MAX_HEADER_BYTES)
    if end < 0:
        raise ValueError("the message has no header")
    header = _Header.model_validate_json(message[:end])
    data = message[end + 1 :]
    _check_size(data)
    return Preview(**header.model_dump(), data=data)


def _check_size(data: bytes) -> None:
    if not 0 < len(data) <= MAX_BYTES:
        raise ValueError(f"a preview has 1 to {MAX_BYTES} bytes, this one {len(data)}")
