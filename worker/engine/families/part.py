"""Load the networks of a model."""

from collections.abc import Callable
from typing import Any

import torch

from shared.catalog import ModelSpec
from worker.engine.families.placement import Placement, choose_dtype


class PartLoader:
    """Loads one network after the other from a model's folder onto its device."""

    def __init__(
        self, spec: ModelSpec, placement: Placement, on_part: Callable[[str], None]
    ) -> None:
        """Make one; `on_part` hears of each network that is there."""
        self._spec = spec
        self._placement = placement
        self._on_part = on_part

    def load(self, cls: Any, part: str) -> Any:
        """Load the network of a class from its folder, ready for inference."""
        model = cls.from_pretrained(
            self._spec.path / part,
            # Loading another type would make it the default of all threads for a while.
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,  # else diffusers asks for a package that it needs for it
        )
        model = self._placement.place(model, choose_dtype(self._spec, part))
        self._on_part(part)
        return model
