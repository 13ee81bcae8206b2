"""Bring a model from its files onto a device."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from shared.catalog import ModelSpec
from shared.errors import HubUnavailable, ModelUnavailable
from shared.model_folder import ANY_PIPELINE, has_part
from worker.engine.device import free_unused
from worker.engine.families.audioldm2 import AudioLDM2
from worker.engine.families.dit import DiT
from worker.engine.families.family import Family
from worker.engine.families.flux import Flux
from worker.engine.families.pipeline import AnyPipeline
from worker.engine.families.placement import choose_dtype
from worker.engine.families.sd3 import StableDiffusion3
from worker.engine.families.sdxl import StableDiffusionXL
from worker.engine.families.stable_audio import StableAudio
from worker.engine.families.stable_diffusion import StableDiffusion
from worker.engine.fault import is_out_of_memory
from worker.engine.weights import foresee_bytes, measure_bytes


class FamilyClass(Protocol):
    """Loads models of one family."""

    #: The folders of its networks.
    PARTS: tuple[str, ...]

    def __call__(self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None]) -> Family:
        """Load a model; `on_part` hears of each network that is there."""
        ...


#: Family names of the catalog and the classes that run them.
_FAMILIES: dict[str, FamilyClass] = {
    "stable_diffusion": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "dit": DiT,
    "stable_audio": StableAudio,
    "audioldm2": AudioLDM2,
    ANY_PIPELINE: AnyPipeline,
}


class WeightFiles(Protocol):
    """Where weights come from that may not be on this machine."""

    def are_here(self, spec: ModelSpec) -> bool:
        """Tell whether a model can be loaded at once."""
        ...

    def fetch(self, spec: ModelSpec, parts: Iterable[str]) -> None:
        """Have the weights of a model's parts here."""
        ...


class ModelLoader:
    """Loads models onto one device; most of it may take long."""

    def __init__(self, device: str, files: WeightFiles | None = None) -> None:
        """Make one; without `files` it loads from folders alone."""
        self._device = device
        self._files = files

    def is_here(self, spec: ModelSpec) -> bool:
        """Tell whether a model's files are on this machine; returns at once."""
        return self._files is None or self._files.are_here(spec)

    def fetch(self, spec: ModelSpec) -> None:
        """Have a model's files on this machine.

        Raises:
            HubUnavailable: They cannot be fetched.
        """
        if self._files is not None:
            self._files.fetch(spec, _name_parts(spec))

    def foresee(self, spec: ModelSpec) -> int:
        """Say from its files how many bytes a model will take.

        Raises:
            OSError: They cannot be read.
            ValueError: They are not what they should be.
        """
        return sum(self._foresee_parts(spec).values())

    def load(self, spec: ModelSpec, report: Callable[[float], None]) -> Family:
        """Load a model; `report` hears which share of it is there, from 0 to 1."""
        expected = self._foresee_parts(spec)
        num_loaded = 0

        def count(part: str) -> None:
            nonlocal num_loaded
            num_loaded += expected[part]
            report(num_loaded / sum(expected.values()))

        return _FAMILIES[spec.family](spec, self._device, on_part=count)

    def measure(self, family: Family) -> int:
        """Count the bytes of a loaded model's parameters and buffers."""
        return measure_bytes(family.parts)

    def tidy(self) -> None:
        """Let the device have the memory of models that are gone."""
        free_unused(torch.device(self._device))

    def _foresee_parts(self, spec: ModelSpec) -> dict[str, int]:
        return {
            part: foresee_bytes(spec.path / part, choose_dtype(spec, part))
            for part in _name_parts(spec)
        }


def _name_parts(spec: ModelSpec) -> Iterable[str]:
    """Name the networks of a model: those of its family that it has."""
    if spec.parts:
        return spec.parts
    return [part for part in _FAMILIES[spec.family].PARTS if has_part(spec.path, part)]


class TooLarge(Exception):
    """A model takes more than the whole budget."""

    def __init__(self, num_bytes: int, budget_bytes: float) -> None:
        super().__init__(
            f"it takes {num_bytes:,} bytes and this worker has {budget_bytes:,.0f} for models; "
            f"a budget of {num_bytes:,} would do"
        )


def explain(spec: ModelSpec, error: Exception) -> str:
    """Say in a sentence why a model cannot be had; where its files lie is for the log only."""
    match error:
        case ModelUnavailable():
            return error.detail  # it says itself what would work
        case TooLarge():
            reason = f": {error}"
        case _ if is_out_of_memory(error):
            reason = ": the device has too little memory left"
        case HubUnavailable():
            reason = ": its files cannot be fetched from the hub"
        case FileNotFoundError():
            reason = ": its files are not all there"
        case _:
            reason = ""
    return f"model {spec.id} cannot be loaded{reason}"
