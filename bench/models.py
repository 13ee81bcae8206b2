"""`python -m bench.models`: do three models get along in memory for two?

A whole LatentQ with one worker, whose budget holds two of three models, and clients that ask for
all three. Nothing may fail, and the models never take more than they may.
"""

import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench.gate import Gate, tabulate
from bench.model_log import ModelLog
from bench.percentile import percentile
from cli.demo.stack import run_stack
from evals.report import JsonFile, PageFile, Report, Table
from latentq_client import Client
from models import CATALOG
from shared.catalog import Catalog
from worker.engine import ModelLoader

QUESTION = (
    "Do three models get along in memory for two? A whole LatentQ with one worker serves clients "
    "that ask for all three, some more than others; each waits for its picture and asks again."
)
SECONDS, SECONDS_QUICK = 600.0, 20.0
#: How often each model is asked for: copies of the demo model under names of their own.
SHARES = {"often": 0.5, "now-and-then": 0.3, "seldom": 0.2}
NUM_CLIENTS = 6
STEPS = (4, 8, 12, 25)
#: Room for two, in models.
ROOM = 2.2
PATIENCE_S = 120.0
SAMPLE_S = 0.2
SEED = 7


@dataclass(slots=True)
class Traffic:
    """What came of the jobs."""

    #: Seconds from each job's submission to its picture, by model.
    latencies: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    model_of: dict[str, str] = field(default_factory=dict)
    #: The worker's resident memory, in bytes.
    resident: list[int] = field(default_factory=list)


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Twenty seconds of traffic.")] = False,
) -> None:
    """Print how three models share memory for two."""
    seconds = SECONDS_QUICK if quick else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        budget = int(ROOM * _measure_model())
        traffic, log = _serve(Path(folder), budget, seconds)
    gates = judge(traffic, log, budget)
    memory = _memory_table(traffic, log, budget, seconds)
    tables = [_latency_table(traffic), memory, tabulate(gates)]
    figures = _describe(traffic, log, budget, seconds)
    Report("Three models in memory for two", QUESTION, tables, figures).publish(
        "python -m bench.models", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [gate.name for gate in gates if not gate.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets reached"
    print(  # noqa: T201
        f"{log.jobs} jobs in {seconds:.0f} s, {60 * sum(log.loads.values()) / seconds:.1f} loads a "
        f"minute, {100 * log.hits / max(log.jobs, 1):.0f}% found their model warm: {verdict}"
    )
    sys.exit(1 if missed else 0)


def judge(traffic: Traffic, log: ModelLog, budget: int) -> list[Gate]:
    """Say what must hold."""
    fewest = min((len(traffic.latencies.get(name, [])) for name in SHARES), default=0)
    return [
        Gate("jobs that failed", len(traffic.failures), at_most=0),
        Gate("loads that failed", log.failures, at_most=0),
        Gate("jobs done of each model", fewest, at_least=1),
        Gate("most bytes of models, of the budget", log.most_bytes / budget, at_most=1),
    ]


def _measure_model() -> int:
    """Say what one of the models takes in memory, from its files."""
    return ModelLoader("cpu").foresee(Catalog.load(CATALOG).models["demo"])


def write_catalog(folder: Path) -> Path:
    """Write a catalog of three models; returns its file."""
    entry = 'path = "{path}"\nrevision = "1"\nmax_width = 64\nmax_height = 64\nmax_rows = 8\n'
    models = [f"[models.{name}]\n{entry.format(path=CATALOG.parent / 'demo')}" for name in SHARES]
    path = folder / "catalog.toml"
    path.write_text('default = "often"\n' + "\n".join(models))
    return path


def _serve(folder: Path, budget: int, seconds: float) -> tuple[Traffic, ModelLog]:
    variables = {
        "LATENTQ_CATALOG": str(write_catalog(folder)),
        "LATENTQ_MODEL_MEMORY": str(budget),
    }
    traffic = Traffic()
    data_dir = folder / "data"
    with run_stack(data_dir, num_workers=1, variables=variables) as client:
        _wait_for_worker(client)
        _drive(client, data_dir, traffic, seconds)
    log = ModelLog(traffic.model_of)
    log.read((data_dir / "logs" / "worker-1.log").read_text().splitlines())
    return traffic, log


def _wait_for_worker(client: Client) -> None:
    """Wait until the worker has loaded what it loads by itself; the API is ready before it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not client.models()["workers"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the worker is not there after {PATIENCE_S:.0f} s")
        time.sleep(SAMPLE_S)


def _drive(client: Client, data_dir: Path, traffic: Traffic, seconds: float) -> None:
    """Have clients ask for pictures for some time, and wait for their last ones."""
    ends_at = time.monotonic() + seconds
    lock = threading.Lock()

    def ask(number: int) -> None:
        rng = random.Random(SEED + number)  # noqa: S311 # the same traffic every time
        while time.monotonic() < ends_at:
            model = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
            began = time.monotonic()
            job = client.submit(
                "a red star", model=model, steps=rng.choice(STEPS), seed=rng.randrange(1000)
            )
            with lock:
                traffic.model_of[job.id] = model
            ended = job.wait(timeout=PATIENCE_S)
            with lock:
                if ended.status == "succeeded":
                    took_s = time.monotonic() - began
                    traffic.latencies.setdefault(model, []).append(took_s)
                else:
                    traffic.failures.append(f"{model}: {ended.error}")

    worker = _find_worker(data_dir)
    with ThreadPoolExecutor(NUM_CLIENTS + 1) as pool:
        sampling = threading.Event()
        sampler = pool.submit(_sample, worker, traffic, sampling.is_set)
        for asking in [pool.submit(ask, number) for number in range(NUM_CLIENTS)]:
            asking.result()
        sampling.set()
        sampler.result()


def _sample(worker: psutil.Process, traffic: Traffic, is_over: Callable[[], bool]) -> None:
    while not is_over():
        traffic.resident.append(worker.memory_info().rss)
        time.sleep(SAMPLE_S)


def _find_worker(data_dir: Path) -> psutil.Process:
    pids = json.loads((data_dir / "connection.json").read_text())["pids"]
    return psutil.Process(pids["worker-1"])


def _latency_table(traffic: Traffic) -> Table:
    rows = [
        [
            name,
            str(len(latencies)),
            f"{statistics.median(latencies):.2f}",
            f"{percentile(latencies, 0.95):.2f}",
            f"{max(latencies):.2f}",
        ]
        for name in SHARES
        if (latencies := traffic.latencies.get(name))
    ]
    columns = ["model", "jobs", "median", "95%", "worst"]
    return Table("Seconds from submission to picture", columns, rows)


def _memory_table(traffic: Traffic, log: ModelLog, budget: int, seconds: float) -> Table:
    num_loads = sum(log.loads.values())
    rows = [
        ["budget, MB", f"{budget / 1e6:.1f}"],
        ["most that models took, MB", f"{log.most_bytes / 1e6:.1f}"],
        ["worker's resident memory, first and most, MB", _span(traffic.resident)],
        ["loads", str(num_loads)],
        ["loads a minute", f"{60 * num_loads / seconds:.1f}"],
        ["evictions", str(log.evictions)],
        ["jobs that found their model warm, %", f"{100 * log.hits / max(log.jobs, 1):.1f}"],
    ]
    return Table("Memory", ["figure", ""], rows)


def _span(resident: list[int]) -> str:
    return f"{resident[0] / 1e6:.0f}, {max(resident) / 1e6:.0f}" if resident else ""


def _describe(traffic: Traffic, log: ModelLog, budget: int, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "budget_bytes": budget,
        "most_bytes": log.most_bytes,
        "resident_bytes": {"first": traffic.resident[:1], "most": max(traffic.resident, default=0)},
        "loads": dict(log.loads),
        "loads_per_minute": 60 * sum(log.loads.values()) / seconds,
        "evictions": log.evictions,
        "jobs": log.jobs,
        "hit_rate": log.hits / max(log.jobs, 1),
        "failures": traffic.failures,
        "latencies": {name: sorted(found) for name, found in traffic.latencies.items()},
    }


if __name__ == "__main__":
    typer.run(main)
