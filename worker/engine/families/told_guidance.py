"""Models that are told their guidance, so that a forward has one row whatever its scale."""

from typing import NamedTuple

import torch
from torch import Tensor

from shared.request import GenerationRequest
from shared.vocab import GuidanceForm
from worker.engine.conditioning import Condition


class ToldPrompt(NamedTuple):
    """A prompt, and the guidance that the denoiser is told beside it."""

    prompt: str
    guidance: float


def name_conditions(request: GenerationRequest, form: GuidanceForm) -> tuple[Condition, ...]:
    """Say what each row of a request shows: negative prompt and prompt, or the prompt alone."""
    if form is GuidanceForm.TOLD:
        return (ToldPrompt(str(request.prompt), request.guidance),)
    shown: tuple[Condition, ...] = (request.prompt,)
    return (request.negative_prompt, *shown) if request.is_guided else shown


def embed_guidance(guidance: float, width: int) -> Tensor:
    """Embed a scale as distilled UNets take it, as diffusers does bit for bit; returns [1, width].

    Source: Meng et al. (2023), "On Distillation of Guided Diffusion Models", section 3.1; a scale
    of 1 is their w of 0.
    """
    half = width // 2
    falling = torch.log(torch.tensor(10_000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -falling)
    angles = (torch.tensor([guidance - 1]) * 1000.0)[:, None] * frequencies[None, :]
    waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    return torch.nn.functional.pad(waves, (0, width - 2 * half))
