import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest

from bench.cluster import open_store
from cli.standalone.servers import Servers
from dispatcher.checks import CHECKS
from dispatcher.metrics import StateGauges
from dispatcher.situation import Observer
from models import CATALOG
from shared.catalog import Catalog
from shared.db.diagnosis import UNKNOWN_JOB_S
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.presence import DispatcherRepository, WorkerRepository
from shared.db.session import make_engine
from shared.job import NewJob
from shared.queue import JobQueue

NewJobs = Callable[..., NewJob]
NOBODY = "127.0.0.1:1"
STATES = ("held", "waiting", "announced", "running")


@pytest.fixture
def observer(database: sa.Engine, servers: Servers) -> Observer:
    return Observer(
        database,
        JobQueue(servers.redis_url),
        open_store(servers, endpoint=servers.s3_endpoint),
        Catalog.load(CATALOG),
        now=lambda: datetime.now(UTC) + timedelta(hours=1),
    )


def scrape(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_a_scrape_shows_what_was_seen_last(
    observer: Observer, make_job: NewJobs, database: sa.Engine
) -> None:
    JobRepository(database).insert(make_job())
    DispatcherRepository(database).beat("d")
    registry = CollectorRegistry()
    gauges = StateGauges(observer, registry)
    before = scrape(registry)
    names = {f"latentq_{check.name}" for check in CHECKS}
    assert set(before) == names
    assert all(math.isnan(value) for value in before.values())
    gauges.run_once()
    shown = {name: value for name, value in scrape(registry).items() if name in names}
    assert shown.pop("latentq_clock_skew_seconds") == pytest.approx(3600, abs=5)
    num_models = len(Catalog.load(CATALOG).models)
    bad = {"latentq_unschedulable_jobs": 1, "latentq_models_without_worker": num_models}
    assert shown == dict.fromkeys(shown, 0) | bad


def test_queues_and_workers_are_shown_by_model(
    observer: Observer, make_job: NewJobs, database: sa.Engine
) -> None:
    jobs = JobRepository(database)
    running, announced, _waiting, held, done = (
        jobs.insert(make_job(predicted_s=predicted_s))[0].id for predicted_s in (8, 2, None, 32, 64)
    )
    LeaseRepository(database, lease_s=60).claim(running, worker="w")
    jobs.request_cancel("tenant", done)
    for change in (
        f"UPDATE jobs SET iteration = 3, iterations = 4 WHERE id = '{running}'",
        f"UPDATE jobs SET dispatched_at = now() WHERE id = '{announced}'",
        f"UPDATE jobs SET held_until = now() + interval '1 day' WHERE id = '{held}'",
        "UPDATE jobs SET virtual_birth = virtual_birth - interval '1 hour'",
    ):
        with database.begin() as connection:
            connection.execute(sa.text(change))
    for name in ("a", "b"):
        WorkerRepository(database).beat(name, device="cpu", queues=["demo.batch"], slots=4)
    registry = CollectorRegistry()
    gauges = StateGauges(observer, registry)
    gauges.run_once()
    shown = scrape(registry)
    states = {state: f'latentq_jobs{{model="demo",state="{state}"}}' for state in STATES}
    assert [shown[name] for name in states.values()] == [1, 1, 1, 1]
    demo = '{model="demo"}'
    # A quarter of 8 s is left; who has no prediction counts as the two that have one do.
    assert shown[f"latentq_backlog_device_seconds{demo}"] == pytest.approx(2 + 2 + 2)
    assert shown[f"latentq_oldest_waiting_seconds{demo}"] == pytest.approx(3600, abs=60)
    assert (shown[f"latentq_workers{demo}"], shown[f"latentq_worker_slots{demo}"]) == (2, 8)

    with database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET predicted_s = NULL"))
    gauges.run_once()
    known = scrape(registry)[f"latentq_backlog_device_seconds{demo}"]
    assert known == 3 * UNKNOWN_JOB_S


def test_a_database_that_is_away_leaves_no_numbers_of_it(
    observer: Observer, make_job: NewJobs, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    JobRepository(database).insert(make_job())
    registry = CollectorRegistry()
    gauges = StateGauges(observer, registry)
    gauges.run_once()
    gone = make_engine(f"postgresql://x:x@{NOBODY}/x")
    monkeypatch.setattr(observer, "_database", gone)
    gauges.run_once()
    gone.dispose()
    shown = scrape(registry)
    assert shown["latentq_postgresql_unreachable"] == 1
    by_model = ("latentq_jobs", "latentq_backlog", "latentq_workers", "latentq_webhook")
    assert not [name for name in shown if name.startswith(by_model)]


def test_stores_that_are_away_are_seen_to_be(servers: Servers) -> None:
    engine = make_engine(f"postgresql://x:x@{NOBODY}/x")
    observer = Observer(
        engine,
        JobQueue(f"redis://{NOBODY}/0"),
        open_store(servers, endpoint=f"http://{NOBODY}"),
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
        open_store(servers, endpoint=servers.s3_endpoint),
        Catalog.load(CATALOG),
    )
    found = observer.look().database
    engine.dispose()
    assert found is not None
    assert found.is_migration_missing
    assert found.snapshot is None
