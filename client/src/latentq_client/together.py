"""Jobs that were accepted together, and what a job would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from latentq_client.errors import FieldProblem

HandleT = TypeVar("HandleT")


@dataclass(frozen=True, slots=True)
class Batch(Generic[HandleT]):
    """Jobs that were accepted together, in their order."""

    id: str
    jobs: Sequence[HandleT]


@dataclass(frozen=True, slots=True)
class SweepPoint(Generic[HandleT]):
    """A job of a sweep, and the values that tell it from the others."""

    coordinates: Mapping[str, str | int | float]
    job: HandleT


@dataclass(frozen=True, slots=True)
class Skipped:
    """A combination that cannot work, and why."""

    coordinates: Mapping[str, str | int | float]
    errors: Sequence[FieldProblem]


@dataclass(frozen=True, slots=True)
class Sweep(Generic[HandleT]):
    """A job in all combinations of some values, the last list varying fastest."""

    id: str
    points: Sequence[SweepPoint[HandleT]]
    skipped: Sequence[Skipped]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would say of itself if it were submitted now; times are in seconds.

    What cannot be predicted is None. `request` sent makes that job; `raw` is the whole answer.
    """

    request: Mapping[str, Any]
    preset: str
    iterations: int
    megapixel_iterations: float
    predicted_s: float | None
    #: Jobs before it.
    position: int | None
    #: How long it would wait, and how short and how long that may turn out to be.
    eta_s: float | None
    eta_low_s: float | None
    eta_high_s: float | None
    #: Why no worker could serve it at present.
    unschedulable: str | None
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read the body of an answer."""
        cost, queue = body["cost"], body["queue"]
        return cls(
            request=body["request"],
            preset=body["preset"]["name"],
            iterations=body["iterations"],
            megapixel_iterations=cost["megapixel_iterations"],
            predicted_s=cost["predicted_s"],
            position=queue["position"],
            eta_s=queue["eta_s"],
            eta_low_s=queue["eta_low_s"],
            eta_high_s=queue["eta_high_s"],
            unschedulable=queue["unschedulable"],
            raw=body,
        )
