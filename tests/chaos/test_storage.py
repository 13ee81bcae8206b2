"""The object store dies, freezes and loses its answers; outputs are there in the end."""

import time
from collections.abc import Callable

import pytest

from shared.job import JobStatus
from tests.chaos.system import LONG, SLACK_S, STEP_S, WORKERS, System


def lose_an_answer(system: System) -> None:
    """The object is written; the worker that asked for it is not told."""
    for worker in WORKERS:
        system.links[worker].s3.lose_replies(1)


def refuse(system: System) -> None:
    for worker in WORKERS:
        system.links[worker].s3.refuse()


def freeze(system: System) -> None:
    system.freeze_server(system.servers.seaweedfs)


def kill(system: System) -> None:
    system.kill_server(system.servers.seaweedfs)


@pytest.mark.parametrize(
    "fault",
    [
        lose_an_answer,
        freeze,
        pytest.param(refuse, marks=pytest.mark.slow),
        pytest.param(kill, marks=pytest.mark.slow),
    ],
)
def test_a_finished_job_waits_for_the_store(
    system: System, fault: Callable[[System], None]
) -> None:
    job_id = system.submit(steps=LONG)
    system.wait_for_progress(job_id)
    fault(system)
    # Its last step is done by then, and it cannot end.
    time.sleep(LONG * STEP_S + SLACK_S)
    if fault is not lose_an_answer:
        assert system.status(job_id) is JobStatus.RUNNING
    system.heal()
    (job,) = system.wait([job_id])
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
