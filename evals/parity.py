"""`python -m evals.parity`: is a job's result stock diffusers' own?

Alone, latents and pixels must equal those of the model's own pipeline bit for bit. In the company
of all the others, with mixed steps and guidance, they may differ by rounding only: by 1e-5, or,
where few coarse steps make more of a rounding, by what stock diffusers itself makes of one (ADR
16). The demo model is compared, or the models of a family: `--family sdxl`, `--family all`.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers.utils import logging

from evals.label_parity import LABEL_FAMILY, LabelRow, compare_labels, show_labels
from evals.report import JsonFile, PageFile, Report, Table
from evals.sound_parity import SOUND_FAMILIES, SoundRow, compare_sounds, show_sounds
from evals.stock import FLAGS, Drawn, StockDiffusers
from evals.subjects import DEMO, FAMILIES, SUBJECTS, Subject, load_subject
from evals.tiny_models import CLIP_TOKENS
from evals.together import run_together
from shared.catalog import Catalog, ModelSpec
from shared.compatibility import CONSISTENCY, find_refusal
from shared.request import GenerationRequest
from shared.vocab import GuidanceForm, Process, Sampler, Schedule
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.trajectory import Trajectory

#: Most that company may change: of latents, relative to their largest; of pixels, in levels of 255.
MAX_LATENT_CHANGE, MAX_USUAL_LEVELS, MAX_LEVELS = 1e-5, 1.0, 3
#: The share of pixel values that must be within the usual levels.
USUAL = 99.9
#: Roundings of the first noise that stock diffusers is tried with.
NUDGES = 5
#: Company rounds anew in every iteration, a nudge but once: so much more may it change.
ROUNDINGS = 4.0
QUESTION = (
    "Does a job give what stock diffusers' own pipeline gives: alone bit for bit, in one "
    "engine with all the others but for rounding? A job is steps / guidance, r with "
    "rescaled guidance. Company is the largest change of a latent in company, relative "
    "to the largest latent; rounding is the largest that stock diffusers itself "
    f"makes of {NUDGES} roundings of its first noise; levels are what {USUAL}% of pixel "
    "values stay within in company, and the most, of 255."
)
#: In turns, so that no two neighbours have the same.
STEPS, STEPS_QUICK = (7, 12, 20, 25, 9, 15), (4, 7, 5)
GUIDANCES = (3.0, 1.0, 7.5, 2.0)
#: What the demo model is asked for.
DEMO_PROMPT = "a large red star left of a small frog on a yellow background"
#: What tiny models are asked for in turns, and one that T5 reads and CLIP only begins to.
PROMPTS = ("a red star on a blue background", "a", "a small star")
LONG_PROMPT = "a large red star " * 15
SIZES = ((32, 32), (48, 32), (32, 64), (32, 32))
#: FluxPipeline gives every scheduler levels, and this one takes none.
WITHOUT_STOCK = frozenset({("flux", Sampler.FLOW_HEUN)})
#: Families that can be named.
KNOWN = (*FAMILIES, LABEL_FAMILY, *SOUND_FAMILIES)
#: Consistency samplers are made for few steps.
FEW_STEPS = 4
#: Samplers that stock diffusers gives a flag's levels as we do: DDIM there has none.
FLAGGED = (
    Sampler.DPMPP_2M,
    Sampler.DPMPP_2M_SDE,
    Sampler.UNIPC,
    Sampler.EULER,
    Sampler.HEUN,
    Sampler.DEIS,
    Sampler.KDPM2,
    Sampler.KDPM2_ANCESTRAL,
    Sampler.SA_SOLVER,
    Sampler.DPMPP_SINGLESTEP,
    Sampler.FLOW_EULER,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what stock diffusers' scheduler is told besides its class."""

    request: GenerationRequest
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """How far a request's results are from stock diffusers'."""

    model: str
    sampler: Sampler
    schedule: Schedule
    steps: int
    guidance: float
    guidance_rescale: float
    is_bitwise_alone: bool
    #: Largest difference in company, relative to the largest latent.
    latent_change: float
    #: Largest difference that a rounding of the first noise makes to stock diffusers, as relative.
    rounding_change: float
    #: Levels of 255 that 99.9% of pixel values stay within, in company, and the most.
    usual_levels: float
    most_levels: int

    @property
    def passes(self) -> bool:
        """Whether alone is equal and company changes rounding only."""
        most = max(MAX_LATENT_CHANGE, ROUNDINGS * self.rounding_change)
        is_near = self.usual_levels <= MAX_USUAL_LEVELS and self.most_levels <= MAX_LEVELS
        return self.is_bitwise_alone and self.latent_change <= most and is_near


