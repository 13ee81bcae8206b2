from collections.abc import Callable
from uuid import uuid4

import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from dispatcher.cleaner import Cleaner
from shared.db.deletions import DeletionRepository
from shared.db.jobs import JobRepository
from shared.job import NewJob
from shared.storage import ObjectStore, artifact_key, results_prefix
from tests.fixtures.stack import free_port

NewJobs = Callable[..., NewJob]


def connect(servers: Servers, *, endpoint: str | None = None) -> ObjectStore:
    return ObjectStore(
        endpoint=endpoint or servers.s3_endpoint,
        public_endpoint=None,
        region="us-east-1",
        bucket=servers.s3_bucket,
        access_key=servers.s3_access_key,
        secret_key=servers.s3_secret_key,
    )


@pytest.fixture
def store(servers: Servers) -> ObjectStore:
    """A store without results and uploads."""
    store = connect(servers)
    for prefix in ("results/", "uploads/"):
        store.delete_prefix(prefix)
    return store


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def cleaner(database: sa.Engine, store: ObjectStore) -> Cleaner:
    return make_cleaner(database, store)


def make_cleaner(database: sa.Engine, store: ObjectStore) -> Cleaner:
    return Cleaner(DeletionRepository(database), store)


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
    end_and_delete(jobs, deleted)
    cleaner.run_once()
    assert keys_of(store, results_prefix(deleted)) == []
    assert len(keys_of(store, results_prefix(kept))) == 4
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
