"""One job from claim to finish, with the real engine, database and store."""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from PIL import Image

from cli.standalone.servers import Servers
from models import CATALOG
from shared.catalog import Catalog
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.rescue import RescueRepository
from shared.db.uploads import UploadRepository
from shared.errors import ErrorCode
from shared.job import SUSPECTED_AFTER, Job, JobStatus, NewJob
from shared.storage import ObjectStore, upload_key
from tests.fixtures.pictures import picture
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

    def upload(self, data: bytes, *, sha256: str | None = None) -> dict[str, str]:
        """Store a picture as the API does; returns what a request holds of it."""
        image = self.note_upload(hashlib.sha256(data).hexdigest())
        self.store.put(upload_key("tenant", image["id"]), data, content_type="image/png")
        return image if sha256 is None else image | {"sha256": sha256}

    def note_upload(self, sha256: str = "ab" * 32) -> dict[str, str]:
        """Have a row of an upload whose bytes are not there."""
        uploads = UploadRepository(self.database)
        upload_id = uploads.reserve("tenant", content_type="image/png", num_bytes=9, sha256=sha256)
        uploads.confirm("tenant", upload_id)
        return {"id": upload_id, "sha256": sha256}

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


def test_a_job_starts_from_its_pictures_whatever_they_are_called(
    bench: Bench, make_job: MakeJob
) -> None:
    image, mask = bench.upload(picture()), bench.upload(picture("JPEG"))
    jobs = [
        make_job(steps=4, strength=0.5, init_image=image, mask=mask, determinism="exact"),
        make_job(steps=4, strength=0.5, init_image=image, determinism="exact"),
        make_job(steps=4, determinism="exact"),
    ]
    for job in jobs:
        bench.jobs.insert(job)
        bench.task.run(job.id)
    masked, redrawn, fresh = (bench.get(job.id) for job in jobs)
    assert masked.status is redrawn.status is fresh.status is JobStatus.SUCCEEDED
    assert [job.iteration for job in (masked, redrawn, fresh)] == [2, 2, 4]
    data = bench.store.get(masked.artifacts[0].key)
    recipe = json.loads(Image.open(io.BytesIO(data)).info["latentq"])["request"]
    shas = {"init_image": {"sha256": image["sha256"]}, "mask": {"sha256": mask["sha256"]}}
    assert {name: recipe[name] for name in shas} == shas
    assert len({job.artifacts[0].sha256 for job in (masked, redrawn, fresh)}) == 3


@pytest.mark.parametrize("spoilt", ["init_image", "mask"])
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("damaged", "cannot be decoded"),
        ("gone", "is stored no longer"),
        ("exchanged", "is not what was uploaded"),
    ],
)
def test_a_picture_that_cannot_be_used_fails_the_job_by_its_field(
    bench: Bench, make_job: MakeJob, spoilt: str, case: str, says: str
) -> None:
    good = bench.upload(picture())
    bad = {
        "damaged": bench.upload(picture()[:-100]),
        "gone": bench.note_upload(),
        "exchanged": bench.upload(picture(), sha256="ab" * 32),
    }[case]
    pictures = {"init_image": good, "mask": good} | {spoilt: bad}
    bench.jobs.insert(job := make_job(strength=0.5, **pictures))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.INVALID_INPUT)
    assert (failed.error_message or "").startswith(f"{spoilt} {says}")


def test_the_upload_of_another_tenant_is_not_read(bench: Bench, make_job: MakeJob) -> None:
    image = bench.upload(picture())
    bench.jobs.insert(job := make_job(strength=0.5, init_image=image))
    with bench.database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET tenant = 'other'"))
    bench.task.run(job.id)
    assert bench.jobs.get("other", job.id).error_code is ErrorCode.INVALID_INPUT


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


@pytest.mark.parametrize("has_picture", [False, True])
def test_a_store_that_stays_away_fails_the_job_in_the_end(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, has_picture: bool
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
    start = {"strength": 0.5, "init_image": bench.note_upload()} if has_picture else {}
    bench.jobs.insert(job := make_job(steps=2, **start))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.STORAGE_UNAVAILABLE)
