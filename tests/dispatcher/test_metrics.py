import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from dispatcher.checks import CHECKS
from dispatcher.metrics import StateGauges
from dispatcher.situation import Observer
from models import CATALOG
from shared.catalog import Catalog
from shared.db.jobs import JobRepository
from shared.db.presence import DispatcherRepository
from shared.db.session import make_engine
from shared.errors import ConfigurationError
from shared.job import NewJob
from shared.queue import JobQueue
from shared.storage import ObjectStore
from tests.fixtures.stack import free_port

NewJobs = Callable[..., NewJob]
NOBODY = "127.0.0.1:1"


def make_store(servers: Servers, endpoint: str) -> ObjectStore:
    return ObjectStore(
        endpoint=endpoint,
        public_endpoint=None,
        region="us-east-1",
        bucket=servers.s3_bucket,
        access_key=servers.s3_access_key,
        secret_key=servers.s3_secret_key,
    )


@pytest.fixture
def observer(database: sa.Engine, servers: Servers) -> Observer:
    return Observer(
        database,
        JobQueue(servers.redis_url),
        make_store(servers, servers.s3_endpoint),
        Catalog.load(CATALOG),
        now=lambda: datetime.now(UTC) + timedelta(hours=1),
    )


def scrape(port: int) -> dict[str, float]:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    samples = [line.split() for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_a_scrape_shows_what_was_seen_last(
    observer: Observer, make_job: NewJobs, database: sa.Engine
) -> None:
    JobRepository(database).insert(make_job())
    DispatcherRepository(database).beat("d")
    gauges, port = StateGauges(observer), free_port()
    gauges.serve(host="127.0.0.1", port=port)
    before = scrape(port)
    assert set(before) == {f"latentq_{check.name}" for check in CHECKS}
    assert all(math.isnan(value) for value in before.values())
    gauges.run_once()
    shown = scrape(port)
    assert shown.pop("latentq_clock_skew_seconds") == pytest.approx(3600, abs=5)
    bad = {"latentq_unschedulable_jobs": 1, "latentq_models_without_worker": 1}
    assert shown == dict.fromkeys(shown, 0) | bad


def test_a_port_that_is_taken_is_told_by_its_variable(observer: Observer) -> None:
    gauges, port = StateGauges(observer), free_port()
    gauges.serve(host="127.0.0.1", port=port)
    with pytest.raises(ConfigurationError, match="LATENTQ_METRICS_PORT"):
        gauges.serve(host="127.0.0.1", port=port)


def test_stores_that_are_away_are_seen_to_be(servers: Servers) -> None:
    engine = make_engine(f"postgresql://x:x@{NOBODY}/x")
    observer = Observer(
        engine,
        JobQueue(f"redis://{NOBODY}/0"),
        make_store(servers, f"http://{NOBODY}"),
        Catalog.load(CATALOG),
    )
    situation = observer.look()
    engine.dispose()
    assert (situation.database, situation.redis) == (None, None)
    assert situation.store_trouble == "the object store does not answer"


def test_a_schema_that_is_not_there_is_seen_as_missing(servers: Servers) -> None:
    engine = make_engine(servers.database_url)  # nobody has migrated this one
    observer = Observer(
        engine,
        JobQueue(servers.redis_url),
        make_store(servers, servers.s3_endpoint),
        Catalog.load(CATALOG),
    )
    found = observer.look().database
    engine.dispose()
    assert found is not None
    assert found.is_migration_missing
    assert found.snapshot is None
