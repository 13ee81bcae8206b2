"""`python -m evals.training_schedules`: what does the training schedule change in what is drawn?

Compares the models of `python -m models.train.variants`, which differ in nothing else.
"""

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from evals.adherence import held_out_captions
from evals.bootstrap import find_interval, show
from evals.brightness import find_brightness, plain_captions, silent_captions
from evals.drawing import Picture, draw
from evals.judgement import Judgement, count_by_objects, judge_all
from evals.proportion import Proportion
from evals.report import JsonFile, PageFile, Report, Table
from models.train.render import render
from models.train.variants import BASELINE, VARIANTS
from models.train.world import COLORS, Caption
from shared.catalog import Catalog
from shared.request import GenerationRequest
from shared.schedule import TrainingSchedule
from shared.vocab import Sampler, Schedule

#: Of captions with one object and with two, with a black background and with a white one; twice as
#: many say nothing of it.
NUM_CAPTIONS, NUM_CAPTIONS_QUICK = 150, 10
PLAIN = ("black", "white")
#: How all are sampled, the demo model's `balanced`.
STEPS, GUIDANCE = 25, 2.0
QUESTION = (
    "What does the training schedule change in what a model draws? The same networks, trained "
    "equally long from the same random start on the same pictures, captions, noise and timesteps, "
    "to predict v; each differs from `scaled-linear`, the demo model's schedule, in its schedule "
    "only, and `another-seed` in start and pictures only: what that changes is chance. All are far "
    "from as long trained as the demo model. All are sampled alike, with 25 steps of `dpmpp_2m` at "
    "guidance 2, `trailing`, so that the last timestep is visited. A program judges whether all "
    "that a caption says is there. Error is how far the objects are from clean ones, the root mean "
    "squared difference in levels of 255, at the median. Brightness is the mean of red, green and "
    "blue over the picture's frame, in levels of 255, which shows the background. Intervals are at "
    "95%: Wilson's of shares, a bootstrap's over the captions of the others. They say nothing of "
    "other trainings."
)


@dataclass(frozen=True, slots=True)
class Captions:
    """What every variant is asked for."""

    told: Sequence[Caption]
    #: By the color of their background.
    plain: Mapping[str, Sequence[Caption]]
    #: They leave the background open.
    silent: Sequence[Caption]

    @property
    def all(self) -> list[Caption]:
        """In this order."""
        return [*self.told, *(one for part in self.plain.values() for one in part), *self.silent]


@dataclass(frozen=True, slots=True)
class Row:
    """What a variant drew."""

    name: str
    training: TrainingSchedule
    judgements: Sequence[Judgement]
    #: Of the frame, for each picture.
    plain: Mapping[str, NDArray[np.float64]]
    silent: NDArray[np.float64]

    @property
    def hits(self) -> NDArray[np.float64]:
        """For each caption 1 if all claims hold, else 0."""
        return np.array([float(judgement.verdict.all) for judgement in self.judgements])

    @property
    def errors(self) -> NDArray[np.float64]:
        """Of each picture."""
        return np.array([judgement.error for judgement in self.judgements])


def main(
    models: Annotated[Path, typer.Option(help="Folder of the variants.")] = Path(
        ".train/variants/models"
    ),
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer captions.")] = False,
) -> None:
    """Let all variants draw the same captions, and compare them with the first."""
    captions = make_captions(NUM_CAPTIONS_QUICK if quick else NUM_CAPTIONS)
    rows = measure(models, captions)
    world = np.array([find_brightness(render(caption.scene)) for caption in captions.silent])
    figures = [describe(row, rows[0]) for row in rows]
    tables = [_noise_table(rows), _drawing_table(figures), _brightness_table(figures, world)]
    Report(
        "Training schedules",
        QUESTION,
        tables,
        {"variants": figures, "world": _describe_spread(world)},
    ).publish(
        "python -m evals.training_schedules",
        json_file=json_file,
        page_file=page_file,
        quick=quick,
    )
    by_name = {row["name"]: row for row in figures}
    spreads = ", ".join(f"{name} {row['spread']:.0f}" for name, row in by_name.items())
    print(f"spread of brightness: {spreads}; the world's own {world.std():.0f}")  # noqa: T201


def make_captions(count: int) -> Captions:
    """Choose what to ask for."""
    rng = random.Random("training schedules")  # noqa: S311 - no secret
    return Captions(
        told=[
            *held_out_captions(count, two_objects=0, seed=4),
            *held_out_captions(count, two_objects=1, seed=4),
        ],
        plain={color: plain_captions(rng, count, color) for color in PLAIN},
        silent=silent_captions(rng, 2 * count),
    )


