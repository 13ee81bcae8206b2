"""Which samplers go with which schedules on which model, and how far."""

from dataclasses import dataclass
from functools import cache

from shared.catalog import ModelSpec
from shared.schedule import TrainingSchedule, max_distinct_steps
from shared.vocab import PredictionType, Sampler, Schedule, first_iteration

#: Levels that diffusers' schedulers place themselves, where they can.
OWN_LEVELS = frozenset({Schedule.KARRAS, Schedule.EXPONENTIAL, Schedule.BETA})
#: Samplers whose diffusers scheduler can (DDIM as DPM-Solver++ of order 1).
_PLACES_LEVELS = frozenset(
    {
        Sampler.DDIM,
        Sampler.DPMPP_2M,
        Sampler.DPMPP_2M_SDE,
        Sampler.DPMPP_SINGLESTEP,
        Sampler.UNIPC,
        Sampler.EULER,
        Sampler.HEUN,
        Sampler.DEIS,
        Sampler.KDPM2,
        Sampler.KDPM2_ANCESTRAL,
        Sampler.SA_SOLVER,
    }
)
#: Samplers whose diffusers scheduler takes a list of timesteps.
_TAKES_TIMESTEPS = frozenset(
    {
        Sampler.DDPM,
        Sampler.DDIM,
        Sampler.DPMPP_2M,
        Sampler.DPMPP_2M_SDE,
        Sampler.DPMPP_SINGLESTEP,
        Sampler.EULER,
        Sampler.HEUN,
    }
)
#: Samplers whose diffusers scheduler does not know models that predict the sample.
_NOT_FROM_SAMPLES = frozenset(
    {Sampler.EULER_ANCESTRAL, Sampler.PNDM, Sampler.KDPM2, Sampler.KDPM2_ANCESTRAL}
)
#: Samplers whose diffusers scheduler counts its first steps from wherever it begins.
_BEGINS_AT_THE_TOP = frozenset({Sampler.PNDM})
#: Samplers whose steps draw new noise.
STOCHASTIC = frozenset(
    {
        Sampler.DDPM,
        Sampler.DPMPP_2M_SDE,
        Sampler.EULER_ANCESTRAL,
        Sampler.KDPM2_ANCESTRAL,
        Sampler.SA_SOLVER,
    }
)
#: The nearest sampler that goes with every schedule and prediction type: like for like in order and
#: in noise.
_NEAREST = {
    Sampler.DDPM: Sampler.DPMPP_2M_SDE,
    Sampler.UNIPC: Sampler.DPMPP_2M,
    Sampler.EULER_ANCESTRAL: Sampler.DPMPP_2M_SDE,
    Sampler.DEIS: Sampler.DPMPP_2M,
    Sampler.PNDM: Sampler.DPMPP_2M,
    Sampler.KDPM2: Sampler.HEUN,
    Sampler.KDPM2_ANCESTRAL: Sampler.DPMPP_2M_SDE,
    Sampler.SA_SOLVER: Sampler.DPMPP_2M_SDE,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sampler does not work here: because of which field, and what would."""

    field: str
    reason: str
    instead: Sampler


def find_refusal(sampler: Sampler, schedule: Schedule, spec: ModelSpec) -> Refusal | None:
    """Tell why a sampler cannot sample a model on a schedule; None if it can."""
    if spec.prediction_type is PredictionType.SAMPLE and sampler in _NOT_FROM_SAMPLES:
        reason = f"{sampler} knows no models that predict the sample, as {spec.id} does"
        return Refusal("sampler", reason, _NEAREST[sampler])
    if schedule is Schedule.NATIVE or goes_by_timesteps(sampler, schedule):
        return None
    if schedule in OWN_LEVELS and sampler in _PLACES_LEVELS:
        return None
    reason = f"{sampler} cannot be given the levels of the {schedule} schedule"
    return Refusal("schedule", reason, _NEAREST[sampler])


def find_start_refusal(sampler: Sampler, steps: int, strength: float) -> Refusal | None:
    """Tell why a sampler cannot start from a picture at a strength; None if it can."""
    if sampler not in _BEGINS_AT_THE_TOP or first_iteration(sampler, steps, strength) == 0:
        return None
    reason = f"{sampler} would lose a step: its second one is taken twice wherever it begins"
    return Refusal("sampler", reason, _NEAREST[sampler])


def goes_by_timesteps(sampler: Sampler, schedule: Schedule) -> bool:
    """Tell whether a schedule reaches a sampler as a list of whole training timesteps."""
    if schedule in (Schedule.NATIVE, Schedule.BETA) or sampler not in _TAKES_TIMESTEPS:
        return False
    return schedule not in OWN_LEVELS or sampler not in _PLACES_LEVELS


def max_steps(sampler: Sampler, schedule: Schedule, spec: ModelSpec) -> int:
    """Return the most steps of a combination on a model; 0 if it is refused."""
    if find_refusal(sampler, schedule, spec) is not None:
        return 0
    if goes_by_timesteps(sampler, schedule):
        return _max_distinct_steps(schedule, spec.training)
    return spec.training.num_train_timesteps


@cache
def _max_distinct_steps(schedule: Schedule, training: TrainingSchedule) -> int:
    return max_distinct_steps(schedule, training, training.num_train_timesteps)
