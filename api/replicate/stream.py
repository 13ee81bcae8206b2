"""A prediction as a stream of server-sent events, in Replicate's form."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.error_handlers import name_problem
from api.holding import PING_S, Held
from api.waiting import wait_for
from shared.job import Job, JobStamp, JobStatus
from shared.prediction import PredictionBody, show_prediction, show_progress
from shared.webhook import PredictionRef

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Numbered:
    """Writes events, each with an id: clients drop those that have none."""

    last: int = 0

    def write(self, event: str, data: str) -> bytes:
        self.last += 1
        return format_sse_event(event=event, id=str(self.last), data_str=data)


async def stream_prediction(held: Held, job: Job, ref: PredictionRef) -> AsyncIterator[bytes]:
    """Write how far a job has come whenever that changes, what it made, and that it is done."""
    events = _Numbered()
    told = ""
    try:
        while True:
            if (progress := show_progress(job)) != told:
                told = progress
                yield events.write("logs", progress)
            if job.status.is_terminal:
                shown = await run_in_threadpool(show_prediction, held.services.renderer, job, ref)
                for event in _write_end(events, shown):
                    yield event
                return
            seen = job.stamp

            def is_news(stamp: JobStamp, seen: JobStamp = seen) -> bool:
                return stamp != seen

            await wait_for(
                held.services, held.watch, held.caller, job.id, wait_s=PING_S, has_come=is_news
            )
            if held.watch.is_over:
                return
            read = held.services.jobs.get
            job = await run_in_threadpool(read, held.caller.tenant, job.id)
            if job.stamp == seen:
                yield KEEPALIVE_COMMENT
    except Exception as error:
        _, detail = name_problem(error)
        yield events.write("error", json.dumps({"detail": detail}))
        yield events.write("done", json.dumps({"reason": "error"}))


def _write_end(events: _Numbered, shown: PredictionBody) -> Iterator[bytes]:
    for url in shown.output or ():
        yield events.write("output", url)
    reason = {}
    if shown.status == JobStatus.FAILED:
        yield events.write("error", json.dumps({"detail": shown.error}))
        reason = {"reason": "error"}
    elif shown.status == JobStatus.CANCELED:
        reason = {"reason": "canceled"}
    yield events.write("done", json.dumps(reason))
