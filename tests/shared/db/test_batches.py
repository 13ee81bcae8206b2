from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from shared.db.batches import BatchRepository, NewBatch
from shared.db.jobs import JobFilters, JobRepository
from shared.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from shared.job import BatchPlace, NewJob
from shared.request import InputImage
from shared.webhook import EventType, Webhook

NewJobs = Callable[..., NewJob]
NewBatches = Callable[..., NewBatch]


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def batches(database: sa.Engine) -> BatchRepository:
    return BatchRepository(database)


@pytest.fixture
def make_batch(make_job: NewJobs) -> NewBatches:
    """Make batches about to be accepted; each entry of `fields` is one job's."""

    def make(
        *fields: dict[str, object],
        tenant: str = "tenant",
        key: str | None = None,
        body_sha256: str | None = None,
    ) -> NewBatch:
        new = [make_job(tenant=tenant, **each) for each in fields]
        batch_id = f"batch_{new[0].id}"
        return NewBatch(
            id=batch_id,
            tenant=tenant,
            jobs=[replace(job, batch=BatchPlace(batch_id, n)) for n, job in enumerate(new)],
            pointers=[f"#/jobs/{n}" for n in range(len(new))],
            idempotency_key=key,
            body_sha256=body_sha256,
        )

    return make


def count(database: sa.Engine, table: str) -> int:
    with database.connect() as connection:
        found: int = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
    return found


def test_a_batch_reads_back_as_it_was_accepted_and_in_its_order(
    jobs: JobRepository, batches: BatchRepository, make_batch: NewBatches
) -> None:
    new = make_batch({"seed": 3}, {"seed": 1, "priority": 9}, {"seed": 2, "queue": "demo.batch"})
    batch, is_replay = batches.insert(new)
    assert not is_replay
    assert [job.request for job in batch.jobs] == [job.request for job in new.jobs]
    assert [job.batch for job in batch.jobs] == [BatchPlace(new.id, n) for n in range(3)]
    stored = [jobs.get("tenant", job.id) for job in batch.jobs]
    assert [replace(job, queue_position=None, unschedulable=None) for job in stored] == batch.jobs
    filters = JobFilters(batch=new.id)
    assert {job.id for job in jobs.page("tenant", limit=9, after=None, filters=filters)} == {
        job.id for job in batch.jobs
    }
    assert jobs.page("other", limit=9, after=None, filters=filters) == []


def test_jobs_of_a_batch_may_differ_in_all_that_a_row_may_lack(
    jobs: JobRepository, batches: BatchRepository, make_batch: NewBatches
) -> None:
    hook = Webhook("https://example.test/", (EventType.SUCCEEDED,))
    later = datetime.now(UTC) + timedelta(hours=1)
    new = make_batch({}, {"webhook": hook}, {"not_before": later}, {"predicted_s": 2.0})
    batch, _ = batches.insert(new)
    assert [job.webhook for job in batch.jobs] == [None, hook, None, None]
    assert [job.predicted_s for job in batch.jobs] == [None, None, None, 2.0]
    positions = [jobs.get("tenant", job.id).queue_position for job in batch.jobs]
    assert positions == [0, 1, None, 2]


def test_equal_batches_at_once_make_one_set_of_jobs(
    database: sa.Engine, batches: BatchRepository, make_batch: NewBatches
) -> None:
    posts = [make_batch({}, {}, {}, key="k", body_sha256="b") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(batches.insert, posts))
    assert len({batch.id for batch, _ in answers}) == 1
    assert all(len(batch.jobs) == 3 for batch, _ in answers)
    assert sum(is_replay for _, is_replay in answers) == 7
    assert (count(database, "jobs"), count(database, "batches")) == (3, 1)


