from collections.abc import Callable

import pytest
import redis
import sqlalchemy as sa

from cli.standalone.servers import Servers
from dispatcher.main import Dispatcher
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.job import JobStatus, NewJob
from shared.queue import JobQueue

QUEUE = "demo.interactive"
REDISPATCH_S = 5.0

NewJobs = Callable[..., NewJob]


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def queue(servers: Servers) -> JobQueue:
    client = redis.Redis.from_url(servers.redis_url)
    client.flushall()
    client.close()
    return JobQueue(servers.redis_url)


@pytest.fixture
def dispatcher(database: sa.Engine, queue: JobQueue) -> Dispatcher:
    return Dispatcher(database, queue, redispatch_s=REDISPATCH_S)


def age(database: sa.Engine, column: str, seconds: float) -> None:
    with database.begin() as connection:
        connection.execute(
            sa.text(f"UPDATE jobs SET {column} = {column} - :age * interval '1 second'"),
            {"age": seconds},
        )


def test_a_waiting_job_is_announced_once(
    jobs: JobRepository, dispatcher: Dispatcher, queue: JobQueue, make_job: NewJobs
) -> None:
    jobs.insert(make_job())
    dispatcher.run_once()
    dispatcher.run_once()
    assert queue.length(QUEUE) == 1


def test_a_lost_message_is_sent_again_when_it_is_old(
    jobs: JobRepository,
    dispatcher: Dispatcher,
    queue: JobQueue,
    make_job: NewJobs,
    database: sa.Engine,
    servers: Servers,
) -> None:
    jobs.insert(make_job())
    dispatcher.run_once()
    redis.Redis.from_url(servers.redis_url).delete(QUEUE)
    dispatcher.run_once()
    assert queue.length(QUEUE) == 0
    age(database, "dispatched_at", REDISPATCH_S + 1)
    dispatcher.run_once()
    assert queue.length(QUEUE) == 1


def test_all_messages_of_a_redis_that_was_emptied_are_sent_again_at_once(
    jobs: JobRepository,
    dispatcher: Dispatcher,
    queue: JobQueue,
    make_job: NewJobs,
    database: sa.Engine,
    servers: Servers,
) -> None:
    for _ in range(3):
        jobs.insert(make_job())
    dispatcher.run_once()
    redis.Redis.from_url(servers.redis_url).flushall()
    other = Dispatcher(database, queue, redispatch_s=REDISPATCH_S)
    for either in (dispatcher, other, dispatcher):
        either.run_once()
    assert queue.length(QUEUE) == 3


def test_a_message_that_only_waits_is_not_sent_again(
    jobs: JobRepository,
    dispatcher: Dispatcher,
    queue: JobQueue,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    for _ in range(3):
        jobs.insert(make_job())
    dispatcher.run_once()
    age(database, "dispatched_at", 1000)
    dispatcher.run_once()
    assert queue.length(QUEUE) == 3


def test_a_job_whose_worker_fell_silent_is_announced_anew(
    jobs: JobRepository,
    dispatcher: Dispatcher,
    queue: JobQueue,
    make_job: NewJobs,
    database: sa.Engine,
) -> None:
    job, _ = jobs.insert(make_job())
    assert LeaseRepository(database, lease_s=60).claim(job.id, worker="w") is not None
    dispatcher.run_once()
    assert queue.length(QUEUE) == 0
    age(database, "lease_until", 61)
    dispatcher.run_once()
    assert jobs.get("tenant", job.id).status is JobStatus.QUEUED
    assert queue.length(QUEUE) == 1


def test_the_deadline_ends_a_job_that_nobody_serves(
    jobs: JobRepository, dispatcher: Dispatcher, make_job: NewJobs, database: sa.Engine
) -> None:
    job, _ = jobs.insert(make_job(deadline_s=60))
    dispatcher.run_once()
    age(database, "deadline_at", 61)
    dispatcher.run_once()
    assert jobs.get("tenant", job.id).status is JobStatus.FAILED
