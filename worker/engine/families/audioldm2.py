"""AudioLDM 2: sounds as spectrograms, conditioned on two readings of a prompt.

Each function does what diffusers' AudioLDM2Pipeline does at the same place, so that a job alone
gives the same bits where its prompt has a whole number of blocks of tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
import transformers
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
)
from torch import Tensor
from torch.nn import functional
from transformers import ClapModel, SpeechT5HifiGan, T5EncoderModel

from models.preview_map import PreviewMap
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.families.audio_prompt import PromptTokenizer, class_of
from worker.engine.families.part import PartLoader, touch
from worker.engine.families.picture_codec import LATENTS
from worker.engine.families.placement import Placement
from worker.engine.families.waveform import refuse_adapters, sound_of, to_sound
from worker.engine.lora import ActiveAdapter, Attachment
from worker.engine.samplers import load_native
from worker.engine.sound import Sound

#: Prompts are filled up to a multiple of so many tokens, and masked there: rows of a forward have
#: equally many.
BLOCK = 16


@dataclass(frozen=True, slots=True)
class _Reading:
    """A prompt, and as how many tokens it is read; the rows of a job have them up to `padded`."""

    prompt: str
    num_tokens: int
    padded: int


class AudioLDM2:
    """A loaded model: three readers of prompts, denoiser, decoder and vocoder on one device."""

    #: The folders of its networks.
    PARTS: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "text_encoder_2",
        "projection_model",
        "language_model",
        "unet",
        "vae",
        "vocoder",
    )
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
        self._read_whole = PromptTokenizer(spec.path, "tokenizer")
        self._read_words = PromptTokenizer(spec.path, "tokenizer_2")
        loader = PartLoader(spec, self._placement, on_part)
        self._clap = loader.load(ClapModel, "text_encoder")
        # Its other half listens, to choose among sounds: nobody asks it here.
        self._clap.audio_model = self._clap.audio_projection = None
        self._t5 = loader.load(T5EncoderModel, "text_encoder_2")
        self._projection = loader.load(AudioLDM2ProjectionModel, "projection_model")
        language_model = getattr(transformers, class_of(spec.path, "language_model"))
        self._language_model = loader.load(language_model, "language_model")
        self._unet = loader.load(AudioLDM2UNet2DConditionModel, "unet")
        self._vae = loader.load(AutoencoderKL, "vae")
        self._vocoder = loader.load(SpeechT5HifiGan, "vocoder")
        #: Its networks.
        self.parts: tuple[torch.nn.Module, ...] = (
            self._clap,
            self._t5,
            self._projection,
            self._language_model,
            self._unet,
            self._vae,
            self._vocoder,
        )
        # For what it does with a language model, which nothing else offers.
        self._pipeline: Any = AudioLDM2Pipeline(  # type: ignore[no-untyped-call]
            vae=self._vae,
            text_encoder=self._clap,
            text_encoder_2=self._t5,
            projection_model=self._projection,
            language_model=self._language_model,
            tokenizer=None,
            tokenizer_2=None,
            feature_extractor=None,
            unet=self._unet,
            scheduler=self.scheduler,
            vocoder=self._vocoder,
        )

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
        """Say what each row is of: negative prompt and prompt, or the prompt alone.

        The negative prompt is read as at least as many tokens as the prompt, as the pipeline does;
        of one that has more, that would read the beginning alone, and this reads all.

        Raises:
            InvalidInput: A prompt has more tokens than the model takes.
        """
        prompt = request.prompt or ""
        num_tokens = self._count(prompt)
        if not request.is_guided:
            return (_Reading(prompt, num_tokens, _fill(num_tokens)),)
        most = max(num_tokens, self._count(request.negative_prompt))
        return (
            _Reading(request.negative_prompt, most, _fill(most)),
            _Reading(prompt, num_tokens, _fill(most)),
        )

    def encode(self, condition: Condition) -> Conditioning:
        """Read a prompt alone: what a language model makes of it, and its words with their mask.

        Raises:
            InvalidInput: The prompt has more tokens than the model takes.
        """
        if not isinstance(condition, _Reading):
            raise TypeError(f"{condition!r} is no reading")
        whole = self._read_whole(condition.prompt, length=self._read_whole.max_tokens)
        features = self._clap.get_text_features(
            whole.ids.to(self.device), attention_mask=whole.mask.to(self.device)
        ).pooler_output[:, None, :]
        tokens = self._read_words(condition.prompt, length=condition.num_tokens)
        mask = tokens.mask.to(self.device)
        words = self._t5(tokens.ids.to(self.device), attention_mask=mask)[0]
        projected = self._projection(
            hidden_states=features,
            hidden_states_1=words,
            attention_mask=mask.new_ones((1, 1)),
            attention_mask_1=mask,
        )
        generated = self._pipeline.generate_language_model(
            projected.hidden_states, attention_mask=projected.attention_mask, max_new_tokens=None
        )
        missing = condition.padded - condition.num_tokens
        return {
            "encoder_hidden_states": generated,
            "encoder_hidden_states_1": functional.pad(words, (0, 0, 0, missing)),
            "encoder_attention_mask_1": functional.pad(mask, (0, missing)),
        }

    def schedule_arguments(self, request: GenerationRequest) -> dict[str, Any]:  # noqa: ARG002
        """Say nothing more: its levels depend on nothing else."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw unit noise on the generator's device; returns [1, C, time, bands]."""
        return self._noise(request.duration_s or self._sound.duration_s, generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row of the model's own duration, of no prompt."""
        noise = self._noise(self._sound.duration_s, torch.Generator("cpu").manual_seed(0))
        num_tokens = self._count("")
        return noise, self.encode(_Reading("", num_tokens, _fill(num_tokens)))

    def predict(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Run the denoiser on rows at timesteps of their own.

        Args:
            latents: Scaled model input. [B, C, time, bands]
            timesteps: Training timestep of each row. [B]
            conditioning: Both readings of each row's prompt, and the mask of one. [B, ...]
        """
        prediction: Tensor = self._unet(
            latents.to(self._placement.dtype),
            timesteps.to(self.device),  # schedulers keep theirs on the CPU
            **conditioning,
            return_dict=False,
        )[0]
        return prediction.to(LATENTS)

    def decode(self, latents: Tensor, *, tiles: int = 1) -> Sound:
        """Decode latents [1, C, time, bands] to a sound of whole cells.

        Tiles of the spectrogram take less memory, and change what lies where they overlap.

        Raises:
            NonFinite: The decoder's numbers left their range.
        """
        scaled = (1 / self._vae.config.scaling_factor * latents).to(self._vae.dtype)
        if tiles > 1:
            # Whole multiples of a fourth, by which tiles overlap.
            cells = 4 * -(-max(scaled.shape[2:]) // (4 * tiles))
            self._vae.tile_latent_min_size = cells
            self._vae.tile_sample_min_size = cells * self._pipeline.vae_scale_factor
            spectrogram = self._vae.tiled_decode(scaled, return_dict=False)[0]
        else:
            spectrogram = self._vae.decode(scaled, return_dict=False)[0]
        waveform = self._vocoder(spectrogram.squeeze(1).to(self._vocoder.dtype))
        return to_sound(waveform, self.spec)

    def _count(self, prompt: str) -> int:
        return self._read_words(prompt).ids.shape[1]

    def _noise(self, duration_s: float, generator: torch.Generator) -> Tensor:
        factor, config = self._pipeline.vae_scale_factor, self._vocoder.config
        # Frames are counted as the pipeline does, and filled up to whole cells.
        num_frames = int(duration_s / (prod(config.upsample_rates) / config.sampling_rate))
        shape = (
            1,
            self._unet.config.in_channels,
            -(-num_frames // factor),
            config.model_in_dim // factor,
        )
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=LATENTS)
        return noise.to(self.device)


def _fill(num_tokens: int) -> int:
    return BLOCK * -(-num_tokens // BLOCK)
