"""Samplers: one diffusers scheduler for each trajectory, cloned from a prototype.

A scheduler keeps state between steps, so it serves one trajectory only. Constructing one costs up
to 270 ms and cloning it some microseconds.
"""

import copy
import inspect
import threading
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)

from shared.catalog import ModelSpec
from shared.compatibility import goes_by_timesteps
from shared.schedule import timesteps_of
from shared.vocab import Sampler, Schedule

#: A diffusers scheduler; its classes share method names and no type.
Scheduler = Any

_CLASSES: dict[Sampler, type[Scheduler]] = {
    Sampler.DDPM: DDPMScheduler,
    Sampler.DDIM: DDIMScheduler,
    Sampler.DPMPP_2M: DPMSolverMultistepScheduler,
    Sampler.EULER: EulerDiscreteScheduler,
}


class SamplerBook:
    """Hands out schedulers, set up for a job's schedule and steps."""

    def __init__(self) -> None:
        self._prototypes: dict[tuple[str, Sampler, Schedule], Scheduler] = {}
        self._lock = threading.Lock()

    def start(
        self, spec: ModelSpec, native: Scheduler, sampler: Sampler, schedule: Schedule, steps: int
    ) -> Scheduler:
        """Return a scheduler at the start of its trajectory; `native` is the model's own one."""
        key = (spec.id, sampler, schedule)
        with self._lock:
            if key not in self._prototypes:
                self._prototypes[key] = make_prototype(native, sampler, schedule)
            scheduler = clone(self._prototypes[key])
        if goes_by_timesteps(sampler, schedule):
            scheduler.set_timesteps(timesteps=timesteps_of(schedule, spec.training, steps))
        else:
            scheduler.set_timesteps(steps)
        return scheduler


def make_prototype(native: Scheduler, sampler: Sampler, schedule: Schedule) -> Scheduler:
    """Construct the scheduler of a sampler from the config of a model's own."""
    cls: type[Scheduler] = _CLASSES[sampler]
    changes: dict[str, Any] = {}
    if sampler is Sampler.DDIM and schedule is not Schedule.NATIVE:
        # DDIM takes neither timesteps nor levels; DPM-Solver++ of order 1 is DDIM and does.
        cls, changes = DPMSolverMultistepScheduler, {"solver_order": 1}
    if schedule is Schedule.KARRAS and not goes_by_timesteps(sampler, schedule):
        changes["use_karras_sigmas"] = True
    return cls.from_config(native.config, **changes)


def clone(scheduler: Scheduler) -> Scheduler:
    """Copy a scheduler's own state; tables, which no step writes to, stay shared."""
    copied = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if type(value) in (list, dict):  # not the config, a frozen kind of dict
            setattr(copied, name, value.copy())
    return copied


def takes_generator(scheduler: Scheduler) -> bool:
    """Tell whether a scheduler's step may draw noise."""
    return "generator" in inspect.signature(scheduler.step).parameters
