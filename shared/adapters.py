"""What adapters exist, read from `catalog.toml`: small changes to models that a job asks for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.errors import ConfigurationError

#: How many adapters a job may have.
MAX_ADAPTERS = 4
#: The file that is taken of a folder, named as diffusers names it.
FILE_NAME = "pytorch_lora_weights.safetensors"
#: Weights further from 0 than this are nobody's wish.
MAX_WEIGHT = 10.0

Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)]


class AdapterUse(BaseModel):
    """An adapter of the catalog in a job, and how much it changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    weight: Weight


class AdapterEntry(BaseModel):
    """One `[adapters.ID]` table, as written."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    description: str = ""
    revision: str
    #: Catalog ids of the models that it was made for.
    models: list[str] = Field(min_length=1)
    #: What a job gets that names none, and what it may name.
    weight: Weight = 1.0
    min_weight: Weight = 0.0
    max_weight: Weight = 2.0

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not self.min_weight <= self.weight <= self.max_weight:
            raise ValueError("weight must lie between min_weight and max_weight")
        return self


@dataclass(frozen=True)
class AdapterSpec:
    """One adapter: where it lies, what it fits, what weights it allows."""

    id: str
    #: A safetensors file.
    path: Path
    description: str
    revision: str
    models: tuple[str, ...]
    weight: float
    min_weight: float
    max_weight: float


def read_adapters(
    entries: Mapping[str, AdapterEntry], *, models: Collection[str], root: Path
) -> dict[str, AdapterSpec]:
    """Settle the adapters of a catalog; relative paths start at `root`.

    What is in their files only workers look at, when a job needs it.

    Raises:
        ConfigurationError: One is for a model that does not exist, or has no safetensors file.
    """
    return {
        adapter_id: AdapterSpec(
            id=adapter_id,
            path=_find_file(adapter_id, (root / entry.path).resolve()),
            description=entry.description,
            revision=entry.revision,
            models=_check_models(adapter_id, entry.models, known=models),
            weight=entry.weight,
            min_weight=entry.min_weight,
            max_weight=entry.max_weight,
        )
        for adapter_id, entry in entries.items()
    }


def _find_file(adapter_id: str, path: Path) -> Path:
    file = path / FILE_NAME if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        raise ConfigurationError(
            f"adapter {adapter_id}: {file} is no safetensors file; "
            f"name one, or a folder with {FILE_NAME}"
        )
    return file


def _check_models(
    adapter_id: str, wanted: Collection[str], *, known: Collection[str]
) -> tuple[str, ...]:
    if missing := [model_id for model_id in wanted if model_id not in known]:
        raise ConfigurationError(
            f"adapter {adapter_id}: no model {missing[0]!r}; known: {', '.join(known)}"
        )
    return tuple(wanted)
