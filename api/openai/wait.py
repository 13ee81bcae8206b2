"""Make a job and hold its request until it has ended."""

from dataclasses import dataclass
from functools import partial

import structlog
from fastapi.concurrency import run_in_threadpool

from api.cancellation import cancel
from api.holding import Held
from api.idempotency import read_key
from api.intake import accept, prepare
from api.openai.order import Order
from api.problems import RequestRefused, note_job
from api.waiting import wait_for, wait_for_end
from shared.db.session import DATABASE_AWAY
from shared.errors import (
    ErrorCode,
    FieldProblem,
    InvalidRequest,
    LatentqError,
    ServiceUnavailable,
)
from shared.job import Job, JobStamp, JobStatus
from shared.request import GenerationRequest

#: The longest that a request is held, in seconds: OpenAI's SDK gives up after 600.
MAX_WAIT_S = 540.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """The job of a request."""

    job: Job
    #: An Idempotency-Key of another request made it.
    is_replay: bool
    #: It came with an Idempotency-Key: who goes away may come back for it.
    has_key: bool


async def make_job(held: Held, order: Order) -> Made:
    """Store the job of a request, or find the one that its Idempotency-Key made.

    Raises:
        Conflict: The key came with another body.
        InvalidRequest: It cannot be served.
    """
    key = read_key(held.request)
    settle = partial(prepare, held.services, held.caller, order.job, idempotency_key=key)
    try:
        new = await run_in_threadpool(settle)
        _refuse_sounds(new.request)
        made = Made(*await accept(held.services, new), has_key=key is not None)
    except InvalidRequest as refusal:
        raise order.translation.rename(refusal) from refusal
    note_job(held.request, made.job.id)
    return made


async def wait_until_ended(
    held: Held, made: Made, *, wait_s: float, or_preview: bool = False
) -> Job:
    """Return the job as it stands when it has ended, perhaps is to be seen, or time is up.

    If the client goes away before, the job is canceled, unless it has an Idempotency-Key.

    Raises:
        ServiceUnavailable: The service stops, or the client is gone.
    """
    if or_preview:
        watch = held.watch

        def has_come(stamp: JobStamp) -> bool:
            return stamp.status.is_terminal or watch.preview is not None

        waiting = (held.services, watch, held.caller, made.job.id)
        await wait_for(*waiting, wait_s=wait_s, has_come=has_come)
        wait_s = 0
    job = await wait_for_end(held.services, held.watch, held.caller, made.job, wait_s=wait_s)
    if job.status.is_terminal or not held.watch.is_over:
        return job
    if not made.has_key and await held.request.is_disconnected():
        await _give_up(held, job)
    raise ServiceUnavailable("the service stops; the job goes on")


def _refuse_sounds(request: GenerationRequest) -> None:
    """Check that a job makes pictures.

    Raises:
        InvalidRequest: It does not; says which route makes its sounds.
    """
    if request.duration_s is not None:
        detail = f"{request.model} makes sounds, and this route pictures; POST /v1/jobs makes both"
        raise InvalidRequest([FieldProblem("#/model", detail)])


def check_success(job: Job) -> None:
    """Raise what a job ended with, if it is not success.

    Raises:
        InvalidRequest: What it was given cannot be used.
        RequestRefused: It failed, was canceled, or has not ended.
    """
    match job.status:
        case JobStatus.SUCCEEDED:
            return
        case JobStatus.FAILED if job.error_code is ErrorCode.INVALID_INPUT:
            raise RequestRefused(job.error_message or "", code="unusable_input")
        case JobStatus.FAILED:
            raise RequestRefused(f"{job.error_code}: {job.error_message}", code="job_failed")
        case JobStatus.CANCELED:
            raise RequestRefused("the job was canceled", code="job_canceled")
        case _:
            detail = f"the job has not ended within {MAX_WAIT_S:,.0f} s; it goes on"
            raise RequestRefused(detail, code="timeout")


async def _give_up(held: Held, job: Job) -> None:
    try:
        await run_in_threadpool(cancel, held.services, held.caller.tenant, job.id)
    except (LatentqError, *DATABASE_AWAY) as error:
        log.warning("job_not_canceled", job_id=job.id, error=type(error).__name__)