class Recorder(Engine):
    """An engine that keeps the latents of ended trajectories, by their seed."""

    def __init__(self, models: ModelCache) -> None:
        super().__init__(EngineConfig(), models)
        self.latents: dict[int, torch.Tensor] = {}

    def step(self) -> list[Trajectory]:
        """Step as ever."""
        ended = super().step()
        self.latents |= {trajectory.seed: trajectory.latents for trajectory in ended}
        return ended


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps.")] = False,
    family: Annotated[
        str, typer.Option(help=f"The models of one: {', '.join(KNOWN)}; or all.")
    ] = "",
) -> None:
    """Compare every sampler with stock diffusers, alone and in company."""
    if family not in ("", "all", *KNOWN):
        raise typer.BadParameter(f"no family {family}; there are {', '.join(KNOWN)}, all")
    torch.set_num_threads(1)
    steps = STEPS_QUICK if quick else STEPS
    logging.set_verbosity_error()  # it warns of every prompt that CLIP reads the beginning of
    tables: list[Table] = []
    rows: list[Row] = []
    for subject in _choose(family):
        with TemporaryDirectory() as folder:
            catalog = load_subject(subject, Path(folder))
            spec = catalog.models[subject.id]
            mine = compare(make_cases(steps, spec), catalog)
            tables.append(_table_of(mine, f"{subject.id} against {_name_pipeline(spec)}"))
            rows += mine
    labels: list[LabelRow] = []
    if family in (LABEL_FAMILY, "all"):
        with TemporaryDirectory() as folder:
            labels = compare_labels(Path(folder), steps)
        tables.append(show_labels(labels))
    sounds: list[SoundRow] = []
    for name in SOUND_FAMILIES:
        if family in (name, "all"):
            with TemporaryDirectory() as folder:
                sounds += compare_sounds(name, Path(folder), steps)
    if sounds:
        tables.append(show_sounds(sounds))
    figures = {
        "rows": [asdict(row) | {"passes": row.passes} for row in rows],
        "labels": [asdict(row) | {"passes": row.passes} for row in labels],
        "sounds": [asdict(row) | {"passes": row.passes} for row in sounds],
    }
    options = f" --family {family}" if family else ""
    Report("Parity with stock diffusers", QUESTION, tables, figures).publish(
        f"python -m evals.parity{options}", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [f"{row.sampler} on {row.schedule} ({row.model})" for row in rows if not row.passes]
    missed += [f"{one.sampler} on {one.schedule} (labels)" for one in labels if not one.passes]
    missed += [
        f"{one.sampler} on {one.schedule} ({one.family})" for one in sounds if not one.passes
    ]
    verdict = f"missed: {', '.join(missed)}" if missed else "all equal alone, all within in company"
    count = len(rows) + len(labels) + len(sounds)
    print(f"parity of {count} requests: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def make_cases(steps: Sequence[int], spec: ModelSpec) -> list[Case]:
    """List requests for every sampler, for diffusers' own schedules and for rescaled guidance."""
    turns = zip(itertools.count(1), itertools.cycle(steps), itertools.cycle(GUIDANCES), _ask(spec))

    def make(sampler: Sampler, schedule: Schedule = Schedule.NATIVE, **changes: Any) -> Case:
        seed, count, guidance, asked = next(turns)
        fields: dict[str, Any] = {
            "model": spec.id,
            "sampler": sampler,
            "schedule": schedule,
            "steps": FEW_STEPS if sampler in CONSISTENCY else count,
            "guidance": guidance,
            "seed": seed,
            "allow_undistilled": sampler in CONSISTENCY,
        }
        if spec.guidance is GuidanceForm.NONE:
            changes = changes | {"guidance": 1.0}
        config = {FLAGS[schedule]: True} if schedule in FLAGS else {}
        return Case(GenerationRequest.model_validate(fields | asked | changes), config)

    served = [
        sampler
        for sampler in Sampler
        if find_refusal(sampler, Schedule.NATIVE, spec, allow_undistilled=True) is None
        and (spec.family, sampler) not in WITHOUT_STOCK
    ]
    # Where samplers are few, each has so many jobs that every size has company.
    repeats = len(SIZES) if len(served) < len(FLAGGED) else 1
    native = [(sampler, guidance) for sampler in served for guidance in (1.0, 3.0)]
    flagged = [sampler for sampler in FLAGGED if sampler in served]
    # Pipelines of flow models know no rescaled guidance, and some models nothing to rescale by.
    has_two_rows = spec.guidance is GuidanceForm.CLASSIFIER_FREE
    rescaled = served if has_two_rows and spec.process is Process.DIFFUSION else []
    return [
        *(make(sampler, guidance=guidance) for sampler, guidance in native * repeats),
        *(make(sampler, schedule) for sampler in flagged for schedule in FLAGS),
        *(make(sampler, guidance=7.5, guidance_rescale=0.7) for sampler in rescaled),
    ]


def compare(cases: Sequence[Case], catalog: Catalog) -> list[Row]:
    """Draw each request with stock diffusers, alone, and together with all the others."""
    models = ModelCache(catalog, "cpu")
    models.load(catalog.default)
    stock = StockDiffusers(catalog.models[catalog.default].path)
    requests = [case.request for case in cases]
    together = draw_together(models, requests)
    rows = []
    for case, ours in zip(cases, together, strict=True):
        theirs = stock.draw(case.request, **case.config)
        nudged = [
            stock.draw(case.request, nudge_seed=seed, **case.config).latents
            for seed in range(NUDGES)
        ]
        rounding = max(_change(latents, theirs.latents) for latents in nudged)
        (alone,) = draw_together(models, [case.request])
        rows.append(_compare_one(case.request, theirs, alone, ours, rounding))
    return rows


def draw_together(models: ModelCache, requests: Sequence[GenerationRequest]) -> list[Drawn]:
    """Draw requests, whose seeds differ, in one engine."""
    engine = Recorder(models)
    results = run_together(engine, requests)
    return [
        Drawn(engine.latents[request.seed], result.pictures[0].pixels)
        for request, result in zip(requests, results, strict=True)
    ]


def _choose(family: str) -> list[Subject]:
    """List what is compared: the demo model if no family is named."""
    if not family:
        return [subject for subject in SUBJECTS if subject.id == DEMO]
    return [subject for subject in SUBJECTS if family in (subject.family, "all")]


def _ask(spec: ModelSpec) -> Iterator[dict[str, Any]]:
    """Say in turns what a picture shall show, and its size."""
    has_negative = spec.guidance is GuidanceForm.CLASSIFIER_FREE
    if spec.id == DEMO:
        prompts, negatives, sizes = [DEMO_PROMPT], ["blue"], [(spec.width, spec.height)]
    else:
        prompts = [*PROMPTS, LONG_PROMPT] if spec.max_tokens > CLIP_TOKENS else [*PROMPTS]
        negatives, sizes = ["", "blue"] if has_negative else [""], [*SIZES]
    asked = zip(itertools.cycle(prompts), itertools.cycle(negatives), itertools.cycle(sizes))
    for prompt, negative_prompt, (width, height) in asked:
        yield {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "width": width,
            "height": height,
        }


def _name_pipeline(spec: ModelSpec) -> str:
    name: str = json.loads((spec.path / "model_index.json").read_text())["_class_name"]
    return name


def _change(latents: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest latent."""
    return float((latents - reference).abs().max() / reference.abs().max())


def _compare_one(
    request: GenerationRequest, theirs: Drawn, alone: Drawn, company: Drawn, rounding: float
) -> Row:
    is_bitwise = torch.equal(alone.latents, theirs.latents) and np.array_equal(
        alone.pixels, theirs.pixels
    )
    levels = np.abs(company.pixels.astype(int) - theirs.pixels.astype(int))
    return Row(
        model=request.model,
        sampler=request.sampler,
        schedule=request.schedule,
        steps=request.steps,
        guidance=request.guidance,
        guidance_rescale=request.guidance_rescale,
        is_bitwise_alone=is_bitwise,
        latent_change=_change(company.latents, theirs.latents),
        rounding_change=rounding,
        usual_levels=float(np.percentile(levels, USUAL)),
        most_levels=int(levels.max()),
    )


def _table_of(rows: Sequence[Row], title: str) -> Table:
    return Table(
        title,
        ("sampler", "schedule", "job", "alone", "company", "rounding", "levels", ""),
        [
            (
                row.sampler,
                row.schedule,
                f"{row.steps} / {row.guidance:g}{' r' if row.guidance_rescale else ''}",
                "equal" if row.is_bitwise_alone else "differs",
                f"{row.latent_change:.0e}",
                f"{row.rounding_change:.0e}",
                f"{row.usual_levels:.2g} / {row.most_levels}",
                "" if row.passes else "missed",
            )
            for row in rows
        ],
        num_names=3,
    )


if __name__ == "__main__":
    typer.run(main)
