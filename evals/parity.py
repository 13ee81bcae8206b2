"""`python -m evals.parity`: is a job's result stock diffusers' own?

Alone, latents and pixels must equal those of StableDiffusionPipeline bit for bit. In the company of
all the others, with mixed steps and guidance, they may differ by rounding only: by 1e-5, or, where
few coarse steps make more of a rounding, by what stock diffusers itself makes of one (ADR 16).
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import typer

from evals.report import JsonFile, PageFile, Report, Table
from evals.stock import Drawn, StockDiffusers
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import CONSISTENCY, find_refusal
from shared.request import GenerationRequest
from shared.vocab import Sampler, Schedule
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.trajectory import Trajectory

MODEL = "demo"
#: Most that company may change: of latents, relative to their largest; of pixels, in levels of 255.
MAX_LATENT_CHANGE, MAX_USUAL_LEVELS, MAX_LEVELS = 1e-5, 1.0, 3
#: The share of pixel values that must be within the usual levels.
USUAL = 99.9
#: Roundings of the first noise that stock diffusers is tried with.
NUDGES = 5
#: Company rounds anew in every iteration, a nudge but once: so much more may it change.
ROUNDINGS = 4.0
QUESTION = (
    "Does a job give what stock diffusers' StableDiffusionPipeline gives: alone bit for "
    "bit, in one engine with all the others but for rounding? A job is steps / guidance, "
    "r with rescaled guidance. Company is the largest change of a latent in company, "
    "relative to the largest latent; rounding is the largest that stock diffusers itself "
    f"makes of {NUDGES} roundings of its first noise; levels are what {USUAL}% of pixel "
    "values stay within in company, and the most, of 255."
)
#: In turns, so that no two neighbours have the same.
STEPS, STEPS_QUICK = (7, 12, 20, 25, 9, 15), (4, 7, 5)
GUIDANCES = (3.0, 1.0, 7.5, 2.0)
#: Consistency samplers are made for few steps.
FEW_STEPS = 4
#: diffusers' own flag for its own schedules.
FLAGS = {
    Schedule.KARRAS: "use_karras_sigmas",
    Schedule.EXPONENTIAL: "use_exponential_sigmas",
    Schedule.BETA: "use_beta_sigmas",
}
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
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what stock diffusers' scheduler is told besides its class."""

    request: GenerationRequest
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """How far a request's results are from stock diffusers'."""

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
) -> None:
    """Compare every sampler with stock diffusers, alone and in company."""
    torch.set_num_threads(1)
    cases = make_cases(STEPS_QUICK if quick else STEPS)
    rows = compare(cases)
    figures = {"rows": [asdict(row) | {"passes": row.passes} for row in rows]}
    Report("Parity with stock diffusers", QUESTION, [_table_of(rows)], figures).publish(
        "python -m evals.parity", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [f"{row.sampler} on {row.schedule}" for row in rows if not row.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all equal alone, all within in company"
    print(f"parity of {len(rows)} requests: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def make_cases(steps: Sequence[int]) -> list[Case]:
    """List requests for every sampler, for diffusers' own schedules and for rescaled guidance."""
    spec = Catalog.load(CATALOG).models[MODEL]
    turns = zip(itertools.count(1), itertools.cycle(steps), itertools.cycle(GUIDANCES))

    def make(sampler: Sampler, schedule: Schedule = Schedule.NATIVE, **changes: Any) -> Case:
        seed, count, guidance = next(turns)
        fields: dict[str, Any] = {
            "prompt": "a large red star left of a small frog on a yellow background",
            "negative_prompt": "blue",
            "model": MODEL,
            "sampler": sampler,
            "schedule": schedule,
            "steps": FEW_STEPS if sampler in CONSISTENCY else count,
            "guidance": guidance,
            "seed": seed,
            "width": spec.width,
            "height": spec.height,
            "allow_undistilled": sampler in CONSISTENCY,
        }
        config = {FLAGS[schedule]: True} if schedule in FLAGS else {}
        return Case(GenerationRequest.model_validate(fields | changes), config)

    served = [
        sampler
        for sampler in Sampler
        if find_refusal(sampler, Schedule.NATIVE, spec, allow_undistilled=True) is None
    ]
    return [
        *(make(sampler, guidance=guidance) for sampler in served for guidance in (1.0, 3.0)),
        *(make(sampler, schedule) for sampler in FLAGGED for schedule in FLAGS),
        *(make(sampler, guidance=7.5, guidance_rescale=0.7) for sampler in served),
    ]


def compare(cases: Sequence[Case]) -> list[Row]:
    """Draw each request with stock diffusers, alone, and together with all the others."""
    models = ModelCache(Catalog.load(CATALOG), "cpu")
    models.load(MODEL)
    stock = StockDiffusers()
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
    """Draw requests, whose seeds differ, in one engine that begins when all are there."""
    engine = Recorder(models)
    futures = [engine.submit(str(request.seed), request) for request in requests]
    engine.start()
    pixels = [future.result().pictures[0].pixels for future in futures]
    engine.stop()
    return [
        Drawn(engine.latents[request.seed], drawn)
        for request, drawn in zip(requests, pixels, strict=True)
    ]


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


def _table_of(rows: Sequence[Row]) -> Table:
    return Table(
        "Against StableDiffusionPipeline",
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
