"""A cancel request against everything else that may end the same job at the same time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from shared.db.jobs import CancelOutcome, JobRepository
from shared.db.leases import LeaseRepository
from shared.errors import ErrorCode
from shared.job import Artifact, JobStatus, Lease, NewJob, Success

ROUNDS = 8
PICTURE = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)

ENDS: dict[str, Callable[[LeaseRepository, Lease], bool]] = {
    "succeed": lambda leases, lease: leases.succeed(lease, Success((PICTURE,), 4, {})),
    "fail": lambda leases, lease: leases.fail(lease, ErrorCode.INTERNAL, "broken"),
    "cancel": lambda leases, lease: leases.cancel(lease),
    "release": lambda leases, lease: leases.release(lease),
    "put_off": lambda leases, lease: leases.put_off(lease, "away"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_cancel_and_an_end_at_once_have_one_winner(
    database: sa.Engine, make_job: Callable[..., NewJob], how: str
) -> None:
    jobs, leases = JobRepository(database), LeaseRepository(database, lease_s=60)
    ended_by = {"succeed": JobStatus.SUCCEEDED, "fail": JobStatus.FAILED}
    with ThreadPoolExecutor(3) as pool:
        for _ in range(ROUNDS):
            job, _ = jobs.insert(make_job())
            claim = leases.claim(job.id, worker="w")
            assert claim is not None
            start = threading.Barrier(3)

            def cancel(job_id: str = job.id, start: threading.Barrier = start) -> CancelOutcome:
                start.wait()
                return jobs.request_cancel("tenant", job_id)[1]

            def end(lease: Lease = claim.lease, start: threading.Barrier = start) -> bool:
                start.wait()
                return ENDS[how](leases, lease)

            cancels, ending = [pool.submit(cancel) for _ in range(2)], pool.submit(end)
            told = {future.result() for future in cancels}
            assert ending.result()  # a cancel request takes no lease away
            status = jobs.get("tenant", job.id).status
            assert status is ended_by.get(how, JobStatus.CANCELED)
            # Nobody is told that the job is canceled while it is not.
            assert (CancelOutcome.CANCELED in told) <= (status is JobStatus.CANCELED)
            assert (CancelOutcome.FINISHED in told) <= (status in ended_by.values())
            query = sa.text(
                "SELECT count(*) FROM transitions WHERE job_id = :id "
                "AND to_status IN ('succeeded', 'failed', 'canceled')"
            )
            with database.connect() as connection:
                assert connection.scalar(query, {"id": job.id}) == 1
