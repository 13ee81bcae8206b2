"""Samplers against a perfect model, whose exact end is known: see `evals/oracle.py`."""

import dataclasses
import itertools

import pytest
import torch

from evals.convergence import cells, measure_moments
from evals.kinds import Kind, load_kinds
from evals.oracle import DEVIATION, MEAN, Oracle
from shared.catalog import ModelSpec
from shared.compatibility import STOCHASTIC, find_refusal, max_steps, min_steps
from shared.vocab import PredictionType, Process, Sampler, Schedule, num_iterations
from worker.engine.samplers import SamplerBook, Scheduler, clone, make_prototype, scale_noise

KINDS = load_kinds()
#: The demo model's own kind.
(DEMO,) = [kind for kind in KINDS if str(kind) == "ordinary, v_prediction"]
SPEC, NATIVE = DEMO.spec, DEMO.native
#: Kinds whose levels, or networks, are others than the demo model's.
STRANGE = [kind for kind in KINDS if kind.name not in ("ordinary", "distilled")]
ALL = [*cells(DEMO, stochastic=False), *cells(DEMO, stochastic=True)]
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
    return Oracle(SPEC)


def noise_of(count: int, *, seed: int) -> torch.Tensor:
    return torch.randn((1, 1, 1, count), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("sampler", "schedule"), cells(DEMO, stochastic=False), ids=str)
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


@pytest.mark.parametrize(("sampler", "schedule"), cells(DEMO, stochastic=True), ids=str)
def test_a_stochastic_sampler_draws_from_the_data_distribution(
    spec: ModelSpec, native: Scheduler, oracle: Oracle, sampler: Sampler, schedule: Schedule
) -> None:
    steps = min(125, max_steps(sampler, schedule, spec))
    scheduler = SamplerBook().start(spec, native, sampler, schedule, steps)
    end = oracle.sample(scheduler, noise_of(10_000, seed=1))
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(end.std()) == pytest.approx(DEVIATION, abs=0.05)


@pytest.mark.parametrize("prediction_type", [PredictionType.EPSILON, PredictionType.SAMPLE])
@pytest.mark.parametrize("sampler", [s for s, where in ALL if where is Schedule.NATIVE])
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
        ends.append(Oracle(model).sample(scheduler, noise_of(8, seed=4)))
    # PNDM averages what the network says, not what it means: it gets there by other ways.
    assert torch.allclose(*ends, atol=0.03 if sampler is Sampler.PNDM else 1e-3)


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
    x, y = scale_noise(one, noise), scale_noise(other, noise * 3)
    my_generator, other_generator = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    for timestep in one.timesteps:
        y = oracle.step(other, y, timestep, other_generator)
        x = oracle.step(one, x, timestep, my_generator)
    assert torch.equal(x, expected)


STRANGE_CELLS = [(kind, *cell) for kind in STRANGE for cell in cells(kind, stochastic=False)]


@pytest.mark.parametrize(("kind", "sampler", "schedule"), STRANGE_CELLS, ids=str)
def test_it_converges_on_other_kinds_of_models_too(
    kind: Kind, sampler: Sampler, schedule: Schedule
) -> None:
    book, oracle, noise = SamplerBook(), Oracle(kind.spec), noise_of(16, seed=3)
    # A cosine schedule of zero-terminal SNR has no more steps than this.
    scheduler = book.start(kind.spec, kind.native, sampler, schedule, 100)
    exact = oracle.exact_end(scheduler, noise)
    error = float((oracle.sample(scheduler, noise) - exact).square().mean().sqrt())
    # Where Euler's own levels begin at 4,096, half of them lie where nothing is decided yet.
    assert error < (0.035 if kind.spec.training.zero_terminal_snr else TOLERANCE)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.spec.is_distilled], ids=str)
def test_consistency_samplers_are_exact_on_a_perfectly_distilled_model(kind: Kind) -> None:
    for sampler, schedule in cells(kind, stochastic=True):
        assert measure_moments(kind, sampler, schedule, 10_000).passes
        scheduler = SamplerBook().start(kind.spec, kind.native, sampler, schedule, 1)
        oracle, noise = Oracle(kind.spec), noise_of(16, seed=8)
        exact = oracle.exact_end(scheduler, noise)
        assert torch.allclose(oracle.sample(scheduler, noise), exact, atol=5e-3)


@pytest.mark.parametrize("allow_undistilled", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_cell_of_every_kind_is_refused_with_what_works_or_runs_to_its_end(
    kind: Kind, allow_undistilled: bool
) -> None:
    book, oracle = SamplerBook(), Oracle(kind.spec)
    for sampler, schedule in itertools.product(Sampler, Schedule):
        refusal = find_refusal(sampler, schedule, kind.spec, allow_undistilled=allow_undistilled)
        most = max_steps(sampler, schedule, kind.spec, allow_undistilled=allow_undistilled)
        if refusal is not None:
            instead = (refusal.instead, refusal.instead_schedule)
            allowed = {"allow_undistilled": allow_undistilled}
            assert find_refusal(*instead, kind.spec, **allowed) is None
            assert refusal.instead_schedule in (schedule, Schedule.NATIVE)
            if kind.spec.process is Process.DIFFUSION:
                assert (refusal.instead in STOCHASTIC) == (sampler in STOCHASTIC)
            assert most == 0
        elif allow_undistilled:  # what is allowed without runs the same
            for steps in {min_steps(sampler), 4, min(19, most)}:
                scheduler = book.start(kind.spec, kind.native, sampler, schedule, steps)
                assert len(scheduler.timesteps) == num_iterations(sampler, steps)
                assert oracle.sample(scheduler, noise_of(4, seed=5)).isfinite().all()


def test_a_clone_begins_where_its_prototype_stands(native: Scheduler) -> None:
    prototype = make_prototype(native, Sampler.DPMPP_2M, Schedule.NATIVE)
    copy = clone(prototype)
    copy.set_timesteps(5)
    copy.step(torch.ones(1, 1, 1, 1), copy.timesteps[0], torch.ones(1, 1, 1, 1))
    assert any(output is not None for output in copy.model_outputs)
    assert all(output is None for output in prototype.model_outputs)
