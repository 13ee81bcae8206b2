"""Files of models on their way to this machine."""

import threading
from collections.abc import Callable, Iterator

import structlog

from shared.catalog import ModelSpec
from worker.engine.loader import ModelLoader

log = structlog.get_logger(__name__)


class Fetches:
    """One thread for each model whose files are fetched; the lock of whoever has it guards it."""

    def __init__(
        self, loader: ModelLoader, on_end: Callable[[ModelSpec, Exception | None], None]
    ) -> None:
        """Make it; `on_end` is called on the thread that fetched, with the error that it met."""
        self._loader = loader
        self._on_end = on_end
        self._under_way: set[str] = set()

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._under_way

    def __iter__(self) -> Iterator[str]:
        return iter(self._under_way)

    def begin(self, spec: ModelSpec) -> None:
        """Have a model's files come, unless they are here or on their way."""
        if spec.id in self._under_way or self._loader.is_here(spec):
            return
        log.info("model_fetching", model=spec.id)
        self._under_way.add(spec.id)
        threading.Thread(target=self._run, args=(spec,), name="engine-fetch", daemon=True).start()

    def end(self, spec: ModelSpec) -> None:
        """Forget one that has ended."""
        self._under_way.discard(spec.id)

    def _run(self, spec: ModelSpec) -> None:
        error: Exception | None = None
        try:
            self._loader.fetch(spec)
        except Exception as caught:
            error = caught
        self._on_end(spec, error)
