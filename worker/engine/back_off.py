"""When a model that could not be loaded is tried again."""

import math
from dataclasses import dataclass

from shared.errors import ModelUnavailable

#: Pause after the first failure, and the longest one, in seconds; each is twice the one before.
FIRST_S, LONGEST_S = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """That a model could not be loaded, once or several times in a row."""

    reason: str
    pause_s: float
    #: On the cache's clock, in seconds.
    retry_at: float

    @classmethod
    def after(cls, previous: "Failure | None", reason: str, *, now: float) -> "Failure":
        """Note a failure; the pause grows with each in a row."""
        pause_s = FIRST_S if previous is None else min(2 * previous.pause_s, LONGEST_S)
        return cls(reason, pause_s, now + pause_s)

    def explain(self, *, now: float) -> ModelUnavailable:
        """Make the error of a job that comes before the next try."""
        left_s = math.ceil(self.retry_at - now)
        return ModelUnavailable(f"{self.reason}; it is tried again in {left_s} s at the earliest")
