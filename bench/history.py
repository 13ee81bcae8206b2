"""`python -m bench.history`: do lists, dispatch and finish keep their pace beside a long past?

Two databases of one server have the same jobs that wait. One of them has a million that have ended
besides. All that happens to a job on its way is timed in each of them by turns.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import sqlalchemy as sa
import typer

from bench.backlog import QUEUE, fill
from bench.gate import Gate, tabulate
from bench.past import FAILED_EVERY, TENANT, add_past, tidy
from bench.percentile import percentile
from cli.standalone.servers import Servers
from cli.standalone.state import DataDir
from evals.report import JsonFile, PageFile, Report, Table
from shared.db.cursor import Cursor
from shared.db.diagnosis import DiagnosisRepository
from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobFilters, JobRepository
from shared.db.leases import LeaseRepository
from shared.db.migrate import upgrade
from shared.db.session import make_engine
from shared.job import Artifact, JobStatus, NewJob, PresetRef, Success
from shared.request import GenerationRequest

#: Jobs that have ended, in the one database and in the other beside them; as many as in the first
#: wait in both.
FEW, MANY, MANY_QUICK = 1_000, 1_000_000, 20_000
NUM_TENANTS = 1_000
PAIRS, PAIRS_QUICK = 5, 2
#: Jobs of a pair whose way is timed in each database, and before the first that counts.
ROUNDS, ROUNDS_QUICK, WARM_UPS = 60, 10, 5
PAGE = 50
#: As good as unchanged: the steps of an index that has become higher are in it.
UNCHANGED = 1.5
SUBMIT, READ, LIST, OLDER = "submit", "read", "list, newest", "list, from the middle"
DISPATCH, CLAIM, FINISH = "dispatch", "claim", "finish"
FAILED, LOOK = f"list, status=failed, 1 in {FAILED_EVERY}", "all that metrics ask"
#: Those that must keep their pace.
GATED = (SUBMIT, READ, LIST, OLDER, DISPATCH, CLAIM, FINISH, LOOK)
_MIDDLE = sa.text("""
SELECT created_at, id FROM jobs WHERE tenant = :tenant
 ORDER BY created_at OFFSET (SELECT count(*) / 2 FROM jobs WHERE tenant = :tenant) LIMIT 1
""")
QUESTION = (
    "Do lists, dispatch and finish keep their pace beside a long past? Two databases of one "
    f"PostgreSQL have {FEW:,} jobs that wait and as many that have ended; in one of them a million "
    "more have, each with its attempt, output and history, half of them of the tenant whose jobs "
    "are listed. The statements of the service are timed in both by turns, past HTTP."
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long something took beside few jobs and beside many, in seconds, pair by pair."""

    few: Sequence[Sequence[float]]
    many: Sequence[Sequence[float]]

    @property
    def ratio(self) -> float:
        """How many times as long it took, at the median of the pairs' medians."""
        pairs = zip(self.few, self.many, strict=True)
        return statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)


class Course:
    """A database, and the way of jobs through it."""

    def __init__(self, database: sa.Engine) -> None:
        self._jobs = JobRepository(database)
        self._dispatch = DispatchRepository(database)
        self._leases = LeaseRepository(database, lease_s=60.0)
        self._diagnosis = DiagnosisRepository(database)
        self._numbers = itertools.count()
        self._announced: list[str] = []
        with database.connect() as connection:
            middle = connection.execute(_MIDDLE, {"tenant": TENANT}).one()
        self._middle = Cursor(middle.created_at, middle.id)

    def run(self) -> dict[str, float]:
        """Time a submission, all reads, and the way of the next job from queue to end."""
        new = self._make_job()
        job_id, found = new.id, {}
        found[SUBMIT], _ = _time(lambda: self._jobs.insert(new))
        found[READ], _ = _time(lambda: self._jobs.get(TENANT, job_id))
        found[LIST], _ = _time(lambda: self._list(None, JobFilters()))
        found[OLDER], _ = _time(lambda: self._list(self._middle, JobFilters()))
        found[FAILED], _ = _time(lambda: self._list(None, JobFilters(status=JobStatus.FAILED)))
        found[LOOK], _ = _time(self._diagnosis.look)
        found[DISPATCH], picked = _time(lambda: self._dispatch.pick(QUEUE))
        self._announced += [one.job_id for one in picked]
        found[CLAIM], claim = _time(
            lambda: self._leases.claim(self._announced.pop(0), worker="worker-1")
        )
        if claim is None:
            raise RuntimeError("a job that was announced could not be claimed")
        found[FINISH], has_ended = _time(lambda: self._leases.succeed(claim.lease, _SUCCESS))
        if not has_ended:
            raise RuntimeError("a job that was claimed could not be ended")
        return found

    def _list(self, after: Cursor | None, filters: JobFilters) -> int:
        return len(self._jobs.page(TENANT, limit=PAGE + 1, after=after, filters=filters))

    def _make_job(self) -> NewJob:
        return NewJob(
            id=f"job_new_{next(self._numbers):08d}",
            tenant=TENANT,
            queue=QUEUE,
            request=_REQUEST,
            preset=PresetRef("balanced", 1),
            metadata={},
            predicted_s=1.0,
        )


