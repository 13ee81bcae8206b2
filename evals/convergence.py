"""`python -m evals.convergence`: does every sampler on every schedule solve what it should?

Against the perfect model of `evals/oracle.py`. Deterministic samplers must reach the exact end at
their order; stochastic ones must have the data's mean and deviation in the limit of many steps.
"""

import itertools
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from evals.oracle import DEVIATION, MEAN, Oracle
from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from shared.compatibility import STOCHASTIC, find_refusal, max_steps
from shared.vocab import Sampler, Schedule
from worker.engine.samplers import SamplerBook, Scheduler, load_native

MODEL = "demo"
#: Divisors of 1000: at others diffusers' DDIM, DDPM and PNDM take unequal steps for equal ones.
STEPS = (10, 20, 40, 100, 200)
#: Root mean squared error, of data with deviation 0.4, below which only the rounding of levels to
#: whole timesteps and the last step's length are left.
FLOOR = 2.5e-3
#: How far below its order a sampler's best measured one may be.
SLACK = 0.45
#: Most that is left after the most steps.
TOLERANCE = 0.02
#: Of second order where the last level does not depend on the number of steps.
SECOND_ORDER = frozenset(
    {Sampler.DPMPP_2M, Sampler.DPMPP_SINGLESTEP, Sampler.UNIPC, Sampler.DEIS, Sampler.HEUN}
)
#: Their own levels end where the native ones of as many steps do, and the last step is Euler's.
ENDS_AS_NATIVE = frozenset({Sampler.EULER, Sampler.HEUN, Sampler.KDPM2})
#: Samples of a stochastic sampler, and how many standard errors it may be off.
NUM_SAMPLES, NUM_SAMPLES_QUICK = 40_000, 4_000
LIMIT_STEPS = (100, 200)
NUM_ERRORS = 4.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """What was measured of a deterministic sampler on a schedule."""

    sampler: Sampler
    schedule: Schedule
    errors: dict[int, float]
    order: int
    measured_order: float

    @property
    def passes(self) -> bool:
        """Whether it goes where it should, as fast as it should."""
        is_near = self.errors[max(self.errors)] < TOLERANCE
        return is_near and self.measured_order > self.order - SLACK


@dataclass(frozen=True, slots=True)
class Distribution:
    """What was measured of a stochastic sampler on a schedule, in the limit of many steps."""

    sampler: Sampler
    schedule: Schedule
    mean: float
    mean_error: float
    deviation: float
    deviation_error: float

    @property
    def passes(self) -> bool:
        """Whether both are the data's, within their standard errors."""
        is_mean = abs(self.mean - MEAN) < NUM_ERRORS * self.mean_error
        return is_mean and abs(self.deviation - DEVIATION) < NUM_ERRORS * self.deviation_error


