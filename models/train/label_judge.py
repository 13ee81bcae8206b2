"""`python -m models.train.label_judge`: train the network that tells what a picture shows.

It learns from pictures of one object and from what the demo model's autoencoder makes of them: all
that it is asked about was decoded by that. Its weights are kept, so that scores of different days
and models have one judge.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.train.classes import load_vae
from models.train.label_denoiser import LABELS, number_of
from models.train.vae import Vae, to_tensor
from models.train.world import draw_scene

NUM_SCENES = 8_000
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
#: Deviation of the noise on what it learns from; pixels span 2.
NOISE = 0.05


class LabelJudge(nn.Sequential):
    """Scores each label, from pixels [B, 3, H, W] in -1 to 1."""

    def __init__(self) -> None:
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1),
                nn.GroupNorm(4, after),
                nn.ReLU(),
            ]
        # Wherever the object lies.
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], len(LABELS))]
        super().__init__(*layers)

    @classmethod
    def load(cls, weights: Path) -> "LabelJudge":
        """Load a judge that was trained."""
        judge = cls()
        judge.load_state_dict(load_file(weights))
        return judge.eval()

    @torch.inference_mode()
    def name(self, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Name what each picture [H, W, 3] shows."""
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return [LABELS[number] for number in self(pixels).argmax(dim=1).tolist()]


def main(
    output: Annotated[Path, typer.Option(help="Where the weights go.")] = Path(
        "evals/label_judge.safetensors"
    ),
    demo: Annotated[Path, typer.Option(help="Whose autoencoder it has seen.")] = Path(
        "models/demo"
    ),
    rounds: Annotated[int, typer.Option(help="How often it sees each picture.", min=1)] = 12,
    num_scenes: Annotated[int, typer.Option(help="That it sees.", min=1)] = NUM_SCENES,
    seed: Annotated[int, typer.Option(help="Another one, another judge.")] = 0,
) -> None:
    """Train the judge, in minutes; how well it judges `python -m evals.labels` says."""
    rng = random.Random(f"label judge {seed}")  # noqa: S311 - no secret
    torch.manual_seed(seed)
    scenes = [draw_scene(rng, two_objects=0) for _ in range(num_scenes)]
    pixels = to_tensor(scenes)
    images = torch.cat([pixels, reconstruct(load_vae(demo), pixels)])
    labels = torch.tensor([number_of(scene) for scene in scenes]).repeat(2)
    judge = LabelJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    steps = rounds * max(len(images) // BATCH_SIZE, 1)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - (step - 1) / steps)
        chosen = torch.randint(len(images), (BATCH_SIZE,))
        noisy = images[chosen] + NOISE * torch.randn(BATCH_SIZE, *images.shape[1:])
        loss = cross_entropy(judge(noisy), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 250 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)  # noqa: T201
    save_file(judge.state_dict(), output)
    print(f"wrote {output}")  # noqa: T201


@torch.no_grad()
def reconstruct(vae: Vae, pixels: Tensor) -> Tensor:
    """Encode and decode pictures [B, 3, H, W]."""
    parts = [
        vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        for part in torch.split(pixels, BATCH_SIZE)
    ]
    return torch.cat(parts)


if __name__ == "__main__":
    typer.run(main)
