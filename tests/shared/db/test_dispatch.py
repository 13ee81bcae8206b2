from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from shared.db.dispatch import MIN_WINDOW, WINDOW_PER_SLOT, DispatchRepository
from shared.db.jobs import JobFilters, JobRepository
from shared.db.leases import LeaseRepository
from shared.db.presence import WorkerRepository
from shared.job import NewJob

NewJobs = Callable[..., NewJob]
QUEUE = "demo.interactive"


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def dispatch(database: sa.Engine) -> DispatchRepository:
    return DispatchRepository(database)


def test_no_more_than_the_window_is_announced(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    for _ in range(40):
        jobs.insert(make_job())
    assert len(dispatch.pick(QUEUE)) == MIN_WINDOW
    assert dispatch.pick(QUEUE) == []
    WorkerRepository(database).beat("w", device="cpu", queues=[QUEUE], slots=10)
    assert len(dispatch.pick(QUEUE)) == 10 * WINDOW_PER_SLOT - MIN_WINDOW


def test_many_dispatchers_at_once_announce_each_job_once(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs
) -> None:
    for _ in range(20):
        jobs.insert(make_job())
    with ThreadPoolExecutor(8) as pool:
        picks = list(pool.map(lambda _: dispatch.pick(QUEUE), range(8)))
    ids = [announcement.job_id for pick in picks for announcement in pick]
    assert len(ids) == len(set(ids)) == MIN_WINDOW


def test_a_claimed_job_makes_room(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    for _ in range(MIN_WINDOW + 5):
        jobs.insert(make_job())
    first = dispatch.pick(QUEUE)[0]
    assert LeaseRepository(database, lease_s=60).claim(first.job_id, worker="w") is not None
    assert len(dispatch.pick(QUEUE)) == 1


def test_priority_goes_first(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs
) -> None:
    for _ in range(MIN_WINDOW):
        jobs.insert(make_job(priority=5))
    urgent, _ = jobs.insert(make_job(priority=9))
    assert urgent.id in {announcement.job_id for announcement in dispatch.pick(QUEUE)}


def test_a_tenant_with_one_job_does_not_wait_behind_one_with_many(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs
) -> None:
    for _ in range(50):
        jobs.insert(make_job(tenant="a"))
    for tenant in "bc":
        jobs.insert(make_job(tenant=tenant))
    announced = [announcement.job_id for announcement in dispatch.pick(QUEUE)]
    for tenant in "bc":
        (only,) = jobs.page(tenant, limit=2, after=None, filters=JobFilters())
        assert only.id in announced


def test_only_jobs_announced_long_ago_are_sent_again(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    jobs.insert(make_job())
    dispatch.pick(QUEUE)
    assert dispatch.announced() == {QUEUE: 1}
    assert dispatch.pick_stale(QUEUE, older_than_s=5) == []
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET dispatched_at = now() - interval '6 seconds'"))
    assert len(dispatch.pick_stale(QUEUE, older_than_s=5)) == 1
    assert dispatch.pick_stale(QUEUE, older_than_s=5) == []


def test_an_announcement_informs_and_holds_no_prompt(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs
) -> None:
    jobs.insert(make_job(prompt="canary", negative_prompt="canary"))
    (announcement,) = dispatch.pick(QUEUE)
    assert "canary" not in repr(announcement)
    assert dict(announcement.parameters) == {
        "model": "demo",
        "preset": "balanced",
        "sampler": "euler",
        "schedule": "native",
        "steps": 4,
        "guidance": 2.0,
        "width": 64,
        "height": 64,
    }
