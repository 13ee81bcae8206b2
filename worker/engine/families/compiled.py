"""A denoiser that is compiled for forwards of some row counts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from shared.catalog import ModelSpec
from shared.errors import ModelUnavailable
from worker.engine.conditioning import Conditioning, repeat
from worker.engine.families.family import Family
from worker.engine.families.placement import Placement

#: Runs rows at timesteps of their own.
Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]


def denoise(
    denoiser: Any, latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """Run rows [B, C, h, w] at timesteps [B] of their own, conditioned by the denoiser's names."""
    prediction: Tensor = denoiser(latents, timesteps, **conditioning, return_dict=False)[0]
    return prediction


class CompiledDenoiser:
    """Run forwards of the model's own size compiled, and others as they are.

    Those with adapters are others: programs were made without them, and would leave out without a
    word what their hooks add.

    Each bucket of rows is to be run once when the model is loaded: compiled at work, it would keep
    jobs waiting for minutes. Fewer rows than their bucket has are filled up with copies of one. The
    rows of exact jobs are a bucket, so that none are added to them.
    """

    def __init__(self, denoiser: Any, spec: ModelSpec, placement: Placement) -> None:
        self._denoiser = denoiser
        self._model_id = spec.id
        self._size = (spec.height // spec.latent_factor, spec.width // spec.latent_factor)
        self._memory_format = placement.memory_format
        powers = (2**n for n in range(spec.max_rows.bit_length()))
        self.buckets = sorted({*powers, spec.max_rows, spec.exact_rows})
        # One program for each bucket, and none is thrown away for another.
        self._compiled: Any = torch.compile(  # type: ignore[call-overload] # names not all options
            denoiser,
            dynamic=False,
            recompile_limit=len(self.buckets),
            isolate_recompiles=True,
        )

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run rows as `denoise` does."""
        rows = len(latents)
        bucket = next((size for size in self.buckets if size >= rows), None)
        if bucket is None or latents.shape[2:] != self._size or self._has_adapters():
            return denoise(self._denoiser, latents, timesteps, conditioning)
        pad = partial(_pad, rows=bucket)
        latents, timesteps = pad(latents), pad(timesteps)
        conditioning = {name: pad(tensor) for name, tensor in conditioning.items()}
        # Programs hold for one order in memory; what comes from a picture may have another.
        latents = latents.contiguous(memory_format=self._memory_format)
        return denoise(self._compiled, latents, timesteps, conditioning)[:rows]

    def warm_up(self, family: Family) -> None:
        """Compile each bucket of rows by running it once, for the model that it belongs to.

        Raises:
            ModelUnavailable: It cannot be compiled here; says what would work.
        """
        try:
            with torch.inference_mode():
                noise, conditioning = family.example()
                for rows in self.buckets:
                    timesteps = torch.zeros(rows, device=family.device)
                    family.predict(torch.cat([noise] * rows), timesteps, repeat(conditioning, rows))
        except Exception as error:
            raise ModelUnavailable(
                f"model {self._model_id}: torch does not compile it for {family.device.type} here; "
                "compile = false is always served"
            ) from error

    def _has_adapters(self) -> bool:
        return any(layer._forward_hooks for layer in self._denoiser.modules())


def _pad(tensor: Tensor, rows: int) -> Tensor:
    return torch.cat([tensor, *[tensor[:1]] * (rows - len(tensor))])
