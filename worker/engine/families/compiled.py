"""A denoiser that is compiled for forwards of some row counts."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from shared.catalog import ModelSpec
from worker.engine.conditioning import Conditioning


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

    def __init__(self, denoiser: Any, spec: ModelSpec, memory_format: torch.memory_format) -> None:
        self._denoiser = denoiser
        self._size = (spec.height // spec.latent_factor, spec.width // spec.latent_factor)
        self._memory_format = memory_format
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

    def _has_adapters(self) -> bool:
        return any(layer._forward_hooks for layer in self._denoiser.modules())


def _pad(tensor: Tensor, rows: int) -> Tensor:
    return torch.cat([tensor, *[tensor[:1]] * (rows - len(tensor))])
