"""A perfect model: of data N(mu, s^2), whose prediction at any noise level is known in closed form.

So is the end of the probability-flow ODE (Song et al., 2021, eq. 13): an input a x_0 + b eps of the
ODE keeps its place (input - a mu) / sqrt(a^2 s^2 + b^2) in the distribution. Whatever tells a
network a wrong noise level, stops early or steps twice ends somewhere else.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import TCDScheduler
from torch import Tensor

from shared.catalog import ModelSpec
from shared.vocab import PredictionType, Process
from worker.engine.samplers import Scheduler, scale_input, scale_noise, takes_generator

MEAN, DEVIATION = 0.7, 0.4
#: Deviation that an EDM network was preconditioned for: diffusers' default, not the data's.
SIGMA_DATA = 0.5


class Level(NamedTuple):
    """How much of an input is data and how much noise: a and b of a x_0 + b eps."""

    signal: float
    noise: float

    @property
    def spread(self) -> float:
        """The deviation of inputs at this level."""
        return math.hypot(self.signal * DEVIATION, self.noise)


CLEAN = Level(1.0, 0.0)


@dataclass(frozen=True)
class Oracle:
    """The perfect model of a kind."""

    spec: ModelSpec

    def level(self, timestep: Tensor) -> Level:
        """Return the level of a network's input at a timestep, which may lie between whole ones."""
        t = float(timestep)
        match self.spec.process:
            case Process.FLOW:
                t /= self.spec.training.num_train_timesteps
                return Level(1 - t, t)
            case Process.EDM:
                sigma = math.exp(4 * t)
                scale = 1 / math.hypot(sigma, SIGMA_DATA)
                return Level(scale, sigma * scale)
            case Process.DIFFUSION:
                log_sigmas = self.spec.training.log_sigmas
                low = min(max(math.floor(t), 0), len(log_sigmas) - 2)
                sigma = math.exp(log_sigmas[low] * (low + 1 - t) + log_sigmas[low + 1] * (t - low))
                signal = 1 / math.hypot(sigma, 1)
                return Level(signal, sigma * signal)

    def predict(self, model_input: Tensor, timestep: Tensor, target: Level | None = None) -> Tensor:
        """Say what a perfect network says of an input at a timestep.

        A distilled one is told where the sampler jumps to, and says what leads exactly there.
        """
        level = self.level(timestep)
        a, b = level
        if target is None:
            shrink = a * DEVIATION**2 / level.spread**2
            sample = MEAN + shrink * (model_input - a * MEAN)
            noise = (model_input - a * sample) / b
        else:
            there = _move(model_input, level, target)
            determinant = a * target.noise - b * target.signal
            sample = (model_input * target.noise - b * there) / determinant
            noise = (a * there - target.signal * model_input) / determinant
        return self._express(model_input, level, sample, noise)

    def step(
        self, scheduler: Scheduler, x: Tensor, timestep: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Take one step as the engine does."""
        arguments = {"generator": generator} if takes_generator(scheduler) else {}
        target = self._target(scheduler) if self.spec.is_distilled else None
        prediction = self.predict(scale_input(scheduler, x, timestep), timestep, target)
        latents: Tensor = scheduler.step(prediction, timestep, x, **arguments, return_dict=False)[0]
        return latents

    def sample(self, scheduler: Scheduler, noise: Tensor, *, seed: int = 0) -> Tensor:
        """Sample from unit noise [1, 1, 1, N] to the end."""
        x = scale_noise(scheduler, noise)
        generator = torch.Generator().manual_seed(seed)
        for timestep in scheduler.timesteps:
            x = self.step(scheduler, x, timestep, generator)
        return x

    def exact_end(self, scheduler: Scheduler, noise: Tensor) -> Tensor:
        """Solve the ODE from the same noise to the last level of a scheduler at its start."""
        first = scheduler.timesteps[0]
        start = scale_input(scheduler, scale_noise(scheduler, noise), first)
        return _move(start, self.level(first), _last_level(scheduler))

    def _target(self, scheduler: Scheduler) -> Level:
        """Say where a consistency sampler's next step jumps to, before it adds new noise."""
        tcd: Any = TCDScheduler  # ships no type information
        if not isinstance(scheduler, tcd):
            return CLEAN
        following = (scheduler.step_index or 0) + 1
        is_last = following == len(scheduler.timesteps)
        timestep = 0.0 if is_last else float(scheduler.timesteps[following])
        # gamma is 0.3: Zheng et al. (2024), algorithm 4.
        return self.level(torch.tensor(math.floor((1 - 0.3) * timestep)))

    def _express(self, model_input: Tensor, level: Level, sample: Tensor, noise: Tensor) -> Tensor:
        """Write what is data and what is noise in an input as the model's kind of prediction."""
        a, b = level
        if self.spec.process is Process.EDM:
            # Karras et al. (2022), eq. 7: what the skip connection leaves to be said.
            sigma = b / a
            norm = sigma**2 + SIGMA_DATA**2
            sign = -1 if self.spec.prediction_type is PredictionType.V_PREDICTION else 1
            scale = sign * sigma * SIGMA_DATA / math.sqrt(norm)
            return (sample - SIGMA_DATA**2 / norm * model_input / a) / scale
        match self.spec.prediction_type:
            case PredictionType.EPSILON:
                return noise
            case PredictionType.SAMPLE:
                return sample
            case PredictionType.V_PREDICTION:
                return a * noise - b * sample
            case PredictionType.FLOW:
                return noise - sample


def _move(x: Tensor, level: Level, target: Level) -> Tensor:
    """Follow the ODE from one level to another."""
    return target.signal * MEAN + target.spread / level.spread * (x - level.signal * MEAN)


def _last_level(scheduler: Scheduler) -> Level:
    if hasattr(scheduler, "sigmas"):
        return Level(1.0, float(scheduler.sigmas[-1]))
    alpha_bar = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return Level(math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))
