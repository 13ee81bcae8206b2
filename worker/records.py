"""What is told of attempts: log lines, metrics, and spans under the trace of the job's row."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import structlog
from opentelemetry.trace import Span, SpanKind, Tracer, get_current_span
from structlog.contextvars import bound_contextvars

from shared.errors import ErrorCode
from shared.job import Claim
from shared.tracing import fail, record, span
from worker.engine import JobResult
from worker.metrics import AttemptMetrics

log = structlog.get_logger(__name__)


class Records:
    """Tells of attempts, each on the thread that runs it."""

    def __init__(
        self,
        metrics: AttemptMetrics,
        tracer: Tracer,
        *,
        worker: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._worker = worker
        self._clock = clock

    @contextmanager
    def attempt(self, claim: Claim) -> Iterator[None]:
        """Tell of the attempt that this stands around, and of how long its job had waited."""
        lease, model = claim.lease, claim.request.model
        attributes: dict[str, str | int] = {
            "latentq.job_id": lease.job_id,
            "latentq.model": model,
        }
        self._metrics.note_claim(claim)
        if lease.attempt == 1:
            record(
                self._tracer,
                "queue wait",
                began_ago_s=claim.waited_s,
                parent=claim.traceparent,
                attributes=attributes,
            )
        attributes |= {"latentq.attempt": lease.attempt, "latentq.worker": self._worker}
        began_at = self._clock()
        with (
            bound_contextvars(job_id=lease.job_id, attempt=lease.attempt),
            span(
                self._tracer,
                "attempt",
                parent=claim.traceparent,
                kind=SpanKind.CONSUMER,
                attributes=attributes,
            ),
        ):
            log.info("job_started", alone=claim.is_suspected)
            try:
                yield
            finally:
                self._metrics.note_run(model, self._clock() - began_at)

    def note_stages(self, result: JobResult) -> None:
        """Tell of what the engine has done a moment ago."""
        stages = result.stages
        denoised_ago_s = stages.decode_s
        encoded_ago_s = denoised_ago_s + stages.denoise_s
        record(
            self._tracer,
            "encode",
            began_ago_s=encoded_ago_s + stages.encode_s,
            ended_ago_s=encoded_ago_s,
        )
        record(
            self._tracer,
            "denoise",
            began_ago_s=encoded_ago_s,
            ended_ago_s=denoised_ago_s,
            attributes={
                "latentq.iterations": result.iterations,
                "latentq.mean_rows": result.mean_rows,
            },
        )
        record(self._tracer, "decode", began_ago_s=denoised_ago_s)

    def upload(self) -> AbstractContextManager[Span]:
        """Tell of the storing of results around which this stands."""
        return span(self._tracer, "upload")

    def note_error(self, code: ErrorCode) -> None:
        """Say in the span why the attempt fails."""
        fail(get_current_span(), code)

    def note_end(self, event: str) -> None:
        """Tell how the attempt ended, such as by `job_succeeded`."""
        log.info(event)
        outcome = event.removeprefix("job_")
        self._metrics.note_end(outcome)
        get_current_span().set_attribute("latentq.outcome", outcome)

    def note_discarded(self) -> None:
        """Tell that the end of the attempt was not written: its lease was lost."""
        log.warning("result_discarded")
        self._metrics.note_fenced()
        get_current_span().set_attribute("latentq.outcome", "discarded")
