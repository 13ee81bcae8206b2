"""`python -m bench.api`: what does the API take, and what does it cost?

Real processes and servers. The API, what it is compared with, PostgreSQL and the generator of the
load share the machine, each in its turn, so that only figures of one run compare.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cluster import Cluster
from bench.gate import Gate
from bench.load import Load
from bench.submissions import CONNECTIONS, OURS, PLAIN, Submitter
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import JsonFile, PageFile, Report, Table

QUESTION = (
    "What does one API process take, and what does it cost? Submissions are compared with a bare "
    "commit, with the framework alone and with what most people would write."
)
ROUNDS, ROUNDS_QUICK = 5, 1
SECONDS, SECONDS_QUICK = 4.0, 1.0
#: How much faster than what most people would write.
FASTER = 1.5


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="One short round, no verdict.")] = False,
) -> None:
    """Print what the API takes and what it costs."""
    rounds, seconds = (ROUNDS_QUICK, SECONDS_QUICK) if quick else (ROUNDS, SECONDS)
    with (
        tempfile.TemporaryDirectory(prefix="latentq-bench-") as folder,
        DataDir(Path(folder) / "data") as data_dir,
        Servers(data_dir) as servers,
        Cluster(servers, data_dir.logs, variables={}, step_s=0.0) as cluster,
    ):
        for name in ("api", "dispatcher"):
            cluster.start(name)
            cluster.wait_until_ready(name)
        submissions = measure_submissions(Submitter(cluster), rounds=rounds, seconds=seconds)
    gates = [Gate("submissions / FastAPI, SQLAlchemy, Celery", _gain(submissions), at_least=FASTER)]
    tables = [_submissions_table(submissions), _gates_table(gates)]
    figures: dict[str, Any] = {
        "submissions": {
            name: [asdict(load) for load in loads] for name, loads in submissions.items()
        },
        "gates": [asdict(gate) | {"passes": gate.passes} for gate in gates],
    }
    Report("What the API takes and costs", QUESTION, tables, figures).publish(
        "python -m bench.api", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [gate.name for gate in gates if not gate.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    print(f"API, medians of {rounds} rounds: {verdict}")  # noqa: T201
    sys.exit(1 if missed and not quick else 0)


def measure_submissions(
    submitter: Submitter, *, rounds: int, seconds: float
) -> Mapping[str, Sequence[Load]]:
    """Measure all contenders, one after the other, round after round."""
    contenders = submitter.contenders()
    for run in contenders.values():
        run(min(seconds, 1.0))  # caches and connections
    measured: dict[str, list[Load]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            measured[name].append(run(seconds))
    return measured


def _gain(submissions: Mapping[str, Sequence[Load]]) -> float:
    pairs = zip(submissions[OURS], submissions[PLAIN], strict=True)
    return statistics.median(ours.rate / plain.rate for ours, plain in pairs)


def _submissions_table(submissions: Mapping[str, Sequence[Load]]) -> Table:
    rows = []
    for name, loads in submissions.items():
        ratio = statistics.median(
            load.rate / plain.rate for load, plain in zip(loads, submissions[PLAIN], strict=True)
        )
        rows.append(
            [
                name,
                f"{statistics.median(load.rate for load in loads):.0f}",
                f"{1000 * statistics.median(load.percentile(0.5) for load in loads):.1f}",
                f"{1000 * statistics.median(load.percentile(0.99) for load in loads):.1f}",
                f"{ratio:.2f}",
            ]
        )
    title = f"Submissions, {CONNECTIONS} at once"
    return Table(title, ["", "per second", "p50 ms", "p99 ms", f"/ {PLAIN}"], rows)


def _gates_table(gates: Sequence[Gate]) -> Table:
    rows = [
        [gate.name, f"{gate.value:.2f}", gate.limit, "" if gate.passes else "missed"]
        for gate in gates
    ]
    return Table("Targets", ["figure", "median", "target", ""], rows)


if __name__ == "__main__":
    typer.run(main)
