"""One thread of an API process that talks to Redis, so that no request ever waits for it."""

import queue
import threading
import time

import structlog

from shared.db.dispatch import DispatchRepository
from shared.db.session import DATABASE_AWAY
from shared.dispatch import dispatch
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue

#: Cancel requests that wait for a Redis that is slow; more are left to the heartbeats.
MAX_WAITING_CANCELS = 1000
#: Rest after a round, in times of the round and at most in seconds: under load one round announces
#: what came meanwhile, and most of the process is there for requests.
REST, MAX_REST_S = 4.0, 0.05

log = structlog.get_logger(__name__)


class Nudger:
    """Announce new jobs and cancel requests in the background.

    What it fails to send is only late: the dispatcher announces every job, and heartbeats bring
    every cancel request.
    """

    def __init__(self, repository: DispatchRepository, job_queue: JobQueue) -> None:
        self._repository = repository
        self._job_queue = job_queue
        self._cancels: queue.Queue[str] = queue.Queue(MAX_WAITING_CANCELS)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nudger", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what was not sent yet is left to the dispatcher and the heartbeats."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def nudge(self) -> None:
        """Say that a job waits; many calls before the thread gets to it count as one."""
        self._wake.set()

    def notify_cancel(self, job_id: str) -> None:
        """Say that a running job shall stop."""
        try:
            self._cancels.put_nowait(job_id)
        except queue.Full:
            log.warning("cancel_left_to_heartbeat", job_id=job_id)
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            began = time.monotonic()
            try:
                self._send_cancels()
                dispatch(self._repository, self._job_queue)
            except (*DATABASE_AWAY, ServiceUnavailable) as error:
                log.warning("nudge_failed", error=type(error).__name__)
            self._stopping.wait(min(REST * (time.monotonic() - began), MAX_REST_S))

    def _send_cancels(self) -> None:
        while True:
            try:
                job_id = self._cancels.get_nowait()
            except queue.Empty:
                return
            self._job_queue.announce_cancel(job_id)
