"""A perfect model: of data N(mu, s^2), whose prediction at any noise level is known in closed form.

So is the end of the probability-flow ODE (Song et al., 2021, eq. 13). Whatever tells a network a
wrong noise level, stops early or steps twice ends somewhere else.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.schedule import TrainingSchedule
from shared.vocab import PredictionType
from worker.engine.samplers import Scheduler, takes_generator

MEAN, DEVIATION = 0.7, 0.4


@dataclass(frozen=True)
class Oracle:
    """The perfect model of a training schedule."""

    training: TrainingSchedule
    prediction_type: PredictionType

    def level(self, timestep: Tensor) -> tuple[float, float]:
        """Return signal and noise at a training timestep, which may lie between two whole ones."""
        log_sigmas = self.training.log_sigmas
        low = min(max(math.floor(float(timestep)), 0), len(log_sigmas) - 2)
        fraction = float(timestep) - low
        sigma = math.exp(log_sigmas[low] * (1 - fraction) + log_sigmas[low + 1] * fraction)
        signal = 1 / math.sqrt(1 + sigma**2)
        return signal, sigma * signal

    def predict(self, model_input: Tensor, timestep: Tensor) -> Tensor:
        """Say what a perfect network says of an input at a timestep."""
        a, b = self.level(timestep)
        sample = (MEAN * b**2 + a * DEVIATION**2 * model_input) / (a**2 * DEVIATION**2 + b**2)
        noise = (model_input - a * sample) / b
        match self.prediction_type:
            case PredictionType.EPSILON:
                return noise
            case PredictionType.SAMPLE:
                return sample
            case PredictionType.V_PREDICTION:
                return a * noise - b * sample

    def step(
        self, scheduler: Scheduler, x: Tensor, timestep: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Take one step as the engine does."""
        arguments = {"generator": generator} if takes_generator(scheduler) else {}
        prediction = self.predict(scheduler.scale_model_input(x, timestep), timestep)
        latents: Tensor = scheduler.step(prediction, timestep, x, **arguments, return_dict=False)[0]
        return latents

    def sample(self, scheduler: Scheduler, noise: Tensor, *, seed: int = 0) -> Tensor:
        """Sample from unit noise [1, 1, 1, N] to the end."""
        x: Tensor = noise * scheduler.init_noise_sigma
        generator = torch.Generator().manual_seed(seed)
        for timestep in scheduler.timesteps:
            x = self.step(scheduler, x, timestep, generator)
        return x

    def exact_end(self, scheduler: Scheduler, noise: Tensor) -> Tensor:
        """Solve the ODE from the same noise to the last level of a scheduler at its start."""
        first = scheduler.timesteps[0]
        signal, sigma = self.level(first)
        start = scheduler.scale_model_input(noise * scheduler.init_noise_sigma, first) / signal
        variance = DEVIATION**2
        shrink = math.sqrt(
            (variance + _last_sigma(scheduler) ** 2) / (variance + (sigma / signal) ** 2)
        )
        end: Tensor = MEAN + (start - MEAN) * shrink
        return end


def _last_sigma(scheduler: Scheduler) -> float:
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[-1])
    alpha_bar = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return math.sqrt((1 - alpha_bar) / alpha_bar)
