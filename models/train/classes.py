"""`python -m models.train.classes`: train the demo model that draws by label, or go on with it.

It has the autoencoder of the demo model, unchanged.
"""

import copy
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import DDIMScheduler, DiTPipeline
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file

from models.fit_preview import fit_preview, scenes
from models.train.denoiser import TRAINING_SCHEDULE
from models.train.journal import plot
from models.train.label_denoiser import (
    LABELS,
    NULL_LABEL,
    LabelDenoiser,
    LabelTraining,
    train_label_denoiser,
)
from models.train.vae import Vae, make_vae


def main(
    work: Annotated[Path, typer.Option(help="Checkpoints and logs.")] = Path(".train/demo-classes"),
    output: Annotated[Path, typer.Option(help="Where it goes.")] = Path("models/demo-classes"),
    demo: Annotated[Path, typer.Option(help="Whose autoencoder it has.")] = Path("models/demo"),
    processes: Annotated[int, typer.Option(help="One for each core.", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="Of the denoiser.", min=1)] = 5_000,
) -> None:
    """Train the model; a training that was stopped goes on when it is started again."""
    work.mkdir(parents=True, exist_ok=True)
    vae = load_vae(demo)
    denoiser = train_label_denoiser(work, vae, LabelTraining(steps), processes=processes)
    export(output, vae, denoiser)
    fit_preview(output, scenes()).save(output)
    plot(work / "denoiser.csv", work / "denoiser.png")


def load_vae(model: Path) -> Vae:
    """Load the autoencoder of a model of this world."""
    vae = make_vae()
    vae.load_state_dict(load_file(model / "vae" / SAFETENSORS_WEIGHTS_NAME))
    return vae.requires_grad_(False).eval()


def export(folder: Path, vae: Vae, denoiser: LabelDenoiser) -> None:
    """Write the averaged network in half precision; loads in stock diffusers."""
    pipeline: Any = DiTPipeline(  # type: ignore[no-untyped-call]
        transformer=_without_strangers(denoiser.ema_transformer),
        vae=vae,
        scheduler=DDIMScheduler(  # type: ignore[no-untyped-call]
            **TRAINING_SCHEDULE, timestep_spacing="trailing", steps_offset=1, clip_sample=False
        ),
    )
    pipeline.register_to_config(id2label={str(n): label for n, label in enumerate(LABELS)})
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def _without_strangers(transformer: Any) -> Any:
    """Return a copy in which a number without a label means no label, not what it began as."""
    known = copy.deepcopy(transformer)
    for block in known.transformer_blocks:
        table = block.norm1.emb.class_embedder.embedding_table.weight
        table[len(LABELS) : NULL_LABEL] = table[NULL_LABEL]
    return known


if __name__ == "__main__":
    typer.run(main)
