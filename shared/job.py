"""The durable unit of work and the states it goes through."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.access import NO_LIMITS, KeyLimits
from shared.errors import ErrorCode
from shared.request import GenerationRequest
from shared.webhook import Webhook

#: A level of priority is worth so much age, in seconds: a job that has waited longer than another
#: by this much for each level between them goes first.
AGEING_S = 300
#: A crash costs every job of the process an attempt, the guilty one and its neighbours. After so
#: many lost leases a job is suspected, and runs alone in its worker.
SUSPECTED_AFTER = 2
#: A job that was alone so often when its worker was lost is what kills the workers: it fails.
MAX_LOST_ALONE = 3
#: And so does one that lost this many leases in whatever company. Attempts that a worker handed
#: back while shutting down never count.
MAX_LOST_LEASES = 8
#: So often may the store be away for too long before a job fails for it.
MAX_UNSTORED = 5


class JobStatus(StrEnum):
    """Where a job stands. A wish to change it (a cancel request) is a column, not a state."""

    #: Accepted; waits for a worker. The dispatcher or a claim moves it on.
    QUEUED = "queued"
    #: Claimed under a lease. The worker ends it; the rescuer takes it back when the lease runs out.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job can never change again."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED}
    ),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
}


class AttemptOutcome(StrEnum):
    """How one run of a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    #: The lease ran out: the worker died, froze or lost the database.
    LOST = "lost"
    #: The worker handed the job back while shutting down; not counted against the job.
    RELEASED = "released"
    #: The store was away for too long: what the job starts from or what it made could not be moved.
    UNSTORED = "unstored"


@dataclass(frozen=True, slots=True)
class PresetRef:
    """The preset that a request was resolved from."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The batch that a job came with, and its place there."""

    id: str
    index: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored output; `key` is its place in the bucket, never shown to clients."""

    index: int
    key: str
    content_type: str
    #: Of pictures; None for sounds, as the duration and the rate are for pictures.
    width: int | None
    height: int | None
    seed: int
    sha256: str
    num_bytes: int
    duration_s: float | None = None
    #: In samples a second.
    sample_rate: int | None = None
    #: A small picture of it, which may be itself; None for outputs from before there were any.
    thumbnail_key: str | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be accepted."""

    id: str
    tenant: str
    queue: str
    request: GenerationRequest
    preset: PresetRef
    metadata: Mapping[str, str]
    #: Seconds of a device that it takes; None if nothing is known.
    predicted_s: float | None = None
    #: Client's Idempotency-Key and the hash of the body that came with it.
    idempotency_key: str | None = None
    body_sha256: str | None = None
    webhook: Webhook | None = None
    #: The job that this one is another try of.
    retry_of: str | None = None
    #: None for one that came alone.
    batch: BatchPlace | None = None
    #: The API key that it comes with, and what that key may take.
    key_id: str | None = None
    limits: KeyLimits = NO_LIMITS
    #: What spans of it continue; None where nobody traces.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class JobStamp:
    """What tells one moment of a job from another, the time that goes by left aside."""

    status: JobStatus
    attempt: int
    iteration: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row stands."""

    id: str
    tenant: str
    status: JobStatus
    request: GenerationRequest
    preset: PresetRef
    metadata: Mapping[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    cancel_requested: bool
    attempt: int
    #: Forwards done, of `request.iterations`.
    iteration: int
    #: Seconds of a device that it takes, as was known when it came.
    predicted_s: float | None
    #: Jobs of the same queue that stand before it; None unless it is queued and may be picked.
    queue_position: int | None
    #: Seconds until these and what runs are done; None too if that cannot be known.
    queue_eta_s: float | None
    #: Why no worker can serve it now; None if one can, or where the position is left out.
    unschedulable: str | None
    error_code: ErrorCode | None
    error_message: str | None
    #: What the finished run says of itself, in the shape of the wire.
    execution: Mapping[str, Any] | None
    artifacts: tuple[Artifact, ...] = ()
    webhook: Webhook | None = None
    #: The job that this one is another try of.
    retry_of: str | None = None
    #: None for one that came alone.
    batch: BatchPlace | None = None
    #: The iteration that the attempt went on from; None if it began at the beginning.
    resumed_at: int | None = None

    @property
    def stamp(self) -> JobStamp:
        """This moment of the job."""
        return JobStamp(self.status, self.attempt, self.iteration)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job."""

    attempt: int
    worker: str
    started_at: datetime
    #: None while it runs, as is the outcome.
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    #: Nothing else ran in the worker.
    is_alone: bool
    #: Forwards done when it ended, as far as the worker told.
    iteration: int | None
    #: How many of them another attempt had done; None if it began at the beginning.
    resumed_at: int | None
    #: Why the worker's process ended, where somebody knew.
    exit_reason: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's time-limited right to run one attempt of a job."""

    job_id: str
    attempt: int
    #: Fences every write of this attempt: a row that no longer carries it ignores them.
    token: UUID


@dataclass(frozen=True, slots=True)
class Claim:
    """A job claimed by a worker."""

    lease: Lease
    tenant: str
    request: GenerationRequest
    deadline_at: datetime
    #: It may be what kills workers, and shall run alone.
    is_suspected: bool
    #: For how long it could have run before, in seconds.
    waited_s: float = 0.0
    #: What spans of it continue; None where nobody traced its submission.
    traceparent: str | None = None
    #: If this attempt is lost as well, the job fails.
    is_last_try: bool = False


@dataclass(frozen=True, slots=True)
class Success:
    """What a finished attempt leaves behind."""

    artifacts: tuple[Artifact, ...]
    iterations: int
    execution: Mapping[str, Any]
    #: The iteration that it went on from; None if it began at the beginning.
    resumed_at: int | None = None


def status_after_lost_lease(
    *, lost_leases: int, lost_alone: int, cancel_requested: bool
) -> JobStatus:
    """Decide where a job goes whose worker stopped answering, this loss counted in."""
    if cancel_requested:
        return JobStatus.CANCELED
    if lost_alone >= MAX_LOST_ALONE or lost_leases >= MAX_LOST_LEASES:
        return JobStatus.FAILED
    return JobStatus.QUEUED
