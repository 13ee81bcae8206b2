"""Run the forwards of a batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from shared.errors import JobError, OutOfMemory
from worker.company import Company
from worker.engine import guidance
from worker.engine.batch import Batch, Forward, Row
from worker.engine.conditioning import collate, repeat
from worker.engine.cost import CostModel
from worker.engine.device import synchronize
from worker.engine.families.family import Family
from worker.engine.fault import as_job_error, is_out_of_memory, release_memory
from worker.engine.fitting import advise_size
from worker.engine.headroom import Headroom
from worker.engine.model_cache import ModelCache
from worker.engine.result import DeviceLost
from worker.engine.tally import Tally
from worker.engine.timings import TimeAccount
from worker.engine.trajectory import Trajectory

#: Who met an error, in the words of a job's row.
DENOISER = "the denoiser"


@dataclass(slots=True)
class _Step:
    """One step of a batch: what goes into its rows, and what became of them."""

    batch: Batch[Trajectory]
    family: Family
    #: Scaled latents [1, C, h, w] and timestep [] of each entry.
    inputs: list[tuple[Tensor, Tensor]]
    predicted: dict[Row, Tensor] = field(default_factory=dict)  # [1, C, h, w]
    #: By entry: rows of jobs in its forwards, averaged over its rows.
    company: dict[int, float] = field(default_factory=dict)
    errors: dict[int, JobError] = field(default_factory=dict)
    #: By the rows of a forward that did not fit: the sentence that says which size would.
    advice: dict[int, str] = field(default_factory=dict)

    def outcome(self, entry: int) -> Tensor | JobError:
        """Return an entry's prediction, guidance applied, or its error."""
        if entry in self.errors:
            return self.errors[entry]
        trajectory = self.batch.entries[entry]
        trajectory.row_sum += self.company[entry]
        rows = [self.predicted[Row(entry, row)] for row in range(trajectory.num_rows)]
        try:
            return _guide(trajectory, rows)
        except Exception as cause:
            return as_job_error(cause, "guidance")


