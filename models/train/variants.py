"""`python -m models.train.variants`: the demo model on other training schedules, to compare them.

Each variant differs from the first in one thing. All have the demo model's autoencoder and its text
encoder, which stay as they are, and a denoiser trained from the same random start on the same
pictures, captions, noise and timesteps, to predict v. One has another start and other pictures:
what it changes is chance.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from models.preview_map import FILE_NAME
from models.train.denoiser import TRAINING_SCHEDULE, DenoiserTraining, Stage, train_denoiser
from models.train.export import export
from models.train.parts import DEMO, load_parts


@dataclass(frozen=True, slots=True)
class Variant:
    """A training schedule under a name, as a diffusers scheduler is told it."""

    name: str
    schedule: Mapping[str, Any]
    seed: int = 0


#: What the others are compared with: the demo model's own schedule.
BASELINE = Variant("scaled-linear", TRAINING_SCHEDULE)
VARIANTS = (
    BASELINE,
    Variant("zero-snr", {**TRAINING_SCHEDULE, "rescale_betas_zero_snr": True}),
    # Ho et al. (2020), section 4.
    Variant(
        "linear",
        {**TRAINING_SCHEDULE, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    ),
    # Nichol and Dhariwal (2021), section 3.2; it takes no ends.
    Variant("cosine", {**TRAINING_SCHEDULE, "beta_schedule": "squaredcos_cap_v2"}),
    Variant("another-seed", TRAINING_SCHEDULE, seed=1),
)


def learn_evenly(steps: int) -> Stage:
    """Learn at all timesteps alike.

    The demo model's own training prefers some, which under another schedule are other noise levels.
    The weights of its loss are functions of the noise level and stay.
    """
    return Stage(
        steps,
        learning_rate=1.2e-3,
        warmup=200,
        two_objects=0.6,
        middle=(0, 1000),
        object_weight=3.0,
        layout_weight=0.2,
    )


def main(
    work: Annotated[Path, typer.Option(help="Checkpoints and logs.")] = Path(".train/variants"),
    output: Annotated[Path, typer.Option(help="Where the models go, each by its name.")] = Path(
        ".train/variants/models"
    ),
    model: Annotated[Path, typer.Option(help="The demo model.")] = DEMO,
    processes: Annotated[int, typer.Option(help="One for each core.", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="Of each variant.", min=1)] = 4_800,
) -> None:
    """Train one variant after the other; a training that was stopped goes on when started again."""
    for variant in VARIANTS:
        train_variant(variant, work, output, model, processes=processes, steps=steps)
        print(f"wrote {output / variant.name}", flush=True)  # noqa: T201


def train_variant(
    variant: Variant, work: Path, output: Path, model: Path, *, processes: int, steps: int
) -> None:
    """Train one and write it into a folder of its name."""
    folder, target = work / variant.name, output / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    parts = load_parts(model)
    training = DenoiserTraining(
        (learn_evenly(steps),), reading_steps=0, seed=variant.seed, schedule=variant.schedule
    )
    denoiser = train_denoiser(
        folder,
        parts.vae,
        parts.tokenizer,
        training,
        processes=processes,
        reader=parts.text_encoder,
    )
    export(target, parts.vae, parts.tokenizer, denoiser, schedule=variant.schedule)
    shutil.copy(model / FILE_NAME, target)


if __name__ == "__main__":
    typer.run(main)
