import itertools
import math
from dataclasses import replace

import pytest
from diffusers import EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from shared.schedule import TrainingSchedule, max_distinct_steps, sigmas_of, timesteps_of
from shared.vocab import Schedule

SCALED_LINEAR = TrainingSchedule(1000, "scaled_linear", 0.00085, 0.012)
TRAININGS = [
    SCALED_LINEAR,
    TrainingSchedule(1000, "linear", 0.0001, 0.02),
    TrainingSchedule(1000, "squaredcos_cap_v2", 0.0001, 0.02),
    TrainingSchedule(50, "linear", 0.001, 0.1),
]
PLACED = [Schedule.KARRAS, Schedule.LINEAR, Schedule.COSINE]

trainings = st.sampled_from(TRAININGS)
schedules = st.sampled_from(PLACED)


def test_levels_of_the_training_schedule_are_those_of_stable_diffusion() -> None:
    assert SCALED_LINEAR.sigma_max == pytest.approx(14.6146, abs=1e-3)
    assert SCALED_LINEAR.sigma_min == pytest.approx(0.0292, abs=1e-3)


@given(schedules, trainings, st.integers(2, 200))
def test_levels_fall_from_the_models_highest_to_its_lowest(
    schedule: Schedule, training: TrainingSchedule, steps: int
) -> None:
    sigmas = sigmas_of(schedule, training, steps)
    assert len(sigmas) == steps
    assert sigmas[0] == pytest.approx(training.sigma_max, rel=1e-6)
    assert sigmas[-1] == pytest.approx(training.sigma_min, rel=1e-6)
    assert all(high > low for high, low in itertools.pairwise(sigmas))


@given(trainings, st.data())
def test_a_training_timestep_is_found_again_by_its_own_level(
    training: TrainingSchedule, data: st.DataObject
) -> None:
    timestep = data.draw(st.integers(0, training.num_train_timesteps - 1))
    sigma = 2.718281828459045 ** training.log_sigmas[timestep]
    assert training.timestep_at(sigma) == timestep


@pytest.mark.parametrize("schedule", PLACED)
@pytest.mark.parametrize("training", TRAININGS, ids=lambda t: t.beta_schedule)
def test_the_most_distinct_steps_are_distinct_and_one_more_is_not(
    schedule: Schedule, training: TrainingSchedule
) -> None:
    most = max_distinct_steps(schedule, training, training.num_train_timesteps)
    timesteps = timesteps_of(schedule, training, most)
    assert len(set(timesteps)) == most
    assert timesteps == sorted(timesteps, reverse=True)
    if most < training.num_train_timesteps:
        assert len(set(timesteps_of(schedule, training, most + 1))) == most


def test_rescaled_levels_are_those_of_diffusers() -> None:
    training = replace(SCALED_LINEAR, zero_terminal_snr=True)
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
    )
    sigmas = theirs.sigmas.flip(0)[1:]
    # Theirs are computed in single precision, where little is left of the last but one.
    assert [math.exp(log) for log in training.log_sigmas] == pytest.approx(
        sigmas.tolist(), rel=0.01
    )


def test_one_step_starts_at_the_highest_level() -> None:
    assert [timesteps_of(schedule, SCALED_LINEAR, 1) for schedule in PLACED] == [[999]] * 3
