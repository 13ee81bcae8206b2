"""What processes of a scenario run instead of the usual: devices that tell or kill."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from bench.cluster import Program
from bench.simulated_device import SimulatedModel, run_worker
from tests.chaos.system import STEP_S

#: A prompt that kills whoever reads it.
POISON = "poison"


def poisonable_worker(name: str) -> Program:
    """A worker that some jobs kill."""
    return partial(_run_poisonable, name)


def telling_worker(name: str, steps_path: Path) -> Program:
    """A worker that writes down when each of its forwards ended, on the machine's clock."""
    return partial(_run_telling, name, steps_path)


def read_steps(path: Path, *, since: float) -> list[float]:
    """Read when forwards ended, those of the warm-up left out by the time they took place."""
    return [step for line in path.read_text().splitlines() if (step := float(line)) > since]


def _run_poisonable(name: str) -> None:
    encode = SimulatedModel.encode

    def die_of_poison(self: SimulatedModel, prompt: str) -> Tensor:
        if prompt == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, prompt)

    SimulatedModel.encode = die_of_poison
    run_worker(name, STEP_S)


def _run_telling(name: str, steps_path: Path) -> None:
    SimulatedModel.predict = _telling(SimulatedModel.predict, steps_path)
    run_worker(name, STEP_S)


def _telling(predict: Callable[..., Tensor], path: Path) -> Callable[..., Tensor]:
    def predict_and_tell(*arguments: object) -> Tensor:
        prediction = predict(*arguments)
        with path.open("a") as file:
            file.write(f"{time.monotonic()}\n")
        return prediction

    return predict_and_tell
