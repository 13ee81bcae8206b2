"""How many jobs of a tenant are under way at once, whoever picks."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from shared.db.dispatch import MIN_WINDOW, DispatchRepository
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.session import make_engine
from shared.db.tenants import TenantRepository
from shared.errors import ErrorCode
from shared.job import NewJob

NewJobs = Callable[..., NewJob]
QUEUES = ("demo.interactive", "demo.batch")


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def dispatch(database: sa.Engine) -> DispatchRepository:
    return DispatchRepository(database)


@pytest.fixture
def tenants(database: sa.Engine) -> TenantRepository:
    return TenantRepository(database)


def test_no_more_than_the_limit_is_announced_or_running(
    jobs: JobRepository,
    dispatch: DispatchRepository,
    tenants: TenantRepository,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    tenants.limit("a", max_running=2)
    for queue in QUEUES:
        for _ in range(3):
            jobs.insert(make_job(tenant="a", queue=queue))
    first, second = dispatch.pick(QUEUES[0])
    assert dispatch.pick(QUEUES[1]) == []
    leases = LeaseRepository(database, lease_s=60)
    claim = leases.claim(first.job_id, worker="w")
    assert claim is not None
    assert dispatch.pick(QUEUES[1]) == []
    assert leases.fail(claim.lease, ErrorCode.INTERNAL, "message")
    assert len(dispatch.pick(QUEUES[1])) == 1
    jobs.request_cancel("a", second.job_id)
    tenants.limit("a", max_running=1)
    assert dispatch.pick(QUEUES[1]) == []
    tenants.limit("a", max_running=None)
    assert len([*dispatch.pick(QUEUES[0]), *dispatch.pick(QUEUES[1])]) == 3


def test_a_tenant_at_its_limit_holds_nobody_else_up(
    jobs: JobRepository, dispatch: DispatchRepository, tenants: TenantRepository, make_job: NewJobs
) -> None:
    tenants.limit("a", max_running=1)
    for tenant in "aaaab":
        jobs.insert(make_job(tenant=tenant))
    assert len(dispatch.pick(QUEUES[0])) == 2


def test_an_old_message_does_not_get_round_the_limit(
    jobs: JobRepository,
    dispatch: DispatchRepository,
    tenants: TenantRepository,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    tenants.limit("a", max_running=1)
    handed_back, _ = jobs.insert(make_job(tenant="a"))
    leases = LeaseRepository(database, lease_s=60)
    (announced,) = dispatch.pick(QUEUES[0])
    claim = leases.claim(announced.job_id, worker="w")
    assert claim is not None
    leases.release(claim.lease)
    assert leases.claim(handed_back.id, worker="w") is None
    dispatch.pick(QUEUES[0])
    assert leases.claim(handed_back.id, worker="w") is not None


def test_a_limit_of_none_at_all_is_refused(tenants: TenantRepository) -> None:
    with pytest.raises(ValueError, match="one job at a time"):
        tenants.limit("a", max_running=0)


@pytest.mark.parametrize("seed", range(2))
def test_dispatchers_and_workers_at_once_keep_every_limit(
    jobs: JobRepository,
    tenants: TenantRepository,
    make_job: NewJobs,
    database: sa.Engine,
    database_url: str,
    seed: int,
) -> None:
    limit, num_dispatchers = 3, 4
    tenants.limit("a", max_running=limit)
    for tenant in ("a", "a", "b"):
        for queue in QUEUES:
            for _ in range(12):
                jobs.insert(make_job(tenant=tenant, queue=queue))
    seen: list[tuple[int, int]] = []

    def run(number: int) -> list[str]:
        chance = random.Random(100 * seed + number)
        own = make_engine(database_url, pool_size=1)
        dispatch, leases = DispatchRepository(own), LeaseRepository(own, lease_s=60)
        announced: list[str] = []
        while len(announced) < 12:
            picked = dispatch.pick(chance.choice(QUEUES))
            announced += [announcement.job_id for announcement in picked]
            seen.append(_count_under_way(own))
            if picked or chance.random() < 0.3:
                _run_one(own, leases, chance)
            if not _is_any_left(own):
                break
        own.dispose()
        return announced

    with ThreadPoolExecutor(num_dispatchers) as pool:
        picks = list(pool.map(run, range(num_dispatchers)))
    ids = [job_id for picked in picks for job_id in picked]
    assert len(ids) == len(set(ids))
    assert max(of_limited for of_limited, _ in seen) == limit
    assert max(in_redis for _, in_redis in seen) <= MIN_WINDOW + num_dispatchers


def _run_one(database: sa.Engine, leases: LeaseRepository, chance: random.Random) -> None:
    """Claim and end one of the announced jobs, as a worker would."""
    query = sa.text("SELECT id FROM jobs WHERE dispatched_at IS NOT NULL ORDER BY id")
    with database.connect() as connection:
        announced = list(connection.scalars(query))
    if announced:
        claim = leases.claim(chance.choice(announced), worker="w")
        if claim is not None:
            leases.cancel(claim.lease)


def _count_under_way(database: sa.Engine) -> tuple[int, int]:
    """Count what the limited tenant has under way, and what the fuller queue has in Redis."""
    query = sa.text("""
        SELECT count(*) FILTER (WHERE tenant = 'a'),
               greatest(count(*) FILTER (WHERE queue = 'demo.batch' AND status = 'queued'),
                        count(*) FILTER (WHERE queue = 'demo.interactive' AND status = 'queued'))
          FROM jobs WHERE status = 'running' OR dispatched_at IS NOT NULL
    """)
    with database.connect() as connection:
        of_limited, in_redis = connection.execute(query).one()
    return of_limited, in_redis


def _is_any_left(database: sa.Engine) -> bool:
    query = sa.text("SELECT EXISTS (SELECT FROM jobs WHERE status = 'queued')")
    with database.connect() as connection:
        return bool(connection.scalar(query))
