"""A device whose memory is small: who is run in smaller parts, and who fails, with what advice."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ErrorCode, JobError, OutOfMemory
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from tests.worker.engine.faults import (
    POISON,
    allocate_too_much,
    assert_unharmed,
    files_of,
    neighbours,
    run_together,
)
from worker.engine import Engine, EngineConfig, JobResult, ModelCache, SourceImage
from worker.engine.fault import as_job_error, is_out_of_memory, release_memory
from worker.engine.fitting import Size, find_largest
from worker.engine.headroom import RECOVER_AFTER, Headroom

#: Latent cells of a picture of 64x64 pixels, the demo model's own size.
CELLS = 16 * 16


class Memory:
    """What the demo model's device has room for, as rules that a test may change."""

    def __init__(self, models: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
        family = models.get("demo")
        predict, decode, encode = family.predict, family.decode, family.encode
        #: Of rows and cells of a row.
        self.takes_forward: Callable[[int, int], bool] = lambda rows, cells: True
        #: Of the cells of a tile.
        self.takes_decode: Callable[[float], bool] = lambda cells: True
        self.takes_encode: Callable[[str], bool] = lambda prompt: True
        #: Rows of each forward, and whether it fitted.
        self.forwards: list[tuple[int, bool]] = []

        def limited_predict(latents: torch.Tensor, *inputs: Any) -> torch.Tensor:
            fits = self.takes_forward(len(latents), latents[0, 0].numel())
            self.forwards.append((len(latents), fits))
            if not fits:
                allocate_too_much()
            return predict(latents, *inputs)

        def limited_decode(latents: torch.Tensor, *, tiles: int = 1) -> Any:
            if not self.takes_decode(latents[0, 0].numel() / tiles**2):
                allocate_too_much()
            return decode(latents, tiles=tiles)

        def limited_encode(prompt: str) -> Any:
            if not self.takes_encode(prompt):
                allocate_too_much()
            return encode(prompt)

        monkeypatch.setattr(family, "predict", limited_predict)
        monkeypatch.setattr(family, "decode", limited_decode)
        monkeypatch.setattr(family, "encode", limited_encode)


@pytest.fixture
def memory(models: ModelCache, monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(models, monkeypatch)


def once(rule: bool) -> Callable[..., bool]:
    """Make a rule that does not hold the first time and does from then on."""
    calls: list[None] = []

    def holds(*_: object) -> bool:
        calls.append(None)
        return len(calls) > 1 or rule

    return holds


def refused(outcome: object) -> str:
    assert isinstance(outcome, JobError)
    assert outcome.job_code is ErrorCode.OUT_OF_MEMORY
    return outcome.detail


def test_a_forward_that_does_not_fit_is_run_in_smaller_ones_and_the_step_goes_on(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_forward = lambda rows, cells: rows * cells <= 4 * CELLS
    jobs = [request(sampler="euler", steps=3, seed=n) for n in range(6)]
    outcomes = run_together(models, jobs)
    failed = [rows for rows, fits in memory.forwards if not fits]
    # Twelve rows, and six, if all had come by then: from then on so many are known not to fit.
    assert 1 <= len(failed) <= 2
    assert all(rows > 4 for rows in failed)
    assert sum(rows for rows, fits in memory.forwards if fits) == 6 * 2 * 3
    monkeypatch.undo()
    assert_unharmed(models, jobs, outcomes)


def test_a_guided_job_may_have_its_rows_one_by_one(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_forward = lambda rows, cells: rows == 1
    job = request(steps=3)
    outcomes = run_together(models, [job])
    assert memory.forwards == [(2, False), *[(1, True)] * 6]
    assert isinstance(outcomes[0], JobResult)
    assert outcomes[0].mean_rows == 1.0
    monkeypatch.undo()
    assert_unharmed(models, [job], outcomes)


def test_a_picture_that_does_not_fit_alone_fails_with_the_size_that_does(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_forward = lambda rows, cells: cells <= 600
    large = request(width=128, height=128, num_outputs=2)
    others = neighbours()
    outcomes = run_together(models, [*others, large])
    # 24 x 24 cells of 4 pixels are 576; 25 x 25 would be 625.
    assert refused(outcomes.pop()) == (
        "the device has too little memory for 128x128 pixels and has enough for 96x96"
    )
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_an_exact_job_fails_where_its_rows_do_not_fit_and_they_never_get_fewer(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_forward = lambda rows, cells: rows * cells <= 6 * CELLS
    exact = [request(determinism="exact", steps=3, seed=n) for n in range(2)]
    fast = request(steps=4, seed=9)
    *outcomes, other = run_together(models, [*exact, fast])
    for outcome in outcomes:
        assert refused(outcome) == (
            "the device has too little memory for 64x64 pixels in forwards of 8 rows, as exact "
            "jobs have them, and has enough for 52x52"
        )
    # The last ones are the fast job's own.
    assert [rows for rows, _ in memory.forwards[-4:]] == [2] * 4
    assert {rows for rows, _ in memory.forwards[:-4]} == {8}
    monkeypatch.undo()
    assert_unharmed(models, [fast], [other])


@pytest.mark.parametrize("where", ["takes_forward", "takes_decode", "takes_encode"])
def test_who_finds_room_with_nobody_beside_is_as_good_as_new(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    setattr(memory, where, once(False))
    job = request(determinism="exact", sampler="ddpm", steps=3)
    outcomes = run_together(models, [job])
    monkeypatch.undo()
    assert_unharmed(models, [job], outcomes)


def test_a_picture_that_cannot_be_decoded_as_a_whole_is_decoded_in_tiles(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_alone(models, job := request(width=128, height=96, steps=3)).outputs[0]
    memory.takes_decode = lambda cells: cells <= CELLS
    others = neighbours()
    *outcomes, tiled = run_together(models, [*others, job])
    assert isinstance(tiled, JobResult)
    (output,) = tiled.outputs
    assert (whole.tiles, output.tiles) == (1, 2)
    assert output.pixels.shape == (96, 128, 3)
    difference = np.abs(output.pixels.astype(int) - whole.pixels)
    assert 0 < difference.mean() < 16
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_an_exact_picture_is_decoded_as_a_whole_or_not_at_all(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_decode = lambda cells: cells <= 600
    large = request(width=128, height=128, steps=2, determinism="exact")
    others = neighbours()
    *outcomes, error = run_together(models, [*others, large])
    assert refused(error) == (
        "the device has too little memory for 128x128 pixels in the decoder, which an exact job "
        "gives no tiles, and has enough for 96x96"
    )
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_a_picture_whose_tiles_do_not_fit_either_fails_with_the_size_that_does(
    models: ModelCache, memory: Memory
) -> None:
    memory.takes_decode = lambda cells: cells <= CELLS / 16
    (error,) = run_together(models, [request(width=128, height=128, steps=2)])
    assert refused(error) == (
        "the device has too little memory for 128x128 pixels and has enough for 64x64"
    )


def test_where_nothing_fits_the_job_says_so(models: ModelCache, memory: Memory) -> None:
    memory.takes_forward = lambda rows, cells: False
    (error,) = run_together(models, [request(steps=2)])
    assert refused(error) == (
        "the device has too little memory for 64x64 pixels and for any smaller size"
    )


def test_what_cannot_be_encoded_fails_alone(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.takes_encode = lambda prompt: prompt != POISON
    others = neighbours()
    error, *outcomes = run_together(models, [request(prompt=POISON), *others])
    assert "the encoder ran out of the device's memory" in refused(error)
    monkeypatch.undo()
    assert_unharmed(models, others, outcomes)


def test_a_picture_to_start_from_that_cannot_be_encoded_names_the_size_that_can(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = models.get("demo")
    original = family.picture_codec.encode_image

    def encode_image(pixels: np.ndarray) -> Any:
        if pixels.shape[0] * pixels.shape[1] > 80 * 80:
            allocate_too_much()
        return original(pixels)

    monkeypatch.setattr(family.picture_codec, "encode_image", encode_image)
    engine = Engine(EngineConfig(), models)
    engine.start()
    source = SourceImage(np.zeros((96, 96, 3), np.uint8))
    future = engine.submit("job", request(width=96, height=96, strength=0.5), source)
    error = future.exception(PATIENCE_S)
    engine.stop()
    assert refused(error) == (
        "the device has too little memory for 96x96 pixels to start from and has enough for 80x80"
    )


def test_files_of_exact_jobs_do_not_depend_on_who_ran_out_of_memory_beside_them(
    models: ModelCache, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = request(determinism="exact", sampler="ddpm", steps=4)
    (alone,) = run_together(models, [exact])
    memory.takes_forward = lambda rows, cells: rows in (1, 8)
    outcome, *_ = run_together(
        models, [exact, *[request(steps=3, seed=n, width=96) for n in range(2)], *[request()] * 3]
    )
    assert any(not fits for _, fits in memory.forwards)
    assert files_of(outcome, exact) == files_of(alone, exact)


@given(
    side=st.integers(1, 200),
    other=st.integers(1, 200),
    limit=st.integers(0, 40_000),
)
def test_the_largest_size_is_found(side: int, other: int, limit: int) -> None:
    asked: list[Size] = []

    def fits(size: Size) -> bool:
        asked.append(size)
        return size.width * size.height <= limit

    found = find_largest(Size(side, other), fits)
    assert len(asked) <= max(side, other).bit_length()
    scales = [
        Size(max(side * n // longest, 1), max(other * n // longest, 1))
        for longest in [max(side, other)]
        for n in range(1, longest)
    ]
    fitting = [size for size in scales if size.width * size.height <= limit]
    assert found == (fitting[-1] if fitting else None)


def test_a_cap_is_halved_at_once_and_recovers_row_by_row() -> None:
    headroom = Headroom()
    assert headroom.cap("key", max_rows=16) == 16
    headroom.shrink("key", 16)
    headroom.shrink("key", 8)
    assert (headroom.cap("key", max_rows=16), headroom.cap("key", max_rows=2)) == (4, 2)
    assert headroom.cap("other", max_rows=16) == 16
    seen = []
    while headroom.cap("key", max_rows=1000) < 1000:
        seen.append(headroom.cap("key", max_rows=1000))
        for _ in range(RECOVER_AFTER):
            headroom.note_fit("key")
    # What did not fit is tried again; then it is as if it had never been.
    assert seen == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes do not match"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_full_memory_is_told_from_other_errors(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) == is_it
    assert isinstance(as_job_error(error, "the denoiser"), OutOfMemory) == is_it


def test_what_a_failed_call_held_is_let_go() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        activations = torch.zeros(9)
        held.append(weakref.ref(activations))
        allocate_too_much()

    try:
        fail()
    except RuntimeError as error:
        kept = error
    assert is_out_of_memory(kept)
    assert held[0]() is not None
    release_memory(kept)
    assert held[0]() is None
