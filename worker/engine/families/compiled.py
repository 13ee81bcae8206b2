"""A denoiser that is compiled for forwards of some row counts."""

from typing import Any

import torch
from torch import Tensor

from shared.catalog import ModelSpec


def denoise(denoiser: Any, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Tensor:
    """Run rows [B, C, h, w] at timesteps [B] of their own with prompts [B, T, D]."""
    prediction: Tensor = denoiser(
        latents, timesteps, encoder_hidden_states=prompt_embeds, return_dict=False
    )[0]
    return prediction


class CompiledDenoiser:
    """Run forwards of the model's own size compiled, and those of other sizes as they are.

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

    def __call__(self, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Run rows as `denoise` does."""
        rows = len(latents)
        bucket = next((size for size in self.buckets if size >= rows), None)
        if bucket is None or latents.shape[2:] != self._size:
            return denoise(self._denoiser, latents, timesteps, prompt_embeds)
        latents, timesteps, prompt_embeds = (
            torch.cat([tensor, *[tensor[:1]] * (bucket - rows)])
            for tensor in (latents, timesteps, prompt_embeds)
        )
        # Programs hold for one order in memory; what comes from a picture may have another.
        latents = latents.contiguous(memory_format=self._memory_format)
        return denoise(self._compiled, latents, timesteps, prompt_embeds)[:rows]
