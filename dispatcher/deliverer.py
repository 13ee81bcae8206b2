"""Tell receivers what became of jobs, until they have taken it."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer
from prometheus_client import CollectorRegistry

from dispatcher.counters import Counters
from dispatcher.hosts import PER_HOST, Hosts
from dispatcher.message import (
    write_body,
    write_headers,
    write_prediction,
    write_test_body,
)
from dispatcher.outbound import TOTAL_TIMEOUT_S, Answer, Outbound
from dispatcher.retries import MAX_TRIES, retry_in_s
from shared.crash_point import CrashPoint, reached
from shared.db.deliveries import Attempt, DeliveryClaim, DeliveryRepository
from shared.db.jobs import JobRepository
from shared.db.session import DATABASE_AWAY
from shared.db.webhooks import WebhookSecretRepository
from shared.job_body import JobRenderer
from shared.tracing import span
from shared.webhook import EndpointEvent, Outcome

#: Deliveries under way at once.
MAX_IN_FLIGHT = 16
#: After how long an attempt is taken for lost, in seconds.
LEASE_S = 3 * TOTAL_TIMEOUT_S
TICK_S = 0.2
#: How long attempts may go on when the process stops, in seconds; then they are cut.
GRACE_S = 1.5
CUT_WITHIN_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sender:
    """What it takes to make one attempt; used by many threads."""

    deliveries: DeliveryRepository
    jobs: JobRepository
    secrets: WebhookSecretRepository
    renderer: JobRenderer
    outbound: Outbound
    clock: Callable[[], datetime]
    tracer: Tracer = field(default_factory=NoOpTracer)

    def send(self, claim: DeliveryClaim) -> Answer:
        """Send an event. Its bytes are made once, and kept before they are sent."""
        ids = {"job_id": claim.job_id, "delivery_id": claim.id, "delivery_attempt": claim.attempt}
        attributes = {f"latentq.{name}": value for name, value in ids.items() if value is not None}
        with (
            structlog.contextvars.bound_contextvars(**ids),
            span(
                self.tracer,
                "webhook",
                parent=claim.traceparent,
                kind=SpanKind.CLIENT,
                attributes=attributes,
            ) as current,
        ):
            answer = self._send(claim)
            current.set_attribute("latentq.outcome", answer.outcome)
            if answer.status_code is not None:
                current.set_attribute("http.response.status_code", answer.status_code)
        return answer

    def _send(self, claim: DeliveryClaim) -> Answer:
        body = claim.body
        if body is None:
            body = self.deliveries.keep_body(claim, self._write(claim))
        headers = write_headers(
            body,
            event_id=claim.event_id,
            secrets=claim.secrets or self.secrets.in_use(claim.tenant),
            now=self.clock(),
        )
        answer = self.outbound.post(claim.url, headers=headers, body=body)
        reached(CrashPoint.AFTER_WEBHOOK_POST)
        return answer

    def _write(self, claim: DeliveryClaim) -> bytes:
        if claim.job_id is None or claim.type is EndpointEvent.TEST:
            return write_test_body(endpoint_id=claim.endpoint_id, occurred_at=claim.occurred_at)
        job = self.jobs.get(claim.tenant, claim.job_id)
        if claim.is_prediction:
            return write_prediction(self.renderer, job)
        return write_body(self.renderer, job, event_type=claim.type, occurred_at=claim.occurred_at)


@dataclass(frozen=True, slots=True)
class _Ended:
    claim: DeliveryClaim
    answer: Answer
    duration_s: float


class Deliverer:
    """Sends what is due from a pool of threads; all else belongs to one thread that never waits."""

    def __init__(
        self,
        sender: Sender,
        *,
        counters: Counters | None = None,
        draw: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._counters = counters or Counters(CollectorRegistry())
        self._draw = draw
        self._hosts = Hosts(monotonic)
        self._pool = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="deliver")
        self._under_way: dict[Future[Answer], tuple[DeliveryClaim, float]] = {}
        self._ended: list[_Ended] = []
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)
        self._failure: BaseException | None = None

    def run_once(self) -> int:
        """Note what has ended and begin what is due; returns how many attempts began.

        Raises:
            OperationalError: PostgreSQL is away. Nothing is forgotten.
        """
        self._collect()
        self._record()
        room = MAX_IN_FLIGHT - len(self._under_way)
        if room == 0:
            return 0
        claims = self._sender.deliveries.claim(
            limit=room, per_host=PER_HOST, rooms=self._hosts.rooms(), lease_s=LEASE_S
        )
        for claim in claims:
            self._begin(claim)
        return len(claims)

    def wait(self, timeout_s: float) -> None:
        """Wait until an attempt has ended, if one is under way."""
        wait(self._under_way, timeout=timeout_s, return_when="FIRST_COMPLETED")

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End: attempts under way get a moment, then they are cut and due again."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        wait(self._under_way, timeout=GRACE_S)
        self._sender.outbound.stop()
        wait(self._under_way, timeout=CUT_WITHIN_S)
        self._collect()
        try:
            self._record()
        except DATABASE_AWAY:
            log.warning("postgresql_away")
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    self.run_once()
                except DATABASE_AWAY:
                    log.warning("postgresql_away")
                    self._stopping.wait(1.0)
                self._wake.wait(TICK_S)
        except BaseException as error:
            self._failure = error
            raise

    def _begin(self, claim: DeliveryClaim) -> None:
        if claim.tries > MAX_TRIES:
            # Its last attempts were lost with the processes that made them.
            self._ended.append(_Ended(claim, Answer(Outcome.INTERRUPTED), 0.0))
            return
        self._hosts.begin(claim.host)
        future = self._pool.submit(self._sender.send, claim)
        self._under_way[future] = (claim, time.monotonic())
        future.add_done_callback(lambda _: self._wake.set())

    def _collect(self) -> None:
        for future in [future for future in self._under_way if future.done()]:
            claim, began_at = self._under_way.pop(future)
            error = future.exception()
            if error is None:
                answer = future.result()
            elif isinstance(error, DATABASE_AWAY):
                answer = Answer(Outcome.INTERRUPTED)
            else:
                # Its kind alone: its text may quote the job.
                log.error(
                    "delivery_broken",
                    delivery_id=claim.id,
                    job_id=claim.job_id,
                    error=type(error).__name__,
                )
                answer = Answer(Outcome.INTERNAL)
            self._hosts.end(claim.host, answer.outcome, answer.status_code)
            self._ended.append(_Ended(claim, answer, time.monotonic() - began_at))

    def _record(self) -> None:
        while self._ended:
            ended = self._ended[0]
            claim, answer = ended.claim, ended.answer
            pause_s = retry_in_s(
                answer.outcome,
                tries=claim.tries,
                retry_after_s=answer.retry_after_s,
                random=self._draw,
            )
            attempt = Attempt(
                answer.outcome, answer.status_code, timedelta(seconds=ended.duration_s)
            )
            status = self._sender.deliveries.record(claim, attempt, retry_in_s=pause_s)
            del self._ended[0]
            self._counters.note_webhook(answer.outcome, ended.duration_s)
            log.info(
                "delivery_attempted",
                delivery_id=claim.id,
                job_id=claim.job_id,
                delivery_attempt=claim.attempt,
                outcome=answer.outcome,
                status_code=answer.status_code,
                delivery_status=status,
            )
