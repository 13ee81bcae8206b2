from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from api.nudger import Nudger
from cli.standalone.servers import Servers
from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobRepository
from shared.job import NewJob
from shared.queue import JobQueue, WorkerListener
from tests.fixtures.stack import free_port, wait_until

MakeJob = Callable[..., NewJob]


@pytest.fixture
def nudger(database: sa.Engine, servers: Servers) -> Iterator[Nudger]:
    nudger = Nudger(DispatchRepository(database), JobQueue(servers.redis_url))
    nudger.start()
    yield nudger
    nudger.stop()


def is_dispatched(database: sa.Engine) -> bool:
    with database.connect() as connection:
        waiting = connection.scalar(
            sa.text("SELECT count(*) FROM jobs WHERE dispatched_at IS NULL")
        )
    return waiting == 0


def test_a_nudge_announces_what_waits(
    nudger: Nudger, database: sa.Engine, make_job: MakeJob
) -> None:
    JobRepository(database).insert(make_job(queue="nowhere.interactive"))
    nudger.nudge()
    wait_until(lambda: is_dispatched(database))


def test_a_cancel_request_reaches_those_who_listen(nudger: Nudger, servers: Servers) -> None:
    heard: list[str] = []
    listener = WorkerListener(servers.redis_url, on_cancel=heard.append, on_watch=print)
    listener.start()

    def is_heard() -> bool:
        # Nobody is told what was said before he listened.
        nudger.notify_cancel("job_1")
        return "job_1" in heard

    wait_until(is_heard)
    listener.stop()


def test_a_redis_that_is_away_stops_neither_calls_nor_thread(
    database: sa.Engine, make_job: MakeJob
) -> None:
    JobRepository(database).insert(make_job(queue="nowhere.interactive"))
    nudger = Nudger(DispatchRepository(database), JobQueue(f"redis://127.0.0.1:{free_port()}/0"))
    nudger.start()
    for number in range(1200):
        nudger.notify_cancel(f"job_{number}")
    nudger.nudge()
    nudger.stop()
    assert not is_dispatched(database)
