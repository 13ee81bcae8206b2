"""`python -m models.train.adapter`: train the demo model's example adapter, which takes colors out.

It learns from the pictures that the model knows, in gray. Captions stay as they were, and so do the
weights of the model: what changes is a LoRA beside the denoiser's attention.
"""

import random
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from models.train.denoiser import CAPTION_DROPOUT, CLIP_NORM
from models.train.parts import load_part
from models.train.vae import to_tensor
from models.train.world import Caption, draw_caption, draw_scene

RANK = 4
#: Layers of the denoiser that it stands beside, by the ends of their names.
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out"]
LEARNING_RATE = 2e-3
BATCH_SIZE = 16
#: Pictures to learn from; captions are drawn anew each time.
NUM_SCENES = 600
TWO_OBJECTS = 0.5
#: How much red, green and blue make of the light.
LUMINANCE = (0.299, 0.587, 0.114)


def main(
    model: Annotated[Path, typer.Option(help="The demo model.")] = Path("models/demo"),
    output: Annotated[Path, typer.Option(help="Where it goes.")] = Path("models/adapters/gray"),
    steps: Annotated[int, typer.Option(help="A hundred take 20 seconds.", min=1)] = 400,
    seed: Annotated[int, typer.Option(help="Another one, another adapter.")] = 0,
) -> None:
    """Train the adapter and write it as diffusers does, in half precision."""
    torch.manual_seed(seed)
    unet = load_part(UNet2DConditionModel, model / "unet")
    unet.add_adapter(
        LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=LAYERS)
    )
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    lesson = _Lesson(model, random.Random(f"adapter {seed}"))  # noqa: S311 - no secret
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - (step - 1) / steps)
        loss = lesson.loss(unet)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)  # noqa: T201
    halves: dict[str, Tensor] = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(
        output, unet_lora_layers={name: half.half() for name, half in halves.items()}
    )
    print(f"wrote {output}")  # noqa: T201


class _Lesson:
    """Gray pictures with their captions, ever newly noised."""

    def __init__(self, model: Path, rng: random.Random) -> None:
        self._rng = rng
        noising: Any = DDPMScheduler  # ships no type information
        self._noising = noising.from_pretrained(model / "scheduler")
        self._tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
        self._text_encoder = load_part(CLIPTextModel, model / "text_encoder")
        vae = load_part(AutoencoderKL, model / "vae")
        self._scenes = [
            draw_scene(rng, two_objects=TWO_OBJECTS, held_out=False) for _ in range(NUM_SCENES)
        ]
        with torch.no_grad():
            gray = torch.tensor(LUMINANCE).view(1, 3, 1, 1)
            pixels = (to_tensor(self._scenes) * gray).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
            parts = [vae.encode(part).latent_dist.mean for part in torch.split(pixels, BATCH_SIZE)]
            self._latents = vae.config.scaling_factor * torch.cat(parts)

    def loss(self, unet: Any) -> Tensor:
        """Ask a denoiser for the velocity of a batch; returns the mean squared error."""
        chosen = self._rng.sample(range(NUM_SCENES), BATCH_SIZE)
        latents = self._latents[chosen]
        timesteps = torch.randint(0, self._noising.config.num_train_timesteps, (BATCH_SIZE,))
        noise = torch.randn(latents.shape)
        noisy = self._noising.add_noise(latents, noise, timesteps)
        captions = [draw_caption(self._rng, self._scenes[n]) for n in chosen]
        words = self._encode(captions)
        prediction = unet(noisy, timesteps, encoder_hidden_states=words).sample
        target = self._noising.get_velocity(latents, noise, timesteps)
        error: Tensor = (prediction - target).square().mean()
        return error

    def _encode(self, captions: list[Caption]) -> Tensor:
        # Guidance compares with no words at all: those pictures must be gray, too.
        texts = [
            "" if self._rng.random() < CAPTION_DROPOUT else caption.text for caption in captions
        ]
        tokens = self._tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            words: Tensor = self._text_encoder(tokens)[0]
        return words


if __name__ == "__main__":
    typer.run(main)
