"""What processes of a scenario run instead of the usual: devices that tell or kill."""

import os
import signal
from functools import partial
from pathlib import Path

from torch import Tensor

from bench.cluster import Program
from bench.forward_log import read_forwards
from bench.simulated_device import SimulatedModel, run_worker
from tests.chaos.system import STEP_S

#: A prompt that kills whoever reads it.
POISON = "poison"


def poisonable_worker(name: str) -> Program:
    """A worker that some jobs kill."""
    return partial(_run_poisonable, name)


def telling_worker(name: str, steps_path: Path) -> Program:
    """A worker that notes its forwards."""
    return partial(run_worker, name, STEP_S, steps_path)


def read_steps(path: Path, *, since: float) -> list[float]:
    """Read when forwards ended, those of the warm-up left out by the time they took place."""
    return [step.ended_at for step in read_forwards(path) if step.ended_at > since]


def _run_poisonable(name: str) -> None:
    encode = SimulatedModel.encode

    def die_of_poison(self: SimulatedModel, prompt: str) -> Tensor:
        if prompt == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, prompt)

    SimulatedModel.encode = die_of_poison
    run_worker(name, STEP_S)
