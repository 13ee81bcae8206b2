"""`python -m evals.convergence`: does every sampler on every schedule solve what it should?

Against the perfect models of `evals/oracle.py`, one for each kind of model. Deterministic samplers
must reach the exact end at their order; stochastic ones must have the data's mean and deviation in
the limit of many steps, and consistency samplers on a distilled model at once.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import typer

from evals.kinds import Kind, load_kinds
from evals.oracle import DEVIATION, MEAN, Oracle
from evals.report import JsonFile, PageFile, Report, Table
from shared.compatibility import CONSISTENCY, STOCHASTIC, find_refusal, max_steps
from shared.vocab import Sampler, Schedule
from worker.engine.samplers import SamplerBook

QUESTION = "Does every sampler solve, on every schedule and kind of model, what it should?"
#: Divisors of 1000: at others diffusers' DDIM, DDPM and PNDM take unequal steps for equal ones.
STEPS = (10, 20, 40, 100, 200)
#: Root mean squared error, of data with deviation 0.4, below which only the rounding of levels to
#: whole timesteps and the last step's length are left.
FLOOR = 2.5e-3
#: The same where training ends at zero signal: up there a level may be far from its timestep's.
ZERO_SNR_FLOOR = 8e-3
#: Error of the fewest steps below which there is too little left to see an order in.
AT_ONCE = 0.015
#: How far below its order a sampler's best measured one may be.
SLACK = 0.45
#: Most that is left after the most steps.
TOLERANCE = 0.02
#: Of second order where the last level does not depend on the number of steps.
SECOND_ORDER = frozenset(
    {
        Sampler.DPMPP_2M,
        Sampler.DPMPP_SINGLESTEP,
        Sampler.UNIPC,
        Sampler.DEIS,
        Sampler.HEUN,
        Sampler.FLOW_HEUN,
        Sampler.EDM_DPMPP_2M,
    }
)
#: Their native levels end where the model's do, whatever the number of steps.
ENDS_FIXED = frozenset({Sampler.FLOW_HEUN, Sampler.EDM_DPMPP_2M})
#: Their own levels end where the native ones of as many steps do, and the last step is Euler's.
ENDS_AS_NATIVE = frozenset({Sampler.EULER, Sampler.HEUN, Sampler.KDPM2})
#: Samples of a stochastic sampler, and how many standard errors it may be off.
NUM_SAMPLES, NUM_SAMPLES_QUICK = 40_000, 4_000
LIMIT_STEPS = (100, 200)
#: Steps of consistency samplers, which make no error that more of them would mend.
CONSISTENCY_STEPS = 4
NUM_ERRORS = 4.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """What was measured of a deterministic sampler on a schedule."""

    kind: str
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
    """What was measured of a stochastic sampler on a schedule."""

    kind: str
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
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples.")] = False,
) -> None:
    """Print how each sampler converges on each schedule, for each kind of model."""
    torch.set_num_threads(1)
    count = NUM_SAMPLES_QUICK if quick else NUM_SAMPLES
    solved: list[Convergence] = []
    drawn: list[Distribution] = []
    for kind in load_kinds():
        solved += [measure_convergence(kind, *cell) for cell in cells(kind, stochastic=False)]
        drawn += [measure_moments(kind, *cell, count) for cell in cells(kind, stochastic=True)]
    tables = [_convergence_table(solved), _distribution_table(drawn)]
    figures = {
        "deterministic": [asdict(row) | {"passes": row.passes} for row in solved],
        "stochastic": [asdict(row) | {"passes": row.passes} for row in drawn],
    }
    Report("Convergence of the samplers", QUESTION, tables, figures).publish(
        "python -m evals.convergence", json_file=json_file, page_file=page_file, quick=quick
    )
    all_rows: list[Convergence | Distribution] = [*solved, *drawn]
    missed = [f"{row.sampler} on {row.schedule} ({row.kind})" for row in all_rows if not row.passes]
    verdict = f"missed: {'; '.join(missed)}" if missed else "all converge as they should"
    print(f"convergence of {len(all_rows)} cells: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def cells(kind: Kind, *, stochastic: bool) -> list[tuple[Sampler, Schedule]]:
    """List what a kind of model is made for: of distilled ones, the samplers for those."""
    return [
        (sampler, schedule)
        for sampler, schedule in itertools.product(Sampler, Schedule)
        if (sampler in STOCHASTIC) == stochastic
        and (sampler in CONSISTENCY) == kind.spec.is_distilled
        and find_refusal(sampler, schedule, kind.spec) is None
    ]


def order_of(sampler: Sampler, schedule: Schedule) -> int:
    """Say how fast the error should fall: with the steps, or with their square."""
    ends_fixed = sampler in ENDS_FIXED or schedule is not Schedule.NATIVE
    ends_as_native = sampler in ENDS_AS_NATIVE and schedule in (
        Schedule.KARRAS,
        Schedule.EXPONENTIAL,
        Schedule.BETA,
    )
    return 2 if sampler in SECOND_ORDER and ends_fixed and not ends_as_native else 1


def measure_convergence(kind: Kind, sampler: Sampler, schedule: Schedule) -> Convergence:
    """Compare the ends of ever more steps with the exact one."""
    book = SamplerBook()
    oracle = Oracle(kind.spec)
    noise = torch.randn((1, 1, 1, 128), generator=torch.Generator().manual_seed(1)).double()
    errors = {}
    for steps in STEPS:
        if steps <= max_steps(sampler, schedule, kind.spec):
            scheduler = book.start(kind.spec, kind.native, sampler, schedule, steps)
            exact = oracle.exact_end(scheduler, noise)
            off = oracle.sample(scheduler, noise) - exact
            errors[steps] = float(off.square().mean().sqrt())
    floor = ZERO_SNR_FLOOR if kind.spec.training.zero_terminal_snr else FLOOR
    orders = [
        math.log(errors[few] / errors[many]) / math.log(many / few)
        for few, many in itertools.pairwise(errors)
        if errors[few] > floor and errors[STEPS[0]] > AT_ONCE
    ]
    order = order_of(sampler, schedule)
    return Convergence(str(kind), sampler, schedule, errors, order, max(orders, default=math.inf))


def measure_moments(kind: Kind, sampler: Sampler, schedule: Schedule, count: int) -> Distribution:
    """Draw, and take mean and deviation, in the limit of many steps where that is their aim."""
    if sampler in CONSISTENCY:
        mean, deviation = _draw(kind, sampler, schedule, CONSISTENCY_STEPS, count, seed=0)
        error = DEVIATION / math.sqrt(count)
    else:
        few, many = (
            _draw(kind, sampler, schedule, steps, count, seed=seed)
            for seed, steps in enumerate(_limit_steps(kind, sampler, schedule))
        )
        # The error falls with the steps: twice the second less the first has none of first order
        # left, and sqrt(2^2 + 1) times the standard error.
        mean, deviation = (2 * b - a for a, b in zip(few, many, strict=True))
        error = math.sqrt(5) * DEVIATION / math.sqrt(count)
    return Distribution(str(kind), sampler, schedule, mean, error, deviation, error / math.sqrt(2))


def _draw(
    kind: Kind, sampler: Sampler, schedule: Schedule, steps: int, count: int, *, seed: int
) -> tuple[float, float]:
    scheduler = SamplerBook().start(kind.spec, kind.native, sampler, schedule, steps)
    noise = torch.randn((1, 1, 1, count), generator=torch.Generator().manual_seed(seed)).double()
    drawn = Oracle(kind.spec).sample(scheduler, noise, seed=seed + 10)
    return float(drawn.mean()), float(drawn.std())


def _limit_steps(kind: Kind, sampler: Sampler, schedule: Schedule) -> tuple[int, int]:
    few, many = LIMIT_STEPS
    most = max_steps(sampler, schedule, kind.spec)
    return (few, many) if many <= most else (most // 2, most // 2 * 2)


def _convergence_table(rows: Sequence[Convergence]) -> Table:
    return Table(
        "Error after so many steps",
        ("model", "sampler", "schedule", *map(str, STEPS), "order", "measured", ""),
        [
            (
                row.kind,
                row.sampler,
                row.schedule,
                *(f"{row.errors[n]:.4f}" if n in row.errors else "" for n in STEPS),
                str(row.order),
                "at once" if math.isinf(row.measured_order) else f"{row.measured_order:.1f}",
                _mark(row.passes),
            )
            for row in rows
        ],
        num_names=3,
    )


def _distribution_table(rows: Sequence[Distribution]) -> Table:
    return Table(
        f"Moments; the data has mean {MEAN} and deviation {DEVIATION}",
        ("model", "sampler", "schedule", "mean", "deviation", ""),
        [
            (
                row.kind,
                row.sampler,
                row.schedule,
                f"{row.mean:.4f} ± {row.mean_error:.4f}",
                f"{row.deviation:.4f} ± {row.deviation_error:.4f}",
                _mark(row.passes),
            )
            for row in rows
        ],
        num_names=3,
    )


def _mark(passes: bool) -> str:
    return "" if passes else "missed"


if __name__ == "__main__":
    typer.run(main)
