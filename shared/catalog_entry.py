"""One entry of a catalog file, as written, and what is wrong with it if it cannot be used."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.adapters import AdapterEntry
from shared.device_options import DeviceOptions
from shared.vocab import Medium, Sampler, Schedule

#: What models and adapters may be called.
MODEL_ID = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
#: Rows of every forward of an `exact` job, unless the entry says otherwise.
DEFAULT_EXACT_ROWS = 8
#: Most rows of one forward, unless the entry says otherwise.
DEFAULT_MAX_ROWS = 8
#: A commit of a hub repository, in full: a branch or a tag may be another model tomorrow.
FULL_REVISION = re.compile(r"^[0-9a-f]{40}$")
REPOSITORY = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"


class PresetValues(BaseModel):
    """What a preset says for a kind of model, or what a model says instead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Sampler | None = None
    schedule: Schedule | None = None
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=1, le=50)
    guidance_rescale: float | None = Field(default=None, ge=0, le=1)


class ModelEntry(BaseModel):
    """One `[models.ID]` table."""

    model_config = ConfigDict(extra="forbid")

    path: Path | None = Field(
        default=None, description="A diffusers folder, relative to the catalog file."
    )
    repo: str | None = Field(
        default=None, pattern=REPOSITORY, description="A hub repository instead, as owner/name."
    )
    revision: str = Field(
        description="Which state of the model; of a repository the full hash of a commit."
    )
    description: str = Field(default="", description="One line for people.")
    family: str | None = Field(
        default=None, description="What runs it; read from its files unless it is said here."
    )
    medium: Medium | None = Field(
        default=None, description="What it makes; read from its files unless it is said here."
    )
    distilled: bool = Field(
        default=False,
        description="Distilled for consistency sampling, though its scheduler does not say so.",
    )
    width: int | None = Field(
        default=None, ge=8, description="Pixels of a picture by default; what it was trained on."
    )
    height: int | None = Field(default=None, ge=8, description="The same, upwards.")
    max_width: int | None = Field(
        default=None,
        ge=8,
        description="Most pixels of a picture from left to right; what it was trained on.",
    )
    max_height: int | None = Field(default=None, ge=8, description="The same, upwards.")
    duration_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds of a sound by default; the longest that it was trained on.",
    )
    max_duration_s: float | None = Field(
        default=None, gt=0, description="Most seconds of a sound; as long as its files allow."
    )
    exact_rows: int = Field(
        default=DEFAULT_EXACT_ROWS,
        ge=1,
        le=64,
        description="Rows of every forward of an exact job: another number gives other bytes.",
    )
    max_rows: int = Field(
        default=DEFAULT_MAX_ROWS, ge=1, le=64, description="Most rows of any other forward."
    )
    device: DeviceOptions = Field(
        default=DeviceOptions(),
        description="How it is put on a device: options that change the bits of results.",
    )
    presets: dict[str, PresetValues] = Field(
        default={}, description="The model's own values for presets, by their name."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either path, a folder, or repo, a hub repository")
        if self.repo is not None and not FULL_REVISION.match(self.revision):
            raise ValueError(
                "revision of a repo has to be the full hash of a commit, 40 digits from 0 to f; "
                "a branch or a tag may be another model tomorrow"
            )
        for side in ("width", "height", "duration_s"):
            default, most = getattr(self, side), getattr(self, f"max_{side}")
            if default is not None and most is not None and default > most:
                raise ValueError(f"{side} {default} is above max_{side} {most}; raise that")
        if "max_rows" in self.model_fields_set and self.exact_rows > self.max_rows:
            raise ValueError(
                f"exact_rows {self.exact_rows} is above max_rows {self.max_rows}; raise that, "
                "or leave it out"
            )
        return self


class CatalogFile(BaseModel):
    """A whole catalog file."""

    model_config = ConfigDict(extra="forbid")

    default: str
    models: dict[str, ModelEntry]
    adapters: dict[Annotated[str, Field(pattern=MODEL_ID.pattern)], AdapterEntry] = {}


def _find_table(place: tuple[Any, ...]) -> type[BaseModel] | None:
    """Say what a field stands in."""
    match place:
        case (_,):
            return CatalogFile
        case ("models", _, _):
            return ModelEntry
        case ("models", _, "device", _):
            return DeviceOptions
        case ("models", _, "presets", _, _):
            return PresetValues
        case ("adapters", _, _):
            return AdapterEntry
        case _:
            return None


def explain(error: ValidationError) -> str:
    """Name the first field that cannot stay as it is, and what would work."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "extra_forbidden":
            table = _find_table(first["loc"])
            known = f"; there are {', '.join(table.model_fields)}" if table is not None else ""
            said = f"there is no such field{known}"
        case "missing":
            said = "is missing" + _describe(first["loc"])
        case "value_error":
            said = str(first["ctx"]["error"])
        case "string_pattern_mismatch":
            said = f"has to match {first['ctx']['pattern']}"
        case _:
            said = first["msg"]
    return f"{place}: {said}" if place else said


def _describe(place: tuple[Any, ...]) -> str:
    table = _find_table(place)
    field = None if table is None else table.model_fields.get(str(place[-1]))
    return "" if field is None or field.description is None else f": {field.description}"
