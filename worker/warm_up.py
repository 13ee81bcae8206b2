"""Which models a worker loads before it takes its first job."""

from collections.abc import Iterator

import structlog

from shared.catalog import Catalog, ModelSpec
from shared.errors import ConfigurationError, ModelUnavailable
from worker.costs import CostKeeper
from worker.engine import Engine, ModelCache

log = structlog.get_logger(__name__)


class WarmUp:
    """Loads models into an engine that has not begun, and learns what they cost here."""

    def __init__(self, engine: Engine, models: ModelCache, costs: CostKeeper) -> None:
        self._engine = engine
        self._models = models
        self._costs = costs

    def load_named(self, catalog: Catalog, names: str) -> None:
        """Load the models that somebody named, separated by commas.

        Raises:
            ConfigurationError: One is not in the catalog, cannot be loaded, or not beside the rest.
        """
        for spec in _find_all(catalog, names):
            try:
                if not self._models.has_room_for(spec.id):
                    raise ConfigurationError(
                        f"LATENTQ_WARM_MODELS: {names} take more than the "
                        f"{self._models.budget_bytes:,.0f} bytes of this worker's models; "
                        "name fewer of them, or set LATENTQ_MODEL_MEMORY"
                    )
                self._load(spec)
            except ModelUnavailable as error:
                raise ConfigurationError(error.detail) from error

    def load_what_fits(self, catalog: Catalog) -> None:
        """Load as many as there is room for, the default model first; others come with their jobs.

        One that cannot be loaded keeps no other away: its jobs fail, and it is tried again.
        """
        in_order = sorted(catalog, key=lambda spec: spec.id != catalog.default)
        for spec in in_order:
            try:
                if self._models.has_room_for(spec.id):
                    self._load(spec)
                else:
                    log.info("model_left_cold", model=spec.id)
            except ModelUnavailable as error:
                log.error("model_failed", model=spec.id, detail=error.detail)

    def _load(self, spec: ModelSpec) -> None:
        known = self._costs.recall(spec.id)
        is_known = self._engine.warm_up(spec.id, known=known)
        if known and not is_known:
            self._costs.forget(spec.id)
        log.info("model_warm", model=spec.id, costs_known=is_known)


def _find_all(catalog: Catalog, names: str) -> Iterator[ModelSpec]:
    for name in (name.strip() for name in names.split(",")):
        if (spec := catalog.get(name)) is None:
            known = ", ".join(catalog.models)
            raise ConfigurationError(f"LATENTQ_WARM_MODELS: no model {name!r}; known: {known}")
        yield spec
