"""Routes of jobs: validate, write a row, read back."""

from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.cancellation import cancel
from api.etag import NOT_MODIFIED, WITH_ETAG, IfNoneMatch, is_known, make_etag
from api.idempotency import WITH_KEY, read_key
from api.ids import check_id
from api.intake import accept, asks_nobody, prepare
from api.listing import Place, cut_page, read_filters, read_place
from api.openapi import refusals
from api.prefer import Preferences, PreferencesOf
from api.schemas import JobCreate
from api.services import Services, ServicesOf
from api.waiting import wait_for, wait_for_end, watching
from shared.access import Scope
from shared.db.jobs import CancelOutcome, JobFilters
from shared.errors import Conflict
from shared.job import Job, JobStamp
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


@router.post(
    "",
    status_code=202,
    dependencies=_WRITE,
    responses={
        200: {"model": JobBody, "description": "The job ended while the request waited for it"},
        **refusals(400, 413, 415, 422, 429),
    },
    openapi_extra=WITH_KEY,
)
async def submit_job(
    body: JobCreate,
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    preferences: PreferencesOf,
) -> JobBody:
    """Accept a job. With an Idempotency-Key, the same body again answers the same job.

    With `Prefer: wait=N` the answer waits for the job's end, and is 200 if it comes in time.
    """

    settle = partial(prepare, services, caller, body, idempotency_key=read_key(request))
    # A hop to a thread and back costs more than what does not wait for anything.
    new = settle() if asks_nobody(services, body) else await run_in_threadpool(settle)
    if preferences.wait_s is None:
        job, is_replay = await accept(services, new)
    else:
        # Refused, if at all, before there is a job.
        async with watching(services, caller, request) as watch:
            job, is_replay = await accept(services, new)
            job = await wait_for_end(services, watch, caller, job, wait_s=preferences.wait_s)
        if job.status.is_terminal:
            response.status_code = 200
    if is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = path_of(job.id)
    say_what_was_applied(response, preferences, is_async=response.status_code != 200)
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


@router.get(
    "/{job_id}",
    dependencies=_READ,
    response_model=JobBody,
    responses={200: WITH_ETAG, 304: NOT_MODIFIED, **refusals(404, 429)},
)
async def get_job(  # noqa: PLR0913 - one for each header that it goes by
    job_id: str,
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    preferences: PreferencesOf,
    if_none_match: IfNoneMatch = None,
) -> JobBody | Response:
    """Read a job.

    With If-None-Match the answer is 304 while nothing has changed. With `Prefer: wait=N` it waits
    until the job has ended; with both, until there is something new.
    """
    check_id(job_id)

    def is_news(stamp: JobStamp) -> bool:
        return not is_known(_name(services, stamp), if_none_match or ())

    def look() -> JobBody | None:
        # Links are signed, and the queue is counted, only for a client that has not seen it.
        if if_none_match and not is_news(stamp := services.jobs.get_stamp(caller.tenant, job_id)):
            response.headers["ETag"] = _name(services, stamp)
            return None
        job = services.jobs.get(caller.tenant, job_id)
        response.headers["ETag"] = _name(services, job.stamp)
        say_when_to_ask_again(response, job)
        return services.renderer.render(job)

    def has_come(stamp: JobStamp) -> bool:
        return stamp.status.is_terminal or (bool(if_none_match) and is_news(stamp))

    if preferences.wait_s is not None:
        async with watching(services, caller, request) as watch:
            wait_s = preferences.wait_s
            await wait_for(services, watch, caller, job_id, wait_s=wait_s, has_come=has_come)
    body = await run_in_threadpool(look)
    forbid_caching(response)
    say_what_was_applied(response, preferences)
    return body or Response(status_code=304, headers=dict(response.headers))


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
    job, outcome = cancel(services, caller.tenant, check_id(job_id))
    if outcome is CancelOutcome.FINISHED:
        raise Conflict(f"the job has {job.status}", code="job_already_finished")
    if outcome is CancelOutcome.REQUESTED:
        response.status_code = 202
    say_when_to_ask_again(response, job)
    return services.renderer.render(job)


@router.delete("/{job_id}", status_code=204, dependencies=_WRITE, responses=refusals(404, 409))
def delete_job(job_id: str, caller: Caller, services: ServicesOf) -> None:
    """Delete a job that has ended: prompt, metadata, results; links to them stop working soon."""
    services.jobs.delete(caller.tenant, check_id(job_id))
    log.info("job_deleted", job_id=job_id)


def say_what_was_applied(
    response: Response, preferences: Preferences, *, is_async: bool = False
) -> None:
    """Tell the client which of its preferences the answer follows."""
    applied = preferences.applied(is_async=is_async)
    if applied is not None:
        response.headers["Preference-Applied"] = applied


def say_when_to_ask_again(response: Response, job: Job) -> None:
    """Tell a client that waits for a job how long to pause, and caches to keep out of it."""
    if not job.status.is_terminal:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    forbid_caching(response)


def _name(services: Services, stamp: JobStamp) -> str:
    renderer = services.renderer
    return make_etag(stamp, now=renderer.clock(), link_ttl_s=renderer.link_ttl_s)
