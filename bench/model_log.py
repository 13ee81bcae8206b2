"""What a worker's log tells of its models: what was loaded, what had to leave, who had to wait."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class ModelLog:
    """The models of one worker, from its start on."""

    #: What jobs' models are, by the jobs' ids.
    model_of: Mapping[str, str]
    loads: Counter[str] = field(default_factory=Counter)
    evictions: int = 0
    failures: int = 0
    #: Jobs that were started, and those of them whose model was warm then.
    jobs: int = 0
    hits: int = 0
    #: Most bytes that all models took at any time, those on their way too.
    most_bytes: int = 0
    _held: dict[str, int] = field(default_factory=dict)

    def read(self, lines: Iterable[str]) -> None:
        """Follow a log, line by line; what is no event is left out."""
        for line in lines:
            if line.startswith("{"):
                self._follow(json.loads(line))

    def _follow(self, event: Mapping[str, object]) -> None:
        match event:
            case {"event": "model_loading", "model": str(model), "bytes": int(num_bytes)}:
                self._held[f"{model}, on its way"] = num_bytes
            case {"event": "model_loaded", "model": str(model), "bytes": int(num_bytes)}:
                self._held.pop(f"{model}, on its way", None)
                self._held[model] = num_bytes
                self.loads[model] += 1
            case {"event": "model_evicted", "model": str(model)}:
                del self._held[model]
                self.evictions += 1
            case {"event": "model_failed", "model": str(model)}:
                self._held.pop(f"{model}, on its way", None)
                self.failures += 1
            case {"event": "job_started", "job_id": str(job_id)}:
                self.jobs += 1
                self.hits += self.model_of[job_id] in self._held
        self.most_bytes = max(self.most_bytes, sum(self._held.values()))
