"""A preview, as a stream of events tells it."""

import base64
from typing import Annotated, Self

from pydantic import BaseModel, Field

from shared.preview import Preview


class PreviewBody(BaseModel):
    """What one output looks like after so many forwards, roughly; a small picture."""

    output_index: int
    iteration: int
    content_type: str
    data: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]

    @classmethod
    def of(cls, preview: Preview) -> Self:
        """Describe a preview."""
        return cls(
            output_index=preview.output_index,
            iteration=preview.iteration,
            content_type=preview.content_type,
            data=base64.b64encode(preview.data).decode(),
        )
