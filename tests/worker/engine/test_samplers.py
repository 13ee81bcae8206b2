"""Samplers against a data distribution whose exact prediction is known.

For data N(mu, s^2) the prediction has a closed form, and so has the end of the
probability-flow ODE. Whatever tells the network a wrong noise level converges somewhere else.
"""

import itertools

import pytest
import torch

from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from shared.vocab import Sampler, Schedule
from worker.engine import ModelCache
from worker.engine.samplers import SamplerBook, Scheduler, clone, make_prototype, takes_generator

MU, S = 0.7, 0.4
START = 1.3
DETERMINISTIC = (Sampler.DDIM, Sampler.DPMPP_2M, Sampler.EULER)
#: How far from the exact end a first-order method may be after 150 steps.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    spec = Catalog.load(CATALOG).get("demo")
    assert spec is not None
    return spec


@pytest.fixture(scope="module")
def native(models: ModelCache) -> Scheduler:
    return models.get("demo").scheduler


def alpha_and_sigma(spec: ModelSpec, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise at a training timestep, from the model's own schedule."""
    log_sigmas = torch.tensor(spec.training.log_sigmas, dtype=torch.float64)
    # Euler's timesteps may lie between two whole ones.
    low = timestep.double().floor().long().clamp(0, len(log_sigmas) - 2)
    log_sigma = torch.lerp(log_sigmas[low], log_sigmas[low + 1], timestep.double() - low)
    alpha = (1 + (2 * log_sigma).exp()).rsqrt()
    return alpha, log_sigma.exp() * alpha


def predict(spec: ModelSpec, model_input: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """What a perfect model says at a timestep: the demo model's kind of prediction, v."""
    a, b = alpha_and_sigma(spec, timestep)
    x_0 = (MU * b**2 + a * S**2 * model_input) / (a**2 * S**2 + b**2)
    noise = (model_input - a * x_0) / b
    return a * noise - b * x_0


def step(
    spec: ModelSpec,
    scheduler: Scheduler,
    x: torch.Tensor,
    timestep: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Take one step as the engine does, with a perfect model."""
    arguments = {"generator": generator} if takes_generator(scheduler) else {}
    prediction = predict(spec, scheduler.scale_model_input(x, timestep), timestep)
    latents: torch.Tensor = scheduler.step(prediction, timestep, x, **arguments, return_dict=False)[
        0
    ]
    return latents


def sample(spec: ModelSpec, scheduler: Scheduler, start: torch.Tensor) -> torch.Tensor:
    x = start * scheduler.init_noise_sigma
    generator = torch.Generator().manual_seed(0)
    for timestep in scheduler.timesteps:
        x = step(spec, scheduler, x, timestep, generator)
    return x


def exact_end(spec: ModelSpec, scheduler: Scheduler) -> float:
    """Where the ODE takes the start: from the first level down to sigma zero."""
    a, b = alpha_and_sigma(spec, scheduler.timesteps[0])
    sigma = float(b / a)
    # Samplers in sigma space start from sigma * noise, the others from the noise itself.
    y = START * scheduler.init_noise_sigma
    y = y if scheduler.init_noise_sigma != 1.0 else y / float(a)
    return float(MU + (y - MU) * (S**2 / (S**2 + sigma**2)) ** 0.5)


@pytest.mark.parametrize(
    ("sampler", "schedule"), list(itertools.product(DETERMINISTIC, Schedule)), ids=str
)
def test_a_deterministic_sampler_converges_to_the_exact_end(
    spec: ModelSpec, native: Scheduler, sampler: Sampler, schedule: Schedule
) -> None:
    book = SamplerBook()
    errors = []
    for steps in (10, 150):
        scheduler = book.start(spec, native, sampler, schedule, steps)
        start = torch.tensor([[[[START]]]], dtype=torch.float64)
        end = float(sample(spec, scheduler, start))
        errors.append(abs(end - exact_end(spec, scheduler)))
    assert errors[1] < TOLERANCE
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("schedule", Schedule, ids=str)
def test_ddpm_draws_from_the_data_distribution(
    spec: ModelSpec, native: Scheduler, schedule: Schedule
) -> None:
    steps = 40 if schedule is Schedule.KARRAS else 150
    scheduler = SamplerBook().start(spec, native, Sampler.DDPM, schedule, steps)
    start = torch.randn((1, 1, 1, 20_000), generator=torch.Generator().manual_seed(1)).double()
    end = sample(spec, scheduler, start)
    assert float(end.mean()) == pytest.approx(MU, abs=0.03)
    assert float(end.std()) == pytest.approx(S, abs=0.05)


@pytest.mark.parametrize(
    ("sampler", "schedule"), list(itertools.product(Sampler, Schedule)), ids=str
)
def test_schedulers_of_two_trajectories_share_no_state(
    spec: ModelSpec, native: Scheduler, sampler: Sampler, schedule: Schedule
) -> None:
    book = SamplerBook()
    one, other = (book.start(spec, native, sampler, schedule, 6) for _ in range(2))
    noise = torch.randn((1, 1, 1, 4), generator=torch.Generator().manual_seed(2)).double()
    expected = sample(spec, book.start(spec, native, sampler, schedule, 6), noise)
    # In turns, as two jobs of one batch take their steps.
    x, y = noise * one.init_noise_sigma, noise * 3 * other.init_noise_sigma
    my_generator, other_generator = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    for timestep in one.timesteps:
        y = step(spec, other, y, timestep, other_generator)
        x = step(spec, one, x, timestep, my_generator)
    assert torch.equal(x, expected)


def test_a_clone_begins_where_its_prototype_stands(native: Scheduler) -> None:
    prototype = make_prototype(native, Sampler.DPMPP_2M, Schedule.NATIVE)
    copy = clone(prototype)
    copy.set_timesteps(5)
    copy.step(torch.ones(1, 1, 1, 1), copy.timesteps[0], torch.ones(1, 1, 1, 1))
    assert any(output is not None for output in copy.model_outputs)
    assert all(output is None for output in prototype.model_outputs)
