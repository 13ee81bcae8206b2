"""`python -m evals.sound_adherence`: does the audio model play what it is asked?

Captions hold a combination of attributes that training never heard, and are kept only if the judge
accepts what the world's own program plays for them, so that every miss is the model's. The judge
itself is judged first, by such recordings and by what the autoencoder makes of them.
"""

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib import pyplot

from evals.hearing import Wave
from evals.listening import Verdict, judge
from evals.playing import Prompt, load_pipeline, play
from evals.proportion import Proportion
from evals.report import JsonFile, PageFile, Report, Table
from evals.spectrograms import draw_sheet
from models import CATALOG
from models.train.audio.rendering import render
from models.train.audio.sounds import Caption, draw_caption, draw_sound

MODEL = CATALOG.parent / "demo-audio"
#: The preset `balanced`.
GUIDANCE, STEPS = 3.0, 25
#: Captions with one phrase and as many with two.
NUM_CAPTIONS, NUM_CAPTIONS_QUICK = 300, 16
GUIDANCES = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0)
NUM_GUIDANCE, NUM_GUIDANCE_QUICK = 120, 16
#: Recordings of the world's program, for the judge.
NUM_JUDGED, NUM_JUDGED_QUICK = 600, 60
#: Share of recordings with two phrases, where they are mixed.
TWO_PHRASES = 0.5
#: Lengths that are asked are multiples of so many ticks: half a second.
LENGTH_TICKS = 20
#: Least share of each row that the model must reach, and the judge of the program's recordings.
TARGETS = {
    "one phrase: kind and pitch": 0.95,
    "two phrases: both right": 0.85,
    "order": 0.85,
    "count": 0.85,
    "all claims": 0.80,
}
LEAST_OF_JUDGE = 0.97
QUESTION = (
    "Does the audio model play what it is asked? Held-out captions, stock diffusers, and a judge "
    "that knows spectra and has learned nothing."
)

Rows = dict[str, Proportion]


def main(
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = MODEL,
    json_file: JsonFile = None,
    page_file: PageFile = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the sweep here.")] = None,
    sheet_file: Annotated[
        Path | None, typer.Option("--sheet", help="Draw spectrograms of some recordings here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer captions, no verdict.")] = False,
) -> None:
    """Print the tables of judge, adherence and guidance."""
    judged = measure_judge(model, NUM_JUDGED_QUICK if quick else NUM_JUDGED)
    captions = held_out_captions(NUM_CAPTIONS_QUICK if quick else NUM_CAPTIONS)
    waves = play(model, _ask(captions), guidance=GUIDANCE, steps=STEPS)
    adherence = count_claims(map(judge, waves, captions))
    sweep = measure_guidance(model, NUM_GUIDANCE_QUICK if quick else NUM_GUIDANCE)
    figures = {
        "judge": {name: _describe(rows) for name, rows in judged.items()},
        "adherence": _describe(adherence),
        "guidance": [{"guidance": guidance, **_describe(rows)} for guidance, rows in sweep.items()],
    }
    tables = [_judge_table(judged), _adherence_table(adherence), _guidance_table(sweep)]
    Report("Adherence of the audio model", QUESTION, tables, figures).publish(
        "python -m evals.sound_adherence", json_file=json_file, page_file=page_file, quick=quick
    )
    if plot_file is not None:
        _plot(sweep, plot_file)
    if sheet_file is not None:
        draw_sheet([caption.text for caption in captions], waves, sheet_file)
    missed = _missed(judged, adherence)
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    print(f"adherence on {len(captions)} held-out captions: {verdict}")  # noqa: T201
    sys.exit(1 if missed and not quick else 0)


