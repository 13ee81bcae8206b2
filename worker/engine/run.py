"""A job on its way through the engine."""

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine.lora import ActiveAdapter
from worker.engine.pin import Pin
from worker.engine.recorder import Recorder
from worker.engine.result import EngineStopped, ImageOutput, JobResult, SoundOutput, Stages
from worker.engine.sound import Sound
from worker.engine.source import SourceImage
from worker.engine.state import JobState
from worker.engine.trajectory import Trajectory


@dataclass(slots=True, eq=False)
class Run:
    """A job on its way through the engine; held by one thread at a time."""

    id: int
    job_id: str
    request: GenerationRequest
    tenant: str
    source: SourceImage | None
    #: Where it goes on from, and who takes its states down.
    state: JobState | None
    recorder: Recorder
    future: "Future[JobResult]" = field(default_factory=Future)
    #: Its model, as soon as that is warm; pinned until the run ends.
    model: "Future[Pin]" = field(default_factory=Future)
    #: What its model is; known once that is warm.
    spec: ModelSpec = field(init=False, repr=False)
    adapters: tuple[ActiveAdapter, ...] = ()
    trajectories: list[Trajectory] = field(default_factory=list)
    #: Trajectories that went on from the batch to the decoder.
    num_passed_on: int = 0
    outputs: list[ImageOutput | SoundOutput] = field(default_factory=list)
    #: When it entered each stage, on the engine's clock.
    encode_at: float = 0.0
    denoise_at: float = 0.0
    decode_at: float = 0.0
    #: Why it shall end early: set by any thread, obeyed by the one that holds it.
    stop: Exception | None = None

    @property
    def iteration(self) -> int:
        """Forwards done so far; before it is encoded, those that it comes with."""
        if not self.trajectories and self.state is not None:
            return self.state.iteration
        return sum(trajectory.iteration for trajectory in self.trajectories)

    @property
    def is_denoised(self) -> bool:
        """Whether the decoder alone has it."""
        return self.num_passed_on == len(self.trajectories)

    def stopped(self) -> Exception | None:
        """Say why it ends early; who leaves it to others hands them its state."""
        if isinstance(self.stop, EngineStopped):
            return EngineStopped(self.recorder.take(self.trajectories))
        return self.stop

    def add(
        self, trajectory: Trajectory, content: NDArray[np.uint8] | Sound, *, tiles: int
    ) -> None:
        """Take in what a trajectory came to; of a sound as much as was asked for."""
        which = (trajectory.index, trajectory.seed)
        if isinstance(content, Sound):
            if self.request.duration_s is not None:
                content = content.cut(self.request.duration_s)
            self.outputs.append(SoundOutput(*which, content, tiles))
        else:
            self.outputs.append(ImageOutput(*which, content, tiles))

    def result(self, *, now: float) -> JobResult:
        """Sum up a run whose outputs are all there."""
        iterations = self.iteration
        return JobResult(
            outputs=tuple(sorted(self.outputs, key=lambda output: output.index)),
            iterations=iterations,
            mean_rows=sum(trajectory.row_sum for trajectory in self.trajectories) / iterations,
            exact_rows=self.trajectories[0].exact_rows,
            device_options=self.spec.device_options.changed(),
            stages=Stages(
                encode_s=self.denoise_at - self.encode_at,
                denoise_s=self.decode_at - self.denoise_at,
                decode_s=now - self.decode_at,
            ),
            resumed_at=None if self.state is None else self.state.iteration,
        )
