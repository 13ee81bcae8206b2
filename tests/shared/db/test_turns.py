"""Who is picked next, and when a job may be picked at all."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.job import AGEING_S, Job, JobStatus, NewJob
from tests.fixtures.database import empty

NewJobs = Callable[..., NewJob]
QUEUE = "demo.interactive"


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def dispatch(database: sa.Engine) -> DispatchRepository:
    return DispatchRepository(database)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a window hold one job, so that picks tell the order."""
    monkeypatch.setattr("shared.db.dispatch.MIN_WINDOW", 1)


def age(database: sa.Engine, job: Job, seconds: float) -> None:
    """Let time pass for one job alone."""
    columns = ("created_at", "virtual_birth", "held_until")
    changes = ", ".join(f"{name} = {name} - :age * interval '1 second'" for name in columns)
    with database.begin() as connection:
        statement = sa.text(f"UPDATE jobs SET {changes} WHERE id = :id")
        connection.execute(statement, {"age": seconds, "id": job.id})


def copy(database: sa.Engine, job: Job, *, num: int) -> None:
    """Insert as many jobs like one, all at once."""
    columns = (
        "tenant, queue, model, preset_name, preset_version, request, metadata, priority, "
        "megapixel_iterations, created_at, deadline_at, virtual_birth"
    )
    statement = sa.text(
        f"INSERT INTO jobs (id, {columns}) SELECT id || '-' || n, {columns} "
        "FROM jobs, generate_series(1, :num) AS n WHERE id = :id"
    )
    with database.begin() as connection:
        connection.execute(statement, {"id": job.id, "num": num})


def serve(database: sa.Engine, dispatch: DispatchRepository) -> list[str]:
    """Announce, run and end jobs until none may be picked; returns them in order."""
    leases = LeaseRepository(database, lease_s=60)
    served = []
    while picked := dispatch.pick(QUEUE):
        for announcement in picked:
            claim = leases.claim(announcement.job_id, worker="w")
            assert claim is not None
            assert leases.cancel(claim.lease)
            served.append(announcement.job_id)
    return served


@pytest.mark.usefixtures("one_by_one")
def test_an_urgent_job_behind_a_thousand_others_is_next(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    first, _ = jobs.insert(make_job(priority=4))
    copy(database, first, num=999)
    urgent, _ = jobs.insert(make_job(priority=5))
    (picked,) = dispatch.pick(QUEUE)
    assert picked.job_id == urgent.id


def test_one_job_behind_ten_thousand_of_another_tenant_is_in_the_first_window(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    first, _ = jobs.insert(make_job(tenant="a", priority=9))
    copy(database, first, num=9_999)
    only, _ = jobs.insert(make_job(tenant="b", priority=0))
    assert only.id in {announcement.job_id for announcement in dispatch.pick(QUEUE)}


@pytest.mark.usefixtures("one_by_one")
def test_a_level_of_priority_is_worth_so_much_age_and_no_more(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    old, _ = jobs.insert(make_job(priority=3))
    older, _ = jobs.insert(make_job(priority=3))
    urgent, _ = jobs.insert(make_job(priority=5))
    age(database, old, 2 * AGEING_S - 60)
    age(database, older, 2 * AGEING_S + 60)
    assert serve(database, dispatch) == [older.id, urgent.id, old.id]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10 * AGEING_S)), min_size=1, max_size=8)
)
@pytest.mark.usefixtures("one_by_one")
def test_a_tenants_jobs_go_by_priority_and_age(
    dispatch: DispatchRepository,
    make_job: NewJobs,
    database: sa.Engine,
    drawn: list[tuple[int, int]],
) -> None:
    empty(database)
    jobs = JobRepository(database)
    worth = {}
    for number, (priority, waited_s) in enumerate(drawn):
        # Minutes apart, so that the moments between the inserts decide nothing.
        waited_s = waited_s // 60 * 60 + 2 * number
        job, _ = jobs.insert(make_job(priority=priority))
        age(database, job, waited_s)
        worth[job.id] = priority + waited_s / AGEING_S
    assert serve(database, dispatch) == sorted(worth, key=lambda job_id: -worth[job_id])