def measure(models: Path, captions: Captions) -> list[Row]:
    """Let each variant draw all captions, with the same seeds."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.toml"
        catalog.write_text(_write_catalog(models.absolute()))
        specs = Catalog.load(catalog).models
        rows = []
        for variant in VARIANTS:
            pictures = draw(
                catalog,
                [
                    _request(variant.name, caption, seed)
                    for seed, caption in enumerate(captions.all)
                ],
            )
            rows.append(_make_row(variant.name, specs[variant.name].training, captions, pictures))
    return rows


def _write_catalog(models: Path) -> str:
    entries = [
        f'[models.{variant.name}]\npath = "{models / variant.name}"\nrevision = "1"\n'
        "max_width = 64\nmax_height = 64\nmax_rows = 16\n"
        for variant in VARIANTS
    ]
    return "\n".join([f'default = "{BASELINE.name}"', *entries])


def _request(model: str, caption: Caption, seed: int) -> GenerationRequest:
    return GenerationRequest(
        prompt=caption.text,
        model=model,
        sampler=Sampler.DPMPP_2M,
        schedule=Schedule.NATIVE,
        steps=STEPS,
        guidance=GUIDANCE,
        seed=seed,
        width=64,
        height=64,
    )


def _make_row(
    name: str, training: TrainingSchedule, captions: Captions, pictures: Sequence[Picture]
) -> Row:
    told = pictures[: len(captions.told)]
    brightness = np.array([find_brightness(picture) for picture in pictures[len(told) :]])
    plain, start = {}, 0
    for color, part in captions.plain.items():
        plain[color] = brightness[start : start + len(part)]
        start += len(part)
    return Row(name, training, judge_all(captions.told, told), plain, brightness[start:])


def describe(row: Row, baseline: Row) -> dict[str, Any]:
    """Put all figures of a row under their names."""
    one, two = count_by_objects(row.judgements)
    claims = Proportion.of(bool(hit) for hit in row.hits)
    gains, errors, count = row.hits - baseline.hits, row.errors, len(row.judgements)
    figures: dict[str, Any] = {
        "name": row.name,
        "captions": count,
        "one_object": one.share,
        "one_object_interval": one.interval,
        "two_objects": two.share,
        "two_objects_interval": two.interval,
        "all_claims": claims.share,
        "all_claims_interval": claims.interval,
        "gain": float(gains.mean()),
        "gain_interval": find_interval(lambda cases: float(gains[cases].mean()), count),
        "error": float(np.median(errors)),
        "error_interval": find_interval(lambda cases: float(np.median(errors[cases])), count),
    }
    for color, brightness in row.plain.items():
        figures[color] = float(brightness.mean())
        figures[f"{color}_interval"] = _bootstrap_mean(brightness)
    return figures | _describe_spread(row.silent)


def _bootstrap_mean(values: NDArray[np.float64]) -> tuple[float, float]:
    return find_interval(lambda cases: float(values[cases].mean()), len(values))


def _describe_spread(brightness: NDArray[np.float64]) -> dict[str, Any]:
    """Say how far the brightness of many pictures reaches."""
    darkest, brightest = np.percentile(brightness, (5, 95))
    return {
        "spread": float(brightness.std()),
        "spread_interval": find_interval(
            lambda cases: float(brightness[cases].std()), len(brightness)
        ),
        "darkest": float(darkest),
        "brightest": float(brightest),
    }


def _noise_table(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        sigmas = np.exp(row.training.log_sigmas)
        signal = 0.0 if row.training.zero_terminal_snr else 1 / np.sqrt(1 + sigmas[-1] ** 2)
        cells.append((row.name, f"{signal:.2g}", f"{np.median(sigmas):.2f}"))
    return Table(
        "The schedules",
        ("schedule", "signal left at the last timestep", "noise over signal at half of them"),
        cells,
    )


def _drawing_table(figures: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        f"What they draw, on {figures[0]['captions']} held-out captions",
        ("schedule", "one object", "two objects", "all claims", "against the first", "error"),
        [
            (
                row["name"],
                f"{row['one_object']:.1%}",
                f"{row['two_objects']:.1%}",
                show(row["all_claims"], row["all_claims_interval"], ".1%"),
                show(row["gain"], row["gain_interval"], "+.1%") if number else "",
                show(row["error"], row["error_interval"], ".1f"),
            )
            for number, row in enumerate(figures)
        ],
    )


def _brightness_table(figures: Sequence[Mapping[str, Any]], world: NDArray[np.float64]) -> Table:
    black, white = (float(np.mean(COLORS[color])) for color in PLAIN)
    ideal = {"name": "the world's own", "black": black, "white": white, **_describe_spread(world)}
    cells = []
    for row in (*figures, ideal):
        plain = [
            show(row[color], row[f"{color}_interval"], ".0f")
            if f"{color}_interval" in row
            else f"{row[color]:.0f}"
            for color in PLAIN
        ]
        spread = show(row["spread"], row["spread_interval"], ".1f")
        ends = f"{row['darkest']:.0f} to {row['brightest']:.0f}"
        cells.append((row["name"], *plain, spread, ends))
    return Table(
        "Brightness of backgrounds",
        ("schedule", "asked for black", "asked for white", "spread where unasked", "90% of those"),
        cells,
    )


if __name__ == "__main__":
    typer.run(main)
