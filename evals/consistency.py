"""`python -m evals.consistency`: what does the distilled demo model lose in few steps?

It and the demo model draw the same captions, which neither saw in training, with the same seeds.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from api.presets import DEFAULT_PRESET, PresetBook, Sampling
from evals.adherence import held_out_captions
from evals.bootstrap import find_interval, show
from evals.drawing import ask_for, draw
from evals.judgement import Judgement, count_by_objects, judge_all
from evals.proportion import Proportion
from evals.report import JsonFile, PageFile, Report, Table
from models import CATALOG
from models.train.world import Caption
from shared.catalog import Catalog
from shared.catalog_entry import PresetValues

TEACHER, STUDENT = "demo", "demo-lcm"
STUDENT_STEPS = (1, 2, 4, 8)
#: Captions with one object and as many with two.
NUM_CAPTIONS, NUM_CAPTIONS_QUICK = 300, 20
#: Least share of the teacher's adherence that the student must reach, and at how many steps.
MIN_RATIO, JUDGED_STEPS = 0.9, 4
QUESTION = (
    "What does the distilled demo model lose, and what does it save? The teacher, `demo`, and the "
    "student, `demo-lcm`, draw the same captions, which neither saw in training, with the same "
    "seeds and each as the preset `balanced` has it, the student also with other steps. Rows are "
    "those of the denoiser's forwards for one picture: what it costs. A program judges whether all "
    "that a caption says is there; of teacher is the student's share of that over the teacher's. "
    "Error is how far the objects are from clean ones, the root mean squared difference in levels "
    "of 255, at the median. Intervals are at 95%: Wilson's of shares, a bootstrap's over the "
    "captions of ratios and errors."
)


@dataclass(frozen=True, slots=True)
class Row:
    """How a model did with some steps."""

    model: str
    sampling: Sampling
    judgements: Sequence[Judgement]

    @property
    def forward_rows(self) -> int:
        """Rows of forwards that a picture takes."""
        return self.sampling.steps * (1 if self.sampling.guidance == 1 else 2)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """For each caption whether all claims hold."""
        return np.array([judgement.verdict.all for judgement in self.judgements])

    @property
    def errors(self) -> NDArray[np.float64]:
        """Of each picture."""
        return np.array([judgement.error for judgement in self.judgements])

    def share_of(self, teacher: "Row", cases: NDArray[np.intp] | slice = slice(None)) -> float:
        """Return the ratio of the shares of captions of which all claims hold."""
        return float(self.hits[cases].sum() / max(teacher.hits[cases].sum(), 1))


def main(
    catalog: Annotated[Path, typer.Option(help="Catalog that has both models.")] = CATALOG,
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer captions, no verdict.")] = False,
) -> None:
    """Let both models draw, and compare."""
    rows = measure(catalog, NUM_CAPTIONS_QUICK if quick else NUM_CAPTIONS)
    figures = [describe(row, rows[0]) for row in rows]
    Report("Consistency sampling", QUESTION, [_table_of(figures)], {"rows": figures}).publish(
        "python -m evals.consistency", json_file=json_file, page_file=page_file, quick=quick
    )
    (judged,) = (row for row in rows[1:] if row.sampling.steps == JUDGED_STEPS)
    ratio = judged.share_of(rows[0])
    verdict = "reached" if ratio >= MIN_RATIO else "missed"
    print(  # noqa: T201
        f"{ratio:.3f} of the teacher's adherence at {JUDGED_STEPS} steps, "
        f"at least {MIN_RATIO:g}: {verdict}"
    )
    sys.exit(1 if ratio < MIN_RATIO and not quick else 0)


def measure(catalog: Path, count: int) -> list[Row]:
    """Judge the teacher, and the student at all its steps, on twice as many captions."""
    captions = [
        *held_out_captions(count, two_objects=0, seed=1),
        *held_out_captions(count, two_objects=1, seed=1),
    ]
    students = [(STUDENT, PresetValues(steps=steps)) for steps in STUDENT_STEPS]
    return [
        _measure_one(catalog, model, values, captions)
        for model, values in [(TEACHER, PresetValues()), *students]
    ]


def _measure_one(
    catalog: Path, model: str, values: PresetValues, captions: Sequence[Caption]
) -> Row:
    spec = Catalog.load(catalog).models[model]
    sampling = PresetBook.load().presets[DEFAULT_PRESET].resolve(spec, values)
    pictures = draw(catalog, ask_for([caption.text for caption in captions], spec, sampling))
    return Row(model, sampling, judge_all(captions, pictures))


def describe(row: Row, teacher: Row) -> dict[str, Any]:
    """Put all figures of a row under their names."""
    one, two = count_by_objects(row.judgements)
    claims = Proportion.of(bool(hit) for hit in row.hits)
    errors, count = row.errors, len(row.judgements)
    return {
        "model": row.model,
        "sampler": row.sampling.sampler,
        "steps": row.sampling.steps,
        "guidance": row.sampling.guidance,
        "forward_rows": row.forward_rows,
        "captions": count,
        "one_object": one.share,
        "one_object_interval": one.interval,
        "two_objects": two.share,
        "two_objects_interval": two.interval,
        "all_claims": claims.share,
        "all_claims_interval": claims.interval,
        "of_teacher": row.share_of(teacher),
        "of_teacher_interval": find_interval(lambda cases: row.share_of(teacher, cases), count),
        "error": float(np.median(errors)),
        "error_interval": find_interval(lambda cases: float(np.median(errors[cases])), count),
    }


def _table_of(figures: Sequence[Mapping[str, Any]]) -> Table:
    def cell(row: Mapping[str, Any], name: str, form: str) -> str:
        return show(row[name], row[f"{name}_interval"], form)

    return Table(
        f"On {figures[0]['captions']} held-out captions",
        (
            "model",
            "steps",
            "rows",
            "one object",
            "two objects",
            "all claims",
            "of teacher",
            "error",
        ),
        [
            (
                row["model"],
                str(row["steps"]),
                str(row["forward_rows"]),
                f"{row['one_object']:.1%}",
                f"{row['two_objects']:.1%}",
                cell(row, "all_claims", ".1%"),
                cell(row, "of_teacher", ".3f") if row["model"] == STUDENT else "",
                cell(row, "error", ".1f"),
            )
            for row in figures
        ],
        num_names=2,
    )


if __name__ == "__main__":
    typer.run(main)
