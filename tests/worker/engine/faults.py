"""Jobs beside a faulty one: what each of them ends with, and whether it is what it is alone."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from shared.request import GenerationRequest
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from worker.artifact import encode_image
from worker.engine import Engine, EngineConfig, JobResult, ModelCache
from worker.engine.conditioning import Conditioning

POISON = "a small grey mushroom"
#: What a fast job may differ by, in levels of 255, in other company: docs/reference/determinism.md.
FAST_LEVELS = 3

Outcome = JobResult | BaseException


def neighbours() -> list[GenerationRequest]:
    """Jobs that want nothing but to be left alone; the last two are fast ones."""
    return [
        request(determinism="exact", sampler="ddpm", steps=3, seed=1),
        request(determinism="exact", sampler="dpmpp_2m", steps=4, guidance=1, seed=2),
        request(sampler="euler", steps=3, seed=3),
        request(sampler="ddim", steps=3, guidance=1, seed=4),
    ]


def run_together(
    models: ModelCache,
    requests: Sequence[GenerationRequest],
    *,
    prepare: Callable[[Engine], None] = lambda _: None,
) -> list[Outcome]:
    """Run jobs, named by their places, on an engine that begins with all of them."""
    engine = Engine(EngineConfig(), models)
    prepare(engine)
    futures = [engine.submit(str(n), one) for n, one in enumerate(requests)]
    engine.start()
    try:
        return [future.exception(PATIENCE_S) or future.result() for future in futures]
    finally:
        engine.stop()


def files_of(result: Outcome, request: GenerationRequest) -> list[str]:
    """Return the digests of the files that a job gives."""
    assert isinstance(result, JobResult), result
    made = [
        encode_image(output.pixels, request=request, seed=output.seed, versions={})
        for output in result.outputs
    ]
    return [hashlib.sha256(file.data).hexdigest() for file in made]


def assert_unharmed(
    models: ModelCache, requests: Sequence[GenerationRequest], outcomes: Sequence[Outcome]
) -> None:
    """Compare jobs with what they give alone: exact ones by their files, fast ones by levels."""
    for one, outcome in zip(requests, outcomes, strict=True):
        alone = _alone(models, one.model_dump_json())
        if one.determinism == "exact":
            assert files_of(outcome, one) == files_of(alone, one)
            continue
        assert isinstance(outcome, JobResult), outcome
        assert outcome.iterations == one.iterations
        for ours, theirs in zip(outcome.outputs, alone.outputs, strict=True):
            assert np.abs(ours.pixels.astype(int) - theirs.pixels).max() <= FAST_LEVELS


@functools.cache
def _alone(models: ModelCache, text: str) -> JobResult:
    return run_alone(models, GenerationRequest.model_validate_json(text))


def holds(rows: Conditioning, poison: Conditioning) -> torch.Tensor:
    """Tell of each row whether it is conditioned on this; returns [B]."""
    ((name, tensor),) = poison.items()
    return (rows[name] == tensor).flatten(1).all(dim=1)


def allocate_too_much() -> None:
    """Have torch raise what it raises when a CPU's memory is full."""
    torch.empty(2**60, dtype=torch.uint8)
