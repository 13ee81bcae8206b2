"""`python -m evals.adapter_effect`: does the example adapter do what it says, by its weight?

It takes colors out: how colorful pictures are must fall with its weight. What else changes shows in
the light and dark of a picture, which shall stay where it is.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer

from api.presets import DEFAULT_PRESET, PresetBook
from evals.adherence import held_out_captions
from evals.drawing import Picture, ask_for, draw
from evals.report import JsonFile, PageFile, Report, Table
from models import CATALOG
from models.train.adapter import LUMINANCE
from shared.adapters import AdapterUse
from shared.catalog import Catalog
from shared.catalog_entry import PresetValues
from shared.request import GenerationRequest

MODEL, ADAPTER = "demo", "gray"
WEIGHTS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
NUM_CAPTIONS, NUM_CAPTIONS_QUICK = 40, 8
#: Bounds against a training that went wrong, at weight 1: the share of the color that may be left,
#: and how alike light and dark must stay. The adapter that is shipped was at 0.17 and 0.72.
MAX_COLOR, MIN_LIKENESS = 0.25, 0.6
QUESTION = (
    f"What does the adapter `{ADAPTER}` of the demo model do? The same requests, of captions that "
    "the model never saw, with weights from none to whole. Color is the largest difference of a "
    "pixel's red, green and blue, averaged, in levels of 255. Likeness is the correlation of a "
    "picture's luminance with that of the same picture without the adapter, at the median."
)


@dataclass(frozen=True, slots=True)
class Row:
    """What pictures look like at one weight."""

    weight: float
    color: float
    likeness: float


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer captions, no verdict.")] = False,
) -> None:
    """Draw the same pictures with the adapter at several weights, and compare."""
    rows = measure(NUM_CAPTIONS_QUICK if quick else NUM_CAPTIONS)
    table = Table(
        "By weight",
        ("weight", "color", "likeness"),
        [(f"{row.weight:g}", f"{row.color:.1f}", f"{row.likeness:.3f}") for row in rows],
        num_names=1,
    )
    figures = {"rows": [asdict(row) for row in rows]}
    Report("The example adapter", QUESTION, [table], figures).publish(
        "python -m evals.adapter_effect", json_file=json_file, page_file=page_file, quick=quick
    )
    by_weight = {row.weight: row for row in rows}
    left = by_weight[1.0].color / by_weight[0.0].color
    likeness = by_weight[1.0].likeness
    colors = [row.color for row in rows]
    passes = left <= MAX_COLOR and likeness >= MIN_LIKENESS and colors == sorted(colors)[::-1]
    verdict = "as it should be" if passes else "missed"
    print(f"{left:.0%} of the color left at weight 1, likeness {likeness:.2f}: {verdict}")  # noqa: T201
    sys.exit(0 if passes or quick else 1)


def measure(count: int) -> list[Row]:
    """Draw with each weight and compare with none."""
    requests = make_requests(count)
    pictures = draw(
        CATALOG, [with_weight(request, weight) for weight in WEIGHTS for request in requests]
    )
    by_weight = {weight: pictures[n * count : (n + 1) * count] for n, weight in enumerate(WEIGHTS)}
    return [
        Row(
            weight,
            color=float(np.mean([np.ptp(picture.astype(int), axis=2).mean() for picture in drawn])),
            likeness=float(np.median(_compare(drawn, by_weight[0.0]))),
        )
        for weight, drawn in by_weight.items()
    ]


def make_requests(count: int) -> list[GenerationRequest]:
    """Make requests of captions with one object and with two, by the default preset."""
    spec = Catalog.load(CATALOG).models[MODEL]
    sampling = PresetBook.load().presets[DEFAULT_PRESET].resolve(spec, PresetValues())
    captions = held_out_captions(count, two_objects=0.5, seed=3)
    return ask_for([caption.text for caption in captions], spec, sampling)


def with_weight(request: GenerationRequest, weight: float) -> GenerationRequest:
    """Return a request with the adapter at a weight; with none it has no adapter."""
    adapters = (AdapterUse(id=ADAPTER, weight=weight),) if weight else ()
    return request.model_copy(update={"adapters": adapters})


def _compare(drawn: Sequence[Picture], others: Sequence[Picture]) -> list[float]:
    return [
        float(np.corrcoef((one @ LUMINANCE).ravel(), (other @ LUMINANCE).ravel())[0, 1])
        for one, other in zip(drawn, others, strict=True)
    ]


if __name__ == "__main__":
    typer.run(main)
