"""A job between two steps: all that another engine needs to go on as if nothing had been."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

#: What a scheduler keeps between two steps, by the name of its attribute.
Value: TypeAlias = "Tensor | Sequence[Value] | str | int | float | bool | None"


class StateMisfit(Exception):
    """The state is none of this job's on this engine; the message says why."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What of an engine shows in the last bits of its results."""

    dtype: str
    device: str
    num_threads: int
    #: Rows of every forward of an `exact` job; None for `fast`.
    exact_rows: int | None


@dataclass(frozen=True, slots=True)
class OutputState:
    """One trajectory. Its tensors are copies, which nobody changes."""

    iteration: int
    row_sum: float
    latents: Tensor  # [1, C, h, w]
    #: Of its random number generator.
    generator: Tensor
    #: The scheduler's class, and what its steps have changed since its start.
    scheduler: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class JobState:
    """All trajectories of a job at one moment, in the order of its outputs."""

    conditions: Conditions
    outputs: tuple[OutputState, ...]

    @property
    def iteration(self) -> int:
        """Forwards done of all outputs together."""
        return sum(output.iteration for output in self.outputs)
