from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import InternalFailure, InvalidInput, ModelUnavailable, NonFinite
from shared.vocab import Determinism
from tests.worker.engine.conftest import PATIENCE_S, Submit, request, run_alone
from worker.engine import (
    DeviceLost,
    Engine,
    EngineConfig,
    EngineStopped,
    JobCanceled,
    ModelCache,
)


def test_every_output_of_a_job_arrives_in_order_with_its_own_seed(engine: Engine) -> None:
    result = engine.submit("job", request(num_outputs=3, seed=2**53 - 2)).result(PATIENCE_S)
    assert [output.index for output in result.outputs] == [0, 1, 2]
    assert [output.seed for output in result.outputs] == [2**53 - 2, 2**53 - 1, 0]
    assert result.iterations == 12
    assert len({output.pixels.tobytes() for output in result.outputs}) == 3


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_one_step_is_enough(engine: Engine, guidance: float) -> None:
    for sampler in ("ddpm", "ddim", "dpmpp_2m", "euler"):
        job = engine.submit(sampler, request(sampler=sampler, steps=1, guidance=guidance))
        assert job.result(PATIENCE_S).outputs[0].pixels.shape == (64, 64, 3)


def test_jobs_of_all_kinds_share_forwards(submit_together: Submit) -> None:
    futures = submit_together(
        [
            request(sampler="ddpm", steps=4),
            request(sampler="ddim", schedule="cosine", steps=4),
            request(sampler="dpmpp_2m", schedule="karras", steps=4, guidance=1),
            request(sampler="euler", schedule="linear", steps=4, guidance_rescale=0.7),
        ]
    )
    # 2 + 2 + 1 + 2 rows; the first job may have been alone for some steps of its own.
    means = [future.result(PATIENCE_S).mean_rows for future in futures]
    assert max(means) > 4
    assert all(rows <= 7 for rows in means)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "euler"])
def test_company_changes_a_fast_job_by_rounding_only(
    models: ModelCache, submit_together: Submit, sampler: str
) -> None:
    mine = request(sampler=sampler, steps=8)
    alone = run_alone(models, mine).outputs[0].pixels
    company = [request(sampler="euler", steps=9, seed=n, prompt="a blue ring") for n in range(5)]
    shared = submit_together([mine, *company])[0].result(PATIENCE_S).outputs[0].pixels
    # One level of 255: rounding in the last bits may tip a value over to the next.
    assert np.abs(alone.astype(int) - shared.astype(int)).max() <= 1


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    company=st.lists(
        st.builds(
            request,
            sampler=st.sampled_from(["ddpm", "ddim", "dpmpp_2m", "euler"]),
            schedule=st.sampled_from(["native", "linear", "cosine"]),
            steps=st.integers(1, 6),
            guidance=st.sampled_from([1.0, 2.5, 12.0]),
            determinism=st.sampled_from(["fast", "exact"]),
            priority=st.integers(0, 9),
            num_outputs=st.integers(1, 2),
            seed=st.integers(0, 99),
        ),
        max_size=5,
    ),
    place=st.integers(0, 5),
    sampler=st.sampled_from(["ddpm", "dpmpp_2m"]),
)
def test_an_exact_job_gives_the_same_bits_in_any_company(
    models: ModelCache, company: list, place: int, sampler: str
) -> None:
    mine = request(sampler=sampler, determinism="exact", steps=5)
    alone = run_alone(models, mine)
    engine = Engine(EngineConfig(), models)
    jobs = [*company[:place], mine, *company[place:]]
    futures = [engine.submit(str(n), job) for n, job in enumerate(jobs)]
    engine.start()
    try:
        results = [future.result(PATIENCE_S) for future in futures]
    finally:
        engine.stop()
    result = results[min(place, len(company))]
    assert np.array_equal(result.outputs[0].pixels, alone.outputs[0].pixels)
    assert result.exact_rows == alone.exact_rows
    for job, other in zip(jobs, results, strict=True):
        assert len(other.outputs) == job.num_outputs
        assert (other.exact_rows is None) == (job.determinism is Determinism.FAST)


def test_a_job_joins_and_leaves_while_another_runs(engine: Engine) -> None:
    long = engine.submit("long", request(sampler="ddpm", steps=400))
    short = engine.submit("short", request(steps=2))
    assert short.result(PATIENCE_S).mean_rows > 2
    assert not long.done()
    engine.cancel("long")
    with pytest.raises(JobCanceled):
        long.result(PATIENCE_S)


