"""`python -m models.train.audio`: train the audio model from nothing, or go on with it."""

from pathlib import Path
from typing import Annotated

import typer

from models.train.audio.autoencoder import (
    AutoencoderTraining,
    load_autoencoder,
    train_autoencoder,
)
from models.train.audio.denoiser import DenoiserTraining, train_denoiser
from models.train.audio.export import export
from models.train.audio.tokenizer import make_tokenizer
from models.train.journal import plot


def main(
    work: Annotated[Path, typer.Option(help="Checkpoints and logs.")] = Path(".train/demo-audio"),
    output: Annotated[Path, typer.Option(help="Where it goes.")] = Path("models/demo-audio"),
    processes: Annotated[int, typer.Option(help="One for each core.", min=1)] = 2,
    autoencoder_steps: Annotated[int, typer.Option(help="Of the autoencoder.", min=1)] = 6_000,
    reading_steps: Annotated[int, typer.Option(help="Of the text encoder alone.", min=1)] = 400,
    playing_steps: Annotated[int, typer.Option(help="Of the denoiser.", min=1)] = 4_500,
) -> None:
    """Train the audio model; a training that was stopped goes on when it is started again."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(work / "tokenizer")
    train_autoencoder(work, AutoencoderTraining(steps=autoencoder_steps), processes=processes)
    training = DenoiserTraining(playing_steps, reading_steps)
    denoiser = train_denoiser(work, tokenizer, training, processes=processes)
    export(output, load_autoencoder(work), tokenizer, denoiser)
    for log in sorted(work.glob("*.csv")):
        plot(log, log.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
