"""Worker processes as the supervisor has them: real signals, real deaths."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cli.standalone.child import Child, ChildSpec
from cli.standalone.servers import Servers
from cli.standalone.supervisor import Supervisor
from shared.db.jobs import JobRepository
from shared.db.rescue import RescueRepository
from shared.job import AttemptOutcome, JobStatus, NewJob
from shared.queue import JobQueue
from tests.fixtures.stack import wait_until

MakeJob = Callable[..., NewJob]
STALL_S = 2
#: From the signal to the end when nothing is worth waiting for; a step takes a few milliseconds.
EXIT_S = 2.0
#: A crowded machine takes its time to load torch.
pytestmark = pytest.mark.timeout(300)
PROMPT = "a canary that nobody may quote"


@dataclass
class Workshop:
    """A database and a queue, and workers for them."""

    jobs: JobRepository
    rescue: RescueRepository
    queue: JobQueue
    supervisor: Supervisor
    log: Path
    environment: dict[str, str]

    def start(self, *command: str) -> Child:
        """Start a worker and wait until it consumes."""
        child = Child(
            ChildSpec(
                name="worker-1",
                command=[sys.executable, "-P", *command],
                environment=self.environment,
                log_path=self.log,
                is_ready=lambda: True,
            )
        )
        self.supervisor.start(child)
        self.wait_until_ready()
        return child

    def wait_until_ready(self, *, starts: int = 1) -> None:
        wait_until(lambda: self.log.read_text().count(" ready.") == starts, timeout_s=100)

    def run(self, new: NewJob) -> str:
        """Submit a job, announce it, and wait until it is in the middle."""
        job, _ = self.jobs.insert(new)
        self.queue.announce(new.queue, job.id, {})
        wait_until(lambda: self.jobs.get("tenant", job.id).iteration)
        return job.id

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log that tell of an event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[0] == "{"]
        return [line for line in lines if line["event"] == name]


@pytest.fixture
def workshop(
    database: sa.Engine, database_url: str, servers: Servers, tmp_path: Path
) -> Iterator[Workshop]:
    supervisor = Supervisor(say=lambda _: None, on_restart=lambda: None)
    workshop = Workshop(
        jobs=JobRepository(database),
        rescue=RescueRepository(database),
        queue=JobQueue(servers.redis_url),
        supervisor=supervisor,
        log=tmp_path / "log",
        environment=os.environ
        | servers.environment()
        | {"LATENTQ_DATABASE_URL": database_url, "LATENTQ_STALL_S": str(STALL_S)},
    )
    yield workshop
    supervisor.stop([([care.child for care in supervisor._cares], 5.0)])


def outcomes(database: sa.Engine) -> list[tuple[str, str | None, str | None]]:
    query = sa.text("SELECT job_id, outcome, exit_reason FROM attempts ORDER BY started_at")
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
    ids=["term", "int"],
)
def test_a_worker_told_to_stop_hands_long_jobs_back_and_leaves_at_once(
    workshop: Workshop, database: sa.Engine, make_job: MakeJob, number: signal.Signals, code: int
) -> None:
    child = workshop.start("-m", "cli.main", "worker")
    assert child.pid is not None
    job_id = workshop.run(make_job(sampler="ddpm", steps=1000, num_outputs=8))
    os.kill(child.pid, number)
    told = time.monotonic()
    wait_until(lambda: not child.is_alive)
    took_s = time.monotonic() - told
    assert child.exit_code == code, workshop.log.read_text()
    assert took_s < EXIT_S + 1  # and what Python needs to take itself down
    assert outcomes(database) == [(job_id, AttemptOutcome.RELEASED, None)]
    assert workshop.jobs.get("tenant", job_id).status is JobStatus.QUEUED
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM workers")) == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("stall", "stalled"), ("lost", "device_lost")],
)
@pytest.mark.slow
def test_a_worker_that_cannot_go_on_ends_itself_and_is_started_again(
    workshop: Workshop,
    database: sa.Engine,
    make_job: MakeJob,
    tmp_path: Path,
    fault: str,
    reason: str,
) -> None:
    flag = tmp_path / "fault"
    child = workshop.start(str(Path(__file__).with_name("wedged.py")), str(flag))
    job_id = workshop.run(make_job(prompt=PROMPT, sampler="ddpm", steps=1000, num_outputs=8))
    flag.write_text(fault)
    wait_until(lambda: not child.is_alive, timeout_s=STALL_S + 10)
    assert child.exit_code == 1
    (said,) = workshop.events("worker_ends_itself")
    assert (said["reason"], said["jobs"]) == (reason, [job_id])
    assert PROMPT not in workshop.log.read_text()
    # Nobody waits for the lease: the process said that it dies.
    assert workshop.rescue.take_back_expired_leases() == {job_id: JobStatus.QUEUED}
    assert outcomes(database) == [(job_id, AttemptOutcome.LOST, reason)]

    flag.unlink()
    workshop.jobs.request_cancel("tenant", job_id)

    def is_back() -> bool:
        workshop.supervisor.look_after()
        return workshop.log.read_text().count(" ready.") == 2

    wait_until(is_back, timeout_s=100)
    other, _ = workshop.jobs.insert(make_job(steps=2))
    workshop.queue.announce("demo.interactive", other.id, {})
    wait_until(lambda: workshop.jobs.get("tenant", other.id).status is JobStatus.SUCCEEDED)


@pytest.mark.slow
def test_who_was_beside_a_wedged_forward_is_drawn_elsewhere_with_the_same_bytes(
    workshop: Workshop, make_job: MakeJob, tmp_path: Path
) -> None:
    flag = tmp_path / "fault"
    child = workshop.start(str(Path(__file__).with_name("wedged.py")), str(flag))

    def reach(job_id: str, status: JobStatus) -> None:
        wait_until(lambda: workshop.jobs.get("tenant", job_id).status is status, timeout_s=100)

    def announce(new: NewJob) -> str:
        job, _ = workshop.jobs.insert(new)
        workshop.queue.announce(new.queue, job.id, {})
        return job.id

    def file_of(job_id: str) -> str:
        reach(job_id, JobStatus.SUCCEEDED)
        return workshop.jobs.get("tenant", job_id).artifacts[0].sha256

    wanted = {"determinism": "exact", "sampler": "ddpm", "steps": 60, "seed": 3}
    unharmed = file_of(announce(make_job(**wanted)))
    guilty = announce(make_job(sampler="ddpm", steps=1000))
    neighbour = announce(make_job(**wanted))
    reach(guilty, JobStatus.RUNNING)
    reach(neighbour, JobStatus.RUNNING)
    flag.write_text("stall")
    wait_until(lambda: not child.is_alive, timeout_s=STALL_S + 30)
    assert set(workshop.rescue.take_back_expired_leases()) == {guilty, neighbour}
    flag.unlink()
    workshop.jobs.request_cancel("tenant", guilty)

    def is_back() -> bool:
        workshop.supervisor.look_after()
        return workshop.log.read_text().count(" ready.") == 2

    wait_until(is_back, timeout_s=100)
    workshop.queue.announce("demo.interactive", neighbour, {})
    assert file_of(neighbour) == unharmed
    assert workshop.jobs.get("tenant", neighbour).attempt == 2
