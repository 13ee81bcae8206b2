"""Whatever two workers, a rescuer, an owner and the clock do to jobs, the promises hold."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from shared.db.dispatch import DispatchRepository
from shared.db.jobs import CancelOutcome, JobRepository
from shared.db.leases import Beat, LeaseRepository
from shared.db.rescue import RescueRepository
from shared.errors import ErrorCode
from shared.job import (
    SUSPECTED_AFTER,
    Artifact,
    JobStatus,
    Lease,
    NewJob,
    Success,
    status_after_lost_lease,
)
from tests.chaos.evidence import read_history
from tests.chaos.history import StoredFile, check

QUEUE = "demo.interactive"
FILE = StoredFile(sha256="ab" * 32, num_bytes=100, seed=7)
WORKERS = st.sampled_from(["worker-1", "worker-2"])


@dataclass
class Expected:
    """A job as it should be."""

    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    lost_leases: int = 0
    lost_alone: int = 0
    #: The lease that holds it, and whose it is.
    lease: Lease | None = None
    worker: str = ""
    is_alone: bool = False
    is_cancel_requested: bool = False
    #: Its lease has run out, or its time; nobody has noticed yet.
    is_expired: bool = False
    is_late: bool = False

    def leave(self, status: JobStatus) -> None:
        self.status, self.lease, self.worker = status, None, ""
        self.is_expired = self.is_alone = False


class Lifecycle(RuleBasedStateMachine):
    """Jobs in a real database beside what they should be."""

    database: sa.Engine
    make_job: Callable[..., NewJob]

    ids = Bundle("ids")
    #: Every lease that was ever handed out: workers wake up late.
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self._jobs = JobRepository(self.database)
        self._leases = LeaseRepository(self.database, lease_s=60)
        self._rescue = RescueRepository(self.database)
        self._dispatch = DispatchRepository(self.database)
        self._expected: dict[str, Expected] = {}

    def teardown(self) -> None:
        self._execute("DELETE FROM jobs")

    @rule(target=ids)
    def submit(self) -> str:
        job, _ = self._jobs.insert(self.make_job())
        self._expected[job.id] = Expected()
        return job.id

    @rule()
    def announce(self) -> None:
        self._dispatch.pick(QUEUE)

    @rule(target=leases, job_id=ids, worker=WORKERS)
    def claim(self, job_id: str, worker: str) -> Any:
        expected = self._expected[job_id]
        claim = self._leases.claim(job_id, worker=worker)
        can_be_claimed = expected.status is JobStatus.QUEUED and not expected.is_late
        assert (claim is not None) == can_be_claimed
        if claim is None:
            return multiple()
        expected.status, expected.worker = JobStatus.RUNNING, worker
        expected.attempt += 1
        expected.lease = claim.lease
        assert claim.lease.attempt == expected.attempt
        assert claim.is_suspected == (expected.lost_leases >= SUSPECTED_AFTER)
        return claim.lease

    @rule(lease=leases)
    def begin_alone(self, lease: Lease) -> None:
        is_held = self._is_held(lease)
        assert self._leases.begin_alone(lease) == is_held
        self._expected[lease.job_id].is_alone |= is_held

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        held = [e for e in self._expected.values() if e.worker == worker and e.lease is not None]
        tokens = {e.lease.token for e in held if e.lease is not None}
        answer = self._leases.beat([Beat(token, 1) for token in {*tokens, uuid4()}])
        assert answer.held == tokens
        canceled = {e.lease.token for e in held if e.is_cancel_requested and e.lease is not None}
        assert answer.cancel_requested == canceled
        for expected in held:
            expected.is_expired = False

    @rule(lease=leases)
    def succeed(self, lease: Lease) -> None:
        key = f"results/{lease.job_id}/{lease.attempt}-{lease.token}/0.png"
        artifact = Artifact(0, key, "image/png", 64, 64, FILE.seed, FILE.sha256, FILE.num_bytes)
        done = self._leases.succeed(lease, Success((artifact,), iterations=4, execution={}))
        self._end(lease, JobStatus.SUCCEEDED, done)

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        done = self._leases.fail(lease, ErrorCode.INTERNAL, "broken")
        self._end(lease, JobStatus.FAILED, done)

    @rule(lease=leases)
    def stop(self, lease: Lease) -> None:
        self._end(lease, JobStatus.CANCELED, self._leases.cancel(lease))

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        is_canceled = self._expected[lease.job_id].is_cancel_requested
        status = JobStatus.CANCELED if is_canceled else JobStatus.QUEUED
        self._end(lease, status, self._leases.release(lease))

    @rule(job_id=ids)
    def request_cancel(self, job_id: str) -> None:
        expected = self._expected[job_id]
        _, outcome = self._jobs.request_cancel("tenant", job_id)
        if expected.status is JobStatus.QUEUED:
            expected.leave(JobStatus.CANCELED)
        expected.is_cancel_requested |= expected.status is JobStatus.RUNNING
        assert outcome is {
            JobStatus.CANCELED: CancelOutcome.CANCELED,
            JobStatus.RUNNING: CancelOutcome.REQUESTED,
        }.get(expected.status, CancelOutcome.FINISHED)

    @rule(job_id=ids)
    def let_lease_run_out(self, job_id: str) -> None:
        self._execute(
            "UPDATE jobs SET lease_until = now() - interval '1 s' "
            "WHERE id = :id AND status = 'running'",
            id=job_id,
        )
        self._expected[job_id].is_expired |= self._expected[job_id].lease is not None

    @rule()
    def rescue(self) -> None:
        moved = {}
        for job_id, expected in self._expected.items():
            if expected.status is JobStatus.RUNNING and expected.is_expired:
                expected.lost_leases += 1
                expected.lost_alone += expected.is_alone
                moved[job_id] = status_after_lost_lease(
                    lost_leases=expected.lost_leases,
                    lost_alone=expected.lost_alone,
                    cancel_requested=expected.is_cancel_requested,
                )
                expected.leave(moved[job_id])
        assert self._rescue.take_back_expired_leases() == moved

    @rule(job_id=ids)
    def let_time_run_out(self, job_id: str) -> None:
        self._execute("UPDATE jobs SET deadline_at = now() WHERE id = :id "
                      "AND status IN ('queued', 'running')", id=job_id)  # fmt: skip
        self._expected[job_id].is_late |= not self._expected[job_id].status.is_terminal

    @rule()
    def sweep(self) -> None:
        late = [
            job_id
            for job_id, expected in self._expected.items()
            if expected.is_late and not expected.status.is_terminal
        ]
        assert sorted(self._rescue.fail_past_deadline()) == sorted(late)
        for job_id in late:
            self._expected[job_id].leave(JobStatus.FAILED)

    @invariant()
    def every_promise_is_kept(self) -> None:
        history = read_history(self.database, lambda _: FILE, self._expected)
        for job_id, expected in self._expected.items():
            job = history.jobs[job_id]
            assert (job.status, len(job.attempts)) == (expected.status, expected.attempt)
            assert (job.lost_leases, job.lost_alone) == (expected.lost_leases, expected.lost_alone)
        ended = {id_ for id_, expected in self._expected.items() if expected.status.is_terminal}
        found = check(history, slack=timedelta(hours=1))  # how late the sweep comes is drawn
        # What has not ended has no end yet.
        assert [v for v in found if v.invariant != "I2" or v.subject in ended] == []

    def _is_held(self, lease: Lease) -> bool:
        held = self._expected[lease.job_id].lease
        return held is not None and held.token == lease.token

    def _end(self, lease: Lease, status: JobStatus, done: bool) -> None:
        """Expect an attempt to have ended if its lease was still held."""
        assert done == self._is_held(lease)
        if done:
            self._expected[lease.job_id].leave(status)

    def _execute(self, statement: str, **parameters: object) -> None:
        with self.database.begin() as connection:
            connection.execute(sa.text(statement), parameters)


def test_the_promises_hold_whatever_happens_in_whatever_order(
    database: sa.Engine, make_job: Callable[..., NewJob]
) -> None:
    class Machine(Lifecycle):
        pass

    Machine.database, Machine.make_job = database, staticmethod(make_job)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            deadline=None,
            max_examples=25,
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