def main(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples.")] = False,
) -> None:
    """Print how each sampler converges on each schedule."""
    spec, native = load_model()
    solved = [measure_convergence(spec, native, *cell) for cell in cells(spec, stochastic=False)]
    count = NUM_SAMPLES_QUICK if quick else NUM_SAMPLES
    drawn = [measure_limit(spec, native, *cell, count) for cell in cells(spec, stochastic=True)]
    Console().print(_convergence_table(solved), _distribution_table(drawn))
    if json_file is not None:
        json_file.write_text(json.dumps(_describe(solved, drawn), indent=2) + "\n")
    all_rows: list[Convergence | Distribution] = [*solved, *drawn]
    missed = [f"{row.sampler} on {row.schedule}" for row in all_rows if not row.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all converge as they should"
    print(f"convergence of {len(all_rows)} samplers and schedules: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def load_model() -> tuple[ModelSpec, Scheduler]:
    """Read the demo model's training schedule and its own scheduler, without its weights."""
    spec = Catalog.load(CATALOG).models[MODEL]
    return spec, load_native(spec.path)


def cells(spec: ModelSpec, *, stochastic: bool) -> list[tuple[Sampler, Schedule]]:
    """List what works on a model."""
    return [
        (sampler, schedule)
        for sampler, schedule in itertools.product(Sampler, Schedule)
        if (sampler in STOCHASTIC) == stochastic and find_refusal(sampler, schedule, spec) is None
    ]


def order_of(sampler: Sampler, schedule: Schedule) -> int:
    """Say how fast the error should fall: with the steps, or with their square."""
    ends_fixed = schedule is not Schedule.NATIVE and not (
        sampler in ENDS_AS_NATIVE
        and schedule in (Schedule.KARRAS, Schedule.EXPONENTIAL, Schedule.BETA)
    )
    return 2 if sampler in SECOND_ORDER and ends_fixed else 1


def measure_convergence(
    spec: ModelSpec, native: Scheduler, sampler: Sampler, schedule: Schedule
) -> Convergence:
    """Compare the ends of ever more steps with the exact one."""
    book = SamplerBook()
    oracle = Oracle(spec.training, spec.prediction_type)
    noise = torch.randn((1, 1, 1, 128), generator=torch.Generator().manual_seed(1)).double()
    errors = {}
    for steps in STEPS:
        if steps <= max_steps(sampler, schedule, spec):
            scheduler = book.start(spec, native, sampler, schedule, steps)
            exact = oracle.exact_end(scheduler, noise)
            off = oracle.sample(scheduler, noise) - exact
            errors[steps] = float(off.square().mean().sqrt())
    orders = [
        math.log(errors[few] / errors[many]) / math.log(many / few)
        for few, many in itertools.pairwise(errors)
        if errors[few] > FLOOR
    ]
    return Convergence(
        sampler, schedule, errors, order_of(sampler, schedule), max(orders, default=math.inf)
    )


def measure_limit(
    spec: ModelSpec, native: Scheduler, sampler: Sampler, schedule: Schedule, count: int
) -> Distribution:
    """Draw with some steps and with twice as many, and extrapolate both moments to infinity."""
    book = SamplerBook()
    oracle = Oracle(spec.training, spec.prediction_type)
    moments = []
    for seed, steps in enumerate(_limit_steps(spec, sampler, schedule)):
        scheduler = book.start(spec, native, sampler, schedule, steps)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((1, 1, 1, count), generator=generator).double()
        drawn = oracle.sample(scheduler, noise, seed=seed + 10)
        moments.append((float(drawn.mean()), float(drawn.std())))
    (few_mean, few_deviation), (many_mean, many_deviation) = moments
    # The error falls with the steps: twice the second less the first has none of first order left,
    # and sqrt(2^2 + 1) times the standard error.
    error = math.sqrt(5) * DEVIATION / math.sqrt(count)
    return Distribution(
        sampler,
        schedule,
        mean=2 * many_mean - few_mean,
        mean_error=error,
        deviation=2 * many_deviation - few_deviation,
        deviation_error=error / math.sqrt(2),
    )


def _limit_steps(spec: ModelSpec, sampler: Sampler, schedule: Schedule) -> tuple[int, int]:
    few, many = LIMIT_STEPS
    most = max_steps(sampler, schedule, spec)
    return (few, many) if many <= most else (most // 2, most // 2 * 2)


def _convergence_table(rows: list[Convergence]) -> Table:
    table = Table(title="Error after so many steps", box=None, header_style="bold")
    for name in ("sampler", "schedule", *map(str, STEPS), "order", "measured", ""):
        is_name = name in ("sampler", "schedule")
        table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
    for row in rows:
        errors = [f"{row.errors[n]:.4f}" if n in row.errors else "" for n in STEPS]
        measured = f"{row.measured_order:.1f}"
        table.add_row(
            row.sampler, row.schedule, *errors, str(row.order), measured, _mark(row.passes)
        )
    return table


def _distribution_table(rows: list[Distribution]) -> Table:
    title = f"Limit of many steps; the data has mean {MEAN} and deviation {DEVIATION}"
    table = Table(title=title, box=None, header_style="bold")
    for name in ("sampler", "schedule", "mean", "deviation", ""):
        is_name = name in ("sampler", "schedule")
        table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
    for row in rows:
        table.add_row(
            row.sampler,
            row.schedule,
            f"{row.mean:.4f} ± {row.mean_error:.4f}",
            f"{row.deviation:.4f} ± {row.deviation_error:.4f}",
            _mark(row.passes),
        )
    return table


def _mark(passes: bool) -> str:
    return "" if passes else "missed"


def _describe(solved: list[Convergence], drawn: list[Distribution]) -> dict[str, Any]:
    return {
        "deterministic": [asdict(row) | {"passes": row.passes} for row in solved],
        "stochastic": [asdict(row) | {"passes": row.passes} for row in drawn],
    }


if __name__ == "__main__":
    typer.run(main)
