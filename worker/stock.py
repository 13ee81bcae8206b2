"""What a worker says of the models that it holds."""

import math
from collections.abc import Mapping
from dataclasses import replace

from shared.holding import Holding, HoldingState, Stock
from shared.queue import queues_of
from worker.engine import Engine, ModelCache

#: States of models that run jobs.
SERVING = frozenset({HoldingState.WARM, HoldingState.WARMING})


def take_stock(models: ModelCache, engine: Engine) -> Stock:
    """Tell of all models, and of what is still being measured of them."""
    holdings = models.holdings()
    for model_id, progress in engine.warming().items():
        if model_id in models.loaded and model_id in holdings:
            holdings[model_id] = replace(
                holdings[model_id], state=HoldingState.WARMING, progress=progress
            )
    return Stock(
        warm_queues=tuple(
            queue for queue, state in queue_states(holdings).items() if state in SERVING
        ),
        holdings=tuple(holdings.values()),
        budget_bytes=None if math.isinf(models.budget_bytes) else int(models.budget_bytes),
    )


def queue_states(holdings: Mapping[str, Holding]) -> dict[str, HoldingState]:
    """Say of each queue how far its model is; those of models that are not here are left out."""
    return {
        queue: holding.state for model, holding in holdings.items() for queue in queues_of(model)
    }
