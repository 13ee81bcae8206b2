"""Which models are loaded."""

import threading
import time
from collections import Counter, defaultdict

from shared.catalog import Catalog
from shared.errors import ModelUnavailable
from worker.engine.families.stable_diffusion import StableDiffusion

#: Family names of the catalog and the classes that run them.
_FAMILIES = {"stable_diffusion": StableDiffusion}


class ModelCache:
    """Load models on first use and keep them warm on one device."""

    def __init__(self, catalog: Catalog, device: str) -> None:
        self._catalog = catalog
        self._device = device
        self._loaded: dict[str, StableDiffusion] = {}
        self._lock = threading.Lock()
        #: How often each model was loaded, and the seconds that took.
        self.loads: Counter[str] = Counter()
        self.load_s: defaultdict[str, float] = defaultdict(float)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Which models are warm; another thread may be loading one more."""
        return tuple(self._loaded)

    def get(self, model_id: str) -> StableDiffusion:
        """Return a warm model.

        Raises:
            ModelUnavailable: It is not in the catalog or its files cannot be loaded.
        """
        spec = self._catalog.get(model_id)
        if spec is None:
            raise ModelUnavailable(f"this worker's catalog has no model {model_id}")
        with self._lock:
            if model_id not in self._loaded:
                began_at = time.monotonic()
                try:
                    self._loaded[model_id] = _FAMILIES[spec.family](spec, self._device)
                except (OSError, ValueError, RuntimeError, KeyError) as error:
                    raise ModelUnavailable(f"model {model_id} cannot be loaded") from error
                self.loads[model_id] += 1
                self.load_s[model_id] += time.monotonic() - began_at
            return self._loaded[model_id]
