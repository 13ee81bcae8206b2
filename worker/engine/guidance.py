"""Classifier-free guidance."""

from torch import Tensor


def combine(uncond: Tensor, cond: Tensor, guidance_scale: float) -> Tensor:
    """Mix the predictions for the negative prompt and the prompt, each [1, C, h, w].

    Source: Imagen (Saharia et al. 2022), eq. 2; a scale of 1 means no guidance.
    """
    return uncond + guidance_scale * (cond - uncond)


def rescale(guided: Tensor, cond: Tensor, guidance_rescale: float) -> Tensor:
    """Bring a guided prediction's spread back towards that of the prompt's, each [1, C, h, w].

    Source: Lin et al. (2023), "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    section 3.4.
    """
    axes = list(range(1, guided.ndim))
    spread = cond.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return guidance_rescale * (guided * spread) + (1 - guidance_rescale) * guided
