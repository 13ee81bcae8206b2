from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from shared.db.cursor import Cursor
from shared.db.jobs import CancelOutcome, JobFilters, JobRepository
from shared.db.leases import LeaseRepository
from shared.errors import Conflict, NotFound
from shared.job import JobStatus, NewJob

NewJobs = Callable[..., NewJob]


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


def test_a_stored_job_reads_back_as_it_was_accepted(jobs: JobRepository, make_job: NewJobs) -> None:
    new = make_job(prompt="ein Stern \N{GREEN HEART}", deadline_s=60)
    stored, is_replay = jobs.insert(new)
    assert not is_replay
    assert stored.request == new.request
    assert stored.status is JobStatus.QUEUED
    assert stored.deadline_at - stored.created_at == timedelta(seconds=60)
    assert jobs.get("tenant", new.id) == stored


def test_a_row_names_nothing_that_its_job_does_not_ask_for(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    jobs.insert(make_job())
    with database.connect() as connection:
        request = connection.execute(sa.text("SELECT request FROM jobs")).scalar_one()
    # So a version that does not know a name reads the jobs that do without it.
    assert None not in request.values()
    assert not request.keys() & {"init_image", "mask", "strength", "not_before"}


def test_a_tenant_sees_only_its_own_jobs(jobs: JobRepository, make_job: NewJobs) -> None:
    mine, _ = jobs.insert(make_job())
    with pytest.raises(NotFound):
        jobs.get("other", mine.id)
    with pytest.raises(NotFound):
        jobs.request_cancel("other", mine.id)
    assert jobs.page("other", limit=10, after=None, filters=JobFilters()) == []
    assert jobs.get("tenant", mine.id).status is JobStatus.QUEUED


def test_equal_posts_at_once_make_one_job(jobs: JobRepository, make_job: NewJobs) -> None:
    posts = [make_job(idempotency_key="k", body_sha256="b") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(jobs.insert, posts))
    assert len({job.id for job, _ in answers}) == 1
    assert sum(is_replay for _, is_replay in answers) == 7
    assert len(jobs.page("tenant", limit=10, after=None, filters=JobFilters())) == 1


def test_a_key_with_another_body_is_a_conflict(jobs: JobRepository, make_job: NewJobs) -> None:
    jobs.insert(make_job(idempotency_key="k", body_sha256="b"))
    with pytest.raises(Conflict) as caught:
        jobs.insert(make_job(idempotency_key="k", body_sha256="c"))
    assert caught.value.code == "idempotency_key_reused"


def test_a_key_whose_job_is_deleted_in_that_moment_is_free(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    old, _ = jobs.insert(make_job(idempotency_key="k", body_sha256="b"))
    jobs.request_cancel("tenant", old.id)
    to_delete = [old.id]

    def delete(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO jobs" in statement and to_delete:
            jobs.delete("tenant", to_delete.pop())

    sa.event.listen(database, "after_cursor_execute", delete)
    try:
        new, is_replay = jobs.insert(make_job(idempotency_key="k", body_sha256="b"))
    finally:
        sa.event.remove(database, "after_cursor_execute", delete)
    assert not is_replay
    assert new.id != old.id
    assert jobs.get("tenant", new.id) == new


def test_tenants_do_not_share_idempotency_keys(jobs: JobRepository, make_job: NewJobs) -> None:
    first, _ = jobs.insert(make_job(idempotency_key="k", body_sha256="b"))
    second, is_replay = jobs.insert(make_job(tenant="b", idempotency_key="k", body_sha256="b"))
    assert not is_replay
    assert first.id != second.id


def test_pages_follow_one_another_without_gap_or_double(
    jobs: JobRepository, make_job: NewJobs
) -> None:
    ids = [jobs.insert(make_job())[0].id for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while page := jobs.page("tenant", limit=3, after=cursor, filters=JobFilters()):
        seen += [job.id for job in page]
        cursor = Cursor(page[-1].created_at, page[-1].id)
    assert seen == ids[::-1]


def test_position_counts_higher_priority_and_earlier_birth(
    jobs: JobRepository, make_job: NewJobs
) -> None:
    late, urgent, other = make_job(), make_job(priority=9), make_job(queue="demo.batch")
    for new in (make_job(), late, urgent, other):
        jobs.insert(new)
    positions = [jobs.get("tenant", new.id).queue_position for new in (urgent, late, other)]
    assert positions == [0, 2, 0]


def test_a_queued_job_is_canceled_at_once_and_once(jobs: JobRepository, make_job: NewJobs) -> None:
    new = make_job()
    jobs.insert(new)
    job, outcome = jobs.request_cancel("tenant", new.id)
    assert (job.status, outcome) == (JobStatus.CANCELED, CancelOutcome.CANCELED)
    again, outcome = jobs.request_cancel("tenant", new.id)
    assert (again, outcome) == (job, CancelOutcome.CANCELED)


def test_a_running_job_is_asked_to_stop(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    new = make_job()
    jobs.insert(new)
    leases = LeaseRepository(database, lease_s=60)
    claim = leases.claim(new.id, worker="w")
    assert claim is not None
    job, outcome = jobs.request_cancel("tenant", new.id)
    assert (job.status, outcome) == (JobStatus.RUNNING, CancelOutcome.REQUESTED)
    assert job.cancel_requested
    leases.cancel(claim.lease)
    assert jobs.get("tenant", new.id).status is JobStatus.CANCELED


def test_cancel_and_claim_at_once_have_one_winner(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    leases = LeaseRepository(database, lease_s=60)
    news = [make_job() for _ in range(20)]
    for new in news:
        jobs.insert(new)

    def race(new: NewJob) -> tuple[bool, CancelOutcome]:
        with ThreadPoolExecutor(2) as pool:
            claim = pool.submit(leases.claim, new.id, worker="w")
            cancel = pool.submit(jobs.request_cancel, "tenant", new.id)
            return claim.result() is not None, cancel.result()[1]

    for new in news:
        was_claimed, outcome = race(new)
        assert (outcome is CancelOutcome.REQUESTED) == was_claimed
