"""Noise levels of a job's schedule, and the timesteps a model was trained to see at them.

Pure arithmetic on Python floats, so that the API refuses at submission exactly what the worker
could not sample. sigma is noise over signal, sqrt((1 - abar) / abar). Sources: Karras et al.
(2022), eq. 5; Song et al. (2021), appendix C, for the linear curve; Nichol and Dhariwal (2021),
eq. 17, for the cosine one. Why the curves are bounded: `docs/explanation/schedules.md`.
"""

import bisect
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from shared.vocab import Schedule

#: Exponent of Karras et al. (2022), eq. 5, as diffusers has it.
KARRAS_RHO = 7.0
#: beta(0) and beta(1) of the continuous linear schedule, 1000 times DDPM's 1e-4 and 0.02.
LINEAR_BETA_MIN, LINEAR_BETA_MAX = 0.1, 20.0
#: Offset s of the cosine schedule, Nichol and Dhariwal (2021).
COSINE_OFFSET = 0.008
#: Stands for the last abar of a zero-terminal-SNR model, whose sigma has no end; diffusers' value.
ZERO_SNR_ALPHA_BAR = 2.0**-24


@dataclass(frozen=True)
class TrainingSchedule:
    """How noise grew while the model was trained: a fact of the model, never changed by a job."""

    num_train_timesteps: int
    #: None where the levels are the own ones of diffusers' scheduler, as those of flow and EDM
    #: models are.
    beta_schedule: str | None = None
    beta_start: float = 0.0
    beta_end: float = 0.0
    #: Whether it was rescaled to end without any signal.
    zero_terminal_snr: bool = False

    @cached_property
    def log_sigmas(self) -> tuple[float, ...]:
        """log sigma at each training timestep, rising."""
        alpha_bars = list(itertools.accumulate((1.0 - b for b in self._betas()), operator.mul))
        if self.zero_terminal_snr:
            alpha_bars = _rescale_to_zero_snr(alpha_bars)
        return tuple(0.5 * math.log((1.0 - alpha_bar) / alpha_bar) for alpha_bar in alpha_bars)

    @property
    def sigma_min(self) -> float:
        """The lowest level that the model has seen."""
        return math.exp(self.log_sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The highest level that the model has seen."""
        return math.exp(self.log_sigmas[-1])

    def timestep_at(self, sigma: float) -> int:
        """Invert the training schedule in log sigma, to the nearest whole timestep."""
        log_sigma = math.log(sigma)
        high = min(max(bisect.bisect_left(self.log_sigmas, log_sigma), 1), len(self.log_sigmas) - 1)
        below, above = self.log_sigmas[high - 1], self.log_sigmas[high]
        fraction = min(max((log_sigma - below) / (above - below), 0.0), 1.0)
        return round(high - 1 + fraction)

    def _betas(self) -> list[float]:
        last = self.num_train_timesteps - 1
        if self.beta_schedule == "linear":
            return [
                self.beta_start + (self.beta_end - self.beta_start) * i / last
                for i in range(last + 1)
            ]
        if self.beta_schedule == "scaled_linear":
            low, high = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
            return [(low + (high - low) * i / last) ** 2 for i in range(last + 1)]
        if self.beta_schedule == "squaredcos_cap_v2":
            n = self.num_train_timesteps
            return [
                min(1.0 - _cosine_alpha_bar((i + 1) / n) / _cosine_alpha_bar(i / n), 0.999)
                for i in range(n)
            ]
        raise ValueError(f"unknown training schedule {self.beta_schedule!r}")


def sigmas_of(schedule: Schedule, training: TrainingSchedule, steps: int) -> list[float]:
    """Place `steps` falling noise levels from the model's own sigma_max to its sigma_min.

    `native` is not placed here, since its timesteps are the model's own, nor is `beta`, which only
    diffusers' own schedulers place.
    """
    return [_PLACEMENTS[schedule](training, u) for u in _uniform(steps)]


def timesteps_of(schedule: Schedule, training: TrainingSchedule, steps: int) -> list[int]:
    """Turn a schedule's levels into falling training timesteps, equal ones included."""
    return [training.timestep_at(sigma) for sigma in sigmas_of(schedule, training, steps)]


def max_distinct_steps(schedule: Schedule, training: TrainingSchedule, at_most: int) -> int:
    """Find the most steps, up to `at_most`, at which no two levels fall on one timestep.

    Two levels of one timestep make a step of length zero, which DPM-Solver++ divides by.
    """
    low, high = 1, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if _are_distinct(timesteps_of(schedule, training, middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _rescale_to_zero_snr(alpha_bars: list[float]) -> list[float]:
    """Let the signal end at zero and begin where it did. Source: Lin et al. (2023), algorithm 1."""
    first, last = math.sqrt(alpha_bars[0]), math.sqrt(alpha_bars[-1])
    signals = [(math.sqrt(a) - last) * first / (first - last) for a in alpha_bars[:-1]]
    return [*(signal * signal for signal in signals), ZERO_SNR_ALPHA_BAR]


def _are_distinct(timesteps: list[int]) -> bool:
    return len(set(timesteps)) == len(timesteps)


def _uniform(steps: int) -> list[float]:
    return [0.0] if steps == 1 else [i / (steps - 1) for i in range(steps)]


def _karras(training: TrainingSchedule, u: float) -> float:
    high, low = training.sigma_max ** (1 / KARRAS_RHO), training.sigma_min ** (1 / KARRAS_RHO)
    return float((high + u * (low - high)) ** KARRAS_RHO)


def _exponential(training: TrainingSchedule, u: float) -> float:
    high, low = training.log_sigmas[-1], training.log_sigmas[0]
    return math.exp(high + u * (low - high))


def _linear(training: TrainingSchedule, u: float) -> float:
    high, low = _linear_time(training.sigma_max), _linear_time(training.sigma_min)
    t = high + u * (low - high)
    return math.sqrt(
        math.expm1(LINEAR_BETA_MIN * t + (LINEAR_BETA_MAX - LINEAR_BETA_MIN) * t * t / 2)
    )


def _linear_time(sigma: float) -> float:
    slope = LINEAR_BETA_MAX - LINEAR_BETA_MIN
    level = math.log1p(sigma * sigma)
    return (math.sqrt(LINEAR_BETA_MIN**2 + 2 * slope * level) - LINEAR_BETA_MIN) / slope


def _cosine(training: TrainingSchedule, u: float) -> float:
    high, low = _cosine_angle(training.sigma_max), _cosine_angle(training.sigma_min)
    angle = high + u * (low - high)
    # abar = cos(angle)^2 / cos(angle_0)^2, with angle_0 the offset's angle at time zero.
    alpha_bar = (math.cos(angle) / math.cos(_COSINE_ANGLE_0)) ** 2
    return math.sqrt((1.0 - alpha_bar) / alpha_bar)


def _cosine_angle(sigma: float) -> float:
    return math.acos(math.cos(_COSINE_ANGLE_0) / math.sqrt(1.0 + sigma * sigma))


def _cosine_alpha_bar(t: float) -> float:
    return math.cos((t + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2


_COSINE_ANGLE_0 = COSINE_OFFSET / (1 + COSINE_OFFSET) * math.pi / 2

_PLACEMENTS: dict[Schedule, Callable[[TrainingSchedule, float], float]] = {
    Schedule.KARRAS: _karras,
    Schedule.EXPONENTIAL: _exponential,
    Schedule.LINEAR: _linear,
    Schedule.COSINE: _cosine,
}
