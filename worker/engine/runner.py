"""Run the forwards of a batch."""

import torch
from torch import Tensor

from shared.errors import InternalFailure, JobError, OutOfMemory
from worker.engine import guidance
from worker.engine.batch import Batch
from worker.engine.cost import CostModel
from worker.engine.device import synchronize
from worker.engine.model_cache import ModelCache
from worker.engine.result import DeviceLost
from worker.engine.timings import TimeAccount
from worker.engine.trajectory import Trajectory


class Runner:
    """Turn a batch of trajectories into one prediction for each."""

    def __init__(self, models: ModelCache, costs: CostModel, timings: TimeAccount) -> None:
        self._models = models
        self._costs = costs
        self._timings = timings

    def predict(self, batch: Batch[Trajectory]) -> list[Tensor | JobError]:
        """Predict for each trajectory, guidance applied: [1, C, h, w], or the error that it met.

        A batch that cannot be run is halved until the trajectory is found that is to blame; the
        latents of the others are untouched, so they run as if nothing had been.

        Raises:
            DeviceLost: No batch can be run any more.
        """
        try:
            return list(self._predict(batch))
        except Exception as error:
            self.check_device(error, batch.entries[0].key.model)
            if len(batch) > 1:
                first, second = batch.halves()
                return [*self.predict(first), *self.predict(second)]
            return [as_job_error(error, "the model met an error")]

    def check_device(self, error: Exception, model: str) -> None:
        """See whether the device still answers after an error of its own.

        Raises:
            DeviceLost: It does not: the error is not one of the job that met it.
        """
        if not isinstance(error, torch.AcceleratorError):
            return
        try:
            self._models.get(model).touch()
        except torch.AcceleratorError as again:
            raise DeviceLost("the device answers no more") from again

    def _predict(self, batch: Batch[Trajectory]) -> list[Tensor]:
        family = self._models.get(batch.entries[0].key.model)
        inputs = [trajectory.model_input() for trajectory in batch]
        rows_of: list[list[Tensor]] = [[] for _ in batch]
        company = [0.0 for _ in batch]
        for forward in batch.forwards():
            padded = forward.rows + forward.rows[:1] * (forward.size - len(forward.rows))
            latents = torch.cat([inputs[row.entry][0] for row in padded])
            timesteps = torch.stack([inputs[row.entry][1].float() for row in padded])
            prompt_embeds = torch.stack(
                [batch.entries[row.entry].prompt_embeds[row.row] for row in padded]
            )
            # A GPU works on while Python goes on: what was queued before, the decoder's work too,
            # shall not count as this forward's time, and this forward's time shall.
            synchronize(family.device)
            started = self._timings.clock()
            with batch.entries[0].adapters.attached():
                predictions = family.predict(latents, timesteps, prompt_embeds)
            synchronize(family.device)
            elapsed_s = self._timings.clock() - started
            self._timings.forward_s += elapsed_s
            self._costs.observe(batch.entries[0].cost_key, forward.size, 1000 * elapsed_s)
            for row, prediction in zip(forward.rows, torch.split(predictions, 1), strict=False):
                rows_of[row.entry].append(prediction)
                company[row.entry] += len(forward.rows) / batch.entries[row.entry].num_rows
        for trajectory, num_rows in zip(batch, company, strict=True):
            trajectory.row_sum += num_rows
        return [_guide(trajectory, rows) for trajectory, rows in zip(batch, rows_of, strict=True)]


def _guide(trajectory: Trajectory, rows: list[Tensor]) -> Tensor:
    if len(rows) == 1:
        return rows[0]
    uncond, cond = rows
    guided = guidance.combine(uncond, cond, trajectory.guidance_scale)
    if trajectory.guidance_rescale > 0:
        guided = guidance.rescale(guided, cond, trajectory.guidance_rescale)
    return guided


def as_job_error(cause: Exception, message: str) -> JobError:
    """Turn whatever went wrong for one job into the error that its row will show."""
    error: JobError
    if isinstance(cause, JobError):
        return cause
    if isinstance(cause, torch.OutOfMemoryError):
        error = OutOfMemory("the device has too little memory for this job")
    else:
        error = InternalFailure(message)
    error.__cause__ = cause
    return error