def held_out_captions(count: int, *, seed: int = 1) -> list[Caption]:
    """Draw captions with unseen combinations: one and two phrases in turn, `count` of each."""
    rng = random.Random(f"sound adherence {seed}")  # noqa: S311 - no secret
    captions: list[Caption] = []
    while len(captions) < 2 * count:
        sound = draw_sound(rng, two_phrases=len(captions) % 2, held_out=True)
        sound = replace(sound, ticks=-(-sound.ticks // LENGTH_TICKS) * LENGTH_TICKS)
        caption = draw_caption(rng, sound)
        if judge(render(sound), caption).all:
            captions.append(caption)
    return captions


def measure_judge(model: Path, count: int) -> dict[str, Rows]:
    """Judge what the world's program plays, and what the autoencoder makes of it."""
    rng = random.Random("judge")  # noqa: S311 - no secret
    sounds = [draw_sound(rng, two_phrases=TWO_PHRASES) for _ in range(count)]
    captions = [draw_caption(rng, sound) for sound in sounds]
    waves = [render(sound) for sound in sounds]
    return {
        "recordings": count_claims(map(judge, waves, captions)),
        "through the autoencoder": count_claims(map(judge, _round_trip(model, waves), captions)),
    }


def measure_guidance(model: Path, count: int) -> dict[float, Rows]:
    """Judge recordings of the same captions at each guidance."""
    captions = held_out_captions(count // 2, seed=2)
    prompts = _ask(captions)
    return {
        guidance: count_claims(
            map(judge, play(model, prompts, guidance=guidance, steps=STEPS), captions)
        )
        for guidance in GUIDANCES
    }


def count_claims(verdicts: Iterable[Verdict]) -> Rows:
    """Count for each claim how often it was made, and how often it holds."""
    every = list(verdicts)
    both = [all((*verdict.kinds, *verdict.pitches)) for verdict in every]
    pairs = list(zip(every, both, strict=True))
    return {
        "one phrase: kind and pitch": Proportion.of(ok for v, ok in pairs if len(v.kinds) == 1),
        "two phrases: both right": Proportion.of(ok for v, ok in pairs if len(v.kinds) == 2),
        "order": _made(v.order for v in every),
        "count": _made(part for v in every for part in v.counts),
        "direction of a sweep": _made(part for v in every for part in v.directions),
        "tempo of a beat": _made(part for v in every for part in v.tempos),
        "loudness": _made(part for v in every for part in v.loudness),
        "length": Proportion.of(v.length for v in every),
        "number of phrases": Proportion.of(v.phrases for v in every),
        "all claims": Proportion.of(v.all for v in every),
    }


def _ask(captions: Sequence[Caption]) -> list[Prompt]:
    return [
        Prompt(caption.text, caption.sound.seconds, seed) for seed, caption in enumerate(captions)
    ]


def _round_trip(model: Path, waves: Sequence[Wave]) -> list[Wave]:
    autoencoder = load_pipeline(model).vae
    played: list[Wave] = []
    with torch.no_grad():
        for start in range(0, len(waves), 16):
            samples = torch.from_numpy(np.stack(waves[start : start + 16]))[:, None]
            latents = autoencoder.encode(samples).latent_dist.mean
            played += list(autoencoder.decode(latents).sample[:, 0].numpy())
    return played


def _made(claims: Iterable[bool | None]) -> Proportion:
    """Count the claims that were made."""
    return Proportion.of(claim for claim in claims if claim is not None)


def _missed(judged: dict[str, Rows], adherence: Rows) -> list[str]:
    of_judge = [
        f"{claim} of {what}"
        for what, rows in judged.items()
        for claim, row in rows.items()
        if row.share < LEAST_OF_JUDGE
    ]
    return of_judge + [name for name, least in TARGETS.items() if adherence[name].share < least]


def _judge_table(judged: dict[str, Rows]) -> Table:
    rows = [
        (claim, what, f"{row.share:.1%}", _interval(row), str(row.count))
        for claim in next(iter(judged.values()))
        for what, row in ((what, of_judge[claim]) for what, of_judge in judged.items())
    ]
    columns = ("claim", "recordings", "accepted", "95% interval", "of")
    return Table("The judge on recordings that are right", columns, rows, num_names=2)


def _adherence_table(adherence: Rows) -> Table:
    rows = [
        (
            name,
            f"{row.share:.1%}",
            _interval(row),
            str(row.count),
            f"{TARGETS[name]:.0%}" if name in TARGETS else "",
        )
        for name, row in adherence.items()
    ]
    return Table("Adherence", ("claim", "share", "95% interval", "of", "target"), rows)


def _guidance_table(sweep: dict[float, Rows]) -> Table:
    rows = [
        (
            f"{guidance:g}",
            f"{rows['all claims'].share:.1%}",
            _interval(rows["all claims"]),
            f"{rows['two phrases: both right'].share:.1%}",
            f"{rows['count'].share:.1%}",
        )
        for guidance, rows in sweep.items()
    ]
    columns = ("guidance", "all claims", "95% interval", "both of two phrases", "count")
    return Table("What guidance changes", columns, rows)


def _interval(row: Proportion) -> str:
    low, high = row.interval
    return f"{low:.1%} to {high:.1%}"


def _describe(rows: Rows) -> dict[str, Any]:
    return {
        name: {"share": row.share, "interval": row.interval, "count": row.count}
        for name, row in rows.items()
    }


def _plot(sweep: dict[float, Rows], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4))
    guidances = list(sweep)
    for name, mark in (("all claims", "o-"), ("two phrases: both right", "s-"), ("count", "^--")):
        axes.plot(guidances, [100 * rows[name].share for rows in sweep.values()], mark, label=name)
    axes.set(xlabel="guidance", ylabel="adherence in %", ylim=(0, 100))
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=100, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)
