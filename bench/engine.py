"""`python -m bench.engine`: what does batching across jobs gain, in throughput and in waiting?

On one core and in CPU seconds: forwards are real, waiting for arrivals is not. Each ratio is the
median over rounds that measure what it compares one after the other.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.architectures import FLAT_GAIN, write_compute_bound_model
from bench.arrivals import VirtualClock
from bench.curve import BatchCurve, measure_curve
from bench.device import DeviceName, MeasuredDevice, find_device, milli
from bench.device_options import Measured, describe_options, measure_options, tabulate_options
from bench.gate import Gate, tabulate
from bench.latency import ENGINE, FIFO, POLICIES, Round, measure_round, measure_services
from bench.mix import draw_mix
from bench.policies import Arrival, pick_equals, pick_first, serve_engine, serve_groups
from bench.stock import StockPipeline
from bench.throughput import Work, measure_engine, measure_groups
from evals.report import JsonFile, PageFile, Report, Table
from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from worker.engine import Engine, EngineConfig, ModelCache

QUESTION = (
    "What does batching across jobs gain, in throughput and in waiting? Stock diffusers draws one "
    "job at a time (FIFO), static batching draws waiting jobs of equal parameters together, and "
    "the engine advances all jobs together. One core, one thread, CPU seconds; ratios are medians "
    "over rounds. Above load 1 FIFO falls ever further behind, so its figures grow with the trace."
)
MIX_SEED = 20_240
ROUNDS, ROUNDS_QUICK = 5, 1
#: Decks of the mix, twelve jobs each.
THROUGHPUT_DECKS, STOCK_DECKS = 7, 2
CURVE_REPEATS, CURVE_REPEATS_QUICK = 11, 5
#: The load at which waiting must be shorter.
GATED_LOAD = 0.8
#: Jobs of a trace by load. A queue takes its time to become what it is in the long run, at 0.8 of
#: the capacity some fifty jobs; where a forward is slow, there is time for fewer.
TRACES = {0.5: 24, GATED_LOAD: 180, 1.2: 24, 2.0: 24}
SLOW_TRACES = {0.5: 12, GATED_LOAD: 30, 1.2: 12, 2.0: 12}
TRACES_QUICK = {0.5: 12, GATED_LOAD: 36, 1.2: 12, 2.0: 12}


class Rig:
    """A model, warm in an engine that runs and in stock diffusers."""

    def __init__(self, catalog: Path, device: MeasuredDevice) -> None:
        loaded = Catalog.load(catalog)
        self.spec: ModelSpec = loaded.models[loaded.default]
        self.device = device
        models = ModelCache(loaded, device.name)
        self.family = models.load(self.spec.id)
        self.stock = StockPipeline(self.spec, device.name)
        # On a CPU each stage's own time, whatever else has the core meanwhile.
        self.engine = Engine(EngineConfig(), models, clock=device.thread_clock)
        self.engine.start()
        # All at once: an engine that learns what forwards cost must have seen full ones.
        jobs = draw_mix(self.spec, decks=1, seed=0)
        for future in [self.engine.submit(f"warm-up-{n}", job) for n, job in enumerate(jobs)]:
            future.result()
        for job in jobs:
            self.stock.run([job])


@dataclass(frozen=True, slots=True)
class ThroughputRound:
    """What was measured in a row of the same mix."""

    curve: BatchCurve
    engine: Work
    stock: Work
    static: Work


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    device: DeviceName = "cpu",
    options: Annotated[
        bool, typer.Option("--options", help="Measure each device option, too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of fewer jobs, no verdict.")
    ] = False,
) -> None:
    """Print what the engine gains over stock diffusers and over static batching.

    The targets are a CPU's. On a GPU all is measured but the model that is compute-bound on a CPU,
    and there is no verdict.
    """
    found = find_device(device)
    rounds = range(ROUNDS_QUICK if quick else ROUNDS)
    repeats = CURVE_REPEATS_QUICK if quick else CURVE_REPEATS
    traces, slow_traces = (TRACES_QUICK, TRACES_QUICK) if quick else (TRACES, SLOW_TRACES)
    gates: list[Gate] = []
    with found.quiet(), tempfile.TemporaryDirectory() as folder:
        rig = Rig(CATALOG, found)
        work = [measure_work(rig, number, repeats) for number in rounds]
        waits = [measure_waits(rig, number, traces) for number in rounds]
        rig.engine.stop()
        tables = [
            _curve_table("A forward of the demo model", [one.curve for one in work], found.unit),
            _throughput_table(work, found.unit),
            _shares_table(work, found.unit),
            _latency_table("Waiting, demo model", waits),
        ]
        figures = _describe(work, waits)
        if found.name == "cpu":
            slow_rig = Rig(write_compute_bound_model(Path(folder)), found)
            slow_curves = [rig_curve(slow_rig, repeats) for _ in rounds]
            slow_waits = [measure_waits(slow_rig, number, slow_traces) for number in rounds]
            slow_rig.engine.stop()
            gates = judge(work, waits, slow_curves, slow_waits)
            tables += [
                _curve_table("A forward of the compute-bound model", slow_curves, found.unit),
                _latency_table("Waiting, compute-bound model", slow_waits),
                tabulate(gates),
            ]
            figures |= _describe_slow(slow_curves, slow_waits, gates)
        if options or found.name != "cpu":
            measured = [_measure_options(found, repeats, has_compiled=not quick) for _ in rounds]
            tables.append(tabulate_options(measured, unit=found.unit))
            figures["device_options"] = [describe_options(one) for one in measured]
    command = "python -m bench.engine" + ("" if found.name == "cpu" else f" --device {device}")
    Report("What batching across jobs gains", QUESTION, tables, figures).publish(
        command, json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [gate.name for gate in gates if not gate.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    if not gates:
        verdict = f"no targets are set for {device}"
    print(f"engine, medians of {len(rounds)} rounds: {verdict}")  # noqa: T201
    sys.exit(1 if missed and not quick else 0)


def _measure_options(device: MeasuredDevice, repeats: int, *, has_compiled: bool) -> Measured:
    return measure_options(
        Catalog.load(CATALOG),
        device.name,
        repeats=repeats,
        clock=device.thread_clock,
        has_compiled=has_compiled,
    )


def measure_work(rig: Rig, number: int, curve_repeats: int) -> ThroughputRound:
    """Measure throughput with always enough to do."""
    jobs = draw_mix(rig.spec, decks=THROUGHPUT_DECKS, seed=MIX_SEED + number)
    few = jobs[: len(jobs) * STOCK_DECKS // THROUGHPUT_DECKS]
    equals = partial(pick_equals, max_rows=rig.spec.max_rows)
    return ThroughputRound(
        curve=rig_curve(rig, curve_repeats),
        engine=measure_engine(rig.engine, jobs, seconds=rig.device.clock),
        stock=measure_groups(few, pick_first, rig.stock.run, seconds=rig.device.clock),
        static=measure_groups(few, equals, rig.stock.run, seconds=rig.device.clock),
    )


def measure_waits(rig: Rig, number: int, counts: Mapping[float, int]) -> Round:
    """Measure latencies under arrivals, static batching, which has no target, in one round only."""
    equals = partial(pick_equals, max_rows=rig.spec.max_rows)

    def serve_static(arrivals: Sequence[Arrival]) -> list[float]:
        return serve_groups(arrivals, equals, rig.stock.run, VirtualClock(rig.device.clock))

    def run_engine(arrivals: Sequence[Arrival]) -> list[float]:
        return serve_engine(arrivals, rig.engine, VirtualClock(rig.device.clock))

    few = draw_mix(rig.spec, decks=STOCK_DECKS, seed=MIX_SEED + number)
    return measure_round(
        counts,
        measure_services(few, rig.stock.run, seconds=rig.device.clock),
        rig.spec,
        run_engine=run_engine,
        run_static=serve_static if number == 0 else None,
        number=number,
    )


def rig_curve(rig: Rig, repeats: int) -> BatchCurve:
    """Measure a rig's forward up to the most rows that its engine gives it."""
    sizes = range(1, rig.spec.max_rows + 1)
    return measure_curve(rig.family, sizes, repeats=repeats, clock=rig.device.thread_clock)


