"""Samplers against a perfect model, whose exact end is known: see `evals/oracle.py`."""

import dataclasses
import itertools

import pytest
import torch

from evals.convergence import cells, load_model
from evals.oracle import DEVIATION, MEAN, Oracle
from shared.catalog import ModelSpec
from shared.compatibility import CONSISTENCY, STOCHASTIC, find_refusal, max_steps
from shared.vocab import PredictionType, Sampler, Schedule, num_iterations
from worker.engine.samplers import SamplerBook, Scheduler, clone, make_prototype

SPEC, NATIVE = load_model()
#: How far from the exact end a first-order method may be after 150 steps.
TOLERANCE = 0.02


@pytest.fixture
def spec() -> ModelSpec:
    return SPEC


@pytest.fixture
def native() -> Scheduler:
    return NATIVE


@pytest.fixture
def oracle() -> Oracle:
    return Oracle(SPEC.training, SPEC.prediction_type)


def noise_of(count: int, *, seed: int) -> torch.Tensor:
    return torch.randn((1, 1, 1, count), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("sampler", "schedule"), cells(SPEC, stochastic=False), ids=str)
def test_a_deterministic_sampler_converges_to_the_exact_end(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    book = SamplerBook()
    noise = noise_of(16, seed=3)
    errors = []
    for steps in (10, 125):
        scheduler = book.start(spec, native, sampler, schedule, steps)
        exact = oracle.exact_end(scheduler, noise)
        errors.append(float((oracle.sample(scheduler, noise) - exact).square().mean().sqrt()))
    assert errors[1] < TOLERANCE
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(("sampler", "schedule"), cells(SPEC, stochastic=True), ids=str)
def test_a_stochastic_sampler_draws_from_the_data_distribution(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    steps = min(125, max_steps(sampler, schedule, spec))
    scheduler = SamplerBook().start(spec, native, sampler, schedule, steps)
    end = oracle.sample(scheduler, noise_of(10_000, seed=1))
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(end.std()) == pytest.approx(DEVIATION, abs=0.05)


@pytest.mark.parametrize("prediction_type", PredictionType)
@pytest.mark.parametrize("sampler", sorted(set(Sampler) - CONSISTENCY))
def test_every_kind_of_prediction_leads_to_the_same_end(
    spec: ModelSpec, native: Scheduler, sampler: Sampler, prediction_type: PredictionType
) -> None:
    ends = []
    for kind in (PredictionType.V_PREDICTION, prediction_type):
        model = dataclasses.replace(spec, prediction_type=kind)
        if find_refusal(sampler, Schedule.NATIVE, model) is not None:
            assert kind is PredictionType.SAMPLE
            return
        own = type(native).from_config(native.config, prediction_type=kind)
        scheduler = SamplerBook().start(model, own, sampler, Schedule.NATIVE, 100)
        ends.append(Oracle(model.training, kind).sample(scheduler, noise_of(8, seed=4)))
    # PNDM averages what the network says, not what it means: it gets there by other ways.
    assert torch.allclose(*ends, atol=0.03 if sampler is Sampler.PNDM else 1e-3)


ALL = [*cells(SPEC, stochastic=False), *cells(SPEC, stochastic=True)]


@pytest.mark.parametrize(("sampler", "schedule"), ALL, ids=str)
def test_every_number_of_steps_has_its_iterations_and_ends(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    book = SamplerBook()
    most = max_steps(sampler, schedule, spec)
    for steps in (1, 2, 3, 4, 7, min(49, most)):
        scheduler = book.start(spec, native, sampler, schedule, steps)
        assert len(scheduler.timesteps) == num_iterations(sampler, steps)
        assert oracle.sample(scheduler, noise_of(4, seed=5)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "schedule"), ALL, ids=str)
def test_the_most_steps_end_too(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    most = max_steps(sampler, schedule, spec)
    scheduler = SamplerBook().start(spec, native, sampler, schedule, most)
    assert oracle.sample(scheduler, noise_of(4, seed=6)).isfinite().all()


@pytest.mark.parametrize(("sampler", "schedule"), ALL, ids=str)
def test_schedulers_of_two_trajectories_share_no_state(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    book = SamplerBook()
    one, other = (book.start(spec, native, sampler, schedule, 6) for _ in range(2))
    noise = noise_of(4, seed=2)
    expected = oracle.sample(book.start(spec, native, sampler, schedule, 6), noise)
    # In turns, as two jobs of one batch take their steps.
    x, y = noise * one.init_noise_sigma, noise * 3 * other.init_noise_sigma
    my_generator, other_generator = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    for timestep in one.timesteps:
        y = oracle.step(other, y, timestep, other_generator)
        x = oracle.step(one, x, timestep, my_generator)
    assert torch.equal(x, expected)


@pytest.mark.parametrize(
    ("sampler", "schedule"), list(itertools.product(Sampler, Schedule)), ids=str
)
def test_what_is_refused_names_what_works(
    spec: ModelSpec, sampler: Sampler, schedule: Schedule
) -> None:
    for kind in PredictionType:
        model = dataclasses.replace(spec, prediction_type=kind)
        refusal = find_refusal(sampler, schedule, model)
        if refusal is not None:
            assert find_refusal(refusal.instead, schedule, model) is None
            assert (refusal.instead in STOCHASTIC) == (sampler in STOCHASTIC)
            assert max_steps(sampler, schedule, model) == 0


def test_a_clone_begins_where_its_prototype_stands(native: Scheduler) -> None:
    prototype = make_prototype(native, Sampler.DPMPP_2M, Schedule.NATIVE)
    copy = clone(prototype)
    copy.set_timesteps(5)
    copy.step(torch.ones(1, 1, 1, 1), copy.timesteps[0], torch.ones(1, 1, 1, 1))
    assert any(output is not None for output in copy.model_outputs)
    assert all(output is None for output in prototype.model_outputs)