_REQUEST = GenerationRequest.model_validate(
    {"prompt": "a red star", "model": "demo", "sampler": "dpmpp_2m", "schedule": "native",
     "steps": 25, "guidance": 2.0, "seed": 7, "width": 64, "height": 64}
)  # fmt: skip
_SUCCESS = Success(
    artifacts=(Artifact(0, "results/key", "image/png", 64, 64, 7, "ab" * 32, 10_000),),
    iterations=25,
    execution={"worker": "worker-1", "device": "cpu", "versions": {"latentq": "0.1.0"}},
)


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="A fiftieth of the jobs.")] = False,
) -> None:
    """Print how long statements take beside few jobs that have ended and beside many."""
    num_jobs = MANY_QUICK if quick else MANY
    with (
        tempfile.TemporaryDirectory(prefix="latentq-bench-") as folder,
        DataDir(Path(folder) / "data") as data_dir,
        Servers(data_dir) as servers,
        two_databases(servers) as (few, many),
    ):
        began = time.monotonic()
        add_past(many, num_jobs=num_jobs, num_tenants=NUM_TENANTS)
        for database in (few, many):
            fill(database, num_jobs=FEW, num_tenants=NUM_TENANTS)
            tidy(database)
        took_s = time.monotonic() - began
        rounds, pairs = (ROUNDS_QUICK, PAIRS_QUICK) if quick else (ROUNDS, PAIRS)
        paces = compare(Course(few), Course(many), rounds=rounds, pairs=pairs)
        num_bytes = size_of(many)
    gates = judge(paces)
    figures = {
        "jobs": num_jobs,
        "bytes": num_bytes,
        "paces": {name: asdict(pace) for name, pace in paces.items()},
        "gates": [asdict(gate) | {"passes": gate.passes} for gate in gates],
    }
    title = f"Milliseconds; {num_jobs:,} jobs are {num_bytes / 1e9:.1f} GB, made in {took_s:.0f} s"
    tables = [_table(title, paces), tabulate(gates)]
    Report("A long past", QUESTION, tables, figures).publish(
        "python -m bench.history", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [gate.name for gate in gates if not gate.passes]
    worst = max(gates, key=lambda gate: gate.value)
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets are reached"
    print(  # noqa: T201
        f"beside {num_jobs:,} jobs that have ended nothing takes more than {worst.value:.2f} times "
        f"what it takes beside {FEW:,}: {verdict}"
    )
    sys.exit(1 if missed and not quick else 0)


@contextmanager
def two_databases(servers: Servers) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    """Give two empty databases of a server."""
    first = make_engine(servers.database_url)
    with first.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("CREATE DATABASE past"))
    url = sa.make_url(servers.database_url).set(database="past")
    second = make_engine(url.render_as_string(hide_password=False))
    try:
        for database in (first, second):
            upgrade(database)
        yield first, second
    finally:
        first.dispose()
        second.dispose()


def compare(few: Course, many: Course, *, rounds: int, pairs: int) -> Mapping[str, Pace]:
    """Send jobs through both databases by turns."""
    for course in (few, many):
        for _ in range(WARM_UPS):
            course.run()
    by_pair = [(_repeat(few, rounds), _repeat(many, rounds)) for _ in range(pairs)]
    names = by_pair[0][0]
    return {
        name: Pace([one[name] for one, _ in by_pair], [other[name] for _, other in by_pair])
        for name in names
    }


def judge(paces: Mapping[str, Pace]) -> list[Gate]:
    """Compare what must keep its pace with what it was."""
    return [Gate(f"{name}: many / few", paces[name].ratio, at_most=UNCHANGED) for name in GATED]


def size_of(database: sa.Engine) -> int:
    """Return the bytes of a database."""
    with database.connect() as connection:
        query = sa.text("SELECT pg_database_size(current_database())")
        return int(connection.execute(query).scalar_one())


def _repeat(course: Course, rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, seconds in course.run().items():
            taken[name].append(seconds)
    return taken


def _time(call: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def _table(title: str, paces: Mapping[str, Pace]) -> Table:
    rows = []
    for name, pace in paces.items():
        few, many = (list(itertools.chain(*side)) for side in (pace.few, pace.many))
        rows.append(
            [
                name,
                f"{1000 * statistics.median(few):.2f}",
                f"{1000 * statistics.median(many):.2f}",
                f"{1000 * percentile(few, 0.99):.2f}",
                f"{1000 * percentile(many, 0.99):.2f}",
                f"{pace.ratio:.2f}",
            ]
        )
    columns = ["", "few, p50", "many, p50", "few, p99", "many, p99", "many / few"]
    return Table(title, columns, rows)


if __name__ == "__main__":
    typer.run(main)
