"""Requests that wait for a job: no thread and no connection is held meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from api.hub import Watch
from api.services import Services
from shared.db.keys import Principal
from shared.db.session import DATABASE_AWAY
from shared.job import Job, JobStamp

log = structlog.get_logger(__name__)


@asynccontextmanager
async def watching(services: Services, caller: Principal, request: Request) -> AsyncIterator[Watch]:
    """Let a request wait, until its client goes away.

    Raises:
        RequestRefused: Too many requests of the key wait.
        ServiceUnavailable: Too many requests wait in this process.
    """
    with services.hub.watch(caller.key_id) as watch:
        listening = asyncio.create_task(_end_with_client(request, watch))
        try:
            yield watch
        finally:
            listening.cancel()


async def wait_for(
    services: Services,
    watch: Watch,
    caller: Principal,
    job_id: str,
    *,
    wait_s: float,
    has_come: Callable[[JobStamp], bool],
) -> None:
    """Return when a job is as it is waited for, when time is up, or when the watch is over.

    A database that goes away meanwhile is waited for too.

    Raises:
        NotFound: The caller's tenant has no such job.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + wait_s
    watch.follow(job_id)
    while True:
        try:
            stamp = await run_in_threadpool(services.jobs.get_stamp, caller.tenant, job_id)
            if has_come(stamp):
                return
        except DATABASE_AWAY as error:
            log.warning("wait_goes_on", job_id=job_id, error=type(error).__name__)
        left_s = until - clock()
        if watch.is_over or left_s <= 0:
            return
        await watch.wait(left_s)


async def wait_for_end(
    services: Services, watch: Watch, caller: Principal, job: Job, *, wait_s: float
) -> Job:
    """Return a job as it ended, or as it stands when time is up or the watch is over.

    It was accepted, whatever comes: while the database is away it is returned as it was known.
    """
    if job.status.is_terminal:
        return job
    await wait_for(services, watch, caller, job.id, wait_s=wait_s, has_come=_has_ended)
    try:
        return await run_in_threadpool(services.jobs.get, caller.tenant, job.id)
    except DATABASE_AWAY as error:
        log.warning("wait_ends_blind", job_id=job.id, error=type(error).__name__)
        return job


def _has_ended(stamp: JobStamp) -> bool:
    return stamp.status.is_terminal


async def _end_with_client(request: Request, watch: Watch) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    watch.end()
