"""One picture being denoised."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shared.errors import JobError, NonFinite
from worker.engine.conditioning import Conditioning, Shapes, count_tokens
from worker.engine.families.pipeline_call import PipelineCall
from worker.engine.fault import as_job_error
from worker.engine.forward_process import KnownRegion
from worker.engine.lora import NOTHING, Attachment
from worker.engine.own_steps import OwnSteps
from worker.engine.samplers import Scheduler, scale_input, takes_generator


class BatchKey(NamedTuple):
    """What rows must have in common to share a forward."""

    model: str
    latent_shape: tuple[int, ...]
    #: Of what a row is conditioned on.
    shapes: Shapes
    #: Ids and weights, in the order of the ids.
    adapters: tuple[tuple[str, float], ...] = ()

    @property
    def cost_key(self) -> "ForwardKey":
        """What it costs by."""
        num_tokens = count_tokens(self.shapes)
        return ForwardKey(self.model, self.latent_shape, num_tokens, len(self.adapters))


class ForwardKey(NamedTuple):
    """What decides, besides its rows, how long a forward takes.

    Of adapters it is their number: each set of them, with its weights, would be learned anew.
    """

    model: str
    latent_shape: tuple[int, ...]
    num_tokens: int
    num_adapters: int = 0


class DecodeKey(NamedTuple):
    """What decides how long latents take to decode."""

    model: str
    latent_shape: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Trajectory:
    """Latents on their way, with a scheduler and a generator of their own.

    The engine's thread alone changes it once it is under way.
    """

    #: The run of a job that it belongs to.
    run_id: int
    #: Which of the job's outputs it is.
    index: int
    seed: int
    key: BatchKey
    scheduler: Scheduler
    generator: torch.Generator
    latents: Tensor  # [1, C, ...]
    #: Of each of its rows: what to keep away from, if it is guided, and what to show.
    conditionings: tuple[Conditioning, ...]
    guidance_scale: float
    guidance_rescale: float
    priority: int
    max_rows: int
    #: Rows of every forward that holds this trajectory; None leaves it free.
    exact_rows: int | None
    #: The scheduler's iteration that it begins with: above 0 when it starts from a picture.
    first: int = 0
    #: The part that a mask keeps, if there is one.
    known: KnownRegion | None = None
    #: What adapters add to the denoiser; all rows of a key have the same.
    adapters: Attachment = NOTHING
    #: What runs it, where that is a pipeline's own call.
    call: PipelineCall[Any] | None = None
    #: Forwards done.
    iteration: int = 0
    #: Sum over its iterations of the rows of jobs in its forward.
    row_sum: float = 0.0
    error: JobError | None = None
    #: What the scheduler held before its first step; all else is state.
    scheduler_at_start: Mapping[str, object] = field(init=False)
    _step_arguments: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler_at_start = vars(self.scheduler).copy()
        has_noise = takes_generator(self.scheduler)
        self._step_arguments = {"generator": self.generator} if has_noise else {}

    @property
    def cost_key(self) -> ForwardKey:
        """What its forwards cost by."""
        return self.key.cost_key

    @property
    def num_rows(self) -> int:
        """Rows in a forward: two with guidance, one without."""
        return len(self.conditionings)

    @property
    def num_iterations(self) -> int:
        """Forwards from start to end."""
        return len(self.scheduler.timesteps) - self.first

    @property
    def iterations_left(self) -> int:
        """Forwards until the end."""
        return self.num_iterations - self.iteration

    @property
    def is_ended(self) -> bool:
        """Whether it takes part in no further batch."""
        return self.error is not None or self.iteration == self.num_iterations

    @property
    def can_be_restored(self) -> bool:
        """Whether its state is all in its scheduler, its generator and its latents."""
        return not isinstance(self.scheduler, OwnSteps)

    def model_input(self) -> tuple[Tensor, Tensor]:
        """Return the scaled latents [1, C, h, w] and the timestep [] of the next iteration."""
        timestep = self.scheduler.timesteps[self.first + self.iteration]
        return scale_input(self.scheduler, self.latents, timestep), timestep

    def advance(self, prediction: Tensor | JobError) -> None:
        """Take one step with a prediction [1, C, h, w], or end with an error in its place."""
        if isinstance(prediction, JobError):
            self.error = prediction
            return
        timestep = self.scheduler.timesteps[self.first + self.iteration]
        try:
            # Never twice for one iteration: the scheduler's state has moved on, whatever happens.
            latents: Tensor = self.scheduler.step(
                prediction, timestep, self.latents, **self._step_arguments, return_dict=False
            )[0]
            if latents.shape != self.latents.shape:
                raise ValueError(f"a step made {self.latents.shape} to {latents.shape}")
            self.latents = latents
            if self.known is not None:
                following = self.first + self.iteration + 1
                self.latents = self.known.restore(self.latents, self.scheduler, following)
        except Exception as cause:
            self.error = as_job_error(cause, "the sampler")
            return
        self.iteration += 1


def fail_non_finite(
    trajectories: Iterable[Trajectory], predictions: Iterable[Tensor | JobError]
) -> None:
    """End each trajectory whose prediction or latents are not all finite; all have one shape.

    They are looked at together: one by one would wait for a GPU once for each. A sampler that cuts
    off what is too large hides an infinite prediction, so that the latents alone do not tell.
    """
    under_way = [
        (trajectory, prediction)
        for trajectory, prediction in zip(trajectories, predictions, strict=True)
        if trajectory.error is None and isinstance(prediction, Tensor)
    ]
    if not under_way:
        return
    numbers = torch.cat([t for trajectory, p in under_way for t in (trajectory.latents, p)])
    are_finite = torch.isfinite(numbers).flatten(1).all(dim=1).view(-1, 2).all(dim=1).tolist()
    for (trajectory, _), is_finite in zip(under_way, are_finite, strict=True):
        if not is_finite:
            trajectory.error = NonFinite(
                f"the model's numbers left their range at step {trajectory.iteration}; less "
                "guidance, another sampler or another seed may keep them in it"
            )