def judge(
    work: Sequence[ThroughputRound],
    waits: Sequence[Round],
    slow_curves: Sequence[BatchCurve],
    slow_waits: Sequence[Round],
) -> list[Gate]:
    """Compare the medians with what they must reach."""
    mean, p95 = _ratios(waits, GATED_LOAD, ENGINE)
    slow_mean = max(_ratios(slow_waits, load, ENGINE)[0] for load in SLOW_TRACES)
    flat = statistics.median(curve.gain for curve in slow_curves)
    allowed = statistics.median(one.engine.rate / one.curve.best_rate for one in work)
    forward = statistics.median(one.engine.shares["forward"] for one in work)
    return [
        Gate("throughput / what the forward's batch curve allows", allowed, at_least=0.9),
        Gate("share of the engine's time in the forward", forward, at_least=0.9),
        Gate(f"mean latency at {GATED_LOAD} / FIFO", mean, at_most=0.5),
        Gate(f"p95 latency at {GATED_LOAD} / FIFO", p95, at_most=0.5),
        Gate("compute-bound: what batching gains", flat, at_most=FLAT_GAIN),
        Gate("compute-bound: mean latency / FIFO, worst load", slow_mean, at_most=1.05),
    ]


def _ratios(rounds: Sequence[Round], load: float, policy: str) -> tuple[float, float]:
    """Compare mean and p95 with FIFO's in the same round."""
    pairs = [(one[load, policy], one[load, FIFO]) for one in rounds if (load, policy) in one]
    return (
        statistics.median(latency.mean / fifo.mean for latency, fifo in pairs),
        statistics.median(latency.p95 / fifo.p95 for latency, fifo in pairs),
    )


