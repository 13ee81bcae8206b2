"""A job's life as a stream of server-sent events.

Nothing is kept for streams: each begins with the job as it stands, so that a client that comes back
has lost nothing that still counts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import Caller, HoldsKey, Requires
from api.body import JsonRoute
from api.hub import LOOK_AGAIN_S, Watch
from api.ids import check_id
from api.openapi import refusals
from api.preview_body import PreviewBody
from api.services import Services, ServicesOf
from shared.access import Scope
from shared.db.session import DATABASE_AWAY
from shared.errors import NotFound
from shared.job import Job, JobStamp, JobStatus
from shared.preview import INTERVAL_S

#: How soon a client comes back after a stream has ended, in milliseconds.
RETRY_MS = 3_000
#: The least time after an event of progress, in seconds; of what comes meanwhile the last counts.
MIN_PAUSE_S = 0.25
#: A stream ends after so long, in seconds, and its client goes on with another one.
MAX_AGE_S = 600.0

log = structlog.get_logger(__name__)

router = APIRouter(
    prefix="/v1/jobs/{job_id}",
    tags=["jobs"],
    route_class=JsonRoute,
    dependencies=[Depends(Requires(Scope.JOBS_READ))],
)


class StreamIsOver(Exception):
    """There will be no more events for a client that has seen the last one."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one stream goes by."""

    services: Services
    #: As it stood after the watch had begun.
    job: Job
    watch: Watch
    holds_key: HoldsKey

    def look(self, seen: Job) -> Job | None:
        """Read the job if it has changed; a database that is away has no news."""
        jobs = self.services.jobs
        try:
            if jobs.get_stamp(seen.tenant, seen.id) == seen.stamp:
                return None
            return jobs.get(seen.tenant, seen.id)
        except DATABASE_AWAY as error:
            log.warning("stream_goes_on", job_id=seen.id, error=type(error).__name__)
            return None

    def may_go_on(self) -> bool:
        """Whether the client's key is still valid, as far as can be known."""
        try:
            return self.holds_key()
        except DATABASE_AWAY:
            return True


async def read_last_id(
    header: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The id that was seen last")
    ] = None,
    query: Annotated[
        str | None,
        Query(
            alias="last_event_id", description="The same, for clients that cannot set the header"
        ),
    ] = None,
) -> str | None:
    """Return the id of the last event that the client has seen."""
    return header or query


async def open_stream(
    job_id: str,
    caller: Caller,
    services: ServicesOf,
    holds_key: HoldsKey,
    last_seen: Annotated[str | None, Depends(read_last_id)],
    previews: Annotated[
        bool, Query(description="Whether to send pictures of the job while it runs")
    ] = False,
) -> AsyncIterator[Stream]:
    """Begin to watch a job, before anything is answered.

    Raises:
        NotFound: The tenant has no such job.
        RequestRefused: Too many requests of the key wait.
        ServiceUnavailable: Too many requests wait in this process.
        StreamIsOver: The client has seen the job's end.
    """
    with ExitStack() as stack:
        watch = stack.enter_context(services.hub.watch(caller.key_id))
        watch.follow(check_id(job_id))
        job = await run_in_threadpool(services.jobs.get, caller.tenant, job_id)
        if job.status.is_terminal and last_seen == str(id_of(job.stamp)):
            raise StreamIsOver
        if previews and not job.status.is_terminal:
            stack.enter_context(services.previews.watch(job.id, watch.show))
        yield Stream(services, job, watch, holds_key)


@router.get(
    "/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "`snapshot` with the job, again whenever a run begins or is given up; "
            "`progress`; `preview` if asked for; at last `succeeded`, `failed` or `canceled` with "
            "the job",
            "content": {
                "text/event-stream": {
                    "itemSchema": {
                        "required": ["event", "data"],
                        "properties": {
                            "event": {
                                "enum": [
                                    "snapshot",
                                    "progress",
                                    "preview",
                                    "succeeded",
                                    "failed",
                                    "canceled",
                                ]
                            },
                            "data": {
                                "contentMediaType": "application/json",
                                "contentSchema": {
                                    "anyOf": [
                                        {"$ref": "#/components/schemas/JobBody"},
                                        {"$ref": "#/components/schemas/ProgressBody"},
                                        PreviewBody.model_json_schema(),
                                    ]
                                },
                            },
                        },
                    }
                }
            },
        },
        204: {"description": "The client has seen the last event; it need not come back"},
        **refusals(404, 422, 429),
    },
)
async def stream_events(
    stream: Annotated[Stream, Depends(open_stream)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job as server-sent events, until it has ended.

    A stream ends after ten minutes, when the service stops or when its key is revoked; a client
    that comes back with the id of the last event goes on where it was. With `previews=true` there
    are pictures of what is being made, two a second at most, where the model has them.
    """
    clock = asyncio.get_running_loop().time
    ends_at, preview_at = clock() + MAX_AGE_S, clock()
    job = stream.job
    yield _snapshot(stream, job)
    while not job.status.is_terminal:
        has_preview = stream.watch.preview is not None
        await stream.watch.wait(max(preview_at - clock(), 0.0) if has_preview else LOOK_AGAIN_S)
        if stream.watch.is_over or clock() >= ends_at:
            return
        if not await run_in_threadpool(stream.may_go_on):
            return
        preview = stream.watch.preview
        if preview is not None and clock() >= preview_at:
            stream.watch.preview, preview_at = None, clock() + INTERVAL_S
            yield _event(job, "preview", PreviewBody.of(preview))
        try:
            news = await run_in_threadpool(stream.look, job)
        except NotFound:
            return  # it ended and was deleted meanwhile
        if news is None:
            continue
        is_progress = (news.status, news.attempt) == (job.status, job.attempt)
        job = news
        if is_progress:
            yield _event(job, "progress", stream.services.renderer.render(job).progress)
            await asyncio.sleep(MIN_PAUSE_S)
        elif not job.status.is_terminal:
            yield _snapshot(stream, job)
    yield _event(job, job.status, await run_in_threadpool(stream.services.renderer.render, job))


def id_of(stamp: JobStamp, *, is_snapshot: bool = False) -> int:
    """Number an event: it grows with the life of its job, and is made of the job's row alone.

    An attempt runs, may be given up and wait for the next one, or ends. The snapshot of a job that
    has ended comes before the event that says so.
    """
    match stamp.status:
        case JobStatus.RUNNING:
            phase = 0
        case JobStatus.QUEUED:
            phase = 1
        case _:
            phase = 2 if is_snapshot else 3
    return (4 * stamp.attempt + phase) * 1_000_000 + stamp.iteration


def _snapshot(stream: Stream, job: Job) -> ServerSentEvent:
    return ServerSentEvent(
        event="snapshot",
        id=str(id_of(job.stamp, is_snapshot=True)),
        retry=RETRY_MS,
        data=stream.services.renderer.render(job),
    )


def _event(job: Job, name: str, data: Any) -> ServerSentEvent:
    return ServerSentEvent(event=name, id=str(id_of(job.stamp)), data=data)
