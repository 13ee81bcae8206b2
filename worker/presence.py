"""Tell the dispatcher that this worker is alive and what it serves."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from shared.db.presence import Pace, WorkerRepository
from shared.db.session import DATABASE_AWAY
from worker.affinity import Affinity

#: The dispatcher forgets a worker after some of these, in seconds.
INTERVAL_S = 10.0

log = structlog.get_logger(__name__)


class Presence:
    """A thread that keeps this worker's row fresh, and what it knows of costs."""

    def __init__(  # noqa: PLR0913 - all that a worker tells of itself
        self,
        workers: WorkerRepository,
        *,
        worker_id: str,
        device: str,
        slots: int,
        affinity: Affinity,
        measure_pace: Callable[[], Pace] = Pace,
        save_costs: Callable[[], None],
    ) -> None:
        self._workers = workers
        self._worker_id = worker_id
        self._device = device
        self._slots = slots
        self._affinity = affinity
        self._measure_pace = measure_pace
        self._save_costs = save_costs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Announce the worker, now and from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Take the worker's row away, and leave what it learned, once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        try:
            self._workers.leave(self._worker_id)
            self._save_costs()
        except DATABASE_AWAY:
            log.warning("presence_failed")

    def _run(self) -> None:
        while True:
            try:
                self._workers.beat(
                    self._worker_id,
                    device=self._device,
                    queues=self._affinity.queues,
                    slots=self._slots,
                    warm_queues=self._affinity.warm_queues,
                    clock=datetime.now(UTC),
                    pace=self._measure_pace(),
                )
                self._save_costs()
            except DATABASE_AWAY:
                log.warning("presence_failed")
            if self._stopping.wait(INTERVAL_S):
                return
