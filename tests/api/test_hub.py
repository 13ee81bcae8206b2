import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from api.hub import JobHub, Watch
from api.problems import RequestRefused
from shared.db.changes import CHANNEL, ChangeListener
from shared.db.jobs import JobRepository
from shared.db.leases import Beat, LeaseRepository
from shared.errors import ServiceUnavailable
from shared.job import NewJob
from tests.fixtures.stack import wait_until

MakeJob = Callable[..., NewJob]
QUIET_S = 0.05


async def is_woken(watch: Watch, *, within_s: float = 5.0) -> bool:
    started = time.monotonic()
    await watch.wait(within_s)
    return time.monotonic() - started < within_s


def on_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_watch_is_woken_by_its_jobs_only_and_once_for_many_notices() -> None:
    hub = JobHub()

    async def steps() -> None:
        with hub.watch("key") as watch:
            hub.wake("a")
            assert not await is_woken(watch, within_s=QUIET_S)
            watch.follow("a")
            watch.follow("b")
            for job_id in ("a", "b", "a"):
                on_a_thread(lambda: hub.wake(job_id))  # noqa: B023
            assert await is_woken(watch)
            assert not await is_woken(watch, within_s=QUIET_S)
            hub.wake("c")
            assert not await is_woken(watch, within_s=QUIET_S)
            hub.wake_all()
            assert await is_woken(watch)
        assert hub.num_watches == 0
        hub.wake("a")

    asyncio.run(steps())


def test_a_notice_between_a_look_and_the_wait_is_not_lost() -> None:
    hub = JobHub()

    async def steps() -> None:
        with hub.watch("key") as watch:
            watch.follow("a")
            on_a_thread(lambda: hub.wake("a"))
            await asyncio.sleep(0)
            assert await is_woken(watch)

    asyncio.run(steps())


def test_nobody_waits_once_the_process_stops() -> None:
    hub = JobHub()

    async def steps() -> None:
        with hub.watch("key") as watch:
            on_a_thread(hub.close)
            assert await is_woken(watch)
            assert watch.is_over
            assert await is_woken(watch)
        with hub.watch("key") as late:
            assert late.is_over
            assert await is_woken(late)

    asyncio.run(steps())


def test_a_key_and_the_process_have_limits_that_come_free_again() -> None:
    hub = JobHub(max_watches_per_key=2, max_watches=3)

    async def steps() -> None:
        with hub.watch("a"), hub.watch("a"):
            with pytest.raises(RequestRefused, match="up to 2 requests"), hub.watch("a"):
                pass
            with hub.watch("b"), pytest.raises(ServiceUnavailable), hub.watch("c"):
                pass
        with hub.watch("a"), hub.watch("a"), hub.watch("b"):
            assert hub.num_watches == 3

    asyncio.run(steps())


class Ears:
    """What a listener heard."""

    def __init__(self, database: sa.Engine) -> None:
        self.changes: list[str] = []
        self.gaps = 0
        self.listener = ChangeListener(database, self.changes.append, self._note_gap)

    def _note_gap(self) -> None:
        self.gaps += 1

    def heard(self, job_id: str) -> bool:
        """Whether a notice came since the last time."""
        if job_id not in self.changes:
            return False
        self.changes.clear()
        return True


@pytest.fixture
def ears(database: sa.Engine) -> Iterator[Ears]:
    ears = Ears(database)
    ears.listener.start()
    wait_until(lambda: ears.gaps)
    yield ears
    ears.listener.stop()


def test_every_change_that_shows_is_heard_and_nothing_else(
    ears: Ears, database: sa.Engine, make_job: MakeJob
) -> None:
    jobs, leases = JobRepository(database), LeaseRepository(database, lease_s=60)
    job, _ = jobs.insert(make_job(prompt="a secret"))
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET dispatched_at = now(), status = status"))
    claimed = leases.claim(job.id, worker="w")
    assert claimed is not None
    wait_until(lambda: ears.changes)
    # Neither the insert nor the message to the workers was told of.
    assert ears.changes == [job.id]
    ears.changes.clear()
    token = claimed.lease.token
    leases.beat([Beat(token, 1)])
    wait_until(lambda: ears.heard(job.id))
    leases.beat([Beat(token, 1)])
    jobs.request_cancel("tenant", job.id)
    wait_until(lambda: ears.changes)
    assert ears.changes == [job.id]
    ears.changes.clear()
    leases.cancel(claimed.lease)
    wait_until(lambda: ears.heard(job.id))


def test_a_lost_connection_is_made_again_and_told_of(
    ears: Ears, database: sa.Engine, make_job: MakeJob
) -> None:
    end = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = :query"
    )
    with database.connect() as connection:
        assert connection.scalar(end, {"query": f"LISTEN {CHANNEL}"}) == 1
    wait_until(lambda: ears.gaps == 2, timeout_s=10)
    job, _ = JobRepository(database).insert(make_job())
    JobRepository(database).request_cancel("tenant", job.id)
    wait_until(lambda: ears.heard(job.id))


def test_listening_takes_no_connection_of_the_pool(ears: Ears, database: sa.Engine) -> None:
    pool = database.pool
    assert isinstance(pool, sa.QueuePool)
    assert ears.gaps == 1
    assert pool.checkedout() == 0