def test_a_canceled_job_leaves_and_the_others_do_not_notice(
    models: ModelCache, engine: Engine
) -> None:
    canceled = engine.submit("canceled", request(sampler="ddpm", steps=1000, num_outputs=2))
    other = engine.submit("other", request(determinism="exact", steps=6))
    engine.cancel("canceled")
    engine.cancel("never heard of")
    with pytest.raises(JobCanceled):
        canceled.result(PATIENCE_S)
    expected = run_alone(models, request(determinism="exact", steps=6)).outputs[0].pixels
    assert np.array_equal(other.result(PATIENCE_S).outputs[0].pixels, expected)
    assert engine.progress() == {}


def test_a_job_that_comes_back_replaces_its_old_run(engine: Engine) -> None:
    old = engine.submit("job", request(sampler="ddpm", steps=1000))
    new = engine.submit("job", request(steps=3))
    assert new.result(PATIENCE_S).iterations == 3
    with pytest.raises(JobCanceled):
        old.result(PATIENCE_S)


def test_draining_hands_every_job_back_and_takes_no_more(engine: Engine) -> None:
    jobs = [engine.submit(str(n), request(sampler="ddpm", steps=1000)) for n in range(4)]
    engine.drain()
    for job in jobs:
        with pytest.raises(EngineStopped):
            job.result(PATIENCE_S)
    with pytest.raises(EngineStopped):
        engine.submit("late", request())


def test_draining_finishes_what_is_nearly_done(models: ModelCache) -> None:
    engine = Engine(EngineConfig(), models)
    engine.warm_up("demo")
    engine.start()
    long = engine.submit("long", request(sampler="ddpm", steps=1000))
    short = engine.submit("short", request(sampler="ddpm", steps=40))
    while engine.progress().get("short", 0) == 0:
        pass
    engine.drain(finish_within_s=10)
    assert short.result(PATIENCE_S).iterations == 40
    with pytest.raises(EngineStopped):
        long.result(PATIENCE_S)
    engine.stop()


def test_a_device_that_is_lost_is_told_from_a_job_that_fails(models: ModelCache) -> None:
    crashes: list[BaseException] = []
    engine = Engine(EngineConfig(), models, on_crash=crashes.append)
    family = models.get("demo")
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    broken = [True]
    original = family.predict

    def predict(*inputs: Any) -> torch.Tensor:
        if broken:
            raise error
        return original(*inputs)

    def touch() -> None:
        raise error

    family.predict = predict
    engine.start()
    try:
        # The device still answers: it was the job.
        with pytest.raises(InternalFailure):
            engine.submit("first", request()).result(PATIENCE_S)
        broken.clear()
        assert engine.submit("second", request()).result(PATIENCE_S).iterations == 4
        broken.append(True)
        family.touch = touch
        with pytest.raises(InternalFailure):
            engine.submit("third", request()).result(PATIENCE_S)
        assert [type(crash) for crash in crashes] == [DeviceLost]
    finally:
        engine.stop()
        del family.predict, family.touch


def test_a_job_whose_numbers_explode_fails_alone(
    models: ModelCache, submit_together: Submit
) -> None:
    good = request(determinism="exact", steps=6)
    family = models.get("demo")
    original = family.encode
    poison = {name: tensor * float("nan") for name, tensor in original("poison").items()}
    family.encode = lambda prompt: poison if prompt == "poison" else original(prompt)
    try:
        futures = submit_together([request(prompt="poison"), good])
        with pytest.raises(NonFinite):
            futures[0].result(PATIENCE_S)
        shared = futures[1].result(PATIENCE_S)
    finally:
        family.encode = original
    assert np.array_equal(shared.outputs[0].pixels, run_alone(models, good).outputs[0].pixels)


def test_what_the_model_cannot_take_fails_with_a_reason(engine: Engine) -> None:
    too_long = engine.submit("a", request(prompt="star " * 200))
    with pytest.raises(InvalidInput, match="tokens"):
        too_long.result(PATIENCE_S)
    unknown = engine.submit("b", request(model="nobody"))
    with pytest.raises(ModelUnavailable, match="nobody"):
        unknown.result(PATIENCE_S)


def test_progress_counts_the_forwards_of_all_outputs(models: ModelCache) -> None:
    engine = Engine(EngineConfig(), models)
    future = engine.submit("job", request(num_outputs=2, steps=3))
    assert engine.progress() == {"job": 0}
    engine.start()
    future.result(PATIENCE_S)
    assert engine.progress() == {}
    engine.stop()


def test_a_crash_of_the_step_loop_ends_every_job_and_is_reported(models: ModelCache) -> None:
    crashes: list[BaseException] = []
    engine = Engine(EngineConfig(), models, on_crash=crashes.append)
    engine.batcher = None  # type: ignore[assignment] # a fault that the loop cannot expect
    future = engine.submit("job", request())
    engine.start()
    with pytest.raises(InternalFailure):
        future.result(PATIENCE_S)
    with pytest.raises(InternalFailure):
        engine.submit("late", request())
    engine.stop()
    assert [type(crash) for crash in crashes] == [TypeError]
