"""`python -m evals.labels`: does the demo model that draws by label draw what it is asked?

Two judges that know nothing of each other: a small network (`models/train/label_judge.py`), which
has to name one of the labels, and the checker of the demo model, which learned nothing and may also
find that a picture shows none of them, or several things.
"""

import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from evals.label_drawing import Picture, Score, draw_labels, score
from evals.proportion import Proportion
from evals.report import JsonFile, PageFile, Report, Table
from models.train.classes import load_vae
from models.train.label_denoiser import LABELS
from models.train.label_judge import LabelJudge, reconstruct
from models.train.render import render
from models.train.vae import to_pixels, to_tensor
from models.train.world import Scene, draw_scene

MODEL = Path(__file__).parents[1] / "models" / "demo-classes"
JUDGE = Path(__file__).with_name("label_judge.safetensors")
#: What the sweep found to be best.
GUIDANCE = 3.0
GUIDANCES, GUIDANCES_QUICK = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0), (1.0, 3.0)
#: Pictures of each label: at the model's guidance, and at each of the sweep.
NUM_PICTURES, NUM_PICTURES_QUICK = 20, 2
NUM_IN_SWEEP, NUM_IN_SWEEP_QUICK = 8, 2
#: Seeds of the sweep begin here: others than those of the score that it leads to.
FIRST_SEED_OF_SWEEP = 100_000
#: Least share of pictures in which the network sees the label.
TARGET = 0.9
#: Pictures of each label on the sheet.
NUM_ON_SHEET = 8
QUESTION = (
    "Does the model draw what its label says? A small network has to name the label that it sees "
    "(named); a program that learned nothing must find one object, and it must be the label's "
    "(found). Diversity is the root mean squared difference between pictures of one label, in "
    "levels of 255: a label may have any colour, size, place and background. Renders have "
    "combinations that no training saw, and show how good the judges are."
)


def main(
    model: Annotated[Path, typer.Option(help="The model's folder.")] = MODEL,
    json_file: JsonFile = None,
    page_file: PageFile = None,
    sheet_file: Annotated[
        Path | None, typer.Option("--sheet", help="Draw pictures of each label here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pictures, no verdict.")] = False,
) -> None:
    """Print how many pictures show their label, by label and by guidance."""
    judge = LabelJudge.load(JUDGE)
    labels = LABELS * (NUM_PICTURES_QUICK if quick else NUM_PICTURES)
    pictures = draw_labels(model, labels, guidance=GUIDANCE, first_seed=0)
    drawn = score(judge, labels, pictures)
    scores = {f"the model at guidance {GUIDANCE:g}": drawn, **score_renders(judge, model, labels)}
    sweep = measure_guidance(judge, model, quick=quick)
    tables = [
        _table("What is judged", "pictures", scores),
        _label_table(labels, drawn.names),
        _table("What guidance changes", "guidance", {f"{g:g}": row for g, row in sweep.items()}),
    ]
    figures = {
        "guidance": GUIDANCE,
        "pictures": {name: _describe(row) for name, row in scores.items()},
        "sweep": [{"guidance": g, **_describe(row)} for g, row in sweep.items()],
    }
    Report("Drawing by label", QUESTION, tables, figures).publish(
        "python -m evals.labels", json_file=json_file, page_file=page_file, quick=quick
    )
    if sheet_file is not None:
        _draw_sheet(pictures, sheet_file)
    is_reached = drawn.named.share >= TARGET
    verdict = "reached" if is_reached else "missed"
    print(f"{len(labels)} pictures, target of {TARGET:.0%} named right: {verdict}")  # noqa: T201
    sys.exit(0 if is_reached or quick else 1)


def score_renders(judge: LabelJudge, model: Path, labels: Sequence[str]) -> dict[str, Score]:
    """Judge what no model drew: renders, and what the model's autoencoder makes of them."""
    rng = random.Random("labels")  # noqa: S311 - no secret
    scenes = [_draw_scene_of(rng, label) for label in labels]
    decoded = to_pixels(reconstruct(load_vae(model), to_tensor(scenes)))
    return {
        "renders": score(judge, labels, [render(scene) for scene in scenes]),
        "renders, encoded and decoded": score(judge, labels, list(decoded)),
    }


def measure_guidance(judge: LabelJudge, model: Path, *, quick: bool) -> dict[float, Score]:
    """Draw the same labels with the same seeds at each guidance."""
    labels = LABELS * (NUM_IN_SWEEP_QUICK if quick else NUM_IN_SWEEP)
    return {
        guidance: score(
            judge,
            labels,
            draw_labels(model, labels, guidance=guidance, first_seed=FIRST_SEED_OF_SWEEP),
        )
        for guidance in (GUIDANCES_QUICK if quick else GUIDANCES)
    }


def _draw_scene_of(rng: random.Random, label: str) -> Scene:
    while True:
        scene = draw_scene(rng, two_objects=0, held_out=True)
        if scene.objects[0].kind == label:
            return scene


def _table(title: str, subject: str, scores: Mapping[str, Score]) -> Table:
    columns = (subject, "named", "95% interval", "found", "95% interval", "count", "diversity")
    rows = [
        (
            name,
            f"{row.named.share:.1%}",
            _interval(row.named),
            f"{row.found.share:.1%}",
            _interval(row.found),
            str(row.named.count),
            f"{row.diversity:.1f}",
        )
        for name, row in scores.items()
    ]
    return Table(title, columns, rows)


def _label_table(labels: Sequence[str], names: Sequence[str]) -> Table:
    named: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    for label, name in zip(labels, names, strict=True):
        named[label][name] += 1
    rows = [
        (
            label,
            f"{counter[label]} of {counter.total()}",
            ", ".join(f"{name} {count}" for name, count in counter.items() if name != label),
        )
        for label, counter in named.items()
    ]
    return Table("By label", ("label", "named", "otherwise"), rows)


def _interval(row: Proportion) -> str:
    low, high = row.interval
    return f"{low:.1%} to {high:.1%}"


def _describe(row: Score) -> dict[str, Any]:
    shares = {
        name: {"share": share.share, "interval": share.interval, "count": share.count}
        for name, share in (("named", row.named), ("found", row.found))
    }
    return {**shares, "diversity": row.diversity}


def _draw_sheet(pictures: Sequence[Picture], file: Path) -> None:
    """Put the first pictures of each label below each other; labels go from left to right."""
    count = min(NUM_ON_SHEET, len(pictures) // len(LABELS))
    stack = np.stack(pictures[: count * len(LABELS)])
    rows = stack.reshape(count, len(LABELS), *stack.shape[1:])
    Image.fromarray(np.concatenate(np.concatenate(rows, axis=1), axis=1)).save(file)


if __name__ == "__main__":
    typer.run(main)
