"""Samplers: one diffusers scheduler for each trajectory, cloned from a prototype.

A scheduler keeps state between steps, so it serves one trajectory only. Constructing one costs up
to 270 ms and cloning it some microseconds.
"""

import copy
import inspect
import json
import math
import threading
from pathlib import Path
from typing import Any

import diffusers
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from shared.catalog import ModelSpec
from shared.compatibility import goes_by_timesteps
from shared.schedule import timesteps_of
from shared.vocab import Sampler, Schedule, num_iterations
from worker.engine.own_steps import OwnSteps

#: A diffusers scheduler; its classes share method names and no type.
Scheduler = Any

#: The class of each sampler, and what its config must say whatever the model's own says.
_CLASSES: dict[Sampler, tuple[type[Scheduler], dict[str, Any]]] = {
    Sampler.DDPM: (DDPMScheduler, {}),
    Sampler.DDIM: (DDIMScheduler, {}),
    Sampler.DPMPP_2M: (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    Sampler.DPMPP_2M_SDE: (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    Sampler.DPMPP_SINGLESTEP: (DPMSolverSinglestepScheduler, {"algorithm_type": "dpmsolver++"}),
    Sampler.UNIPC: (UniPCMultistepScheduler, {}),
    Sampler.EULER: (EulerDiscreteScheduler, {}),
    Sampler.EULER_ANCESTRAL: (EulerAncestralDiscreteScheduler, {}),
    Sampler.HEUN: (HeunDiscreteScheduler, {}),
    Sampler.DEIS: (DEISMultistepScheduler, {"algorithm_type": "deis"}),
    # The Runge-Kutta start would take nine more forwards; Stable Diffusion goes without it, too.
    Sampler.PNDM: (PNDMScheduler, {"skip_prk_steps": True}),
    Sampler.KDPM2: (KDPM2DiscreteScheduler, {}),
    Sampler.KDPM2_ANCESTRAL: (KDPM2AncestralDiscreteScheduler, {}),
    Sampler.SA_SOLVER: (SASolverScheduler, {"algorithm_type": "data_prediction"}),
    Sampler.LCM: (LCMScheduler, {}),
    Sampler.TCD: (TCDScheduler, {}),
    Sampler.FLOW_EULER: (FlowMatchEulerDiscreteScheduler, {}),
    Sampler.FLOW_HEUN: (FlowMatchHeunDiscreteScheduler, {}),
    Sampler.EDM_DPMPP_2M: (EDMDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
}
#: The classes whose step takes a generator; a signature is too slow to be read for every job.
_DRAWING = frozenset(
    cls for cls, _ in _CLASSES.values() if "generator" in inspect.signature(cls.step).parameters
)
#: What makes a scheduler place the levels of a schedule itself.
_FLAGS = {
    Schedule.KARRAS: "use_karras_sigmas",
    Schedule.EXPONENTIAL: "use_exponential_sigmas",
    Schedule.BETA: "use_beta_sigmas",
}


#: diffusers' own scheduler of models that are told the angle of noise to signal.
TRIGONOMETRIC = "CosineDPMSolverMultistepScheduler"


class TrigonometricEDM(EDMDPMSolverMultistepScheduler):
    """`edm_dpmpp_2m` for models that are told the angle of noise to signal, as Stable Audio Open.

    diffusers' own scheduler of such models is DPM-Solver++ with noise of a Brownian tree, which
    cannot be taken up in the middle, and takes a library of its own. This one visits the same
    levels, and tells the network of them in the same way.
    """

    def precondition_noise(self, sigma: Tensor) -> Tensor:
        """Turn levels into what the network is told, from 0 to 1."""
        return sigma.atan() / math.pi * 2


class SamplerBook:
    """Hands out schedulers, set up for a job's schedule and steps."""

    def __init__(self) -> None:
        self._prototypes: dict[tuple[str, Sampler, Schedule], Scheduler] = {}
        self._lock = threading.Lock()

    def start(
        self,
        spec: ModelSpec,
        native: Scheduler,
        sampler: Sampler,
        schedule: Schedule,
        steps: int,
        **arguments: Any,
    ) -> Scheduler:
        """Return a scheduler at the start of its trajectory; `native` is the model's own one.

        `arguments` are what a family tells it besides.
        """
        if isinstance(native, OwnSteps):
            return OwnSteps(num_iterations(sampler, steps))
        key = (spec.id, sampler, schedule)
        with self._lock:
            if key not in self._prototypes:
                self._prototypes[key] = make_prototype(native, sampler, schedule)
            scheduler = clone(self._prototypes[key])
        if goes_by_timesteps(sampler, schedule):
            scheduler.set_timesteps(timesteps=timesteps_of(schedule, spec.training, steps))
        else:
            scheduler.set_timesteps(steps, **arguments)
        if hasattr(scheduler, "set_begin_index"):
            # Else it looks for its first timestep, and skips a level where two share that one.
            scheduler.set_begin_index(0)
        return scheduler


def load_native(folder: Path) -> Scheduler:
    """Load a model's own scheduler, from whose config those of all samplers are made."""
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    name = config["_class_name"]
    cls = TrigonometricEDM if name == TRIGONOMETRIC else getattr(diffusers, name)
    return cls.from_pretrained(folder / "scheduler", local_files_only=True)


def make_prototype(native: Scheduler, sampler: Sampler, schedule: Schedule) -> Scheduler:
    """Construct the scheduler of a sampler from the config of a model's own."""
    cls, changes = _CLASSES[sampler]
    if sampler is Sampler.DDIM and schedule is not Schedule.NATIVE:
        # DDIM takes neither timesteps nor levels; DPM-Solver++ of order 1 is DDIM and does.
        cls, changes = _CLASSES[Sampler.DPMPP_2M]
        changes = changes | {"solver_order": 1}
    if isinstance(native, TrigonometricEDM):
        cls = TrigonometricEDM
    if sampler is Sampler.EDM_DPMPP_2M and schedule is not Schedule.NATIVE:
        changes = changes | {"sigma_schedule": schedule.value}
    elif schedule in _FLAGS and not goes_by_timesteps(sampler, schedule):
        # At most one of them may be set.
        changes = changes | {flag: which is schedule for which, flag in _FLAGS.items()}
    if native.config.get("rescale_betas_zero_snr"):
        # Other spacings never visit the level without signal: Lin et al. (2023), section 3.3.
        changes = changes | {"timestep_spacing": "trailing"}
    return cls.from_config(native.config, **changes)


def clone(scheduler: Scheduler) -> Scheduler:
    """Copy a scheduler's own state; tables, which no step writes to, stay shared."""
    copied = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if type(value) in (list, dict):  # not the config, a frozen kind of dict
            setattr(copied, name, value.copy())
    return copied


def scale_noise(scheduler: Scheduler, noise: Tensor) -> Tensor:
    """Scale unit noise to a scheduler's first level; flow schedulers start at unit noise."""
    return noise * getattr(scheduler, "init_noise_sigma", 1.0)


def scale_input(scheduler: Scheduler, latents: Tensor, timestep: Tensor) -> Tensor:
    """Scale latents to what the network takes; flow schedulers keep them so."""
    if not hasattr(scheduler, "scale_model_input"):
        return latents
    scaled: Tensor = scheduler.scale_model_input(latents, timestep)
    return scaled


def takes_generator(scheduler: Scheduler) -> bool:
    """Tell whether a scheduler's step may draw noise."""
    return type(scheduler) in _DRAWING
