"""A fault of one job, at each place where it can be: it fails, its neighbours notice nothing."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import KDPM2DiscreteScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ErrorCode, InternalFailure, JobError
from tests.worker.engine.conftest import request
from tests.worker.engine.faults import (
    POISON,
    assert_unharmed,
    files_of,
    holds,
    neighbours,
    run_together,
)
from worker.engine import Engine, JobCanceled, ModelCache
from worker.engine.conditioning import Conditioning
from worker.engine.families.stable_diffusion import StableDiffusion

#: The faulty job alone has this sampler and this prompt.
FAULTY: dict[str, Any] = {"sampler": "kdpm2", "prompt": POISON, "steps": 3}
Inject = Callable[[pytest.MonkeyPatch, StableDiffusion], None]


def fail_encode(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    original = family.encode

    def encode(prompt: str) -> torch.Tensor:
        if prompt == POISON:
            raise RuntimeError("a fault")
        return original(prompt)

    monkeypatch.setattr(family, "encode", encode)


def fail_gather(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    original = KDPM2DiscreteScheduler.scale_model_input

    def scale(self: Any, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if self.step_index == 3:
            raise IndexError("a fault")
        return original(self, sample, timestep)

    monkeypatch.setattr(KDPM2DiscreteScheduler, "scale_model_input", scale)


def fail_forward(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    poison, original = family.encode(POISON), family.predict

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, rows: Conditioning) -> Any:
        if holds(rows, poison).any():
            raise RuntimeError("a fault")
        return original(latents, timesteps, rows)

    monkeypatch.setattr(family, "predict", predict)


def return_infinity(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    poison, original = family.encode(POISON), family.predict

    def predict(latents: torch.Tensor, timesteps: torch.Tensor, rows: Conditioning) -> Any:
        predictions = original(latents, timesteps, rows)
        predictions[holds(rows, poison), 0, 0, 0] = float("inf")
        return predictions

    monkeypatch.setattr(family, "predict", predict)


def return_nan(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    original = family.encode

    def encode(prompt: str) -> Conditioning:
        factor = float("nan") if prompt == POISON else 1.0
        return {name: tensor * factor for name, tensor in original(prompt).items()}

    monkeypatch.setattr(family, "encode", encode)


def fail_step(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    original = KDPM2DiscreteScheduler.step

    def step(self: Any, *args: Any, **named: Any) -> Any:
        result = original(self, *args, **named)
        if self.step_index == 3:
            raise ArithmeticError("a fault")  # its state has moved on
        return result

    monkeypatch.setattr(KDPM2DiscreteScheduler, "step", step)


def change_shape(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
    original = KDPM2DiscreteScheduler.step

    def step(self: Any, *args: Any, **named: Any) -> Any:
        return (original(self, *args, **named)[0][..., :-1],)

    monkeypatch.setattr(KDPM2DiscreteScheduler, "step", step)


def spoil_decode(spoil: Callable[[torch.Tensor], torch.Tensor]) -> Inject:
    """Spoil what the decoder gets of the faulty job, whose latents are known by its sampler."""

    def inject(monkeypatch: pytest.MonkeyPatch, family: StableDiffusion) -> None:
        original_step, original_decode = KDPM2DiscreteScheduler.step, family.decode
        made: list[torch.Tensor] = []

        def step(self: Any, *args: Any, **named: Any) -> Any:
            result = original_step(self, *args, **named)
            made.append(result[0])
            return result

        def decode(latents: torch.Tensor, **named: Any) -> Any:
            is_faulty = any(latents is one for one in made)
            return original_decode(spoil(latents) if is_faulty else latents, **named)

        monkeypatch.setattr(KDPM2DiscreteScheduler, "step", step)
        monkeypatch.setattr(family, "decode", decode)

    return inject


fail_decode = spoil_decode(lambda latents: latents[:, :-1])
decode_infinity = spoil_decode(lambda latents: latents * float("inf"))

FAULTS: list[tuple[Inject, ErrorCode, str]] = [
    (fail_encode, ErrorCode.INTERNAL, "the encoder met an error; the worker's log"),
    (fail_gather, ErrorCode.INTERNAL, "the sampler met an error; the worker's log"),
    (fail_forward, ErrorCode.INTERNAL, "the denoiser met an error; the worker's log"),
    (fail_step, ErrorCode.INTERNAL, "the sampler met an error; the worker's log"),
    (change_shape, ErrorCode.INTERNAL, "the sampler met an error; the worker's log"),
    (fail_decode, ErrorCode.INTERNAL, "the decoder met an error; the worker's log"),
    (return_infinity, ErrorCode.NON_FINITE, "left their range at step 1; less guidance"),
    (return_nan, ErrorCode.NON_FINITE, "left their range at step 1; less guidance"),
    (decode_infinity, ErrorCode.NON_FINITE, "the decoder's numbers left their range"),
]
FAULT_IDS = [
    "encode", "gather", "forward", "step", "shape", "decode", "infinity", "nan", "decoded infinity",
]  # fmt: skip


@pytest.mark.parametrize("determinism", ["exact", pytest.param("fast", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("inject", "code", "says"), FAULTS, ids=FAULT_IDS)
def test_the_faulty_job_fails_alone(
    models: ModelCache,
    monkeypatch: pytest.MonkeyPatch,
    inject: Inject,
    code: ErrorCode,
    says: str,
    determinism: str,
) -> None:
    with torch.inference_mode():
        inject(monkeypatch, models.get("demo"))
    faulty = request(**FAULTY, determinism=determinism)
    others = neighbours()
    first, *rest = others
    outcomes = run_together(models, [first, faulty, *rest])
    error = outcomes.pop(1)
    assert isinstance(error, JobError)
    assert error.job_code is code
    assert says in error.detail
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_while_it_is_searched_for_every_exact_forward_has_its_rows_and_no_step_is_taken_twice(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = models.get("demo")
    with torch.inference_mode():
        fail_forward(monkeypatch, family)
    failing, sizes = family.predict, []
    num_steps: Counter[int] = Counter()

    def predict(latents: torch.Tensor, *inputs: Any) -> torch.Tensor:
        sizes.append(len(latents))
        return failing(latents, *inputs)

    monkeypatch.setattr(family, "predict", predict)
    original = KDPM2DiscreteScheduler.step

    def step(self: Any, model_output: Any, timestep: Any, *args: Any, **named: Any) -> Any:
        num_steps[id(self)] += 1
        return original(self, model_output, timestep, *args, **named)

    monkeypatch.setattr(KDPM2DiscreteScheduler, "step", step)
    good = [request(sampler="kdpm2", steps=3, seed=n, determinism="exact") for n in range(3)]
    outcomes = run_together(models, [*good, request(**FAULTY, determinism="exact")])
    assert isinstance(outcomes.pop(), InternalFailure)
    assert set(sizes) == {family.spec.exact_rows}
    # All four share a forward, then two, then one.
    assert len(sizes) > good[0].iterations
    assert sorted(num_steps.values()) == [good[0].iterations] * 3
    monkeypatch.undo()
    assert_unharmed(models, good, outcomes)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    jobs=st.lists(
        st.builds(
            request,
            prompt=st.sampled_from([POISON, "a blue ring", "a green heart"]),
            sampler=st.sampled_from(["ddpm", "euler"]),
            guidance=st.sampled_from([1.0, 3.0]),
            determinism=st.sampled_from(["fast", "exact"]),
            num_outputs=st.integers(1, 2),
            steps=st.just(2),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_number_of_faulty_jobs_fail_and_no_other(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch, jobs: list[Any]
) -> None:
    with monkeypatch.context() as patch, torch.inference_mode():
        fail_forward(patch, models.get("demo"))
        outcomes = run_together(models, jobs)
    for job, outcome in zip(jobs, outcomes, strict=True):
        assert isinstance(outcome, InternalFailure) == (job.prompt == POISON)
    good = [pair for pair in zip(jobs, outcomes, strict=True) if pair[0].prompt != POISON]
    assert_unharmed(models, [job for job, _ in good], [outcome for _, outcome in good])


@pytest.mark.parametrize(
    "at", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4)), 5]
)
def test_a_job_can_be_canceled_in_every_step(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    family = models.get("demo")
    engines: list[Engine] = []
    original, forwards = family.predict, 0

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        nonlocal forwards
        forwards += 1
        if forwards == at:
            engines[0].cancel("1")
        return original(*inputs)

    monkeypatch.setattr(family, "predict", predict)
    others = [request(determinism="exact", sampler="ddpm", steps=6)]
    # Its last forward is the fifth: a job that is canceled there is not decoded any more.
    canceled = request(determinism="exact", steps=5)
    outcomes = run_together(models, [*others, canceled], prepare=engines.append)
    assert isinstance(outcomes.pop(), JobCanceled)
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_a_preview_that_cannot_be_copied_harms_nobody(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = KDPM2DiscreteScheduler.scale_model_input, Counter[str]()

    def scale(self: Any, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        calls["all"] += 1
        if calls["all"] == 2:  # the forward's own was the first
            raise RuntimeError("a fault")
        return original(self, sample, timestep)

    mine = request(sampler="kdpm2", determinism="exact")
    (expected,) = run_together(models, [mine])
    monkeypatch.setattr(KDPM2DiscreteScheduler, "scale_model_input", scale)
    (outcome,) = run_together(models, [mine], prepare=lambda engine: engine.watch("0", for_s=1000))
    assert calls["all"] > mine.iterations
    assert files_of(outcome, mine) == files_of(expected, mine)
