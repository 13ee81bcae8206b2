from collections.abc import Callable
from uuid import uuid4

import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from dispatcher.cleaner import Cleaner
from dispatcher.sweeper import Sweeper
from shared.db.deletions import DeletionRepository
from shared.db.incoming import IncomingUploadRepository
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.retention import RetentionRepository
from shared.db.uploads import UploadRepository
from shared.errors import ErrorCode, NotFound
from shared.job import NewJob
from shared.storage import (
    ObjectStore,
    artifact_key,
    checkpoint_key,
    checkpoints_prefix,
    incoming_key,
    results_prefix,
    upload_key,
)
from shared.store_address import StoreAddress
from tests.fixtures.stack import free_port

NewJobs = Callable[..., NewJob]
DAY_S = 86_400.0


def connect(servers: Servers, *, endpoint: str | None = None) -> ObjectStore:
    return ObjectStore(
        StoreAddress(
            endpoint=endpoint or servers.s3_endpoint,
            bucket=servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
    )


@pytest.fixture
def store(servers: Servers) -> ObjectStore:
    """A store without results, states and uploads."""
    store = connect(servers)
    for prefix in ("results/", "checkpoints/", "uploads/", "incoming/"):
        store.delete_prefix(prefix)
    return store


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def cleaner(database: sa.Engine, store: ObjectStore) -> Cleaner:
    return make_cleaner(database, store)


def make_cleaner(database: sa.Engine, store: ObjectStore) -> Cleaner:
    return Cleaner(
        RetentionRepository(database),
        DeletionRepository(database),
        store,
        retention_s=DAY_S,
        upload_retention_s=DAY_S,
    )


def run_sql(database: sa.Engine, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(statement))


def put_results(store: ObjectStore, job_id: str) -> list[str]:
    """Store what two attempts of a job leave."""
    keys = [
        artifact_key(job_id, attempt=attempt, token=uuid4(), index=index, extension="png")
        for attempt in (1, 2)
        for index in range(2)
    ]
    for key in keys:
        store.put(key, b"picture", content_type="image/png")
    return keys


def put_state(store: ObjectStore, job_id: str, *, attempt: int = 1) -> str:
    """Store a state of an attempt."""
    key = checkpoint_key(job_id, attempt=attempt, token=uuid4(), iteration=3)
    store.put(key, b"state", content_type="application/octet-stream")
    return key


def keys_of(store: ObjectStore, prefix: str = "results/") -> list[str]:
    return [found.key for found in store.list_page(prefix)[0]]


def end_and_delete(jobs: JobRepository, job_id: str) -> None:
    jobs.request_cancel("tenant", job_id)
    jobs.delete("tenant", job_id)


def test_the_objects_of_a_deleted_job_go_and_no_others(
    jobs: JobRepository, cleaner: Cleaner, store: ObjectStore, make_job: NewJobs
) -> None:
    deleted, kept = (jobs.insert(make_job())[0].id for _ in range(2))
    for job_id in (deleted, kept):
        put_results(store, job_id)
        put_state(store, job_id)
    end_and_delete(jobs, deleted)
    cleaner.run_once()
    assert keys_of(store, results_prefix(deleted)) == []
    assert keys_of(store, checkpoints_prefix(deleted)) == []
    assert len(keys_of(store, results_prefix(kept))) == 4
    assert len(keys_of(store, checkpoints_prefix(kept))) == 1
    cleaner.run_once()


def test_a_store_that_is_away_delays_the_deletion_and_nothing_else(
    jobs: JobRepository,
    cleaner: Cleaner,
    store: ObjectStore,
    make_job: NewJobs,
    database: sa.Engine,
    servers: Servers,
) -> None:
    job_ids = [jobs.insert(make_job())[0].id for _ in range(2)]
    for job_id in job_ids:
        put_results(store, job_id)
        end_and_delete(jobs, job_id)
    away = connect(servers, endpoint=f"http://127.0.0.1:{free_port()}")
    make_cleaner(database, away).run_once()
    assert len(keys_of(store)) == 8
    cleaner.run_once()  # the first one is not due before some time
    assert {key.split("/")[1] for key in keys_of(store)} == {job_ids[0]}
    run_sql(database, "UPDATE deletions SET due_at = now()")
    cleaner.run_once()
    assert keys_of(store) == []


def test_a_job_goes_with_its_objects_when_it_has_been_kept_long_enough(
    jobs: JobRepository,
    cleaner: Cleaner,
    store: ObjectStore,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    job, _ = jobs.insert(make_job())
    put_results(store, job.id)
    jobs.request_cancel("tenant", job.id)
    cleaner.run_once()
    assert len(keys_of(store)) == 4
    run_sql(database, "UPDATE jobs SET finished_at = now() - interval '25 hours'")
    cleaner.run_once()
    assert keys_of(store) == []
    with pytest.raises(NotFound):
        jobs.get("tenant", job.id)


def test_an_upload_goes_even_if_the_store_was_away_at_first(
    cleaner: Cleaner, store: ObjectStore, database: sa.Engine, servers: Servers
) -> None:
    uploads = UploadRepository(database)
    for sha256 in ("ab" * 32, "cd" * 32):
        upload_id = uploads.reserve("tenant", content_type="image/png", num_bytes=9, sha256=sha256)
        store.put(upload_key("tenant", upload_id), b"picture", content_type="image/png")
        uploads.confirm("tenant", upload_id)
    run_sql(database, "UPDATE uploads SET sent_at = now() - interval '25 hours'")
    make_cleaner(database, connect(servers, endpoint=f"http://127.0.0.1:{free_port()}")).run_once()
    assert uploads.find("tenant", upload_id) is None
    assert len(keys_of(store, "uploads/")) == 2
    cleaner.run_once()
    assert keys_of(store, "uploads/") == []
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM uploads")) == 0


def test_the_sweeper_goes_through_all_pages_and_takes_orphans_only(
    jobs: JobRepository,
    store: ObjectStore,
    make_job: NewJobs,
    database: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.storage.PAGE_SIZE", 2)
    monkeypatch.setattr("dispatcher.sweeper.GRACE_S", -60.0)
    leases = LeaseRepository(database, lease_s=60)
    kept = ["results/job_of_others/1-x/0.png", "results/readme"]
    for _ in range(3):
        job, _ = jobs.insert(make_job())
        put_results(store, job.id)
        claimed = leases.claim(job.id, worker="w")
        assert claimed is not None
        kept.append(
            artifact_key(job.id, attempt=1, token=claimed.lease.token, index=0, extension="png")
        )
    for key in kept:
        store.put(key, b"picture", content_type="image/png")
    sweeper = Sweeper(RetentionRepository(database), store)
    for _ in range(9):  # 17 objects, two of them a page
        sweeper.run_once()
    assert sorted(keys_of_all(store)) == sorted(kept)
    assert leases.fail(claimed.lease, ErrorCode.INTERNAL, "broken")
    for _ in range(4):
        sweeper.run_once()
    assert sorted(keys_of_all(store)) == sorted(kept[:-1])


def test_the_sweeper_takes_states_that_no_job_goes_on_from(
    jobs: JobRepository,
    store: ObjectStore,
    make_job: NewJobs,
    database: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queued, running, ended, gone = (jobs.insert(make_job())[0].id for _ in range(4))
    leases = LeaseRepository(database, lease_s=60)
    assert leases.claim(running, worker="w") is not None
    # Of attempts that have ended: the next one goes on from them.
    kept = [put_state(store, queued), put_state(store, running), put_state(store, "job_of_others")]
    late = [put_state(store, ended), put_state(store, ended, attempt=2), put_state(store, gone)]
    jobs.request_cancel("tenant", ended)
    end_and_delete(jobs, gone)
    sweeper = Sweeper(RetentionRepository(database), store)
    sweeper.run_once()
    assert sorted(keys_of(store, "checkpoints/")) == sorted(kept + late)  # they are young
    monkeypatch.setattr("dispatcher.sweeper.GRACE_S", -60.0)
    sweeper.run_once()
    assert sorted(keys_of(store, "checkpoints/")) == sorted(kept)


def test_a_sweeper_whose_store_is_away_goes_on_when_it_is_back(
    jobs: JobRepository,
    store: ObjectStore,
    make_job: NewJobs,
    database: sa.Engine,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dispatcher.sweeper.GRACE_S", -60.0)
    put_results(store, jobs.insert(make_job())[0].id)
    sweeper = Sweeper(
        RetentionRepository(database), connect(servers, endpoint="http://127.0.0.1:1")
    )
    sweeper.run_once()
    monkeypatch.setattr(sweeper, "_store", store)
    sweeper.run_once()
    assert keys_of(store) == []


def keys_of_all(store: ObjectStore) -> list[str]:
    objects, place = store.list_page("results/")
    while place is not None:
        more, place = store.list_page("results/", place=place)
        objects += more
    return [found.key for found in objects]


def test_a_file_that_nobody_completed_goes_a_while_after_its_link(
    cleaner: Cleaner, store: ObjectStore, database: sa.Engine, servers: Servers
) -> None:
    incoming = IncomingUploadRepository(database)
    ids = [
        incoming.add("tenant", content_type="image/png", num_bytes=7, sha256=None).id
        for _ in range(2)
    ]
    for incoming_id in ids:
        store.put(incoming_key("tenant", incoming_id), b"picture", content_type="image/png")
    old = "UPDATE incoming_uploads SET expires_at = now() - interval '61 minutes'"
    run_sql(database, f"{old} WHERE id = '{ids[0]}'")
    run_sql(
        database,
        "UPDATE incoming_uploads SET expires_at = now() - interval '59 minutes' "
        f"WHERE id = '{ids[1]}'",
    )
    away = connect(servers, endpoint=f"http://127.0.0.1:{free_port()}")
    make_cleaner(database, away).run_once()
    assert incoming.get("tenant", ids[0])
    cleaner.run_once()
    assert keys_of(store, "incoming/") == [incoming_key("tenant", ids[1])]
    assert incoming.get("tenant", ids[1])
    with pytest.raises(NotFound):
        incoming.get("tenant", ids[0])
