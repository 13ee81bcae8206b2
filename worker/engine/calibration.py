"""Learn what a newly loaded model costs, one forward at a time between the steps of jobs."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
import torch

from shared.model_folder import ANY_PIPELINE
from worker.engine.cost import Cost, CostModel
from worker.engine.families.family import Family
from worker.engine.model_cache import ModelCache
from worker.engine.probe import REPEATS, ROWS, confirm, probe

T = TypeVar("T")

log = structlog.get_logger(__name__)


class CostMemory(Protocol):
    """Where costs are kept beyond an engine's life; may take long."""

    def recall(self, model_id: str) -> Sequence[Cost]:
        """Return what is known of a model from before."""
        ...

    def forget(self, model_id: str) -> None:
        """Hear that it was found to be wrong; returns at once."""
        ...


def calibrate(
    family: Family,
    costs: CostModel,
    known: Sequence[Cost],
    *,
    clock: Callable[[], float],
) -> Generator[None, None, bool]:
    """Learn what a model's forwards cost, with one forward for each item.

    What is known of the model from before is taken over if a short probe confirms it. If not, it is
    left aside for a full one; returns whether the model has the costs that were known.
    """
    if family.spec.family == ANY_PIPELINE:  # of a call no step can be tried alone
        costs.load(known)
        return True
    if known and (yield from confirm(family, known, clock=clock)):
        costs.load(known)
        return True
    costs.load((yield from probe(family, clock=clock)))
    return False


def run_through(steps: Generator[None, None, T]) -> T:
    """Take all steps of a generator at once, and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


@dataclass(slots=True, eq=False)
class Calibration:
    """That the costs of a model are to be learned, and what was known of them."""

    model_id: str
    known: Sequence[Cost]
    num_forwards: int = 0

    @property
    def progress(self) -> float:
        """About how much of it is done, from 0 to 1."""
        num_rows = 2 if self.known else len(ROWS)
        return min(self.num_forwards / (1 + num_rows * REPEATS), 1.0)


class Calibrations:
    """Those that are to be made, one after the other, on the thread that steps."""

    def __init__(self, models: ModelCache, costs: CostModel, *, clock: Callable[[], float]) -> None:
        #: Where costs are known from before, if anywhere.
        self.memory: CostMemory | None = None
        self._models = models
        self._costs = costs
        self._clock = clock
        # The first is under way.
        self._calibrations: deque[Calibration] = deque()
        self._steps: Generator[None, None, None] | None = None

    def __bool__(self) -> bool:
        return bool(self._calibrations)

    def progress(self) -> dict[str, float]:
        """Tell of each how much of it is done; any thread may ask."""
        return {
            calibration.model_id: calibration.progress for calibration in list(self._calibrations)
        }

    def prepare(self, model_id: str) -> Calibration:
        """Find out what is known of a model; any thread but the one that steps may do so."""
        known = () if self.memory is None else self.memory.recall(model_id)
        return Calibration(model_id, known)

    def add(self, calibration: Calibration) -> None:
        """Have one made after those that wait."""
        self._calibrations.append(calibration)

    def advance(self) -> None:
        """Run one forward for the first, if there is one.

        Raises:
            torch.AcceleratorError: The device met an error of its own.
        """
        if not self._calibrations:
            return
        calibration = self._calibrations[0]
        if self._steps is None:
            self._steps = self._run(calibration)
        if next(self._steps, self) is self:
            self._steps = None
            self._calibrations.popleft()
            self._models.on_change()
        calibration.num_forwards += 1

    def close(self) -> None:
        """Let go of the model of the one under way."""
        if self._steps is not None:
            self._steps.close()

    def _run(self, calibration: Calibration) -> Generator[None, None, None]:
        model_id, known = calibration.model_id, calibration.known
        with self._models.pinned(model_id):
            try:
                is_known = yield from calibrate(
                    self._models.get(model_id), self._costs, known, clock=self._clock
                )
            except torch.AcceleratorError:
                raise
            except Exception:
                # Jobs are as well without: they are measured at work.
                log.warning("calibration_failed", model=model_id, exc_info=True)
                return
        if known and not is_known and self.memory is not None:
            self.memory.forget(model_id)
        log.info("model_warm", model=model_id, costs_known=is_known)
