"""Presets of tenants: partial bodies that are laid under the body of a job."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from api.schemas import (
    AsText,
    Duration,
    Guidance,
    JobCreate,
    NumOutputs,
    Rescale,
    Side,
    Steps,
    Text,
)
from shared.catalog_entry import MODEL_ID
from shared.db.presets import StoredPreset
from shared.vocab import OutputFormat, Sampler, Schedule

#: Finds a version of a tenant's preset by its name, the newest unless one is named.
FindPreset = Callable[[str, int | None], StoredPreset | None]

#: Presets are named as models are, so that `name@version` is clear.
PRESET_NAME = MODEL_ID
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class PresetFields(BaseModel):
    """What a preset of a tenant may settle: fields of a job, null where it says nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    model: Text | None = None
    sampler: Annotated[Sampler | None, AsText] = None
    schedule: Annotated[Schedule | None, AsText] = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    guidance_rescale: Rescale | None = None
    width: Side | None = None
    height: Side | None = None
    duration_s: Duration | None = None
    num_outputs: NumOutputs | None = None
    output_format: Annotated[OutputFormat | None, AsText] = None
    allow_undistilled: bool | None = None

    def lay_under(self, body: JobCreate) -> JobCreate:
        """Fill in what a body does not say; null says nothing."""
        said = {name for name in body.model_fields_set if getattr(body, name) is not None}
        mine = self.model_dump(exclude_none=True)
        return body.model_copy(
            update={name: value for name, value in mine.items() if name not in said}
        )


def find_own(wanted: str, find_preset: FindPreset) -> StoredPreset | None:
    """Return the tenant's preset that `name` or `name@version` means, or None."""
    name, at, version = wanted.partition("@")
    # What cannot be is not looked for.
    if not PRESET_NAME.fullmatch(name) or (at and not _VERSION.fullmatch(version)):
        return None
    return find_preset(name, int(version) if at else None)
