"""How a job leaves the engine."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine.sound import Sound
from worker.engine.state import JobState


class JobCanceled(Exception):
    """The job was told to stop."""


class EngineStopped(Exception):
    """The engine is shutting down; the job can go on elsewhere, from `state` if there is one."""

    def __init__(self, state: JobState | None = None) -> None:
        super().__init__()
        self.state = state


class DeviceLost(Exception):
    """Every call of the device fails until the process ends."""


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """One picture, with the seed that makes it again alone."""

    index: int
    seed: int
    pixels: NDArray[np.uint8]  # [H, W, 3]
    #: Tiles along its longer side that it was decoded in; more than 1 where memory was short.
    tiles: int = 1


@dataclass(frozen=True, slots=True)
class SoundOutput:
    """One sound, with the seed that makes it again alone."""

    index: int
    seed: int
    sound: Sound
    #: Pieces that it was decoded in; more than 1 where memory was short.
    tiles: int = 1


@dataclass(frozen=True, slots=True)
class Stages:
    """How long a job was in each stage, in seconds: they follow each other, and the last ends it.

    Each counts from when the job entered it, so a wait for others is in it.
    """

    encode_s: float
    denoise_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job made, and in what company."""

    outputs: tuple[ImageOutput | SoundOutput, ...]
    #: Forwards of all outputs together.
    iterations: int
    #: Rows of jobs in the job's forwards, padding not counted, averaged over its iterations.
    mean_rows: float
    #: Rows of every forward of an `exact` job, padding counted; None for `fast`.
    exact_rows: int | None
    #: What of the model's device options differs from the defaults.
    device_options: Mapping[str, str | bool]
    stages: Stages
    #: The iteration that it went on from; None if it began at the beginning.
    resumed_at: int | None = None

    @property
    def pictures(self) -> list[ImageOutput]:
        """Its outputs that are pictures: all, or none."""
        return [output for output in self.outputs if isinstance(output, ImageOutput)]
