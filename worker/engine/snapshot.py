"""Take the state of a job, and put it into one that has just begun."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from worker.engine.state import Conditions, JobState, OutputState, StateMisfit, Value
from worker.engine.trajectory import Trajectory


def capture(trajectories: Sequence[Trajectory]) -> JobState:
    """Copy the state of all trajectories of a job, those that have ended too.

    Between two steps only. The copies stay on the device: nothing waits for it.
    """
    return JobState(_conditions_of(trajectories[0]), tuple(map(_capture, trajectories)))


def restore(trajectories: Sequence[Trajectory], state: JobState) -> None:
    """Put a state into trajectories that stand at the start of the same job.

    Raises:
        StateMisfit: They are of another job or engine; some of them may have changed.
    """
    here, there = (asdict(c) for c in (_conditions_of(trajectories[0]), state.conditions))
    for name in here:
        if here[name] != there[name]:
            raise StateMisfit(f"{name} was {there[name]}, here it is {here[name]}")
    if len(trajectories) != len(state.outputs):
        raise StateMisfit(f"it has {len(state.outputs)} outputs, the job {len(trajectories)}")
    for trajectory, output in zip(trajectories, state.outputs, strict=True):
        _restore(trajectory, output)


def _conditions_of(trajectory: Trajectory) -> Conditions:
    return Conditions(
        dtype=str(trajectory.latents.dtype).removeprefix("torch."),
        device=trajectory.latents.device.type,
        num_threads=torch.get_num_threads(),
        exact_rows=trajectory.exact_rows,
    )


def _capture(trajectory: Trajectory) -> OutputState:
    return OutputState(
        iteration=trajectory.iteration,
        row_sum=trajectory.row_sum,
        latents=trajectory.latents.clone(),
        generator=trajectory.generator.get_state(),
        scheduler=type(trajectory.scheduler).__name__,
        values=_changes(trajectory),
    )


def _changes(trajectory: Trajectory) -> Mapping[str, Value]:
    """Copy what a scheduler's steps have changed: no step writes into a tensor that it found."""
    start = trajectory.scheduler_at_start
    return {
        name: _copy(value)
        for name, value in vars(trajectory.scheduler).items()
        # Lists are written into.
        if type(value) is list or name not in start or value is not start[name]
    }


def _copy(value: Value) -> Value:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return [_copy(part) for part in value]
    return value


def _restore(trajectory: Trajectory, output: OutputState) -> None:
    scheduler, latents = trajectory.scheduler, trajectory.latents
    if type(scheduler).__name__ != output.scheduler:
        raise StateMisfit(f"its sampler is a {output.scheduler}, not a {type(scheduler).__name__}")
    if output.latents.shape != latents.shape or output.latents.dtype != latents.dtype:
        raise StateMisfit("its latents have another shape")
    if not 0 <= output.iteration <= trajectory.num_iterations:
        raise StateMisfit(f"it is at iteration {output.iteration} of {trajectory.num_iterations}")
    try:
        trajectory.generator.set_state(output.generator)
    except (RuntimeError, TypeError) as error:
        raise StateMisfit("its generator is of another kind") from error
    for name, value in output.values.items():
        if hasattr(type(scheduler), name):
            raise StateMisfit(f"{name} is nothing that a step changes")
        setattr(scheduler, name, _place(value, latents.device))
    trajectory.latents = output.latents.to(latents.device)
    trajectory.iteration = output.iteration
    trajectory.row_sum = output.row_sum


def _place(value: Value, device: torch.device) -> Value:
    """Copy a value to where a scheduler has it: single numbers in the host's memory always."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True) if value.dim() else value.clone()
    if isinstance(value, list):
        return [_place(part, device) for part in value]
    return value
