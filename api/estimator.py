"""What requests will take, from a picture of the fleet that is at most some seconds old."""

import threading

import structlog

from shared.catalog import Catalog
from shared.db.costs import CostRepository
from shared.db.session import DATABASE_AWAY
from shared.estimate import Fleet
from shared.queue import queue_of
from shared.request import GenerationRequest

#: Pause between two looks at the fleet, in seconds.
INTERVAL_S = 5.0

log = structlog.get_logger(__name__)


class Estimator:
    """Predict without a query: a thread reads the fleet, so that no request waits for it."""

    def __init__(self, costs: CostRepository, catalog: Catalog) -> None:
        self._costs = costs
        self._catalog = catalog
        # Exchanged as a whole by the thread, never changed.
        self._fleet = Fleet(workers={}, costs={})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="estimator", daemon=True)

    def start(self) -> None:
        """Begin to look at the fleet."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        self._thread.join()

    def refresh(self) -> None:
        """Look at the fleet now.

        Raises:
            OperationalError: PostgreSQL does not answer; the last picture stays.
        """
        self._fleet = self._costs.load_fleet()

    def predict_s(self, request: GenerationRequest) -> float | None:
        """Predict the seconds of a device that a request takes; None if nothing is known."""
        queue = queue_of(request.model, request.service_class)
        return self._fleet.predict_s(queue, request, self._catalog.models[request.model])

    def _run(self) -> None:
        while True:
            try:
                self.refresh()
            except DATABASE_AWAY:
                log.warning("fleet_unknown")
            if self._stopping.wait(INTERVAL_S):
                return
