from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.forecast import Forecast
from shared.db.jobs import JobRepository
from shared.db.leases import Beat, LeaseRepository
from shared.db.presence import WorkerRepository
from shared.job import NewJob
from tests.fixtures.database import empty

NewJobs = Callable[..., NewJob]


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


def serve(database: sa.Engine, name: str, *, slots: int, queues: list[str]) -> None:
    WorkerRepository(database).beat(name, device="cpu", queues=queues, slots=slots)


def announce(database: sa.Engine, *job_ids: str) -> None:
    with database.begin() as connection:
        statement = sa.text("UPDATE jobs SET dispatched_at = now() WHERE id = ANY(:ids)")
        connection.execute(statement, {"ids": list(job_ids)})


BOTH = ["demo.interactive", "demo.batch"]
KINDS = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(BOTH),
        "priority": st.integers(0, 9),
        "predicted_s": st.none() | st.floats(0.5, 50),
    }
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    before=st.lists(KINDS, max_size=6),
    num_sent=st.integers(0, 6),
    new=KINDS,
    slots=st.lists(st.integers(1, 3), max_size=2),
)
def test_a_forecast_is_what_the_job_then_says_and_lies_within_its_bounds(
    jobs: JobRepository,
    make_job: NewJobs,
    database: sa.Engine,
    before: list[dict[str, object]],
    num_sent: int,
    new: dict[str, object],
    slots: list[int],
) -> None:
    empty(database)
    for number, each in enumerate(slots):
        serve(database, f"w{number}", slots=each, queues=BOTH)
    ids = [jobs.insert(make_job(**fields))[0].id for fields in before]
    announce(database, *ids[:num_sent])
    leases = LeaseRepository(database, lease_s=60)
    for job_id in ids[: num_sent // 2]:
        leases.claim(job_id, worker="w0")
    job = make_job(**new)
    forecast = jobs.forecast(job)
    assert forecast == jobs.forecast(job)  # nothing was stored
    stored, _ = jobs.insert(job)
    assert (forecast.position, forecast.eta_s, forecast.unschedulable) == (
        stored.queue_position,
        pytest.approx(stored.queue_eta_s),
        stored.unschedulable,
    )
    assert (forecast.eta_low_s is None) == (forecast.eta_s is None)
    if forecast.eta_s is not None and forecast.eta_low_s is not None:
        assert 0 <= forecast.eta_low_s <= forecast.eta_s + 1e-9
        if forecast.eta_high_s is not None:
            assert forecast.eta_s <= forecast.eta_high_s + 1e-9


def test_the_least_is_what_must_end_before_a_slot_is_free(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    serve(database, "a", slots=2, queues=BOTH)
    runs, sent, waits = (
        jobs.insert(make_job(predicted_s=seconds, steps=4))[0].id for seconds in (8.0, 3.0, 100.0)
    )
    assert jobs.forecast(make_job()).eta_low_s == 0.0  # two slots, and nobody has taken one
    announce(database, runs, sent)
    leases = LeaseRepository(database, lease_s=60)
    claim = leases.claim(runs, worker="a")
    assert claim is not None
    assert jobs.forecast(make_job()) == Forecast(2, 111.0, 3.0, 111.0, None)
    leases.beat([Beat(claim.lease.token, 3)])
    assert jobs.forecast(make_job()) == Forecast(2, 105.0, 2.0, 105.0, None)
    announce(database, waits)
    assert jobs.forecast(make_job()).eta_low_s == 5.0
    serve(database, "b", slots=1, queues=BOTH)
    assert jobs.forecast(make_job()) == Forecast(2, 52.5, 1.0, 52.5, None)
    serve(database, "b", slots=2, queues=BOTH)
    assert jobs.forecast(make_job()).eta_low_s == 0.0


def test_the_most_is_all_that_the_same_workers_may_do_first(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    serve(database, "a", slots=1, queues=[*BOTH, "other.batch"])
    serve(database, "b", slots=1, queues=["third.batch"])
    jobs.insert(make_job(predicted_s=1.0))
    jobs.insert(make_job(predicted_s=2.0, priority=0))
    jobs.insert(make_job(predicted_s=4.0, queue="demo.batch", tenant="another"))
    jobs.insert(make_job(predicted_s=8.0, queue="other.batch", model="other"))
    jobs.insert(make_job(predicted_s=16.0, queue="third.batch", model="third"))
    jobs.insert(make_job(predicted_s=32.0, not_before=datetime.now(UTC) + timedelta(hours=1)))
    assert jobs.forecast(make_job()) == Forecast(1, 1.0, 0.0, 15.0, None)
    jobs.insert(make_job(queue="demo.batch"))
    assert jobs.forecast(make_job()) == Forecast(1, 1.0, 0.0, None, None)


def test_what_waits_for_a_time_or_a_worker_has_no_eta(
    jobs: JobRepository, make_job: NewJobs, database: sa.Engine
) -> None:
    says = "no live worker serves demo; it waits for one until its deadline"
    assert jobs.forecast(make_job()) == Forecast(0, None, None, None, says)
    serve(database, "a", slots=1, queues=BOTH)
    later = make_job(not_before=datetime.now(UTC) + timedelta(hours=1))
    assert jobs.forecast(later) == Forecast(None, None, None, None, None)
