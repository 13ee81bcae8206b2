"""Which samplers go with which schedules on which model, and how far."""

from dataclasses import dataclass
from functools import cache

from shared.catalog import ModelSpec
from shared.schedule import TrainingSchedule, max_distinct_steps
from shared.vocab import PredictionType, Process, Sampler, Schedule, first_iteration

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
        Sampler.FLOW_EULER,
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
#: Samplers of models that are none of the usual diffusion, and no others do for those.
_PROCESSES = {
    Sampler.FLOW_EULER: Process.FLOW,
    Sampler.FLOW_HEUN: Process.FLOW,
    Sampler.EDM_DPMPP_2M: Process.EDM,
}
#: All others, in their order.
DIFFUSION_SAMPLERS = tuple(sampler for sampler in Sampler if sampler not in _PROCESSES)
#: Samplers of distilled models, whose every step jumps to the end of the trajectory.
CONSISTENCY = frozenset({Sampler.LCM, Sampler.TCD})
#: Samplers whose diffusers scheduler counts its first steps from wherever it begins.
BEGINS_AT_THE_TOP = frozenset({Sampler.PNDM})
#: Samplers whose steps draw new noise.
STOCHASTIC = frozenset(
    {
        Sampler.DDPM,
        Sampler.DPMPP_2M_SDE,
        Sampler.EULER_ANCESTRAL,
        Sampler.KDPM2_ANCESTRAL,
        Sampler.SA_SOLVER,
        *CONSISTENCY,
    }
)
#: Samplers whose diffusers scheduler knows models without any signal at their highest level.
_KNOWS_ZERO_SNR = frozenset(
    {
        Sampler.DDPM,
        Sampler.DDIM,
        Sampler.DPMPP_2M,
        Sampler.DPMPP_2M_SDE,
        Sampler.UNIPC,
        Sampler.EULER,
        Sampler.EULER_ANCESTRAL,
        *CONSISTENCY,
    }
)
#: Like for like in order, where what goes everywhere is not the nearest.
_NEAREST = {
    Sampler.KDPM2: Sampler.HEUN,
    Sampler.HEUN: Sampler.FLOW_HEUN,
    Sampler.FLOW_EULER: Sampler.EULER,
    Sampler.FLOW_HEUN: Sampler.HEUN,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sampler does not work here: because of which field, and what would."""

    field: str
    reason: str
    instead: Sampler
    #: The schedule asked for, unless nothing works on that.
    instead_schedule: Schedule


def find_refusal(
    sampler: Sampler, schedule: Schedule, spec: ModelSpec, *, allow_undistilled: bool = False
) -> Refusal | None:
    """Tell why a sampler cannot sample a model on a schedule; None if it can."""
    obstacle = _find_obstacle(sampler, schedule, spec, allow_undistilled)
    if obstacle is None:
        return None
    field, reason = obstacle
    candidates = (sampler, _NEAREST.get(sampler, sampler), _goes_everywhere(sampler, spec))
    instead = next(
        (candidate, where)
        for where in (schedule, Schedule.NATIVE)
        for candidate in candidates
        if _find_obstacle(candidate, where, spec, allow_undistilled) is None
    )
    return Refusal(field, reason, *instead)


def find_start_refusal(sampler: Sampler, steps: int, strength: float) -> Refusal | None:
    """Tell why a sampler cannot start from a picture at a strength; None if it can."""
    if sampler not in BEGINS_AT_THE_TOP or first_iteration(sampler, steps, strength) == 0:
        return None
    reason = f"{sampler} would lose a step: its second one is taken twice wherever it begins"
    return Refusal("sampler", reason, Sampler.DPMPP_2M, Schedule.NATIVE)


def goes_by_timesteps(sampler: Sampler, schedule: Schedule) -> bool:
    """Tell whether a schedule reaches a sampler as a list of whole training timesteps."""
    if schedule in (Schedule.NATIVE, Schedule.BETA) or sampler not in _TAKES_TIMESTEPS:
        return False
    return schedule not in OWN_LEVELS or sampler not in _PLACES_LEVELS


def stand_in(sampler: Sampler, spec: ModelSpec) -> Sampler:
    """Return a sampler, or what comes nearest to it on a model whose process is another."""
    is_its_own = _PROCESSES.get(sampler, Process.DIFFUSION) is spec.process
    return sampler if is_its_own else _goes_everywhere(sampler, spec)


def max_steps(
    sampler: Sampler, schedule: Schedule, spec: ModelSpec, *, allow_undistilled: bool = False
) -> int:
    """Return the most steps of a combination on a model; 0 if it is refused."""
    if find_refusal(sampler, schedule, spec, allow_undistilled=allow_undistilled) is not None:
        return 0
    if sampler in CONSISTENCY:
        return spec.teacher_steps
    if goes_by_timesteps(sampler, schedule):
        return _max_distinct_steps(schedule, spec.training)
    return spec.training.num_train_timesteps


def min_steps(sampler: Sampler) -> int:
    """Return the fewest steps of a sampler."""
    # Of one exponential level, diffusers' EDM scheduler takes the lowest for the highest.
    return 2 if sampler is Sampler.EDM_DPMPP_2M else 1


def explain_limit(sampler: Sampler, spec: ModelSpec) -> str:
    """Say why `max_steps` is below the number of training timesteps."""
    if sampler in CONSISTENCY:
        return f"distillation visited {spec.teacher_steps} timesteps"
    return "more steps would put two noise levels on one training timestep"


def _find_obstacle(
    sampler: Sampler, schedule: Schedule, spec: ModelSpec, allow_undistilled: bool
) -> tuple[str, str] | None:
    """Name the field that stands in the way, and why."""
    if reason := _misfit(sampler, spec):
        return "sampler", reason
    if sampler in CONSISTENCY and not (spec.is_distilled or allow_undistilled):
        return "sampler", (
            f"{sampler} needs a distilled model, which {spec.id} is not "
            "(a request with allow_undistilled gets it all the same)"
        )
    if not _takes_levels(sampler, schedule):
        return "schedule", f"{sampler} cannot be given the levels of the {schedule} schedule"
    if spec.training.zero_terminal_snr and _is_lost_at_zero_snr(sampler, schedule):
        return "schedule", (
            f"the {schedule} schedule has too few levels for {sampler} where {spec.id} has signal"
        )
    return None


def _misfit(sampler: Sampler, spec: ModelSpec) -> str | None:
    """Say why a sampler does not go with a model, whatever the schedule."""
    process = _PROCESSES.get(sampler, Process.DIFFUSION)
    if process is not spec.process:
        return f"{sampler} is for {process} models; {spec.id} is one of {spec.process}"
    if spec.prediction_type is PredictionType.SAMPLE and sampler in _NOT_FROM_SAMPLES:
        return f"{sampler} knows no models that predict the sample, as {spec.id} does"
    if spec.training.zero_terminal_snr and sampler not in _KNOWS_ZERO_SNR:
        return f"{sampler} knows no models that were trained to zero signal, as {spec.id} was"
    return None


def _takes_levels(sampler: Sampler, schedule: Schedule) -> bool:
    if schedule is Schedule.NATIVE or goes_by_timesteps(sampler, schedule):
        return True
    if sampler is Sampler.EDM_DPMPP_2M:
        return schedule in (Schedule.KARRAS, Schedule.EXPONENTIAL)
    return schedule in OWN_LEVELS and sampler in _PLACES_LEVELS


def _is_lost_at_zero_snr(sampler: Sampler, schedule: Schedule) -> bool:
    """Tell whether levels from 4,096 down leave too few of them below 15, where pictures form.

    Beta and linear ones crowd at the top; as whole timesteps, Karras' and exponential ones fall
    together there. Measured: none of them comes to the exact end with any number of steps.
    """
    if schedule in (Schedule.BETA, Schedule.LINEAR):
        return True
    return schedule in OWN_LEVELS and goes_by_timesteps(sampler, schedule)


def _goes_everywhere(sampler: Sampler, spec: ModelSpec) -> Sampler:
    """Name what works on most schedules of a kind of model: like for like in noise."""
    if spec.process is Process.FLOW:
        return Sampler.FLOW_EULER
    if spec.process is Process.EDM:
        return Sampler.EDM_DPMPP_2M
    return Sampler.DPMPP_2M_SDE if sampler in STOCHASTIC else Sampler.DPMPP_2M


@cache
def _max_distinct_steps(schedule: Schedule, training: TrainingSchedule) -> int:
    return max_distinct_steps(schedule, training, training.num_train_timesteps)
