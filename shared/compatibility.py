"""Which samplers go with which schedules on which model, and how far."""

from functools import cache

from shared.catalog import ModelSpec
from shared.schedule import TrainingSchedule, max_distinct_steps
from shared.vocab import Sampler, Schedule

#: Samplers whose diffusers scheduler knows Karras' levels itself (DDIM as DPM-Solver++ of order 1).
_KNOWS_KARRAS = frozenset({Sampler.DDIM, Sampler.DPMPP_2M, Sampler.EULER})
#: Samplers whose every step draws new noise.
STOCHASTIC = frozenset({Sampler.DDPM})


def goes_by_timesteps(sampler: Sampler, schedule: Schedule) -> bool:
    """Tell whether a schedule reaches a sampler as a list of whole training timesteps."""
    if schedule is Schedule.NATIVE:
        return False
    return schedule is not Schedule.KARRAS or sampler not in _KNOWS_KARRAS


def max_steps(sampler: Sampler, schedule: Schedule, spec: ModelSpec) -> int:
    """Return the most steps of a combination on a model, at which its timesteps stay distinct."""
    training = spec.training
    if goes_by_timesteps(sampler, schedule):
        return _max_distinct_steps(schedule, training)
    return training.num_train_timesteps


@cache
def _max_distinct_steps(schedule: Schedule, training: TrainingSchedule) -> int:
    return max_distinct_steps(schedule, training, training.num_train_timesteps)
