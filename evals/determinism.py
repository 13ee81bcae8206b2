"""`python -m evals.determinism`: does an `exact` job give the same file in any company?

The same jobs arrive in several orders, with `fast` neighbours and without, in two worker processes.
With two rows a forward, a guided job must also equal stock diffusers bit for bit.
"""

import itertools
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from evals.company import SEED, Outcome, Scenario, draw_jobs, run_in_order, run_scenarios
from evals.report import JsonFile, PageFile, Report, Table
from evals.stock import StockDiffusers
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import DIFFUSION_SAMPLERS
from shared.request import GenerationRequest
from shared.vocab import Schedule
from worker.engine import ModelCache

QUESTION = (
    "Does an `exact` job give the same file in any company? The same jobs arrive in several "
    "orders, with `fast` neighbours and without, in two worker processes, and the digests of their "
    "files are compared."
)
MODEL = "demo"
NUM_ORDERS, NUM_ORDERS_QUICK = 6, 2
NUM_PROCESSES = 2
#: Rows of a forward of stock diffusers with guidance.
STOCK_ROWS = 2


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer orders of arrival.")] = False,
) -> None:
    """Print whether files differ, and how many rows the forwards had."""
    num_orders = NUM_ORDERS_QUICK if quick else NUM_ORDERS
    spec = Catalog.load(CATALOG).models[MODEL]
    jobs = draw_jobs(spec)
    outcomes = run_everywhere(jobs, num_orders)
    differing = find_differing(outcomes)
    off_size = find_off_size(outcomes, spec.exact_rows)
    unlike_stock = compare_with_stock(jobs)
    num_stock = len(stock_jobs(jobs))
    tables = [
        _scenario_table(outcomes, differing),
        Table(
            "In forwards of two rows, against stock diffusers",
            ["guided jobs", "with other pixels"],
            [[str(num_stock), ", ".join(unlike_stock) or "none"]],
        ),
    ]
    problems = {
        "jobs with differing files": [str(number) for number in differing],
        "forwards of another size": off_size,
        "samplers unlike stock diffusers": unlike_stock,
    }
    figures = {
        "jobs": [job.model_dump(mode="json") for job in jobs],
        "outcomes": [
            asdict(outcome) | {"exact_rows": list(outcome.exact_rows)} for outcome in outcomes
        ],
        "problems": problems,
    }
    Report("The same bytes in any company", QUESTION, tables, figures).publish(
        "python -m evals.determinism", json_file=json_file, page_file=page_file, quick=quick
    )
    found = [f"{what}: {', '.join(which)}" for what, which in problems.items() if which]
    verdict = f"missed: {'; '.join(found)}" if found else "every file is the same everywhere"
    print(f"{len(jobs)} exact jobs in {len(outcomes)} runs: {verdict}")  # noqa: T201
    sys.exit(1 if found else 0)


def run_everywhere(jobs: Sequence[GenerationRequest], num_orders: int) -> list[Outcome]:
    """Run all scenarios in each of the worker processes."""
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=context) for _ in range(NUM_PROCESSES)]
    running = []
    for process, pool in enumerate(pools):
        scenarios = [
            Scenario(process, order, with_neighbours)
            for order, with_neighbours in itertools.product(range(num_orders), (False, True))
        ]
        running.append(pool.submit(run_scenarios, CATALOG, jobs, scenarios))
    outcomes = [outcome for future in running for outcome in future.result()]
    for pool in pools:
        pool.shutdown()
    return outcomes


def find_differing(outcomes: Sequence[Outcome]) -> list[int]:
    """Name the jobs whose files are not the same in all scenarios."""
    by_job = zip(*(outcome.digests for outcome in outcomes), strict=True)
    return [number for number, digests in enumerate(by_job) if len(set(digests)) > 1]


def find_off_size(outcomes: Sequence[Outcome], exact_rows: int) -> list[str]:
    """Name the scenarios of exact jobs alone that had forwards of other sizes than theirs.

    With `fast` neighbours some forwards hold nobody else, and those are of any size.
    """
    return [
        f"process {outcome.scenario.process} order {outcome.scenario.order}"
        for outcome in outcomes
        if outcome.exact_rows != {exact_rows}
        or (not outcome.scenario.with_neighbours and set(outcome.forward_rows) != {exact_rows})
    ]


def stock_jobs(jobs: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Choose what stock diffusers draws without being told levels: one job of each sampler."""
    return [
        job.model_copy(update={"guidance": max(job.guidance, 2.0), "num_outputs": 1})
        for job in jobs
        if job.schedule is Schedule.NATIVE
    ][: len(DIFFUSION_SAMPLERS)]


def compare_with_stock(jobs: Sequence[GenerationRequest]) -> list[str]:
    """Run guided jobs together in forwards of two rows; names the samplers with other pixels.

    Jobs of one row come in between, so that pairs are split over forwards.
    """
    guided = stock_jobs(jobs)
    single = [job.model_copy(update={"guidance": 1.0}) for job in guided[:3]]
    mixed = dict(enumerate([*guided, *single]))
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.toml"
        catalog.write_text(_pair_catalog())
        torch.set_num_threads(1)
        models = ModelCache(Catalog.load(catalog), "cpu")
        models.load(MODEL)
        order = random.Random(SEED).sample(sorted(mixed), k=len(mixed))  # noqa: S311
        results = run_in_order(models, mixed, order)
    stock = StockDiffusers()
    return [
        str(job.sampler)
        for number, job in enumerate(guided)
        if not np.array_equal(results[number].pictures[0].pixels, stock.draw(job).pixels)
    ]


def _pair_catalog() -> str:
    spec = Catalog.load(CATALOG).models[MODEL]
    return (
        f'default = "{MODEL}"\n'
        f"[models.{MODEL}]\n"
        f'path = "{spec.path}"\n'
        f'revision = "{spec.revision}"\n'
        f"max_width = {spec.max_width}\n"
        f"max_height = {spec.max_height}\n"
        f"exact_rows = {STOCK_ROWS}\n"
    )


def _scenario_table(outcomes: Sequence[Outcome], differing: Sequence[int]) -> Table:
    rows = []
    for process, with_neighbours in itertools.product(range(NUM_PROCESSES), (False, True)):
        chosen = [
            outcome
            for outcome in outcomes
            if (outcome.scenario.process, outcome.scenario.with_neighbours)
            == (process, with_neighbours)
        ]
        num_files = sum(len(files) for outcome in chosen for files in outcome.digests)
        sizes = Counter[int]()
        for outcome in chosen:
            sizes.update(outcome.forward_rows)
        rows.append(
            [
                str(process + 1),
                "with fast neighbours" if with_neighbours else "exact jobs alone",
                str(len(chosen)),
                str(num_files),
                ", ".join(f"{count} of {size}" for size, count in sorted(sizes.items())),
            ]
        )
    everywhere = {digest for outcome in outcomes for files in outcome.digests for digest in files}
    num_outputs = sum(map(len, outcomes[0].digests))
    rows.append(
        [
            "both",
            "together",
            str(len(outcomes)),
            f"{len(everywhere)} different",
            f"of {num_outputs} outputs",
        ]
    )
    columns = ["process", "company", "orders", "files", "forwards by rows"]
    title = f"{len(outcomes[0].digests)} exact jobs, {len(differing)} with differing files"
    return Table(title, columns, rows, num_names=2)


if __name__ == "__main__":
    typer.run(main)
