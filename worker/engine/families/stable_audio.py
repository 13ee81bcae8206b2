"""Stable Audio: sounds of up to a fixed length, conditioned on a prompt and on their duration.

Each function does what diffusers' StableAudioPipeline does at the same place, so that a job alone
gives the same bits. Latents are as long as the longest sound, whatever the duration: rows of all
durations share forwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel, StableAudioProjectionModel
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor
from transformers import T5EncoderModel

from models.preview_map import PreviewMap
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.audio_prompt import PromptTokenizer
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS
from worker.engine.families.placement import Placement
from worker.engine.families.waveform import refuse_adapters, sound_of, to_sound
from worker.engine.lora import ActiveAdapter, Attachment
from worker.engine.samplers import load_native
from worker.engine.sound import Sound

#: Latent cells by which the pieces of a decode overlap on each side: more than what one cell of the
#: autoencoder's decoder reaches.
OVERLAP = 32


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a row is conditioned on."""

    #: None is no prompt at all, which is not the same as an empty one.
    prompt: str | None
    duration_s: float
    is_negative: bool = False


class StableAudio:
    """A loaded model: text encoder, projection, denoiser and decoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = ("text_encoder", "projection_model", "transformer", "vae")
    #: Sounds have no previews, and start from no picture.
    preview_map: PreviewMap | None = None
    picture_codec = None

    def __init__(
        self, spec: ModelSpec, device: str, *, on_part: Callable[[str], None] = lambda _: None
    ) -> None:
        """Load a model; `on_part` hears of each network that is there."""
        self.spec = spec
        self._sound = sound_of(spec)
        self.device = torch.device(device)
        self._placement = Placement(spec, self.device)
        self.scheduler = load_native(spec.path)
        self._tokenize = PromptTokenizer(spec.path, "tokenizer")
        loader = PartLoader(spec, self._placement, on_part)
        self._text_encoder = loader.load(T5EncoderModel, "text_encoder")
        self._projection = loader.load(StableAudioProjectionModel, "projection_model")
        self._transformer = loader.load(StableAudioDiTModel, "transformer")
        self._transformer.timestep_proj = _EachRowAlone(self._transformer.timestep_proj)
        self._vae = loader.load(AutoencoderOobleck, "vae")
        config = self._transformer.config
        # One place more than latents: the global states stand before them.
        self._rotary = tuple(
            part.to(self.device)
            for part in get_1d_rotary_pos_embed(
                config.attention_head_dim // 2,
                config.sample_size + 1,
                use_real=True,
                repeat_interleave_real=False,
            )
        )

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Its networks."""
        return self._text_encoder, self._projection, self._transformer, self._vae

    def touch(self) -> None:
        """Have the device do the least that it can."""
        touch(self.device)

    def bind(self, part: str, adapters: Sequence[ActiveAdapter]) -> Attachment:  # noqa: ARG002
        """Say that nothing is added.

        Raises:
            AdapterUnavailable: Something shall be.
        """
        return refuse_adapters(self.spec, adapters)

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say what each row is of; guidance without a negative prompt keeps away from no prompt."""
        duration_s = request.duration_s or self._sound.duration_s
        wish = _Wish(request.prompt or "", duration_s)
        if not request.is_guided:
            return (wish,)
        return _Wish(request.negative_prompt or None, duration_s, is_negative=True), wish

    def encode(self, condition: Condition) -> Conditioning:
        """Encode a prompt and a duration alone.

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        if not isinstance(condition, _Wish):
            raise TypeError(f"{condition!r} is no wish")
        seconds = [torch.tensor([at], device=self.device) for at in (0.0, condition.duration_s)]
        projected = self._projection(start_seconds=seconds[0], end_seconds=seconds[1])
        start = projected.seconds_start_hidden_states
        end = projected.seconds_end_hidden_states
        words = self._encode_prompt(condition.prompt or "", is_negative=condition.is_negative)
        embeds = torch.cat([words, start, end], dim=1)
        return {
            "encoder_hidden_states": (
                torch.zeros_like(embeds) if condition.prompt is None else embeds
            ),
            "global_hidden_states": torch.cat([start, end], dim=2),
        }

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say nothing more: its levels depend on nothing else."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Draw unit noise on the generator's device; returns [1, C, L]."""
        return self._noise(generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own duration, of no prompt."""
        noise = self._noise(torch.Generator("cpu").manual_seed(0))
        return noise, self.encode(_Wish("", self._sound.duration_s))

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, L]
            timesteps: Noise level of each row as the network knows it. [B]
            conditioning: Encoded prompts and durations. [B, T, D] and [B, 1, G]
        """
        prediction: Tensor = self._transformer(
            latents.to(self._placement.dtype),
            timesteps.to(self.device),  # schedulers keep theirs on the CPU
            **conditioning,
            rotary_embedding=self._rotary,
            return_dict=False,
        )[0]
        return prediction.to(LATENTS)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> Sound:
        """Decode latents [1, C, L] to a sound of the longest duration.

        Pieces take less memory, and change the last bits.

        Raises:
            NonFinite: The decoder's numbers left their range.
        """
        self._vae.use_tiling = tiles > 1
        if tiles > 1:
            self._vae.tile_latent_overlap = OVERLAP
            self._vae.tile_latent_min_length = -(-latents.shape[2] // tiles) + 2 * OVERLAP
        waveform = self._vae.decode(latents.to(self._vae.dtype), return_dict=False)[0]
        return to_sound(waveform[0], self.spec)

    def _encode_prompt(self, prompt: str, *, is_negative: bool) -> Tensor:
        """Encode a prompt to [1, T, D]: zeros where it says nothing."""
        tokens = self._tokenize(prompt, length=self._tokenize.max_tokens)
        mask = tokens.mask.to(self.device)
        words = self._text_encoder(tokens.ids.to(self.device), attention_mask=mask)[0]
        if is_negative:
            words = torch.where(mask.to(torch.bool).unsqueeze(2), words, 0.0)
        embeds: Tensor = self._projection(text_hidden_states=words).text_hidden_states
        # Twice, as there: what is masked is zero after the first.
        for _ in range(2):
            embeds = embeds * mask.unsqueeze(-1).to(embeds.dtype)
        return embeds

    def _noise(self, generator: torch.Generator) -> Tensor:
        config = self._transformer.config
        shape = (1, config.in_channels, config.sample_size)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
        return noise.to(self.device)


class _EachRowAlone(torch.nn.Module):
    """A layer that computes one row after the other.

    The pipeline has one timestep for all rows of a forward. A layer gives other last bits for
    several rows than for one, and these shall be the pipeline's in any company.
    """

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, rows: Tensor) -> Tensor:
        """Run rows [B, D]."""
        return torch.cat([self.layer(row) for row in torch.split(rows, 1)])
