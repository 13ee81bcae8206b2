"""Presets: named, versioned partial requests, resolved at submission and never seen by a worker."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.catalog import ModelSpec
from shared.catalog_entry import PresetValues
from shared.compatibility import stand_in
from shared.errors import ConfigurationError
from shared.job import PresetRef
from shared.vocab import Medium, Sampler, Schedule

DEFAULT_PRESET = "balanced"
#: The presets that come with LatentQ.
PRESETS = Path(__file__).parent / "presets.toml"


class Sampling(BaseModel):
    """How to sample, complete: nothing is left for anybody to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: Sampler
    schedule: Schedule
    steps: int = Field(ge=1, le=1000)
    guidance: float = Field(ge=1, le=50)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)


class _Entry(BaseModel):
    """One table of the file, as written."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1)
    description: str
    image: Sampling
    audio: Sampling
    distilled: Sampling


@dataclass(frozen=True, slots=True)
class Preset:
    """Values for each kind of model under a name."""

    ref: PresetRef
    description: str
    values: Mapping[Medium, Sampling]
    #: Instead of `values`, for models distilled for consistency sampling.
    distilled: Sampling

    def overlaid(self, ref: PresetRef, description: str, mine: PresetValues) -> "Preset":
        """Return a preset that says something else where `mine` does."""
        change = mine.model_dump(exclude_none=True)
        return Preset(
            ref=ref,
            description=description,
            values={kind: s.model_copy(update=change) for kind, s in self.values.items()},
            distilled=self.distilled.model_copy(update=change),
        )

    def resolve(self, spec: ModelSpec, explicit: PresetValues) -> Sampling:
        """Settle every value: what the request says, else the model, else this preset."""
        own = spec.presets.get(self.ref.name, PresetValues())
        mine = self.distilled if spec.is_distilled else self.values[spec.medium]
        mine = mine.model_copy(update={"sampler": stand_in(mine.sampler, spec)})
        layers = (mine, own, explicit)
        settled: dict[str, object] = {}
        for layer in layers:
            settled |= layer.model_dump(exclude_none=True)
        return Sampling.model_validate(settled)


@dataclass(frozen=True, slots=True)
class PresetBook:
    """All presets of an installation."""

    presets: Mapping[str, Preset]

    def __iter__(self) -> Iterator[Preset]:
        return iter(self.presets.values())

    @property
    def default(self) -> Preset:
        """What applies where nobody chose, and what tenants' own presets build on."""
        return self.presets[DEFAULT_PRESET]

    def find(self, wanted: str) -> Preset | None:
        """Return the preset that `name` or `name@version` means, or None."""
        name, at, version = wanted.partition("@")
        preset = self.presets.get(name)
        if preset is None or (at and version != str(preset.ref.version)):
            return None
        return preset

    @classmethod
    def load(cls, path: Path = PRESETS) -> "PresetBook":
        """Read a file of presets.

        Raises:
            ConfigurationError: It cannot be used; says why.
        """
        try:
            entries = _FILE.validate_python(tomllib.loads(path.read_text()))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"presets {path}: {place}: {first['msg']}") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"presets {path}: {error}") from error
        if DEFAULT_PRESET not in entries:
            raise ConfigurationError(f"presets {path}: {DEFAULT_PRESET} is missing")
        return cls({name: _make(name, entry) for name, entry in entries.items()})


_FILE = TypeAdapter(dict[str, _Entry])


def _make(name: str, entry: _Entry) -> Preset:
    return Preset(
        ref=PresetRef(name, entry.version),
        description=entry.description,
        values={Medium.IMAGE: entry.image, Medium.AUDIO: entry.audio},
        distilled=entry.distilled,
    )
