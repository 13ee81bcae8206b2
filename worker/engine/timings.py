"""Where an engine's time goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["forward_s", "scheduler_s", "state_s", "step_s", "probe_s", "encode_s", "decode_s"]


@dataclass(slots=True)
class TimeAccount:
    """Seconds spent since the engine was made; each field is written by one thread.

    Encoding and decoding have threads of their own: their time lies beside the steps', not in it.
    """

    clock: Callable[[], float] = field(repr=False)
    #: The denoiser's forwards alone.
    forward_s: float = 0.0
    #: The samplers' steps, and the check of what they return.
    scheduler_s: float = 0.0
    #: Copies of the state of jobs, every few seconds.
    state_s: float = 0.0
    #: Whole steps: forwards, samplers, planning and the rest; waiting for work is left out.
    step_s: float = 0.0
    #: Forwards that measure a newly loaded model, between steps.
    probe_s: float = 0.0
    #: From a request to its trajectories at their start.
    encode_s: float = 0.0
    #: From latents to pixels.
    decode_s: float = 0.0
    #: When each stage that is under way began; waiting for work is none.
    began_at: dict[Stage, float] = field(default_factory=dict, repr=False)

    @property
    def other_s(self) -> float:
        """What steps took besides forwards and samplers."""
        return self.step_s - self.forward_s - self.scheduler_s

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Count the time of a block, also of one that fails."""
        started = self.began_at[stage] = self.clock()
        try:
            yield
        finally:
            del self.began_at[stage]
            setattr(self, stage, getattr(self, stage) + self.clock() - started)

    def running_s(self, stage: Stage) -> float:
        """Return how long a stage has been under way; 0 while it is not."""
        began_at = self.began_at.get(stage)
        return 0.0 if began_at is None else self.clock() - began_at
