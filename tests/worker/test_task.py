"""One job from claim to finish, with the real engine, database and store."""

import hashlib
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from models import CATALOG
from shared.catalog import Catalog
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.rescue import RescueRepository
from shared.errors import ErrorCode
from shared.job import SUSPECTED_AFTER, Job, JobStatus, NewJob
from shared.storage import ObjectStore
from tests.fixtures.stack import wait_until
from worker.engine import Engine, EngineConfig, ModelCache
from worker.lease import LeaseKeeper
from worker.task import GenerateTask, WorkerIdentity

MakeJob = Callable[..., NewJob]
LEASE_S = 60.0


@pytest.fixture(scope="session")
def models() -> ModelCache:
    return ModelCache(Catalog.load(CATALOG), "cpu")


class Bench:
    """A worker's inside, without Celery."""

    def __init__(self, database: sa.Engine, servers: Servers, models: ModelCache) -> None:
        self.jobs = JobRepository(database)
        self.database = database
        self.leases = LeaseRepository(database, lease_s=LEASE_S)
        self.engine = Engine(EngineConfig(), models)
        self.keeper = LeaseKeeper(
            self.leases,
            lease_s=LEASE_S,
            progress=self.engine.progress,
            stop_job=self.engine.cancel,
        )
        self.store = ObjectStore(
            endpoint=servers.s3_endpoint,
            public_endpoint=None,
            region="us-east-1",
            bucket=servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
        self.task = GenerateTask(
            identity=WorkerIdentity(name="bench", device="cpu", versions={"latentq": "test"}),
            leases=self.leases,
            keeper=self.keeper,
            engine=self.engine,
            store=self.store,
        )

    def get(self, job_id: str) -> Job:
        return self.jobs.get("tenant", job_id)

    def run_beside(self, job_id: str) -> threading.Thread:
        """Run a job in a thread, as Celery does, until its engine steps it."""
        thread = threading.Thread(target=self.task.run, args=(job_id,))
        thread.start()
        wait_until(lambda: self.engine.progress().get(job_id, 0) > 0, timeout_s=20)
        return thread

    def expire_leases(self) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text("UPDATE jobs SET lease_until = now() - interval '1 s'"))
        RescueRepository(self.database).take_back_expired_leases()


@pytest.fixture
def bench(database: sa.Engine, servers: Servers, models: ModelCache) -> Iterator[Bench]:
    bench = Bench(database, servers, models)
    bench.engine.start()
    yield bench
    bench.engine.stop()


def test_a_job_ends_with_its_outputs_in_the_store(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(steps=3, num_outputs=2))
    bench.task.run(job.id)
    done = bench.get(job.id)
    assert done.status is JobStatus.SUCCEEDED
    assert done.iteration == done.request.iterations == 6
    assert done.execution is not None
    assert done.execution["worker"] == "bench"
    for artifact in done.artifacts:
        data = bench.store.get(artifact.key)
        assert hashlib.sha256(data).hexdigest() == artifact.sha256
        assert len(data) == artifact.num_bytes


def test_a_message_that_comes_twice_runs_a_job_once(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(steps=2))
    for _ in range(2):
        bench.task.run(job.id)
    bench.task.run("job_that_never_was")
    assert bench.get(job.id).attempt == 1


def test_what_the_model_refuses_fails_with_its_code(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(prompt="star " * 200))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.INVALID_INPUT)
    assert "tokens" in (failed.error_message or "")
    assert "star" not in (failed.error_message or "")


def test_a_job_whose_owner_cancels_ends_canceled(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.jobs.request_cancel("tenant", job.id)
    bench.keeper.beat()
    thread.join(timeout=20)
    assert bench.get(job.id).status is JobStatus.CANCELED


def test_a_worker_that_drains_hands_its_job_back(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.engine.drain()
    thread.join(timeout=20)
    back = bench.get(job.id)
    assert (back.status, back.attempt, back.iteration) == (JobStatus.QUEUED, 1, 0)


def test_a_suspected_job_waits_for_the_others_to_end_and_runs_alone(
    bench: Bench, make_job: MakeJob
) -> None:
    bench.jobs.insert(neighbour := make_job(sampler="ddpm", steps=60))
    bench.jobs.insert(suspect := make_job(sampler="ddpm", steps=60))
    with bench.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET lost_leases = :lost WHERE id = :id"),
            {"lost": SUSPECTED_AFTER, "id": suspect.id},
        )
    threads = [bench.run_beside(neighbour.id)]
    threads.append(threading.Thread(target=bench.task.run, args=(suspect.id,)))
    threads[-1].start()
    wait_until(lambda: bench.get(suspect.id).status is JobStatus.RUNNING, timeout_s=20)
    bench.jobs.insert(latecomer := make_job(steps=2))
    threads.append(threading.Thread(target=bench.task.run, args=(latecomer.id,)))
    threads[-1].start()
    for thread in threads:
        thread.join(timeout=60)
    ended = [bench.get(job.id) for job in (neighbour, suspect, latecomer)]
    assert {job.status for job in ended} == {JobStatus.SUCCEEDED}
    with bench.database.connect() as connection:
        query = sa.text("SELECT job_id, is_alone FROM attempts ORDER BY ended_at")
        told = [tuple(row) for row in connection.execute(query)]
    assert told == [(neighbour.id, False), (suspect.id, True), (latecomer.id, False)]
    # Two rows are its own: nobody shared a forward with it.
    assert [job.execution and job.execution["mean_rows"] for job in ended] == [2.0] * 3


def test_a_result_without_a_lease_is_thrown_away(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=100))
    thread = bench.run_beside(job.id)
    bench.expire_leases()  # the worker does not know
    other = bench.leases.claim(job.id, worker="other")
    assert other is not None
    thread.join(timeout=60)
    now = bench.get(job.id)
    assert (now.status, now.attempt, now.artifacts) == (JobStatus.RUNNING, 2, ())


def test_a_job_stops_when_its_worker_learns_that_the_lease_is_gone(
    bench: Bench, make_job: MakeJob
) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.expire_leases()
    bench.keeper.beat()
    thread.join(timeout=20)
    back = bench.get(job.id)
    assert (back.status, back.attempt) == (JobStatus.QUEUED, 1)


def test_an_output_that_cannot_be_stored_fails_the_job_in_the_end(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.task.STORAGE_PATIENCE_S", 0.5)
    monkeypatch.setattr(
        bench.task,
        "_store",
        ObjectStore(
            endpoint="http://127.0.0.1:1",
            public_endpoint=None,
            region="us-east-1",
            bucket="latentq",
            access_key="a",
            secret_key="b",
        ),
    )
    bench.jobs.insert(job := make_job(steps=2))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.STORAGE_UNAVAILABLE)
