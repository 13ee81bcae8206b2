import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.presence import DispatcherRepository, WorkerRepository
from shared.db.rescue import RescueRepository
from shared.db.retention import RetentionRepository, StoredResult
from shared.db.uploads import UploadRepository
from shared.errors import InvalidRequest, NotFound, ServiceUnavailable
from shared.job import Artifact, Lease, NewJob, Success
from shared.webhook import Webhook

NewJobs = Callable[..., NewJob]
DAY_S = 86_400.0
ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def uploads(database: sa.Engine) -> UploadRepository:
    return UploadRepository(database)


@pytest.fixture
def retention(database: sa.Engine) -> RetentionRepository:
    return RetentionRepository(database)


def run_sql(database: sa.Engine, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(statement))


def age(database: sa.Engine, column: str, seconds: float) -> None:
    table, name = column.split(".")
    run_sql(database, f"UPDATE {table} SET {name} = {name} - {seconds} * interval '1 second'")


def claim(database: sa.Engine, job_id: str) -> tuple[LeaseRepository, Lease]:
    leases = LeaseRepository(database, lease_s=60)
    claimed = leases.claim(job_id, worker="w")
    assert claimed is not None
    return leases, claimed.lease


class TestJobs:
    def test_only_those_that_ended_long_ago_go(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
    ) -> None:
        old, young, queued, running = (jobs.insert(make_job())[0].id for _ in range(4))
        jobs.request_cancel("tenant", old)
        claim(database, running)
        age(database, "jobs.created_at", 2 * DAY_S)
        age(database, "jobs.started_at", 2 * DAY_S)
        age(database, "jobs.finished_at", DAY_S + 1)
        jobs.request_cancel("tenant", young)
        assert retention.delete_ended_jobs(older_than_s=DAY_S) == [old]
        assert retention.delete_ended_jobs(older_than_s=DAY_S) == []
        with pytest.raises(NotFound):
            jobs.get("tenant", old)
        for kept in (young, queued, running):
            assert jobs.get("tenant", kept).id == kept

    @pytest.mark.parametrize("end", ["delivered", "dead"])
    def test_one_whose_receiver_is_yet_to_be_told_stays_until_that_has_ended(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
        end: str,
    ) -> None:
        job, _ = jobs.insert(make_job(webhook=Webhook("https://receiver.example.test/hook")))
        jobs.request_cancel("tenant", job.id)
        age(database, "jobs.finished_at", DAY_S + 1)
        assert retention.delete_ended_jobs(older_than_s=DAY_S) == []
        run_sql(database, f"UPDATE deliveries SET status = '{end}'")
        assert retention.delete_ended_jobs(older_than_s=DAY_S) == [job.id]

    def test_a_batch_is_bounded_and_the_oldest_go_first(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("shared.db.retention.BATCH", 2)
        job_ids = [jobs.insert(make_job())[0].id for _ in range(3)]
        for job_id in job_ids:
            jobs.request_cancel("tenant", job_id)
        age(database, "jobs.finished_at", DAY_S + 1)
        assert sorted(retention.delete_ended_jobs(older_than_s=DAY_S)) == job_ids[:2]
        assert retention.delete_ended_jobs(older_than_s=DAY_S) == job_ids[2:]


class TestUploads:
    @pytest.fixture
    def image(self, uploads: UploadRepository) -> dict[str, str]:
        """A picture that a job can start from."""
        return upload(uploads)

    def test_one_that_a_job_waits_to_start_from_stays_and_goes_after_it(
        self,
        jobs: JobRepository,
        uploads: UploadRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
    ) -> None:
        image, mask, other = (upload(uploads, sha256=c * 64) for c in "abc")
        job, _ = jobs.insert(make_job(strength=0.5, init_image=image, mask=mask))
        jobs.insert(make_job())
        age(database, "uploads.sent_at", DAY_S + 1)
        assert retention.expire_uploads(older_than_s=DAY_S) == [other["id"]]
        leases, lease = claim(database, job.id)
        assert retention.expire_uploads(older_than_s=DAY_S) == []
        leases.cancel(lease)
        expired = retention.expire_uploads(older_than_s=DAY_S)
        assert sorted(expired) == sorted([image["id"], mask["id"]])
        assert uploads.find("tenant", image["id"]) is None

    def test_a_young_one_stays(
        self, uploads: UploadRepository, retention: RetentionRepository, image: dict[str, str]
    ) -> None:
        assert retention.expire_uploads(older_than_s=DAY_S) == []
        assert uploads.find("tenant", image["id"]) is not None

    def test_sending_it_again_keeps_it(
        self,
        uploads: UploadRepository,
        retention: RetentionRepository,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        assert upload(uploads) == image
        assert retention.expire_uploads(older_than_s=DAY_S) == []

    def test_one_that_was_reserved_and_never_stored_goes_in_the_end(
        self, uploads: UploadRepository, retention: RetentionRepository, database: sa.Engine
    ) -> None:
        reserved = reserve(uploads)
        assert uploads.find("tenant", reserved) is None
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired is None
        age(database, "uploads.sent_at", DAY_S + 1)
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired == ("tenant", reserved)
        with pytest.raises(ServiceUnavailable, match="send it again"):
            uploads.confirm("tenant", reserved)

    def test_its_row_stays_while_the_store_keeps_its_bytes(
        self,
        retention: RetentionRepository,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        retention.expire_uploads(older_than_s=DAY_S)
        with pytest.raises(OSError, match="away"), retention.deleting_upload(older_than_s=DAY_S):
            raise OSError("away")
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired == ("tenant", image["id"])
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired is None

    def test_the_same_bytes_again_are_stored_after_the_old_ones_are_gone(
        self,
        uploads: UploadRepository,
        retention: RetentionRepository,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        retention.expire_uploads(older_than_s=DAY_S)
        events: list[str] = []
        sending = threading.Thread(target=lambda: events.append(f"reserved {reserve(uploads)}"))
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired is not None
            sending.start()
            wait_for_lock(database)
            events.append("deleted")
        sending.join(10)
        assert events == ["deleted", f"reserved {image['id']}"]
        assert uploads.confirm("tenant", image["id"]).id == image["id"]

    def test_one_that_is_being_sent_again_is_not_deleted(
        self,
        uploads: UploadRepository,
        retention: RetentionRepository,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        retention.expire_uploads(older_than_s=DAY_S)
        reserve(uploads)
        with retention.deleting_upload(older_than_s=DAY_S) as expired:
            assert expired is None
        assert uploads.find("tenant", image["id"]) is None  # its bytes may be gone
        uploads.confirm("tenant", image["id"])
        assert uploads.find("tenant", image["id"]) is not None

    def test_a_job_that_is_being_stored_keeps_it(
        self,
        jobs: JobRepository,
        uploads: UploadRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)

        def expire_before_the_commit() -> None:
            assert retention.expire_uploads(older_than_s=DAY_S) == []

        with before(database, "INSERT INTO jobs", expire_before_the_commit):
            jobs.insert(make_job(strength=0.5, init_image=image))
        assert retention.expire_uploads(older_than_s=DAY_S) == []

    def test_a_job_that_was_stored_between_the_two_looks_keeps_it(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        jobs.insert(make_job())

        def store() -> None:
            # As if it had been committed while the first look was under way.
            named = f"jsonb_build_object('id', '{image['id']}')"
            run_sql(database, f"UPDATE jobs SET request['init_image'] = {named}")

        with before(database, "UPDATE uploads SET is_stored", store):
            assert retention.expire_uploads(older_than_s=DAY_S) == []

    def test_a_job_comes_too_late_for_one_that_is_expiring(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        image: dict[str, str],
        database: sa.Engine,
    ) -> None:
        age(database, "uploads.sent_at", DAY_S + 1)
        refusals: list[InvalidRequest] = []

        def store() -> None:
            try:
                jobs.insert(make_job(strength=0.5, init_image=image))
            except InvalidRequest as error:
                refusals.append(error)

        storing = threading.Thread(target=store)

        def store_meanwhile() -> None:
            storing.start()
            wait_for_lock(database)

        with before(database, "UPDATE uploads SET is_stored", store_meanwhile):
            assert retention.expire_uploads(older_than_s=DAY_S) == [image["id"]]
        storing.join(10)
        assert [error.code for error in refusals] == ["unknown_upload"]


class TestOrphans:
    def test_what_an_attempt_left_that_ended_without_success_goes(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
    ) -> None:
        job, _ = jobs.insert(make_job())
        _, lost = claim(database, job.id)
        age(database, "jobs.lease_until", 61)
        RescueRepository(database).take_back_expired_leases()
        leases, winner = claim(database, job.id)
        results = [result(job.id, lost.token), result(job.id, winner.token)]
        assert retention.find_orphans(results, older_than_s=60) == [results[0].key]
        assert leases.succeed(winner, Success((ARTIFACT,), iterations=4, execution={}))
        assert retention.find_orphans(results, older_than_s=60) == [results[0].key]

    def test_a_lease_that_may_be_alive_keeps_its_results_however_old(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
    ) -> None:
        job, _ = jobs.insert(make_job())
        _, lease = claim(database, job.id)
        age(database, "jobs.lease_until", DAY_S)
        assert retention.find_orphans([result(job.id, lease.token)], older_than_s=60) == []

    def test_young_results_stay(
        self, jobs: JobRepository, retention: RetentionRepository, make_job: NewJobs
    ) -> None:
        job, _ = jobs.insert(make_job())
        young = datetime.now(UTC) - timedelta(seconds=50)
        orphan = result(job.id, uuid4(), modified_at=young)
        assert retention.find_orphans([orphan], older_than_s=3600) == []
        assert retention.find_orphans([orphan], older_than_s=10) == [orphan.key]

    def test_what_came_after_its_job_was_deleted_goes(
        self,
        jobs: JobRepository,
        retention: RetentionRepository,
        make_job: NewJobs,
        database: sa.Engine,
    ) -> None:
        job, _ = jobs.insert(make_job())
        leases, lease = claim(database, job.id)
        leases.cancel(lease)
        jobs.delete("tenant", job.id)
        zombie = result(job.id, lease.token)
        assert retention.find_orphans([zombie], older_than_s=60) == [zombie.key]

    def test_a_job_of_another_database_is_left_alone(self, retention: RetentionRepository) -> None:
        assert retention.find_orphans([result("job_of_others", uuid4())], older_than_s=60) == []
        assert retention.find_orphans([], older_than_s=60) == []


def test_processes_are_forgotten_when_they_were_silent_for_long(
    retention: RetentionRepository, database: sa.Engine
) -> None:
    workers, dispatchers = WorkerRepository(database), DispatcherRepository(database)

    def beat(name: str) -> None:
        workers.beat(name, device="cpu", queues=["q"], slots=1, clock=datetime.now(UTC))
        dispatchers.beat(f"dispatcher-{name}")

    beat("old")
    age(database, "workers.heartbeat_at", 3601)
    age(database, "dispatchers.heartbeat_at", 3601)
    beat("new")
    assert retention.forget_silent(silent_for_s=3600) == ["old", "dispatcher-old"]
    assert retention.forget_silent(silent_for_s=3600) == []


def reserve(uploads: UploadRepository, *, sha256: str = "ab" * 32) -> str:
    return uploads.reserve("tenant", content_type="image/png", num_bytes=9, sha256=sha256)


def upload(uploads: UploadRepository, *, sha256: str = "ab" * 32) -> dict[str, str]:
    """Store a picture; returns what a request holds of it."""
    stored = uploads.confirm("tenant", reserve(uploads, sha256=sha256))
    return {"id": stored.id, "sha256": stored.sha256}


def result(job_id: str, token: UUID, *, modified_at: datetime = LONG_AGO) -> StoredResult:
    return StoredResult(f"results/{job_id}/1-{token}/0.png", job_id, token, modified_at)


@contextmanager
def before(database: sa.Engine, part: str, act: Callable[[], None]) -> Iterator[None]:
    """Act once, before the first statement that holds this."""
    left = [act]

    def listen(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if part in statement and left:
            left.pop()()

    sa.event.listen(database, "before_cursor_execute", listen)
    try:
        yield
    finally:
        sa.event.remove(database, "before_cursor_execute", listen)
    assert not left, f"no statement holds {part}"


def wait_for_lock(database: sa.Engine) -> None:
    """Wait until somebody waits for a lock that another one holds."""
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    for _ in range(200):
        with database.connect() as connection:
            if connection.scalar(waiting):
                return
        threading.Event().wait(0.02)
    raise TimeoutError("nobody waits")
