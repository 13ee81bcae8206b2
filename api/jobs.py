"""Routes of jobs: validate, write a row, read back."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.idempotency import read_key
from api.intake import accept, prepare
from api.listing import Place, cut_page, read_filters, read_place
from api.openapi import refusals
from api.schemas import JobCreate
from api.services import ServicesOf
from shared.access import Scope
from shared.db.jobs import CancelOutcome, JobFilters
from shared.errors import Conflict, NotFound
from shared.job import Job
from shared.job_body import JobBody, path_of

log = structlog.get_logger(__name__)

#: How soon to ask again for a job that has not finished, in seconds.
POLL_AFTER_S = 1

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)


_READ = [Depends(Requires(Scope.JOBS_READ))]
_WRITE = [Depends(Requires(Scope.JOBS_WRITE))]


class JobPage(BaseModel):
    """Jobs, newest first."""

    data: list[JobBody]
    next_cursor: str | None
    has_more: bool


@router.post("", status_code=202, dependencies=_WRITE, responses=refusals(400, 413, 415, 422))
def submit_job(
    body: JobCreate, request: Request, response: Response, caller: Caller, services: ServicesOf
) -> JobBody:
    """Accept a job. With an Idempotency-Key, the same body again answers the same job."""
    new = prepare(services, caller, body, idempotency_key=read_key(request))
    job, is_replay = accept(services, new)
    if is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = path_of(job.id)
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


@router.get("/{job_id}", dependencies=_READ, responses=refusals(404))
def get_job(job_id: str, response: Response, caller: Caller, services: ServicesOf) -> JobBody:
    """Read a job."""
    job = services.jobs.get(caller.tenant, check_id(job_id))
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


@router.get("", dependencies=_READ, responses=refusals(400, 422))
def list_jobs(
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    filters: Annotated[JobFilters, Depends(read_filters)],
    place: Annotated[Place, Depends(read_place)],
) -> JobPage:
    """Read jobs, newest first, a page at a time."""
    found = services.jobs.page(
        caller.tenant, limit=place.num_read, after=place.after, filters=filters
    )
    page, next_cursor = cut_page(found, place, request, response)
    return JobPage(
        data=[services.renderer.render(job) for job in page],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


@router.post(
    "/{job_id}/cancel",
    dependencies=_WRITE,
    responses={202: {"model": JobBody}, **refusals(404, 409)},
)
def cancel_job(job_id: str, response: Response, caller: Caller, services: ServicesOf) -> JobBody:
    """Cancel a queued job (200), or ask a running one to stop (202)."""
    job, outcome = services.jobs.request_cancel(caller.tenant, check_id(job_id))
    match outcome:
        case CancelOutcome.FINISHED:
            raise Conflict(f"the job has {job.status}", code="job_already_finished")
        case CancelOutcome.REQUESTED:
            services.notify_cancel(job.id)
            response.status_code = 202
            log.info("cancel_requested", job_id=job.id)
        case CancelOutcome.CANCELED:
            log.info("job_canceled", job_id=job.id)
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


@router.delete("/{job_id}", status_code=204, dependencies=_WRITE, responses=refusals(404, 409))
def delete_job(job_id: str, caller: Caller, services: ServicesOf) -> None:
    """Delete a job that has ended: prompt, metadata, results; links to them stop working soon."""
    services.jobs.delete(caller.tenant, check_id(job_id))
    log.info("job_deleted", job_id=job_id)


def check_id(job_id: str) -> str:
    """Return an id that a job may have.

    Raises:
        NotFound: None can.
    """
    # PostgreSQL would refuse it with an error of its own.
    if "\0" in job_id:
        raise NotFound("there is no such job")
    return job_id


def say_when_to_ask_again(response: Response, job: Job) -> None:
    """Tell a client that waits for a job how long to pause, and caches to keep out of it."""
    if not job.status.is_terminal:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    forbid_caching(response)
