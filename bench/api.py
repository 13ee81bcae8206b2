"""`python -m bench.api`: what does the API take, and what does it cost?

Real processes and servers. The API, what it is compared with, PostgreSQL and the generator of the
load share the machine, each in its turn, so that only figures of one run compare.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cluster import Cluster
from bench.gate import Gate, tabulate
from bench.load import Load
from bench.overhead import Overhead, measure_overhead
from bench.polling import Poller
from bench.streams import Streams, measure_streams
from bench.submissions import CONNECTIONS, OURS, PLAIN, Submitter
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import JsonFile, PageFile, Report, Table
from models import CATALOG
from shared.catalog import Catalog

QUESTION = (
    "What does one API process take, and what does it cost? Submissions are compared with a bare "
    "commit, with the framework alone and with what most people would write; a job that is alone, "
    "with the pipeline that draws its picture."
)
ROUNDS, ROUNDS_QUICK = 5, 1
SECONDS, SECONDS_QUICK = 4.0, 1.0
JOBS, JOBS_QUICK = 40, 5
STREAMS, STREAMS_QUICK = 1_000, 50
#: Seconds in which nothing happens to the jobs that are streamed.
IDLE_S, IDLE_S_QUICK = 20.0, 2.0
#: How much faster than what most people would write.
FASTER = 1.5
#: What the system may add to a job, in milliseconds, and what it shall.
OVERHEAD_MS, OVERHEAD_AIM_MS = 35.0, 15.0
#: Polls by name.
WITH_TAG, WHOLE = "with If-None-Match: 304", "the whole job: 200"


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is measured."""

    submissions: Mapping[str, Sequence[Load]]
    polls: Mapping[str, Sequence[Load]]
    streams: Streams
    overhead: Overhead


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="One short round, no verdict.")] = False,
) -> None:
    """Print what the API takes and what it costs."""
    with (
        tempfile.TemporaryDirectory(prefix="latentq-bench-") as folder,
        DataDir(Path(folder) / "data") as data_dir,
        Servers(data_dir) as servers,
        Cluster(servers, data_dir.logs, variables={}, step_s=0.0) as cluster,
    ):
        for name in ("api", "dispatcher"):
            cluster.start(name)
            cluster.wait_until_ready(name)
        figures = measure(cluster, quick=quick)
    gates = judge(figures)
    tables = [
        _loads_table(f"Submissions, {CONNECTIONS} at once", figures.submissions, PLAIN),
        _loads_table(f"Polls of one job, {CONNECTIONS} at once", figures.polls, WHOLE),
        _streams_table(figures.streams),
        _overhead_table(figures.overhead),
        tabulate(gates),
    ]
    described: dict[str, Any] = {
        "submissions": _describe(figures.submissions),
        "polls": _describe(figures.polls),
        "streams": asdict(figures.streams),
        "overhead": asdict(figures.overhead),
        "gates": [asdict(gate) | {"passes": gate.passes} for gate in gates],
    }
    Report("What the API takes and costs", QUESTION, tables, described).publish(
        "python -m bench.api", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [gate.name for gate in gates if not gate.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    print(f"API, medians of {ROUNDS_QUICK if quick else ROUNDS} rounds: {verdict}")  # noqa: T201
    sys.exit(1 if missed and not quick else 0)


def measure(cluster: Cluster, *, quick: bool) -> Figures:
    """Measure everything, the job that is alone first: nothing waits before it."""
    rounds, seconds = (ROUNDS_QUICK, SECONDS_QUICK) if quick else (ROUNDS, SECONDS)
    catalog = Catalog.load(CATALOG)
    overhead = measure_overhead(
        cluster, catalog.models[catalog.default], rounds=JOBS_QUICK if quick else JOBS
    )
    streams = measure_streams(
        cluster,
        count=STREAMS_QUICK if quick else STREAMS,
        idle_s=IDLE_S_QUICK if quick else IDLE_S,
    )
    poller = Poller(cluster)
    polls: dict[str, list[Load]] = {WITH_TAG: [], WHOLE: []}
    for _ in range(rounds):
        polls[WITH_TAG].append(poller.poll_with_tag(seconds))
        polls[WHOLE].append(poller.poll(seconds))
    submissions = measure_submissions(Submitter(cluster), rounds=rounds, seconds=seconds)
    return Figures(submissions, polls, streams, overhead)


def judge(figures: Figures) -> list[Gate]:
    """Compare the medians with what they must reach."""
    pairs = zip(figures.submissions[OURS], figures.submissions[PLAIN], strict=True)
    gain = statistics.median(ours.rate / plain.rate for ours, plain in pairs)
    return [
        Gate(f"submissions / {PLAIN}", gain, at_least=FASTER),
        Gate(
            "one job alone: added to the pipeline, ms",
            1000 * figures.overhead.median_s,
            at_most=OVERHEAD_MS,
        ),
    ]


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


def _loads_table(title: str, measured: Mapping[str, Sequence[Load]], base: str) -> Table:
    rows = []
    for name, loads in measured.items():
        pairs = zip(loads, measured[base], strict=True)
        figures = (
            f"{statistics.median(load.rate for load in loads):.0f}",
            f"{1000 * statistics.median(load.percentile(0.5) for load in loads):.1f}",
            f"{1000 * statistics.median(load.percentile(0.99) for load in loads):.1f}",
            f"{statistics.median(load.rate / other.rate for load, other in pairs):.2f}",
        )
        rows.append([name, *figures])
    return Table(title, ["", "per second", "p50 ms", "p99 ms", f"/ {base}"], rows)


def _streams_table(streams: Streams) -> Table:
    rows = [
        ["memory of the process before, MB", f"{streams.memory_before / 1e6:.0f}"],
        ["and with them, MB", f"{streams.memory_with / 1e6:.0f}"],
        ["memory of one stream, kB", f"{streams.bytes_each / 1e3:.1f}"],
        ["load of one core while nothing happens, %", f"{100 * streams.idle_load:.1f}"],
        ["cancel to its event, median ms", f"{1000 * statistics.median(streams.told_s):.1f}"],
    ]
    return Table(f"{streams.count:,} open event streams", ["", ""], rows)


def _overhead_table(overhead: Overhead) -> Table:
    rows = [
        [name, f"{1000 * min(seen):.1f}", f"{1000 * statistics.median(seen):.1f}"]
        for name, seen in (
            ("LatentQ, submission to picture", overhead.system),
            ("stock diffusers", overhead.pipeline),
        )
    ]
    title = (
        f"One job alone, {len(overhead.system)} of each: "
        f"{1000 * overhead.median_s:.1f} ms more at the median (aim {OVERHEAD_AIM_MS:g} ms)"
    )
    return Table(title, ["", "best ms", "median ms"], rows)


def _describe(measured: Mapping[str, Sequence[Load]]) -> dict[str, Any]:
    return {
        name: [
            {
                "rate": load.rate,
                "p50_s": load.percentile(0.5),
                "p99_s": load.percentile(0.99),
            }
            for load in loads
        ]
        for name, loads in measured.items()
    }


if __name__ == "__main__":
    typer.run(main)