class Runner:
    """Turn a batch of trajectories into one prediction for each."""

    def __init__(
        self,
        models: ModelCache,
        costs: CostModel,
        timings: TimeAccount,
        tally: Tally,
        *,
        headroom: Headroom,
        company: Company,
    ) -> None:
        self._models = models
        self._costs = costs
        self._timings = timings
        self._tally = tally
        self._headroom = headroom
        self._company = company

    def predict(self, batch: Batch[Trajectory]) -> list[Tensor | JobError]:
        """Predict for each trajectory, guidance applied: [1, C, h, w], or the error that it met.

        Rows that cannot be run together are run apart until the trajectory is found that is to
        blame. The latents of the others are untouched, so they run as if nothing had been.

        Raises:
            DeviceLost: No batch can be run any more.
        """
        outcomes: dict[Trajectory, Tensor | JobError] = {}
        inputs: dict[Trajectory, tuple[Tensor, Tensor]] = {}
        for trajectory in batch:
            try:
                inputs[trajectory] = trajectory.model_input()
            except Exception as cause:
                self.check_device(cause, trajectory.key.model)
                outcomes[trajectory] = as_job_error(cause, "the sampler")
        if inputs:
            outcomes |= self._predict(Batch(tuple(inputs)), list(inputs.values()))
        return [outcomes[trajectory] for trajectory in batch]

    def check_device(self, error: BaseException | None, model: str) -> None:
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

    def _predict(
        self, batch: Batch[Trajectory], inputs: list[tuple[Tensor, Tensor]]
    ) -> dict[Trajectory, Tensor | JobError]:
        key = batch.entries[0].key
        try:
            family = self._models.get(key.model)
        except JobError as error:
            return dict.fromkeys(batch, error)
        step = _Step(batch, family, inputs)
        pending = batch.forwards()
        while pending:
            pending = self._run(step, pending[0]) + pending[1:]
        self._tally.iterations[key.model] += len(batch) - len(step.errors)
        return {trajectory: step.outcome(n) for n, trajectory in enumerate(batch)}

    def _run(self, step: _Step, forward: Forward) -> list[Forward]:
        """Run a forward; returns those to be run in its place if it cannot be."""
        if all(row.entry in step.errors for row in forward.rows):
            return []
        key = step.batch.entries[0].cost_key
        exact = step.batch.exact_entries(forward)
        cap = self._headroom.cap(key, max_rows=forward.size)
        if forward.size > cap and not exact:
            return step.batch.split(forward.rows, cap)
        try:
            with self._company.together():
                self._forward(step, forward)
        except Exception as error:
            cause = error
        else:
            self._headroom.note_fit(key)
            return []
        # Behind the handler, in which the frames that failed would still hold their tensors.
        if not is_out_of_memory(cause):
            return self._search(step, forward, cause)
        release_memory(cause)
        self._tally.unfit_forwards[key.model] += 1
        if forward.size == 1 or exact:
            return self._run_alone(step, forward, exact)
        self._headroom.shrink(key, forward.size)
        return [forward]

    def _search(self, step: _Step, forward: Forward, cause: Exception) -> list[Forward]:
        """Look for the entry that a forward failed for: in its halves, until one is left."""
        self.check_device(cause, step.family.spec.id)
        release_memory(cause)
        halves = step.batch.halve(forward)
        if not halves:
            step.errors[forward.rows[0].entry] = as_job_error(cause, DENOISER)
        return halves

    def _run_alone(self, step: _Step, forward: Forward, exact: list[int]) -> list[Forward]:
        """Run a forward that cannot be smaller once more, with nobody beside on the device.

        If memory is out again, those fail that gave it its size: a single row, or exact entries.
        """
        try:
            with self._company.alone():
                self._forward(step, forward)
        except Exception as error:
            cause = error
        else:
            return []
        if not is_out_of_memory(cause):
            return self._search(step, forward, cause)
        release_memory(cause)
        if forward.size not in step.advice:
            step.advice[forward.size] = self._advise(step, forward, is_exact=bool(exact))
        guilty = exact or [forward.rows[0].entry]
        step.errors |= {entry: OutOfMemory(step.advice[forward.size]) for entry in guilty}
        rest = [row for row in forward.rows if row.entry not in guilty]
        return step.batch.split(rest, forward.size)

    def _advise(self, step: _Step, forward: Forward, *, is_exact: bool) -> str:
        """Find out which size would fit, with nobody beside, and say so."""
        latents, timestep = step.inputs[forward.rows[0].entry]
        conditioning = step.batch.entries[forward.rows[0].entry].conditionings[0]

        def call(shape: tuple[int, ...]) -> None:
            step.family.predict(
                latents.new_zeros(forward.size, latents.shape[1], *shape),
                timestep.float().repeat(forward.size),
                repeat(conditioning, forward.size),
            )

        where = f"in forwards of {forward.size} rows, as exact jobs have them," if is_exact else ""
        with self._company.alone(), step.batch.entries[0].adapters.attached():
            return advise_size(step.family.spec, latents.shape[2:], call, where=where)

    def _forward(self, step: _Step, forward: Forward) -> None:
        padded = forward.rows + forward.rows[:1] * (forward.size - len(forward.rows))
        entries, inputs = step.batch.entries, step.inputs
        latents = torch.cat([inputs[row.entry][0] for row in padded])
        timesteps = torch.stack([inputs[row.entry][1].float() for row in padded])
        conditioning = collate([entries[row.entry].conditionings[row.row] for row in padded])
        # A GPU works on while Python goes on: what was queued before, the decoder's work too,
        # shall not count as this forward's time, and this forward's time shall.
        synchronize(step.family.device)
        started = self._timings.clock()
        with entries[0].adapters.attached():
            predictions = step.family.predict(latents, timesteps, conditioning)
        synchronize(step.family.device)
        elapsed_s = self._timings.clock() - started
        self._timings.forward_s += elapsed_s
        self._costs.observe(entries[0].cost_key, forward.size, 1000 * elapsed_s)
        self._tally.forwards[step.family.spec.id, len(forward.rows)] += 1
        self._tally.padding_rows[step.family.spec.id] += forward.size - len(forward.rows)
        for row, prediction in zip(forward.rows, torch.split(predictions, 1), strict=False):
            step.predicted[row] = prediction
            share = len(forward.rows) / entries[row.entry].num_rows
            step.company[row.entry] = step.company.get(row.entry, 0.0) + share


def _guide(trajectory: Trajectory, rows: list[Tensor]) -> Tensor:
    if len(rows) == 1:
        return rows[0]
    uncond, cond = rows
    guided = guidance.combine(uncond, cond, trajectory.guidance_scale)
    if trajectory.guidance_rescale > 0:
        guided = guidance.rescale(guided, cond, trajectory.guidance_rescale)
    return guided
