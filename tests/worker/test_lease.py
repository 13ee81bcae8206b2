from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.session import make_engine
from shared.job import Claim, NewJob
from tests.fixtures.stack import wait_until
from worker.lease import SELF_FENCE, LeaseKeeper

LEASE_S = 60.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A keeper on a real database with a clock of its own, and what it told the engine."""

    def __init__(self, database: sa.Engine, url: str) -> None:
        self.leases = LeaseRepository(database, lease_s=LEASE_S)
        self.clock = Clock()
        self.progress: dict[str, int] = {}
        self.stopped: list[str] = []
        self.keeper = self.make_keeper(self.leases)
        self.unreachable = self.make_keeper(
            LeaseRepository(
                make_engine(sa.make_url(url).set(port=1).render_as_string(False)), lease_s=LEASE_S
            )
        )

    def make_keeper(self, leases: LeaseRepository) -> LeaseKeeper:
        return LeaseKeeper(
            leases,
            lease_s=LEASE_S,
            progress=lambda: self.progress,
            stop_job=self.stopped.append,
            clock=self.clock,
        )


@pytest.fixture
def bench(database: sa.Engine, database_url: str) -> Bench:
    return Bench(database, database_url)


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def claim(jobs: JobRepository, bench: Bench, make_job: Callable[..., NewJob]) -> Claim:
    job, _ = jobs.insert(make_job())
    claim = bench.leases.claim(job.id, worker="w")
    assert claim is not None
    return claim


def test_progress_reaches_the_row(bench: Bench, jobs: JobRepository, claim: Claim) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.progress = {claim.lease.job_id: 3}
    bench.keeper.beat()
    assert jobs.get("tenant", claim.lease.job_id).iteration == 3
    assert not bench.keeper.is_lost(claim.lease)
    assert bench.stopped == []


def test_a_cancel_request_stops_the_job_and_leaves_the_lease(
    bench: Bench, jobs: JobRepository, claim: Claim
) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    jobs.request_cancel("tenant", claim.lease.job_id)
    bench.keeper.beat()
    assert bench.stopped == [claim.lease.job_id]
    assert not bench.keeper.is_lost(claim.lease)


def test_a_lease_taken_back_stops_the_job(bench: Bench, claim: Claim) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    assert bench.leases.release(claim.lease)
    bench.keeper.beat()
    assert bench.stopped == [claim.lease.job_id]
    assert bench.keeper.is_lost(claim.lease)


def test_a_worker_that_hears_nothing_fences_itself_before_the_lease_ends(
    bench: Bench, claim: Claim
) -> None:
    keeper = bench.unreachable
    keeper.hold(claim.lease, claimed_at=bench.clock())
    with pytest.raises(OperationalError):
        keeper.beat()
    bench.clock.now += SELF_FENCE * LEASE_S
    keeper.fence()
    assert not keeper.is_lost(claim.lease)
    bench.clock.now += 0.1
    keeper.fence()
    keeper.fence()
    assert keeper.is_lost(claim.lease)
    assert bench.stopped == [claim.lease.job_id]


def test_a_confirmed_heartbeat_starts_the_lease_anew(bench: Bench, claim: Claim) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.clock.now += 0.8 * LEASE_S
    bench.keeper.beat()
    bench.clock.now += 0.8 * LEASE_S
    bench.keeper.fence()
    assert not bench.keeper.is_lost(claim.lease)


def test_a_dropped_lease_is_held_no_more(bench: Bench, claim: Claim) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.keeper.drop(claim.lease)
    bench.clock.now += 10 * LEASE_S
    bench.keeper.fence()
    assert bench.stopped == []
    assert bench.keeper.is_lost(claim.lease)


def test_a_cancel_marks_the_job_wherever_it_is(bench: Bench, claim: Claim) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.keeper.cancel("job_of_somebody_else")
    assert (bench.stopped, bench.keeper.is_canceled(claim.lease)) == ([], False)
    bench.keeper.cancel(claim.lease.job_id)
    assert bench.stopped == [claim.lease.job_id]
    assert bench.keeper.is_canceled(claim.lease)
    assert not bench.keeper.is_lost(claim.lease)


def test_a_job_that_left_the_engine_stays_as_far_as_it_was(
    bench: Bench, jobs: JobRepository, claim: Claim
) -> None:
    bench.keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.progress = {claim.lease.job_id: 3}
    bench.keeper.beat()
    bench.progress = {}
    bench.keeper.beat()
    assert jobs.get("tenant", claim.lease.job_id).iteration == 3


def test_a_keeper_outlives_a_time_without_any_free_connection(
    bench: Bench, claim: Claim, database_url: str, jobs: JobRepository
) -> None:
    engine = make_engine(database_url, pool_size=1)
    engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    held = [engine.connect(), engine.connect()]
    keeper = bench.make_keeper(LeaseRepository(engine, lease_s=LEASE_S))
    keeper.hold(claim.lease, claimed_at=bench.clock())
    bench.progress[claim.lease.job_id] = 3
    with capture_logs() as logs:
        keeper.start()
        wait_until(lambda: logs)
    assert logs[0]["event"] == "heartbeat_failed"
    for connection in held:
        connection.close()
    wait_until(lambda: jobs.get("tenant", claim.lease.job_id).iteration == 3)
    keeper.stop()
    engine.dispose()
