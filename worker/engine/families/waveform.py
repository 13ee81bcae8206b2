"""What families of sounds have in common: how a waveform becomes a sound, and what they lack."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shared.catalog import ModelSpec
from shared.errors import AdapterUnavailable, NonFinite
from shared.sound import SoundSpec
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.sound import Sound


def sound_of(spec: ModelSpec) -> SoundSpec:
    """Return what sounds a model makes, which the reader of its folder has found.

    Raises:
        TypeError: It makes pictures.
    """
    if spec.sound is None:
        raise TypeError(f"{spec.id} makes no sounds")
    return spec.sound


def refuse_adapters(spec: ModelSpec, adapters: Sequence[ActiveAdapter]) -> Attachment:
    """Return what no adapters add.

    Raises:
        AdapterUnavailable: There are some.
    """
    if adapters:
        raise AdapterUnavailable(
            f"adapter {adapters[0].id} cannot be used: none is served with {spec.family} models"
        )
    return NOTHING


def to_sound(waveform: Tensor, spec: ModelSpec) -> Sound:
    """Bring a waveform [channels, N] to the host.

    Raises:
        NonFinite: Its numbers left their range.
    """
    if not torch.isfinite(waveform).all():
        raise NonFinite(
            "the decoder's numbers left their range; less guidance, another sampler or another "
            "seed may keep them in it"
        )
    return Sound(waveform.to("cpu", torch.float32).numpy(), sound_of(spec).sample_rate)
