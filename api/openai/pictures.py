"""What a job made, as OpenAI's API shows it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import ExitStack

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request

from api.error_handlers import name_problem
from api.holding import PING_S, Held
from api.openai.order import Order
from api.openai.schemas import CompletedEvent, ImageBody, ImagesBody, PartialEvent
from api.openai.wait import MAX_WAIT_S, Made, check_success, wait_until_ended
from api.problems import show_sdk_error
from api.services import Services
from shared.job import Artifact, Job
from shared.preview import Preview

#: Files that one process reads at a time: each is held in memory, and a third more for its text.
READS_AT_ONCE = 4


class Partials:
    """Chooses which pictures of a job under way are sent: as many as wanted, evenly spread."""

    def __init__(self, num_wanted: int) -> None:
        self.num_taken = 0
        self._num_wanted = num_wanted

    @property
    def are_wanted(self) -> bool:
        """Whether more may come."""
        return self.num_taken < self._num_wanted

    def take(self, job: Job, preview: Preview) -> bool:
        """Whether a preview comes late enough to be the next one."""
        share = preview.iteration * job.request.num_outputs / job.request.iterations
        is_next = self.are_wanted and share * (self._num_wanted + 1) >= self.num_taken + 1
        self.num_taken += is_next
        return is_next


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
    partials = Partials(order.num_partials)
    try:
        with ExitStack() as stack:
            if order.num_partials:
                feed = held.services.previews
                stack.enter_context(feed.watch(made.job.id, held.watch.show))
            while True:
                wait_s = min(PING_S, until - clock())
                job = await wait_until_ended(
                    held, made, wait_s=wait_s, or_preview=partials.are_wanted
                )
                if job.status.is_terminal or clock() >= until:
                    break
                preview, held.watch.preview = held.watch.preview, None
                if preview is None:
                    yield KEEPALIVE_COMMENT
                elif partials.take(job, preview):
                    yield _write_partial(job, preview, partials.num_taken - 1, kind=kind)
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


def _write_partial(job: Job, preview: Preview, number: int, *, kind: str) -> bytes:
    event = PartialEvent(
        type=f"{kind}.partial_image",
        index=preview.output_index,
        partial_image_index=number,
        b64_json=base64.b64encode(preview.data).decode(),
        created_at=_created(job),
        size=_size(job),
    )
    return format_sse_event(event=event.type, data_str=event.model_dump_json())


def _write_error(request: Request, error: Exception) -> bytes:
    code, detail = name_problem(error)
    shown = show_sdk_error(request, code, detail)
    return format_sse_event(event="error", data_str=f'{{"error": {shown.model_dump_json()}}}')


def _created(job: Job) -> int:
    return int(job.created_at.timestamp())


def _size(job: Job) -> str:
    width, height = job.request.size
    return f"{width}x{height}"
