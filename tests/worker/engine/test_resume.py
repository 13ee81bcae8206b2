"""Jobs that are broken off and go on on another engine, with the real model: the same bits."""

from collections.abc import Sequence

import numpy as np
import pytest

from shared.compatibility import CONSISTENCY, DIFFUSION_SAMPLERS
from shared.request import GenerationRequest
from shared.vocab import Sampler
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from tests.worker.engine.test_source import MASK, PIXELS
from worker.checkpoint import decode_checkpoint, encode_checkpoint
from worker.engine import (
    Engine,
    EngineConfig,
    EngineStopped,
    JobResult,
    JobState,
    ModelCache,
    SourceImage,
    StateMisfit,
)
from worker.engine.conditioning import count_tokens, shapes_of
from worker.engine.cost import Cost, CostModel
from worker.engine.trajectory import ForwardKey

LATENT_SHAPE = (1, 4, 16, 16)


def record(
    models: ModelCache,
    mine: GenerationRequest,
    source: SourceImage | None = None,
    *,
    costs: CostModel | None = None,
) -> tuple[JobResult, list[JobState]]:
    """Run a request alone to its end; returns its state before each step but the first."""
    engine = Engine(EngineConfig(state_interval_s=0), models, costs=costs)
    states: list[JobState] = []
    engine.start()
    try:
        future = engine.submit("job", mine, source, on_state=states.append)
        return future.result(PATIENCE_S), states
    finally:
        engine.stop()


def go_on(
    models: ModelCache,
    mine: GenerationRequest,
    state: JobState,
    source: SourceImage | None = None,
    company: Sequence[GenerationRequest] = (),
) -> JobResult:
    """Have another engine read a state and go on from it."""
    engine = Engine(EngineConfig(), models)
    for number, other in enumerate(company):
        engine.submit(f"other-{number}", other)
    read = decode_checkpoint(encode_checkpoint(state, {}), {})
    future = engine.submit("job", mine, source, state=read)
    engine.start()
    try:
        return future.result(PATIENCE_S)
    finally:
        engine.stop()


def assert_same(one: JobResult, other: JobResult) -> None:
    for mine, theirs in zip(one.outputs, other.outputs, strict=True):
        assert (mine.index, mine.seed) == (theirs.index, theirs.seed)
        assert np.array_equal(mine.pixels, theirs.pixels)


def full_at_eight(models: ModelCache) -> CostModel:
    """Costs of a device on which more than eight rows lose, so that four outputs go first."""
    num_tokens = count_tokens(shapes_of(models.get("demo").encode("a star")))
    costs = CostModel()
    key = ForwardKey("demo", LATENT_SHAPE, num_tokens)
    costs.load([Cost(key, rows, ms, 1000) for rows, ms in ((2, 20), (8, 60), (10, 900))])
    return costs


@pytest.mark.parametrize(
    "sampler",
    [
        # test_snapshot.py tries all of them in no time, without a network.
        sampler
        if sampler is Sampler.DPMPP_2M_SDE
        else pytest.param(sampler, marks=pytest.mark.slow)
        for sampler in DIFFUSION_SAMPLERS
    ],
)
def test_an_exact_job_gives_the_same_bits_in_any_company(
    models: ModelCache, sampler: Sampler
) -> None:
    # A consistency sampler is none of this model's, and keeps its state all the same.
    mine = request(
        sampler=sampler, steps=3, determinism="exact", allow_undistilled=sampler in CONSISTENCY
    )
    whole, states = record(models, mine)
    state = states[len(states) // 2]
    company = [request(steps=2, seed=1), request(sampler="euler", steps=1, determinism="exact")]
    resumed = go_on(models, mine, state, company=company)
    assert_same(resumed, whole)
    assert (resumed.resumed_at, whole.resumed_at) == (state.iteration, None)
    assert resumed.iterations == whole.iterations
    assert resumed.mean_rows > whole.mean_rows == 2


@pytest.mark.parametrize(
    ("mask", "determinism"),
    [pytest.param(None, "fast", marks=pytest.mark.slow), (MASK, "exact")],
    ids=["image", "mask"],
)
def test_a_job_that_starts_from_a_picture_goes_on(
    models: ModelCache, mask: np.ndarray | None, determinism: str
) -> None:
    mine = request(sampler="dpmpp_2m_sde", steps=6, strength=0.6, determinism=determinism)
    source = SourceImage(PIXELS, mask)
    whole, states = record(models, mine, source)
    assert [state.iteration for state in states] == [1, 2]
    # Alone a `fast` one has the same rows in each forward as well.
    assert_same(go_on(models, mine, states[0], source), whole)


@pytest.mark.slow  # one that stops in the middle has finished some as well
def test_outputs_that_were_finished_are_finished_as_they_were(models: ModelCache) -> None:
    mine = request(sampler="ddpm", steps=3, num_outputs=5, determinism="exact")
    whole, states = record(models, mine, costs=full_at_eight(models))
    state = states[-1]
    # Four outputs of two rows fill a forward of eight.
    assert [output.iteration for output in state.outputs] == [3, 3, 3, 3, 2]
    resumed = go_on(models, mine, state)
    assert_same(resumed, whole)
    assert (resumed.iterations, resumed.resumed_at) == (15, 14)


def test_an_engine_that_stops_hands_over_what_it_has_done(models: ModelCache) -> None:
    mine = request(sampler="dpmpp_2m_sde", steps=4, num_outputs=5, determinism="exact")
    costs = full_at_eight(models)
    engine = Engine(EngineConfig(state_interval_s=0), models, costs=costs)

    def leave(state: JobState) -> None:
        if state.iteration == 4 * 4 + 1:
            engine.drain()  # heard before the next step but one

    engine.start()
    future = engine.submit("job", mine, on_state=leave)
    with pytest.raises(EngineStopped) as stopped:
        future.result(PATIENCE_S)
    engine.stop()
    state = stopped.value.state
    assert state is not None
    assert [output.iteration for output in state.outputs] == [4, 4, 4, 4, 2]
    assert_same(go_on(models, mine, state), run_alone(models, mine))


def test_an_engine_that_stops_before_a_job_has_come_further_hands_nothing_over(
    models: ModelCache,
) -> None:
    mine = request(steps=6)
    state = record(models, mine)[1][2]
    engine = Engine(EngineConfig(), models)
    future = engine.submit("job", mine, state=state)
    assert engine.progress() == {"job": state.iteration}
    engine.drain()
    engine.start()
    with pytest.raises(EngineStopped) as stopped:
        future.result(PATIENCE_S)
    assert stopped.value.state is None
    engine.stop()


def test_a_state_of_another_job_is_refused_and_the_engine_goes_on(
    models: ModelCache, engine: Engine
) -> None:
    mine = request(steps=3)
    state = record(models, mine)[1][0]
    for other in (
        request(steps=3, sampler="ddpm"),
        request(steps=3, determinism="exact"),
        request(steps=3, num_outputs=2),
        request(steps=3, width=128),
    ):
        with pytest.raises(StateMisfit):
            engine.submit("other", other, state=state).result(PATIENCE_S)
    assert_same(engine.submit("job", mine).result(PATIENCE_S), run_alone(models, mine))


def test_a_short_job_is_not_looked_at(engine: Engine) -> None:
    states: list[JobState] = []
    engine.submit("job", request(), on_state=states.append).result(PATIENCE_S)
    assert states == []
    assert engine.timings.state_s == 0
