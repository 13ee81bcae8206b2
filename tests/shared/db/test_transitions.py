"""The database notes every change of a status by itself."""

import itertools
from collections.abc import Callable
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.rescue import RescueRepository
from shared.errors import ErrorCode
from shared.job import TRANSITIONS, Artifact, JobStatus, Lease, NewJob, Success

NewJobs = Callable[..., NewJob]
ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)
RESULT = Success((ARTIFACT,), iterations=4, execution={})


def history(database: sa.Engine, job_id: str) -> list[tuple[str | None, str, int]]:
    query = sa.text(
        "SELECT from_status, to_status, attempt FROM transitions WHERE job_id = :id ORDER BY id"
    )
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"id": job_id})]


def test_a_job_that_was_tried_twice_has_its_whole_life_written(
    database: sa.Engine, make_job: NewJobs
) -> None:
    jobs, leases = JobRepository(database), LeaseRepository(database, lease_s=60)
    job, _ = jobs.insert(make_job())
    first = leases.claim(job.id, worker="w")
    assert first is not None
    leases.beat([])
    leases.release(first.lease)
    second = leases.claim(job.id, worker="w")
    assert second is not None
    leases.fail(second.lease, ErrorCode.INTERNAL, "broken")
    assert history(database, job.id) == [
        (None, "queued", 0),
        ("queued", "running", 1),
        ("running", "queued", 1),
        ("queued", "running", 2),
        ("running", "failed", 2),
    ]


class Life:
    """A job, and everything that can happen to it, with the lease that was handed out last."""

    def __init__(self, database: sa.Engine, new: NewJob) -> None:
        self._database = database
        self._jobs = JobRepository(database)
        self._leases = LeaseRepository(database, lease_s=60)
        self._rescue = RescueRepository(database)
        self._id = self._jobs.insert(new)[0].id
        self._lease = Lease(self._id, attempt=0, token=uuid4())

    def claim(self) -> None:
        claim = self._leases.claim(self._id, worker="w")
        self._lease = claim.lease if claim is not None else self._lease

    def cancel(self) -> None:
        self._jobs.request_cancel("tenant", self._id)

    def stop(self) -> None:
        self._leases.cancel(self._lease)

    def succeed(self) -> None:
        self._leases.succeed(self._lease, RESULT)

    def fail(self) -> None:
        self._leases.fail(self._lease, ErrorCode.INTERNAL, "broken")

    def release(self) -> None:
        self._leases.release(self._lease)

    def lose_lease(self) -> None:
        self._expire("lease_until")
        self._rescue.take_back_expired_leases()

    def pass_deadline(self) -> None:
        self._expire("deadline_at")
        self._rescue.fail_past_deadline()

    def status(self) -> JobStatus:
        return self._jobs.get("tenant", self._id).status

    def history(self) -> list[tuple[str | None, str, int]]:
        return history(self._database, self._id)

    def _expire(self, column: str) -> None:
        statement = f"UPDATE jobs SET {column} = now() - interval '1 second' WHERE id = :id"
        with self._database.begin() as connection:
            connection.execute(sa.text(statement), {"id": self._id})


MOVES = (
    Life.claim,
    Life.cancel,
    Life.stop,
    Life.succeed,
    Life.fail,
    Life.release,
    Life.lose_lease,
    Life.pass_deadline,
)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=st.lists(st.sampled_from(MOVES), max_size=12))
def test_whatever_happens_the_history_is_a_path_of_the_table_with_one_end(
    database: sa.Engine, make_job: NewJobs, moves: list[Callable[[Life], None]]
) -> None:
    life = Life(database, make_job())
    for move in moves:
        move(life)
    told = life.history()
    statuses = [JobStatus(to) for _, to, _ in told]
    assert [source for source, _, _ in told] == [None, *statuses[:-1]]
    for source, target in itertools.pairwise(statuses):
        assert target in TRANSITIONS[source]
    assert statuses[-1] is life.status()
    assert sum(status.is_terminal for status in statuses) <= 1


def test_what_was_written_is_not_changed(database: sa.Engine, make_job: NewJobs) -> None:
    job, _ = JobRepository(database).insert(make_job())
    with (
        pytest.raises(sa.exc.DBAPIError, match="only ever added"),
        database.begin() as connection,
    ):
        connection.execute(sa.text("UPDATE transitions SET to_status = 'failed'"))
    assert history(database, job.id) == [(None, "queued", 0)]