def _curve_table(title: str, curves: Sequence[BatchCurve], unit: str) -> Table:
    rows = []
    for size in curves[0].seconds:
        seconds = statistics.median(curve.seconds[size] for curve in curves)
        gain = statistics.median(size * curve.seconds[1] / curve.seconds[size] for curve in curves)
        rows.append([str(size), f"{1000 * seconds:.1f}", f"{gain:.2f}"])
    return Table(title, ["rows", milli(unit), "rows per s / one row's"], rows)


def _throughput_table(work: Sequence[ThroughputRound], unit: str) -> Table:
    columns = ["throughput", f"rows per {unit}", "/ stock", "/ what the forward allows"]
    rows = []
    for name in ("stock", "static", "engine"):
        rates = [getattr(one, name).rate for one in work]
        to_stock = [rate / one.stock.rate for rate, one in zip(rates, work, strict=True)]
        to_allowed = [rate / one.curve.best_rate for rate, one in zip(rates, work, strict=True)]
        rows.append(
            [name, f"{statistics.median(rates):.1f}", _spread(to_stock), _spread(to_allowed)]
        )
    return Table("Throughput with always enough to do", columns, rows)


def _shares_table(work: Sequence[ThroughputRound], unit: str) -> Table:
    rows = [
        [stage, _spread([100 * one.engine.shares[stage] for one in work], digits=1)]
        for stage in work[0].engine.shares
    ]
    return Table(
        "Where the engine's time goes",
        ["stage", "% of CPU time" if unit == "CPU s" else "% of time"],
        rows,
    )


def _latency_table(title: str, rounds: Sequence[Round]) -> Table:
    columns = ["load", "policy", "jobs", "rounds", "mean", "p95", "mean / FIFO", "p95 / FIFO"]
    rows = []
    for load, policy in sorted(rounds[0], key=lambda cell: (cell[0], POLICIES.index(cell[1]))):
        seen = [one[load, policy] for one in rounds if (load, policy) in one]
        figures = [
            statistics.median(latency.mean for latency in seen),
            statistics.median(latency.p95 for latency in seen),
            *_ratios(rounds, load, policy),
        ]
        counts = [str(seen[0].num_jobs), str(len(seen))]
        rows.append([f"{load:g}", policy, *counts, *(f"{x:.2f}" for x in figures)])
    return Table(f"{title}: in mean times of one job alone", columns, rows, num_names=2)


def _spread(values: Iterable[float], *, digits: int = 2) -> str:
    ranked = sorted(values)
    low, middle, high = ranked[0], statistics.median(ranked), ranked[-1]
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _describe(work: Sequence[ThroughputRound], waits: Sequence[Round]) -> dict[str, Any]:
    return {
        "throughput": [asdict(one) for one in work],
        "latency": [_describe_round(one) for one in waits],
    }


def _describe_slow(
    slow_curves: Sequence[BatchCurve], slow_waits: Sequence[Round], gates: Sequence[Gate]
) -> dict[str, Any]:
    return {
        "compute_bound": {
            "curves": [asdict(curve) for curve in slow_curves],
            "latency": [_describe_round(one) for one in slow_waits],
        },
        "gates": [asdict(gate) | {"passes": gate.passes} for gate in gates],
    }


def _describe_round(one: Round) -> list[dict[str, Any]]:
    return [
        {"load": load, "policy": policy} | asdict(latency)
        for (load, policy), latency in one.items()
    ]


if __name__ == "__main__":
    typer.run(main)
