"""`python -m models.train`: train the demo model from nothing, or go on where it was stopped."""

from pathlib import Path
from typing import Annotated

import typer
from transformers import CLIPTokenizer

from models.fit_preview import fit_preview, scenes
from models.train.denoiser import (
    DenoiserTraining,
    learn_to_arrange,
    learn_to_draw,
    train_denoiser,
)
from models.train.export import export
from models.train.journal import plot
from models.train.tokenizer import make_tokenizer
from models.train.vae import VaeTraining, train_vae


def main(  # noqa: PLR0913 - one option for each part
    work: Annotated[Path, typer.Option(help="Checkpoints and logs.")] = Path(".train/demo"),
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("models/demo"),
    processes: Annotated[int, typer.Option(help="One for each core.", min=1)] = 2,
    vae_steps: Annotated[int, typer.Option(help="Of the autoencoder.", min=1)] = 6_000,
    reading_steps: Annotated[int, typer.Option(help="Of the text encoder alone.", min=1)] = 600,
    drawing_steps: Annotated[int, typer.Option(help="Of the denoiser.", min=1)] = 15_000,
    arranging_steps: Annotated[int, typer.Option(help="More, for pairs.", min=1)] = 4_500,
) -> None:
    """Train the demo model; a training that was stopped goes on when it is started again."""
    work.mkdir(parents=True, exist_ok=True)
    make_tokenizer(work / "tokenizer", seed=0)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = train_vae(work, VaeTraining(steps=vae_steps), processes=processes)
    stages = (learn_to_draw(drawing_steps), learn_to_arrange(arranging_steps))
    training = DenoiserTraining(stages, reading_steps=reading_steps)
    denoiser = train_denoiser(work, vae, tokenizer, training, processes=processes)
    export(output, vae, tokenizer, denoiser)
    fit_preview(output, scenes()).save(output)
    for log in sorted(work.glob("*.csv")):
        plot(log, log.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