def test_batches_with_the_same_new_receivers_at_once_do_not_wait_for_each_other(
    database: sa.Engine, batches: BatchRepository, make_batch: NewBatches
) -> None:
    hooks = [Webhook(f"https://example.test/{n}", (EventType.SUCCEEDED,)) for n in range(10)]
    posts = []
    for turn in range(8):
        order = hooks if turn % 2 else hooks[::-1]
        posts.append(make_batch(*({"webhook": hook} for hook in order)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(batches.insert, posts))
    assert count(database, "jobs") == 80
    assert count(database, "webhook_endpoints") == 10


def test_a_key_with_another_body_is_a_conflict_and_other_tenants_have_their_own(
    database: sa.Engine, batches: BatchRepository, make_batch: NewBatches
) -> None:
    batches.insert(make_batch({}, key="k", body_sha256="b"))
    with pytest.raises(Conflict) as caught:
        batches.insert(make_batch({}, {}, key="k", body_sha256="c"))
    assert caught.value.code == "idempotency_key_reused"
    assert count(database, "jobs") == 1
    _, is_replay = batches.insert(make_batch({}, tenant="b", key="k", body_sha256="b"))
    assert not is_replay


def test_one_upload_that_is_gone_leaves_nothing_behind(
    database: sa.Engine, batches: BatchRepository, make_batch: NewBatches
) -> None:
    gone = InputImage(id="upl_gone", sha256="ab" * 32)
    hook = Webhook("https://example.test/", (EventType.SUCCEEDED,))
    new = make_batch({"webhook": hook}, {"init_image": gone, "strength": 1}, {}, key="k")
    with pytest.raises(InvalidRequest) as caught:
        batches.insert(new)
    says = "no such upload; POST /v1/uploads takes pictures"
    assert caught.value.problems == [FieldProblem("#/jobs/1/init_image", says)]
    assert caught.value.code == "unknown_upload"
    for table in ("jobs", "batches", "webhook_endpoints"):
        assert count(database, table) == 0


def test_a_key_lasts_as_long_as_one_job_of_its_batch(
    database: sa.Engine,
    jobs: JobRepository,
    batches: BatchRepository,
    make_batch: NewBatches,
) -> None:
    def again() -> NewBatch:
        return make_batch({}, {}, key="k", body_sha256="b")

    (first, second) = batches.insert(again())[0].jobs
    for job in (first, second):
        jobs.request_cancel("tenant", job.id)
    jobs.delete("tenant", first.id)
    batch, is_replay = batches.insert(again())
    assert is_replay
    assert [job.id for job in batch.jobs] == [second.id]
    jobs.delete("tenant", second.id)
    assert count(database, "batches") == 0
    batch, is_replay = batches.insert(again())
    assert not is_replay
    assert len(batch.jobs) == 2


def test_jobs_of_a_batch_deleted_at_once_take_it_along(
    database: sa.Engine, jobs: JobRepository, batches: BatchRepository, make_batch: NewBatches
) -> None:
    for _ in range(5):
        batch, _ = batches.insert(make_batch(*[{}] * 8))
        for job in batch.jobs:
            jobs.request_cancel("tenant", job.id)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda job: jobs.delete("tenant", job.id), batch.jobs))
        assert count(database, "batches") == 0
    with pytest.raises(NotFound):
        jobs.get("tenant", batch.jobs[0].id)


def test_a_key_whose_batch_is_deleted_in_that_moment_is_free(
    database: sa.Engine, jobs: JobRepository, batches: BatchRepository, make_batch: NewBatches
) -> None:
    old, _ = batches.insert(make_batch({}, key="k", body_sha256="b"))
    jobs.request_cancel("tenant", old.jobs[0].id)
    to_delete = [old.jobs[0].id]

    def delete(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO batches") and to_delete:
            jobs.delete("tenant", to_delete.pop())

    sa.event.listen(database, "after_cursor_execute", delete)
    try:
        new, is_replay = batches.insert(make_batch({}, key="k", body_sha256="b"))
    finally:
        sa.event.remove(database, "after_cursor_execute", delete)
    assert not is_replay
    assert new.id != old.id
