"""What requests will take, from a picture of the fleet that is at most some seconds old."""

from shared.catalog import Catalog
from shared.db.costs import CostRepository
from shared.estimate import Fleet
from shared.queue import queue_of
from shared.request import GenerationRequest


class Estimator:
    """Predict without a query: `Upkeep` has the fleet read, so that no request waits for it."""

    def __init__(self, costs: CostRepository, catalog: Catalog) -> None:
        self._costs = costs
        self._catalog = catalog
        # Exchanged as a whole, never changed.
        self._fleet = Fleet(workers={}, costs={})

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
