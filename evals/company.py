"""Exact jobs of all kinds, and runs of them in several orders and companies."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from shared.catalog import Catalog, ModelSpec
from shared.compatibility import DIFFUSION_SAMPLERS, find_refusal
from shared.request import GenerationRequest
from shared.vocab import OUTPUT_FORMATS, Determinism, Medium, Sampler, Schedule
from worker.artifact import encode_image
from worker.engine import Engine, EngineConfig, JobResult, ModelCache
from worker.engine.conditioning import Conditioning

SEED = 7
#: Fast jobs that come in between.
NUM_NEIGHBOURS = 16
#: Jobs that are there before the first forward; each that ends lets another one in.
NUM_AT_FIRST = 12
FORMATS = OUTPUT_FORMATS[Medium.IMAGE]
GUIDANCES = (1.0, 2.0, 3.5, 7.5)
SIZES = ((64, 64), (64, 64), (64, 64), (96, 48))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One order of arrival, with neighbours or without; all figures of a worker process."""

    process: int
    order: int
    with_neighbours: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario made."""

    scenario: Scenario
    #: By job, in the order of the list of jobs, one for each output.
    digests: tuple[tuple[str, ...], ...]
    #: Rows of forwards, and how many forwards had so many.
    forward_rows: Mapping[int, int]
    #: What the jobs say of their forwards.
    exact_rows: frozenset[int | None]


def draw_jobs(spec: ModelSpec) -> list[GenerationRequest]:
    """Make two jobs of each sampler; every other field goes round at a pace of its own."""
    jobs = []
    for number, sampler in enumerate(2 * DIFFUSION_SAMPLERS):
        schedules = [s for s in Schedule if _is_possible(spec, sampler, s)]
        guidance = GUIDANCES[number % len(GUIDANCES)]
        width, height = SIZES[number % len(SIZES)]
        jobs.append(
            GenerationRequest(
                prompt=["a large red star", "a small green frog on a pink background"][number % 2],
                negative_prompt=["", "blue", ""][number % 3],
                model=spec.id,
                sampler=sampler,
                # The second job of each has the last of its schedules, the first the native one.
                schedule=schedules[
                    0 if number < len(DIFFUSION_SAMPLERS) else -1 - number % len(schedules)
                ],
                steps=4 + number % 7,
                guidance=guidance,
                guidance_rescale=0.7 if number % 5 == 0 else 0.0,
                seed=number,
                width=width,
                height=height,
                num_outputs=1 + number % 3 // 2,
                output_format=FORMATS[number % len(FORMATS)],
                determinism=Determinism.EXACT,
                priority=number % 10,
                allow_undistilled=True,
            )
        )
    return jobs


def run_scenarios(
    catalog: Path, jobs: Sequence[GenerationRequest], scenarios: Sequence[Scenario]
) -> list[Outcome]:
    """Run scenarios one after the other, with one warm model and a new engine for each."""
    torch.set_num_threads(1)
    models = ModelCache(Catalog.load(catalog), "cpu")
    return [run_scenario(models, jobs, scenario) for scenario in scenarios]


def run_scenario(
    models: ModelCache, jobs: Sequence[GenerationRequest], scenario: Scenario
) -> Outcome:
    """Let jobs arrive in an order of the scenario's own, and digest the files of the exact ones."""
    rng = random.Random(SEED + scenario.order)  # noqa: S311 # the same orders everywhere
    arriving = dict(enumerate(jobs))
    if scenario.with_neighbours:
        for number, job in enumerate(rng.sample(list(jobs), k=NUM_NEIGHBOURS)):
            fast = {
                "determinism": Determinism.FAST,
                "seed": 1000 + number,
                "width": 64,
                "height": 64,
            }
            arriving[len(jobs) + number] = job.model_copy(update=fast)
    order = rng.sample(sorted(arriving), k=len(arriving))
    family = models.load(jobs[0].model)
    rows: Counter[int] = Counter()
    predict = family.predict

    def count_rows(latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        rows[len(latents)] += 1
        return predict(latents, timesteps, conditioning)

    family.predict = count_rows  # type: ignore[method-assign]
    try:
        results = run_in_order(models, arriving, order)
    finally:
        family.predict = predict  # type: ignore[method-assign]
    exact = [results[number] for number in range(len(jobs))]
    return Outcome(
        scenario,
        digests=tuple(_digest(job, result) for job, result in zip(jobs, exact, strict=True)),
        forward_rows=dict(rows),
        exact_rows=frozenset(result.exact_rows for result in exact),
    )


def run_in_order(
    models: ModelCache, jobs: Mapping[int, GenerationRequest], order: Sequence[int]
) -> dict[int, JobResult]:
    """Run jobs on an engine of their own: some from the start, the others as those leave."""
    engine = Engine(EngineConfig(), models)
    futures: dict[int, Future[JobResult]] = {}
    for number in order[:NUM_AT_FIRST]:
        futures[number] = engine.submit(str(number), jobs[number])
    engine.start()
    try:
        for leaving, number in zip(order, order[NUM_AT_FIRST:], strict=False):
            futures[leaving].result()
            futures[number] = engine.submit(str(number), jobs[number])
        return {number: future.result() for number, future in futures.items()}
    finally:
        engine.stop()


def _is_possible(spec: ModelSpec, sampler: Sampler, schedule: Schedule) -> bool:
    return find_refusal(sampler, schedule, spec, allow_undistilled=True) is None


def _digest(job: GenerationRequest, result: JobResult) -> tuple[str, ...]:
    versions = {name: version(name) for name in ("torch", "diffusers")}
    return tuple(
        encode_image(output.pixels, request=job, seed=output.seed, versions=versions).sha256
        for output in result.pictures
    )
