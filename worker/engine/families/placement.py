"""Put the parts of a model on a device, as its catalog entry says."""

import json
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

from shared.catalog import ModelSpec
from shared.device_options import Attention, DeviceOptions, Dtype
from shared.errors import ModelUnavailable

_DTYPES = {
    Dtype.FLOAT32: torch.float32,
    Dtype.BFLOAT16: torch.bfloat16,
    Dtype.FLOAT16: torch.float16,
}
#: Channels and a head's width in a try-out.
_WIDTH = 16


def choose_dtype(spec: ModelSpec, part: str) -> torch.dtype:
    """Return what a part of a model computes in.

    Some autoencoders leave the range of float16, and say so; T5 does and does not say it.
    """
    dtype = _DTYPES[spec.device_options.dtype]
    if dtype is not torch.float16:
        return dtype
    config = json.loads((spec.path / part / "config.json").read_text())
    is_wide = (
        config.get("force_upcast", True) if part == "vae" else config.get("model_type") == "t5"
    )
    return torch.float32 if is_wide else dtype


class Placement:
    """What a model's options come to on a device.

    Raises:
        ModelUnavailable: The device cannot do it; says which option, and what would work.
    """

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self.options: DeviceOptions = spec.device_options
        self.device = device
        self.dtype = _DTYPES[self.options.dtype]
        is_last = self.options.channels_last
        self.memory_format = torch.channels_last if is_last else torch.contiguous_format
        try:
            self._try_out(torch.contiguous_format)
        except (RuntimeError, TypeError) as error:
            raise ModelUnavailable(
                f"model {spec.id}: {device.type} does not compute in {self.options.dtype} here; "
                'dtype = "float32" is always served'
            ) from error
        try:
            self._try_out(self.memory_format)
        except (RuntimeError, TypeError) as error:
            raise ModelUnavailable(
                f"model {spec.id}: {device.type} does not keep channels innermost here; "
                "channels_last = false is always served"
            ) from error

    def place(self, part: Any, dtype: torch.dtype) -> Any:
        """Move a part to the device as a type, ready for inference."""
        if dtype is not torch.float32:
            # diffusers' own warns that it keeps no part in float32; none of these models has one.
            part = torch.nn.Module.to(part, dtype)
        if self.options.channels_last:
            part = part.to(memory_format=torch.channels_last)
        return part.to(self.device).eval()

    def set_attention(self, denoiser: Any) -> None:
        """Have a denoiser compute its attention as is asked.

        By its own code: diffusers' attention dispatcher passes over this kind of attention, and
        torch's choice of a kernel is one for all threads, the decoder's too.
        """
        if self.options.attention is Attention.EAGER:
            denoiser.set_attn_processor(AttnProcessor())
        elif self.options.attention is Attention.SLICED:
            denoiser.set_attn_processor(SlicedAttnProcessor(slice_size=1))

    def _try_out(self, memory_format: torch.memory_format) -> None:
        functional = torch.nn.functional
        with torch.inference_mode():
            inputs = torch.zeros(1, _WIDTH, 8, 8, device=self.device, dtype=self.dtype)
            weights = torch.zeros(_WIDTH, _WIDTH, 3, 3, device=self.device, dtype=self.dtype)
            features = functional.conv2d(
                inputs.contiguous(memory_format=memory_format),
                weights.contiguous(memory_format=memory_format),
                padding=1,
            )
            tokens = functional.group_norm(features, 4).flatten(2).transpose(1, 2)[:, None]
            functional.scaled_dot_product_attention(tokens, tokens, tokens).sum().item()
