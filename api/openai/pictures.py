"""What a job made, as OpenAI's API shows it."""

import asyncio
import base64
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request

from api.error_handlers import name_problem
from api.holding import PING_S, Held
from api.openai.order import Order
from api.openai.schemas import CompletedEvent, ImageBody, ImagesBody
from api.openai.wait import MAX_WAIT_S, Made, check_success, wait_until_ended
from api.problems import show_sdk_error
from api.services import Services
from shared.job import Artifact, Job

#: Files that one process reads at a time: each is held in memory, and a third more for its text.
READS_AT_ONCE = 4


class Reader:
    """Reads files of jobs from the store, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def read(self, services: Services, artifact: Artifact) -> str:
        """Return a file in base64.

        Raises:
            StorageUnavailable: The store does not answer.
        """

        def encode() -> str:
            return base64.b64encode(services.store.get(artifact.key)).decode()

        async with self._turns:
            return await run_in_threadpool(encode)


async def show_images(held: Held, order: Order, job: Job, reader: Reader) -> ImagesBody:
    """Write what a job made, as bytes or as links."""
    if order.response_format == "url":
        shown = await run_in_threadpool(held.services.renderer.render, job)
        images = [ImageBody(url=made.url, seed=made.seed) for made in shown.artifacts]
    else:
        images = [
            ImageBody(b64_json=await reader.read(held.services, made), seed=made.seed)
            for made in job.artifacts
        ]
    return ImagesBody(
        created=_created(job),
        data=images,
        output_format=job.request.output_format,
        size=_size(job),
        job_id=job.id,
        warnings=order.warnings,
    )


async def stream_images(
    held: Held, order: Order, made: Made, reader: Reader, *, kind: str
) -> AsyncIterator[bytes]:
    """Wait for a job's end and write an event for each picture, or one for what went wrong.

    `kind` is what the events are named after: `image_generation` or `image_edit`.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + MAX_WAIT_S
    try:
        while True:
            job = await wait_until_ended(held, made, wait_s=min(PING_S, until - clock()))
            if job.status.is_terminal or clock() >= until:
                break
            yield KEEPALIVE_COMMENT
        check_success(job)
        for artifact in job.artifacts:
            event = CompletedEvent(
                type=f"{kind}.completed",
                index=artifact.index,
                b64_json=await reader.read(held.services, artifact),
                created_at=_created(job),
                output_format=job.request.output_format,
                size=_size(job),
                seed=artifact.seed,
                job_id=job.id,
                warnings=order.warnings,
            )
            yield format_sse_event(event=event.type, data_str=event.model_dump_json())
    except Exception as error:
        yield _write_error(held.request, error)


def _write_error(request: Request, error: Exception) -> bytes:
    code, detail = name_problem(error)
    shown = show_sdk_error(request, code, detail)
    return format_sse_event(event="error", data_str=f'{{"error": {shown.model_dump_json()}}}')


def _created(job: Job) -> int:
    return int(job.created_at.timestamp())


def _size(job: Job) -> str:
    return f"{job.request.width}x{job.request.height}"
