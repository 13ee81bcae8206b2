"""The database notes by itself what is to be told of a job."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.webhooks import WebhookSecretRepository
from shared.job import JobStatus, NewJob
from shared.webhook import EventType, Webhook
from tests.shared.db.test_transitions import MOVES, RESULT, Life

NewJobs = Callable[..., NewJob]
URL = "https://hooks.example.com/"
ALL = Webhook(URL, tuple(EventType))


def events(database: sa.Engine) -> Counter[str]:
    with database.connect() as connection:
        return Counter(connection.scalars(sa.text("SELECT type FROM events")))


def deliveries(database: sa.Engine) -> list[tuple[str, str]]:
    query = sa.text("SELECT status, host FROM deliveries")
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=st.lists(st.sampled_from(MOVES), max_size=12))
def test_whatever_happens_every_end_and_the_first_start_are_events_once(
    database: sa.Engine, make_job: NewJobs, moves: list[Callable[[Life], None]]
) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM events"))
    life = Life(database, make_job(webhook=ALL))
    for move in moves:
        move(life)
    reached = {to for _, to, _ in life.history()}
    expected = {"job.started"} & {f"job.{'started' if s == 'running' else s}" for s in reached}
    if life.status().is_terminal:
        expected.add(f"job.{life.status()}")
    assert events(database) == Counter(expected)
    assert len(deliveries(database)) == len(expected)


def test_only_what_was_asked_for_is_told(database: sa.Engine, make_job: NewJobs) -> None:
    jobs = JobRepository(database)
    silent, _ = jobs.insert(make_job())
    told, _ = jobs.insert(make_job(webhook=Webhook(URL, (EventType.CANCELED,))))
    other, _ = jobs.insert(make_job(webhook=Webhook(URL, (EventType.SUCCEEDED,))))
    for job in (silent, told, other):
        jobs.request_cancel("tenant", job.id)
    assert events(database) == {"job.canceled": 1}
    assert deliveries(database) == [("pending", "hooks.example.com:443")]


@pytest.mark.parametrize("_", range(5))
def test_finish_against_cancel_has_one_event(
    database: sa.Engine, make_job: NewJobs, _: int
) -> None:
    jobs, leases = JobRepository(database), LeaseRepository(database, lease_s=60)
    job, _replay = jobs.insert(make_job(webhook=Webhook(URL)))
    claim = leases.claim(job.id, worker="w")
    assert claim is not None
    barrier = threading.Barrier(3)
    ends: tuple[Callable[[], object], ...] = (
        lambda: leases.succeed(claim.lease, RESULT),
        lambda: leases.cancel(claim.lease),
        lambda: jobs.request_cancel("tenant", job.id),
    )

    def run(end: Callable[[], object]) -> None:
        barrier.wait()
        end()

    threads = [threading.Thread(target=run, args=(end,)) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = jobs.get("tenant", job.id).status
    assert status in (JobStatus.SUCCEEDED, JobStatus.CANCELED)
    assert events(database) == {f"job.{status}": 1}


def test_what_is_rolled_back_is_not_told(database: sa.Engine, make_job: NewJobs) -> None:
    job, _ = JobRepository(database).insert(make_job(webhook=Webhook(URL)))
    with database.connect() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET status = 'canceled' WHERE id = :id"), {"id": job.id}
        )
        connection.rollback()
    assert not events(database)


def test_a_disabled_receiver_gets_dead_deliveries(database: sa.Engine, make_job: NewJobs) -> None:
    jobs = JobRepository(database)
    job, _ = jobs.insert(make_job(webhook=Webhook(URL)))
    with database.begin() as connection:
        disable = "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'gone'"
        connection.execute(sa.text(disable))
    jobs.request_cancel("tenant", job.id)
    assert deliveries(database) == [("dead", "hooks.example.com:443")]


def test_tenants_share_no_receiver(database: sa.Engine, make_job: NewJobs) -> None:
    jobs = JobRepository(database)
    for tenant in ("a", "b", "a"):
        jobs.insert(make_job(tenant=tenant, webhook=Webhook(URL)))
    with database.connect() as connection:
        query = sa.text("SELECT tenant FROM webhook_endpoints ORDER BY tenant")
        assert list(connection.scalars(query)) == ["a", "b"]


def test_a_tenant_has_one_secret_whoever_asks_first(database: sa.Engine) -> None:
    secrets = WebhookSecretRepository(database)
    assert secrets.ensure("a", "whsec_YQ==") == "whsec_YQ=="
    assert secrets.ensure("a") == secrets.ensure("a", "whsec_Yg==") == "whsec_YQ=="
    assert secrets.ensure("b") != secrets.ensure("a")
    assert secrets.ensure("b") == secrets.ensure("b")


def test_a_tenant_without_a_secret_gets_one_by_rotation(database: sa.Engine) -> None:
    secrets = WebhookSecretRepository(database)
    secret = secrets.rotate("a")
    assert secrets.in_use("a") == [secret]
    other = secrets.rotate("a")
    assert secrets.in_use("a") == [other, secret]
    assert secrets.ensure("a") == other
