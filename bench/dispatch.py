"""`python -m bench.dispatch`: how long does the dispatcher take to pick in a long backlog?

It starts a PostgreSQL and a Valkey of its own, queues 100,000 jobs of 1,000 tenants, of all
priorities, some with a time to wait for, beside as many that have ended, and fills windows.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import sqlalchemy as sa
import typer

from bench.backlog import QUEUE, end_announced, fill
from bench.gate import Gate
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import Table, describe_machine, print_tables
from shared.db.dispatch import DispatchRepository
from shared.db.migrate import upgrade
from shared.db.presence import WorkerRepository
from shared.db.session import make_engine
from shared.dispatch import dispatch
from shared.errors import ConfigurationError
from shared.queue import JobQueue

NUM_JOBS, NUM_JOBS_QUICK = 100_000, 5_000
NUM_TENANTS, NUM_TENANTS_QUICK = 1_000, 50
NUM_ROUNDS, NUM_ROUNDS_QUICK = 200, 20
#: Rounds before the first that counts.
NUM_WARM_UP = 10
#: Slots of the one worker that serves the queue; a window holds twice as many jobs.
SLOTS = 8
#: The longest that a pick may take at the median, in milliseconds, and what it shall take.
GATE_MS, TARGET_MS = 20.0, 10.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long something took, in milliseconds."""

    what: str
    rounds: int
    median_ms: float
    p99_ms: float
    worst_ms: float


def main(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A twentieth of the jobs.")] = False,
) -> None:
    """Print how long a pick and a whole round of dispatch take."""
    num_jobs = NUM_JOBS_QUICK if quick else NUM_JOBS
    num_tenants = NUM_TENANTS_QUICK if quick else NUM_TENANTS
    rounds = NUM_ROUNDS_QUICK if quick else NUM_ROUNDS
    try:
        timings = measure(num_jobs=num_jobs, num_tenants=num_tenants, rounds=rounds)
    except ConfigurationError as error:
        print(f"bench.dispatch: {error.detail}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    gate = Gate("pick, median ms", timings[0].median_ms, at_most=GATE_MS)
    print_tables([_table(timings, num_jobs, num_tenants)])
    if json_file is not None:
        figures = {
            "machine": dict(describe_machine()),
            "jobs": num_jobs,
            "tenants": num_tenants,
            "timings": [asdict(timing) for timing in timings],
            "gate": asdict(gate) | {"passes": gate.passes},
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    verdict = "within" if gate.passes else "missed:"
    print(  # noqa: T201
        f"a pick among {num_jobs} jobs of {num_tenants} tenants takes {gate.value:.1f} ms: "
        f"{verdict} the gate of {GATE_MS:g} ms (target {TARGET_MS:g} ms)"
    )
    sys.exit(0 if gate.passes else 1)


def measure(*, num_jobs: int, num_tenants: int, rounds: int) -> list[Timing]:
    """Time picks and rounds of dispatch on servers that are started for it and removed.

    Raises:
        ConfigurationError: The servers do not come up.
    """
    with (
        TemporaryDirectory(prefix="latentq-bench-") as folder,
        DataDir(Path(folder) / "data") as data_dir,
        Servers(data_dir) as servers,
    ):
        database = make_engine(servers.database_url)
        try:
            upgrade(database)
            fill(database, num_jobs=num_jobs, num_tenants=num_tenants)
            return time_backlog(database, JobQueue(servers.redis_url), rounds=rounds)
        finally:
            database.dispose()


def time_backlog(database: sa.Engine, queue: JobQueue, *, rounds: int) -> list[Timing]:
    """Time picks, then rounds of dispatch, in a database that holds a backlog."""
    WorkerRepository(database).beat("bench", device="cpu", queues=[QUEUE], slots=SLOTS)
    repository = DispatchRepository(database)
    return [
        _time("pick", lambda: len(repository.pick(QUEUE)), database, rounds),
        _time("round of dispatch", lambda: dispatch(repository, queue), database, rounds),
    ]


def _time(what: str, call: Callable[[], int], database: sa.Engine, rounds: int) -> Timing:
    """Time a call that fills windows; they are emptied after each."""
    took_ms = []
    for number in range(NUM_WARM_UP + rounds):
        started = time.perf_counter()
        num_picked = call()
        if number >= NUM_WARM_UP:
            took_ms.append(1000 * (time.perf_counter() - started))
        if num_picked < 2 * SLOTS:
            raise ValueError(f"{what}: the backlog does not fill a window any more")
        end_announced(database)
    p99_ms = statistics.quantiles(took_ms, n=100, method="inclusive")[-1]
    return Timing(what, rounds, statistics.median(took_ms), p99_ms, max(took_ms))


def _table(timings: list[Timing], num_jobs: int, num_tenants: int) -> Table:
    rows = [
        [
            timing.what,
            str(timing.rounds),
            f"{timing.median_ms:.1f}",
            f"{timing.p99_ms:.1f}",
            f"{timing.worst_ms:.1f}",
        ]
        for timing in timings
    ]
    title = f"{num_jobs} queued jobs of {num_tenants} tenants, as many that have ended"
    return Table(title, ["", "rounds", "median ms", "p99 ms", "worst ms"], rows)


if __name__ == "__main__":
    typer.run(main)
