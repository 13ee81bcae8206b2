"""The inside of a worker, for tests of several files."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from models import CATALOG
from shared.catalog import Catalog
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.rescue import RescueRepository
from shared.db.uploads import UploadRepository
from shared.job import Job
from shared.storage import ObjectStore, upload_key
from shared.store_address import StoreAddress
from tests.fixtures.stack import wait_until
from worker.checkpoint_keeper import CheckpointKeeper
from worker.engine import Engine, EngineConfig, ModelCache
from worker.lease import LeaseKeeper
from worker.task import GenerateTask, WorkerIdentity

LEASE_S = 60.0


@pytest.fixture(scope="session")
def models() -> ModelCache:
    models = ModelCache(Catalog.load(CATALOG), "cpu")
    models.load("demo")
    return models


class Bench:
    """A worker's inside, without Celery."""

    def __init__(
        self,
        database: sa.Engine,
        servers: Servers,
        models: ModelCache,
        *,
        state_interval_s: float = 5.0,
        catalog: Path = CATALOG,
    ) -> None:
        self.jobs = JobRepository(database)
        self.database = database
        self.leases = LeaseRepository(database, lease_s=LEASE_S)
        self.engine = Engine(EngineConfig(state_interval_s=state_interval_s), models)
        self.keeper = LeaseKeeper(
            self.leases,
            lease_s=LEASE_S,
            progress=self.engine.progress,
            stop_job=self.engine.cancel,
        )
        self.store = ObjectStore(
            StoreAddress(
                endpoint=servers.s3_endpoint,
                bucket=servers.s3_bucket,
                access_key=servers.s3_access_key,
                secret_key=servers.s3_secret_key,
            )
        )
        self.checkpoints = CheckpointKeeper(
            self.store, Catalog.load(catalog), libraries={"torch": "test"}
        )
        self.task = GenerateTask(
            identity=WorkerIdentity(
                name="bench", process="bench@host:1", device="cpu", versions={"latentq": "test"}
            ),
            leases=self.leases,
            keeper=self.keeper,
            engine=self.engine,
            store=self.store,
            checkpoints=self.checkpoints,
        )

    def start(self) -> None:
        self.engine.start()
        self.checkpoints.start()

    def stop(self) -> None:
        self.engine.stop()
        self.checkpoints.stop()

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
        wait_until(lambda: self.engine.progress().get(job_id, 0) > 0)
        return thread

    def expire_leases(self) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text("UPDATE jobs SET lease_until = now() - interval '1 s'"))
        RescueRepository(self.database).take_back_expired_leases()


@pytest.fixture
def bench(database: sa.Engine, servers: Servers, models: ModelCache) -> Iterator[Bench]:
    bench = Bench(database, servers, models)
    bench.start()
    yield bench
    bench.stop()
