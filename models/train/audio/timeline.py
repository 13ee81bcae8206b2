"""A second task for both networks in training: say what is heard when.

The autoencoder has to tell it by its latents, the denoiser by its inner features: the squared error
hardly tells a noise from a chord while both are hidden by noise, this does. No head is shipped.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.train.audio.sounds import NUM_TICKS, Kind, Pitch, Sound

LABELS = (None, *((kind, pitch) for kind in Kind if kind is not Kind.BEAT for pitch in Pitch))


class TimelineHead(nn.Linear):
    """Reads labels off features [B, T, C] of as many ticks."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, len(LABELS))

    def loss(self, features: Tensor, timelines: Tensor) -> Tensor:
        """Compare with the timelines of the sounds, [B, T]."""
        return cross_entropy(self(features).transpose(1, 2), timelines)


def map_timeline(sound: Sound) -> Tensor:
    """Number what is heard in each tick; returns [NUM_TICKS]."""
    timeline = torch.zeros(NUM_TICKS, dtype=torch.long)
    for phrase in sound.phrases:
        label = LABELS.index((phrase.stroke, phrase.pitch))
        for event in phrase.events:
            timeline[event.start : event.start + event.ticks] = label
    return timeline
