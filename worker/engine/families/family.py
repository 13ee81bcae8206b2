"""What a pipeline family has to do, so that jobs of it share forwards."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.preview_map import PreviewMap
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.picture_codec import PictureCodec
from worker.engine.lora import ActiveAdapter, Attachment
from worker.engine.samplers import Scheduler
from worker.engine.sound import Sound


class Family(Protocol):
    """A loaded model: encoders, denoiser and decoder on one device."""

    spec: ModelSpec
    device: torch.device
    #: The model's own, from whose config those of all samplers are made.
    scheduler: Scheduler
    #: What previews are colored with; a model without it has none.
    preview_map: PreviewMap | None

    @property
    def picture_codec(self) -> PictureCodec | None:
        """What turns pictures into latents that jobs can start from; None if none can."""

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""

    def touch(self) -> None:
        """Have the device do the least that it can.

        Raises:
            torch.AcceleratorError: Not even that works.
        """

    def bind(self, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say what adapters add to the denoiser or the text encoder.

        Raises:
            AdapterUnavailable: One was made for another model.
        """

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say what each row of a request's forwards is conditioned on.

        With classifier-free guidance there are two: what to keep away from, and what to show.
        """

    def encode(self, condition: Condition) -> Conditioning:
        """Encode one condition alone, to tensors [1, ...] of shapes that all its jobs have.

        Raises:
            InvalidInput: The model does not take it.
        """

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:
        """Say what a scheduler's `set_timesteps` has to be told of a request besides its steps."""

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, ...]."""

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own size: latents [1, C, ...], conditioning."""

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, ...]
            timesteps: Training timestep of each row. [B]
            conditioning: What each row is conditioned on. [B, ...] each
        """

    def decode(self, latents: Tensor, *, tiles: int = 1) -> NDArray[np.uint8] | Sound:
        """Decode latents [1, C, ...] to pixels [H, W, 3], or to a sound, perhaps a longer one.

        Tiles, along the longer side, take less memory, and change what lies where they overlap.

        Raises:
            NonFinite: The decoder's numbers left their range.
        """