def test_tenants_with_equal_jobs_get_equal_parts_of_a_window(
    jobs: JobRepository,
    dispatch: DispatchRepository,
    make_job: NewJobs,
    database: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.db.dispatch.MIN_WINDOW", 9)
    owners = {}
    for tenant, priority in (("a", 9), ("b", 5), ("c", 0)):
        for _ in range(10):
            job, _ = jobs.insert(make_job(tenant=tenant, priority=priority))
            owners[job.id] = tenant
    picked = [owners[announcement.job_id] for announcement in dispatch.pick(QUEUE)]
    assert Counter(picked) == {"a": 3, "b": 3, "c": 3}


def test_a_tenant_is_weighed_by_its_work_not_by_its_jobs(
    jobs: JobRepository,
    dispatch: DispatchRepository,
    make_job: NewJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.db.dispatch.MIN_WINDOW", 5)
    owners = {}
    for tenant, steps in (("long", 40), ("short", 10)):
        for _ in range(8):
            job, _ = jobs.insert(make_job(tenant=tenant, steps=steps))
            owners[job.id] = tenant
    picked = [owners[announcement.job_id] for announcement in dispatch.pick(QUEUE)]
    assert Counter(picked) == {"long": 1, "short": 4}


def test_work_of_other_queues_counts(
    jobs: JobRepository,
    dispatch: DispatchRepository,
    make_job: NewJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(4):
        jobs.insert(make_job(tenant="a", queue="demo.batch"))
    assert len(dispatch.pick("demo.batch")) == 4
    monkeypatch.setattr("shared.db.dispatch.MIN_WINDOW", 1)
    jobs.insert(make_job(tenant="a", priority=9))
    other, _ = jobs.insert(make_job(tenant="b", priority=0))
    (picked,) = dispatch.pick(QUEUE)
    assert picked.job_id == other.id


def test_a_job_is_picked_and_has_a_place_only_when_its_time_has_come(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1000)
    held, _ = jobs.insert(make_job(priority=9, not_before=soon))
    other, _ = jobs.insert(make_job())
    assert held.queue_position is None
    assert other.queue_position == 0
    assert dispatch.release_due() == 0
    assert [announcement.job_id for announcement in dispatch.pick(QUEUE)] == [other.id]
    assert dispatch.waiting_queues() == []
    assert LeaseRepository(database, lease_s=60).claim(held.id, worker="w") is None
    age(database, held, 1001)
    assert dispatch.release_due() == 1
    assert jobs.get("tenant", held.id).queue_position == 1  # the other one is in Redis
    assert [announcement.job_id for announcement in dispatch.pick(QUEUE)] == [held.id]
    assert dispatch.release_due() == 0


@pytest.mark.usefixtures("one_by_one")
def test_a_job_does_not_grow_older_while_it_may_not_run(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1000)
    soon = datetime.now(UTC) + timedelta(seconds=1000)
    held, _ = jobs.insert(make_job(not_before=soon))
    old, _ = jobs.insert(make_job(not_before=past))
    new, _ = jobs.insert(make_job())
    for job in (held, old):
        age(database, job, 1100)
    dispatch.release_due()
    # Of equal age, but free to run for 100 s only.
    assert serve(database, dispatch) == [old.id, held.id, new.id]


def test_a_held_job_ends_at_its_deadline_or_when_it_is_canceled(
    jobs: JobRepository, dispatch: DispatchRepository, make_job: NewJobs
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1000)
    held, _ = jobs.insert(make_job(not_before=soon))
    canceled, _ = jobs.request_cancel("tenant", held.id)
    assert canceled.status is JobStatus.CANCELED
    assert dispatch.release_due() == 0
