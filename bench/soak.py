"""`python -m bench.soak`: does an engine that runs for long keep its size?

Ten thousand short jobs of all kinds go through one engine. Between rounds, when it has nothing to
do, its process is measured. A slope is zero within its noise, or something leaks.
"""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import asdict, dataclass
from typing import Annotated

import psutil
import torch
import typer

from bench.slope import Slope, fit_slope
from evals.report import JsonFile, PageFile, Report, Table
from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from shared.compatibility import DIFFUSION_SAMPLERS, find_refusal
from shared.errors import InvalidInput
from shared.request import GenerationRequest
from shared.vocab import Determinism, Schedule
from worker.engine import Engine, EngineConfig, JobCanceled, ModelCache

QUESTION = (
    "Does an engine that runs for long keep its size? Short jobs of all kinds go through one "
    "engine, some of them canceled or refused, and its process is measured between rounds."
)
MODEL = "demo"
NUM_JOBS, NUM_JOBS_QUICK = 10_000, 1_000
NUM_SAMPLES = 50
#: Share of the samples at the start, in which caches fill and arenas grow.
WARM_UP = 0.5
#: Which jobs of every twenty are canceled, and of every hundred too long for the model.
CANCELED, TOO_LONG = 7, 50
#: Growth per 1,000 jobs that is none: a twentieth of a thread or descriptor, and of memory what
#: one latent, 4 KB, kept of every fourth job would be.
TOLERANCES = {"memory_mb": 1.0, "objects": 50.0, "threads": 0.05, "descriptors": 0.05}


@dataclass(frozen=True, slots=True)
class Sample:
    """The size of the process when so many jobs have ended."""

    jobs: int
    memory_mb: float
    #: Python objects that the collector knows: a leak of one object a job shows here first.
    objects: int
    threads: int
    descriptors: int


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the jobs.")] = False,
) -> None:
    """Print how the size of an engine's process goes with the number of jobs."""
    num_jobs = NUM_JOBS_QUICK if quick else NUM_JOBS
    torch.set_num_threads(1)
    catalog = Catalog.load(CATALOG)
    models = ModelCache(catalog, "cpu")
    models.load(MODEL)
    engine = Engine(EngineConfig(), models)
    engine.start()
    samples = list(soak(engine, catalog.models[MODEL], num_jobs))
    engine.stop()
    slopes = slopes_of(samples)
    growing = find_growing(slopes)
    figures = {
        "samples": [asdict(sample) for sample in samples],
        "slopes": {name: asdict(slope) for name, slope in slopes.items()},
        "growing": growing,
    }
    tables = [_slope_table(samples, slopes)]
    Report("An engine that runs for long", QUESTION, tables, figures).publish(
        "python -m bench.soak", json_file=json_file, page_file=page_file, quick=quick
    )
    verdict = f"missed: {', '.join(growing)} grow" if growing else "everything is flat"
    print(f"{num_jobs} jobs through one engine: {verdict}")  # noqa: T201
    sys.exit(1 if growing else 0)


def soak(engine: Engine, spec: ModelSpec, num_jobs: int) -> Iterator[Sample]:
    """Run jobs in rounds through an engine that runs and sample after each."""
    process = psutil.Process()
    in_round = num_jobs // NUM_SAMPLES
    for start in range(0, NUM_SAMPLES * in_round, in_round):
        _run_round(engine, {n: draw_job(spec, n) for n in range(start, start + in_round)})
        gc.collect()
        yield Sample(
            jobs=start + in_round,
            memory_mb=process.memory_info().rss / 2**20,
            objects=len(gc.get_objects()),
            threads=process.num_threads(),
            descriptors=process.num_fds(),
        )


def draw_job(spec: ModelSpec, number: int) -> GenerationRequest:
    """Make a short job; samplers, schedules, guidance and company go round."""
    sampler = DIFFUSION_SAMPLERS[number % len(DIFFUSION_SAMPLERS)]
    schedules = [
        schedule
        for schedule in Schedule
        if find_refusal(sampler, schedule, spec, allow_undistilled=True) is None
    ]
    return GenerationRequest(
        # More prompts than the engine keeps encoded; one in a hundred is too long for the model.
        prompt="star " * 200 if number % 100 == TOO_LONG else f"a red star, number {number}",
        model=spec.id,
        sampler=sampler,
        schedule=schedules[number // len(DIFFUSION_SAMPLERS) % len(schedules)],
        steps=2,
        guidance=[1.0, 3.0][number % 2],
        seed=number,
        width=spec.width,
        height=spec.height,
        determinism=[Determinism.FAST, Determinism.EXACT][number // 3 % 2],
        allow_undistilled=True,
    )


def slopes_of(samples: list[Sample]) -> dict[str, Slope]:
    """Fit the growth of each figure per 1,000 jobs, after the warm-up."""
    settled = samples[int(len(samples) * WARM_UP) :]
    thousands = [sample.jobs / 1000 for sample in settled]
    return {
        name: fit_slope(thousands, [getattr(sample, name) for sample in settled])
        for name in TOLERANCES
    }


def find_growing(slopes: dict[str, Slope]) -> list[str]:
    """Name the figures that grow."""
    return [name for name, slope in slopes.items() if slope.is_growth(tolerance=TOLERANCES[name])]


def _run_round(engine: Engine, jobs: dict[int, GenerationRequest]) -> None:
    futures = {number: engine.submit(f"soak-{number}", job) for number, job in jobs.items()}
    for number in jobs:
        if number % 20 == CANCELED:
            engine.cancel(f"soak-{number}")
    wait(futures.values())
    for number, future in futures.items():
        error = future.exception()
        is_meant = isinstance(error, JobCanceled) or (
            isinstance(error, InvalidInput) and number % 100 == TOO_LONG
        )
        if error is not None and not is_meant:
            raise error


def _slope_table(samples: list[Sample], slopes: dict[str, Slope]) -> Table:
    rows = [
        [
            name.replace("_mb", ", MB"),
            f"{getattr(samples[0], name):.1f}",
            f"{getattr(samples[int(len(samples) * WARM_UP)], name):.1f}",
            f"{getattr(samples[-1], name):.1f}",
            f"{slope.value:.3f} ± {slope.error:.3f}",
            "missed" if slope.is_growth(tolerance=TOLERANCES[name]) else "",
        ]
        for name, slope in slopes.items()
    ]
    columns = ["of the process", "first round", "warmed up", "last round", "per 1,000 jobs", ""]
    return Table(f"{samples[-1].jobs} short jobs", columns, rows)


if __name__ == "__main__":
    typer.run(main)
