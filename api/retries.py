"""Routes around a job that did not go well: what was tried, and another try."""

import hashlib

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.idempotency import WITH_KEY, read_key
from api.ids import check_id
from api.intake import accept, check_allowed
from api.jobs import say_when_to_ask_again
from api.openapi import refusals
from api.services import ServicesOf
from shared.access import Scope
from shared.errors import Conflict
from shared.job import Job, JobStatus, NewJob
from shared.job_body import AttemptBody, JobBody, path_of
from shared.queue import queue_of

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=JsonRoute)


class AttemptList(BaseModel):
    """Runs of a job, the first one first."""

    data: list[AttemptBody]


@router.get("/attempts", dependencies=[Depends(Requires(Scope.JOBS_READ))], responses=refusals(404))
def list_attempts(
    job_id: str, response: Response, caller: Caller, services: ServicesOf
) -> AttemptList:
    """Read every run of a job: where, from when to when, how far it came and how it ended."""
    job = services.jobs.get(caller.tenant, check_id(job_id))
    forbid_caching(response)
    return AttemptList(
        data=[
            AttemptBody(
                attempt=attempt.attempt,
                worker=attempt.worker,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                outcome=attempt.outcome,
                alone=attempt.is_alone,
                iteration=attempt.iteration,
                iterations=job.request.iterations,
                exit_reason=attempt.exit_reason,
            )
            for attempt in services.jobs.attempts(caller.tenant, job.id)
        ]
    )


@router.post(
    "/retry",
    status_code=202,
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
    responses=refusals(400, 404, 409, 422),
    openapi_extra=WITH_KEY,
)
async def retry_job(
    job_id: str, request: Request, response: Response, caller: Caller, services: ServicesOf
) -> JobBody:
    """Run a failed or canceled job again, as a new job with the same resolved request.

    With an Idempotency-Key, the same call again answers the same new job.
    """
    key = read_key(request)
    old = await run_in_threadpool(services.jobs.get, caller.tenant, check_id(job_id))
    _check_retryable(old)
    spec = services.resolver.find_model(old.request.model)
    check_allowed(caller, old.request)
    new = NewJob(
        id=services.new_job_id(),
        tenant=caller.tenant,
        queue=queue_of(spec.id, old.request.service_class),
        request=old.request,
        preset=old.preset,
        metadata=old.metadata,
        webhook=old.webhook,
        predicted_s=services.estimator.predict_s(old.request),
        idempotency_key=key,
        body_sha256=None if key is None else _fingerprint(old.id),
        retry_of=old.id,
        key_id=caller.key_id,
        limits=caller.limits,
    )
    job, is_replay = await accept(services, new)
    if is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = path_of(job.id)
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


def _check_retryable(job: Job) -> None:
    if not job.status.is_terminal:
        raise Conflict(
            f"the job is {job.status}; it can be retried once it has failed or was canceled",
            code="job_not_finished",
        )
    if job.status is JobStatus.SUCCEEDED:
        raise Conflict(
            "the job has succeeded; submit its request again, with another seed for other pictures",
            code="job_already_finished",
        )


def _fingerprint(job_id: str) -> str:
    """Hash what a retry asks for, in place of a body: no submission hashes to the same."""
    return hashlib.sha256(f"retry {job_id}".encode()).hexdigest()
