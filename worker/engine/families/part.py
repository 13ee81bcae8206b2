"""Load the networks of a diffusers folder."""

from collections.abc import Callable
from typing import Any

import torch

from shared.catalog import ModelSpec
from worker.engine.families.placement import Placement, choose_dtype


class PartLoader:
    """Loads the parts of one model onto a device; `on_part` hears of each that is there."""

    def __init__(
        self, spec: ModelSpec, placement: Placement, on_part: Callable[[str], None]
    ) -> None:
        self._spec = spec
        self._placement = placement
        self._on_part = on_part

    def load(self, cls: Any, part: str) -> Any:
        """Load the part of a folder's subfolder, from safetensors alone."""
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


def touch(device: torch.device) -> None:
    """Have a device do the least that it can.

    Raises:
        torch.AcceleratorError: Not even that works.
    """
    torch.ones(1, device=device).sum().item()
