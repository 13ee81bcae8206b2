"""What a worker has of a model, as it tells the others."""

from dataclasses import dataclass
from enum import StrEnum


class HoldingState(StrEnum):
    """How far a worker is with a model."""

    #: Asked for; others load before it, or have to leave first.
    WAITING = "waiting"
    #: Its files come from the hub.
    FETCHING = "fetching"
    #: Its files are being read.
    LOADING = "loading"
    #: It runs jobs, and what its forwards cost is being measured.
    WARMING = "warming"
    WARM = "warm"
    #: It could not be loaded; a job of it fails until it is tried again.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Holding:
    """One model in one worker."""

    model: str
    state: HoldingState
    #: What it takes, in bytes; None while nobody knows.
    num_bytes: int | None = None
    #: How much of the loading or warming is done, from 0 to 1.
    progress: float | None = None
    #: Why it could not be loaded.
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Stock:
    """All that a worker holds."""

    #: Those of its queues whose models are in memory.
    warm_queues: tuple[str, ...] = ()
    holdings: tuple[Holding, ...] = ()
    #: What its models may take together, in bytes; None is without limit.
    budget_bytes: int | None = None
