"""Endpoints against the jobs that end meanwhile: who is told of what, and nobody waits for it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.deliveries import DeliveryRepository
from shared.db.endpoints import Endpoint, EndpointChanges, EndpointRepository
from shared.db.jobs import JobRepository
from shared.db.retention import RetentionRepository
from shared.db.webhooks import mint_secret
from shared.errors import Conflict, NotFound
from shared.job import NewJob
from shared.webhook import TERMINAL_EVENTS, EventType, Webhook
from tests.fixtures.database import empty
from tests.shared.db.test_transitions import MOVES, Life

NewJobs = Callable[..., NewJob]
FILTERS = st.sets(st.sampled_from(EventType), min_size=1)


def register(
    database: sa.Engine,
    *,
    tenant: str = "tenant",
    url: str = "https://hooks.example.com/",
    events: tuple[EventType, ...] = TERMINAL_EVENTS,
) -> Endpoint:
    repository = EndpointRepository(database)
    return repository.create(tenant, url=url, events=events, description="", secret=mint_secret())


def told(database: sa.Engine) -> list[tuple[str, str, str]]:
    """Return endpoint, type and status of all deliveries."""
    query = sa.text(
        "SELECT endpoint_id, type, status FROM deliveries JOIN events ON events.id = event_id"
    )
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    moves=st.lists(st.sampled_from(MOVES), max_size=10),
    endpoints=st.lists(st.tuples(st.sampled_from(["tenant", "other"]), FILTERS, st.booleans())),
    named=st.none() | FILTERS,
)
def test_each_endpoint_is_told_once_of_what_its_filter_has(
    database: sa.Engine,
    make_job: NewJobs,
    moves: list[Callable[[Life], None]],
    endpoints: list[tuple[str, set[EventType], bool]],
    named: set[EventType] | None,
) -> None:
    empty(database)
    listening = {}
    for number, (tenant, types, enabled) in enumerate(endpoints[:6]):
        url = f"https://hooks.example.com/{number}"
        endpoint = register(database, tenant=tenant, url=url, events=tuple(types))
        if not enabled:
            changes = EndpointChanges(enabled=False)
            EndpointRepository(database).update(tenant, endpoint.id, changes)
        elif tenant == "tenant":
            listening[endpoint.id] = types
    webhook = None if named is None else Webhook("https://job.example.com/", tuple(named))
    life = Life(database, make_job(webhook=webhook))
    for move in moves:
        move(life)
    reached = {to for _, to, _ in life.history()}
    happened = {EventType.STARTED} if "running" in reached else set()
    if life.status().is_terminal:
        happened.add(EventType(f"job.{life.status()}"))
    seen = told(database)
    by_endpoint = {(id_, type_) for id_, type_, _ in seen if id_ in listening}
    expected = {(id_, t) for id_, types in listening.items() for t in types & happened}
    assert by_endpoint == expected
    # Nobody else is told but the receiver that the job names, and nobody twice.
    assert len(seen) == len(expected) + len(happened & (named or set()))


def test_jobs_end_while_endpoints_come_change_and_go(
    database: sa.Engine, make_job: NewJobs
) -> None:
    jobs, endpoints = JobRepository(database), EndpointRepository(database)
    kept = register(database, url="https://kept.example.com/")
    ids = [jobs.insert(make_job())[0].id for _ in range(60)]
    is_over = threading.Event()

    def change(number: int) -> int:
        rounds = 0
        while not is_over.is_set() or rounds == 0:
            endpoint = register(database, url=f"https://hooks.example.com/{number}")
            for enabled in (False, True):
                changes = EndpointChanges(
                    enabled=enabled, url=f"https://{enabled}.example.com/{number}"
                )
                endpoints.update("tenant", endpoint.id, changes)
            endpoints.delete("tenant", endpoint.id)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(5) as pool:
        changing = [pool.submit(change, number) for number in range(2)]
        ending = [pool.submit(jobs.request_cancel, "tenant", job_id) for job_id in ids]
        try:
            for future in ending:
                future.result()
        finally:
            is_over.set()
        assert all(future.result() for future in changing)
    assert {jobs.get("tenant", job_id).status for job_id in ids} == {"canceled"}
    assert told(database) == [(kept.id, "job.canceled", "pending")] * len(ids)


def test_a_job_that_ends_while_an_endpoint_is_removed_waits_and_ends(
    database: sa.Engine, make_job: NewJobs
) -> None:
    jobs, endpoint = JobRepository(database), register(database)
    job, _ = jobs.insert(make_job())
    with ThreadPoolExecutor(1) as pool, database.begin() as connection:
        remove = sa.text("DELETE FROM webhook_endpoints WHERE id = :id")
        connection.execute(remove, {"id": endpoint.id})
        ending = pool.submit(jobs.request_cancel, "tenant", job.id)
        with pytest.raises(TimeoutError):
            ending.result(timeout=0.1)
        connection.commit()
        assert ending.result(timeout=10)[0].status == "canceled"
    assert told(database) == []


def test_what_is_written_while_its_endpoint_is_disabled_is_never_sent(
    database: sa.Engine, make_job: NewJobs
) -> None:
    jobs, endpoint = JobRepository(database), register(database)
    job, _ = jobs.insert(make_job())
    with database.begin() as connection:
        end = sa.text("UPDATE jobs SET status = 'canceled' WHERE id = :id")
        connection.execute(end, {"id": job.id})
        # The delivery is there and nobody else can see it yet.
        changes = EndpointChanges(enabled=False)
        EndpointRepository(database).update("tenant", endpoint.id, changes)
    assert told(database) == [(endpoint.id, "job.canceled", "pending")]
    repository = DeliveryRepository(database)
    assert repository.claim(limit=9, per_host=9, rooms={}, lease_s=60) == []
    assert told(database) == [(endpoint.id, "job.canceled", "dead")]
    with database.connect() as connection:
        row = connection.execute(sa.text("SELECT attempts, last_outcome FROM deliveries")).one()
    assert tuple(row) == (0, "disabled")


def test_one_url_is_registered_once_however_many_try_at_once(database: sa.Engine) -> None:
    barrier = threading.Barrier(4)

    def race() -> bool:
        barrier.wait()
        try:
            register(database)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(future.result() for future in [pool.submit(race) for _ in range(4)]) == 1


def test_tests_are_forgotten_when_they_are_old_and_done(database: sa.Engine) -> None:
    endpoint = register(database)
    endpoints, retention = EndpointRepository(database), RetentionRepository(database)
    endpoints.test("tenant", endpoint.id)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE events SET created_at = now() - interval '2 hours'"))
    retention.delete_tests(older_than_s=3600)
    assert len(told(database)) == 1
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE deliveries SET status = 'delivered'"))
    retention.delete_tests(older_than_s=3 * 3600)
    assert len(told(database)) == 1
    retention.delete_tests(older_than_s=3600)
    assert told(database) == []


def test_a_receiver_that_a_job_named_is_no_endpoint(database: sa.Engine, make_job: NewJobs) -> None:
    jobs, endpoints = JobRepository(database), EndpointRepository(database)
    jobs.insert(make_job(webhook=Webhook("https://job.example.com/")))
    with database.connect() as connection:
        named = connection.scalar(sa.text("SELECT id FROM webhook_endpoints"))
    assert endpoints.page("tenant", limit=10, after=None) == []
    with pytest.raises(NotFound):
        endpoints.get("tenant", named)
    with pytest.raises(NotFound):
        endpoints.delete("tenant", named)
