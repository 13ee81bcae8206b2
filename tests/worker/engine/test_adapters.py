"""Which adapters are kept, and that jobs that share an engine never share what is not theirs."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.adapters import AdapterSpec, AdapterUse
from shared.catalog import Catalog
from shared.errors import AdapterUnavailable, ErrorCode, OutOfMemory
from shared.request import GenerationRequest
from tests.fixtures.loras import PARTS, write_catalog, write_peft
from tests.fixtures.stack import wait_until
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from worker.engine import (
    AdapterCache,
    Engine,
    EngineConfig,
    EngineStopped,
    JobCanceled,
    JobResult,
    ModelCache,
)
from worker.engine import adapters as module
from worker.engine.lora_file import measure

eventually = partial(wait_until, timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Adapters a, b and c, of which b is small and changes words too; two that are no good."""
    folder = tmp_path_factory.mktemp("adapters")
    files = {name: folder / f"{name}.safetensors" for name in ("a", "b", "c", "broken", "other")}
    write_peft(files["a"], 1)
    write_peft(files["b"], 2, rank=1, parts=PARTS)
    write_peft(files["c"], 3)
    files["broken"].write_bytes(b"not at all")
    write_peft(files["other"], 4, parts=("text_encoder",))
    content = files["other"].read_bytes()
    files["other"].write_bytes(content.replace(b"encoder.layers.2", b"encoder.layers.9"))
    return write_catalog(folder, files)


@pytest.fixture
def cache(catalog: Catalog) -> AdapterCache:
    return AdapterCache(catalog.adapters, "cpu")


def use(*ids: str, weight: float = 1.0) -> list[AdapterUse]:
    return [AdapterUse(id=adapter_id, weight=weight) for adapter_id in ids]


def picture(*ids: str, weight: float = 1.0, **changes: object) -> GenerationRequest:
    fields = {"adapters": use(*ids, weight=weight), "determinism": "exact", "steps": 3}
    return request(**fields | changes)


def bytes_of(catalog: Catalog, *ids: str) -> int:
    return sum(measure(catalog.adapters[adapter_id].path) for adapter_id in ids)


def test_what_was_needed_last_is_kept_and_loaded_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = module.load

    def note(path: Path, device: str) -> object:
        loaded.append(path.stem)
        return load(path, device)

    monkeypatch.setattr(module, "load", note)
    cache = AdapterCache(catalog.adapters, "cpu", max_bytes=bytes_of(catalog, "a", "b"))
    for ids in (["a"], ["b"], ["a", "b"], ["c"], ["b"]):
        taken = cache.take(use(*ids))
        assert taken is not None
        assert [one.id for one in taken] == ids
        cache.release(set(ids))
    # c took the place of a, the least recently used; of both it would have taken too much.
    assert loaded == ["a", "b", "c"]
    assert cache.loaded == {"c": bytes_of(catalog, "c"), "b": bytes_of(catalog, "b")}


def test_no_more_than_so_many_are_kept(catalog: Catalog) -> None:
    cache = AdapterCache(catalog.adapters, "cpu", max_adapters=1)
    for adapter_id in ("a", "b"):
        cache.take(use(adapter_id))
        cache.release({adapter_id})
        assert cache.loaded.keys() == {adapter_id}
    with pytest.raises(OutOfMemory, match=r"the job's 2 adapters .* at most 1 in"):
        cache.take(use("a", "b"))


def test_a_set_that_can_never_fit_is_refused(catalog: Catalog) -> None:
    limit = bytes_of(catalog, "a") - 1
    with pytest.raises(OutOfMemory, match=f"keeps at most 64 in {limit:,} bytes"):
        AdapterCache(catalog.adapters, "cpu", max_bytes=limit).take(use("a"))


def test_what_a_job_holds_stays_and_another_waits_for_it(catalog: Catalog) -> None:
    cache = AdapterCache(catalog.adapters, "cpu", max_bytes=bytes_of(catalog, "a", "b"))
    cache.take(use("a"))
    cache.take(use("a"))
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(cache.take, use("c"))
        eventually(lambda: len(cache._waiting) == 1)
        # One that needs nothing new does not wait; one that came later does.
        assert cache.take(use("a")) is not None
        later = pool.submit(cache.take, use("b"))
        eventually(lambda: len(cache._waiting) == 2)
        for _ in range(2):
            cache.release({"a"})
        assert not waiting.done()
        cache.release({"a"})
        assert waiting.result(PATIENCE_S) is not None
        assert later.result(PATIENCE_S) is not None
    assert cache.loaded.keys() == {"b", "c"}


def test_one_that_is_wanted_no_more_stops_waiting(catalog: Catalog) -> None:
    cache = AdapterCache(catalog.adapters, "cpu", max_adapters=1)
    cache.take(use("a"))
    assert cache.take(use("b"), is_wanted=lambda: False) is None
    cache.release({"a"})
    assert cache.take(use("b"), is_wanted=lambda: False) is not None


def test_jobs_that_need_the_same_file_load_it_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, loaded = threading.Event(), threading.Event(), []
    load = module.load

    def slow(path: Path, device: str) -> object:
        loaded.append(path)
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return load(path, device)

    monkeypatch.setattr(module, "load", slow)
    cache = AdapterCache(catalog.adapters, "cpu")
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cache.take, use("a"))]
        assert begun.wait(PATIENCE_S)
        jobs.append(pool.submit(cache.take, use("a")))
        eventually(lambda: cache._held["a"].num_holders == 2)
        go_on.set()
        first, second = (job.result(PATIENCE_S) for job in jobs)
    assert len(loaded) == 1
    assert first[0].branches is second[0].branches


def test_what_cannot_be_loaded_leaves_nothing_and_is_tried_again(
    catalog: Catalog, tmp_path: Path
) -> None:
    spec = catalog.adapters["a"]
    good, copy = spec.path.read_bytes(), tmp_path / "copy.safetensors"
    copy.write_bytes(good.replace(b"lora_A", b"lora_X"))
    cache = AdapterCache(
        {"a": AdapterSpec(**{**vars(spec), "path": copy}), "c": catalog.adapters["c"]}, "cpu"
    )
    for _ in range(2):
        with pytest.raises(AdapterUnavailable, match="adapter a has no pair of one rank"):
            cache.take(use("c", "a"))
        assert cache.loaded.keys() == {"c"}
    copy.write_bytes(good)
    assert cache.take(use("a")) is not None


@settings(max_examples=30, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 3), st.sets(st.sampled_from("abc"), min_size=1)), max_size=20
    )
)
def test_no_more_is_held_than_allowed_and_never_less_than_needed(
    catalog: Catalog, turns: list[tuple[int, set[str]]]
) -> None:
    limit = bytes_of(catalog, "a", "b", "c") - 1
    cache = AdapterCache(catalog.adapters, "cpu", max_bytes=limit, max_adapters=2)
    slots: dict[int, set[str]] = {}
    for slot, ids in turns:
        if slot in slots:
            cache.release(slots.pop(slot))
        try:
            taken = cache.take(use(*sorted(ids)), is_wanted=lambda: False)
        except OutOfMemory:
            assert len(ids) == 3
            continue
        if taken is not None:
            slots[slot] = ids
        held = set().union(*slots.values())
        assert held <= cache.loaded.keys()
        assert sum(cache.loaded.values()) <= limit
        assert len(cache.loaded) <= 2


@pytest.fixture(scope="module")
def alone(models: ModelCache, catalog: Catalog) -> dict[tuple[str, ...], NDArray[np.uint8]]:
    """What jobs with sets of adapters draw when nobody else is there."""
    return {
        ids: run_alone(models, picture(*ids), adapters=AdapterCache(catalog.adapters, "cpu"))
        .outputs[0]
        .pixels
        for ids in ((), ("a",), ("b",), ("a", "b"))
    }


@pytest.fixture
def engine(models: ModelCache, cache: AdapterCache) -> Iterator[Engine]:
    engine = Engine(EngineConfig(), models, adapters=cache)
    yield engine
    engine.stop()


def test_jobs_with_different_adapters_step_in_turns_and_keep_their_bits(
    engine: Engine, alone: dict[tuple[str, ...], NDArray[np.uint8]]
) -> None:
    assert len({pixels.tobytes() for pixels in alone.values()}) == len(alone)
    jobs = [
        (ids, engine.submit(f"{'+'.join(ids)}-{n}", picture(*ids)))
        for n in range(2)
        for ids in alone
    ]
    engine.submit("lighter", picture("a", weight=0.5))
    engine.submit("fast", request(adapters=use("a")))
    engine.start()
    for ids, job in jobs:
        result = job.result(PATIENCE_S)
        assert np.array_equal(result.outputs[0].pixels, alone[ids]), ids
        # At most the other one of its set was in its forwards, and the fast one of `a`.
        assert result.mean_rows <= (6 if ids == ("a",) else 4)


def test_what_shares_a_forward_has_the_same_adapters_and_weights(engine: Engine) -> None:
    # One step each: after some the engine may have measured that sharing gains nothing here.
    first = engine.submit("first", request(adapters=use("a"), num_outputs=2, steps=1))
    second = engine.submit("second", request(adapters=use("a", weight=0.9), steps=1))
    third = engine.submit("third", request(steps=1))
    engine.start()
    assert [job.result(PATIENCE_S).mean_rows for job in (first, second, third)] == [4, 2, 2]


@pytest.mark.parametrize(
    ("adapter_id", "reason"),
    [
        ("broken", "adapter broken has no safetensors file that can be read"),
        ("other", r"adapter other was made for another model: its text_encoder has no such layer"),
        ("nobody", "this worker's catalog has no adapter nobody"),
    ],
)
def test_an_adapter_that_cannot_be_used_fails_its_job_alone(
    engine: Engine,
    alone: dict[tuple[str, ...], NDArray[np.uint8]],
    adapter_id: str,
    reason: str,
) -> None:
    good = {ids: engine.submit(f"good-{ids}", picture(*ids)) for ids in ((), ("a",))}
    bad = engine.submit("bad", picture(adapter_id))
    mixed = engine.submit("mixed", picture("a", adapter_id))
    engine.start()
    for job in (bad, mixed):
        with pytest.raises(AdapterUnavailable, match=reason) as failure:
            job.result(PATIENCE_S)
        assert failure.value.job_code is ErrorCode.MODEL_UNAVAILABLE
    for ids, job in good.items():
        assert np.array_equal(job.result(PATIENCE_S).outputs[0].pixels, alone[ids])


def test_a_job_gives_its_adapters_back_however_it_ends(
    models: ModelCache, catalog: Catalog
) -> None:
    cache = AdapterCache(catalog.adapters, "cpu", max_adapters=1)
    engine = Engine(EngineConfig(), models, adapters=cache)
    engine.start()
    try:
        assert engine.submit("done", picture("a")).result(PATIENCE_S).iterations == 3
        # The first fails when its prompt is encoded, the second is canceled at work.
        with pytest.raises(AdapterUnavailable):
            engine.submit("fails", picture("other")).result(PATIENCE_S)
        long = engine.submit("long", picture("b", sampler="ddpm", steps=1000))
        engine.cancel("long")
        with pytest.raises(JobCanceled):
            long.result(PATIENCE_S)
        assert engine.submit("next", picture("c")).result(PATIENCE_S).iterations == 3
        assert cache.loaded.keys() == {"c"}
    finally:
        engine.stop()


@pytest.mark.parametrize("end", ["cancel", "drain"])
def test_a_job_that_waits_for_room_can_be_stopped(
    models: ModelCache, catalog: Catalog, end: str
) -> None:
    engine = Engine(
        EngineConfig(), models, adapters=AdapterCache(catalog.adapters, "cpu", max_adapters=1)
    )
    engine.start()
    held = engine.submit("held", picture("a", sampler="ddpm", steps=1000))
    with ThreadPoolExecutor(1) as pool:
        entered: Future[Future[JobResult]] = pool.submit(engine.submit, "waits", picture("b"))
        eventually(lambda: "waits" in engine.progress())
        assert not entered.done()
        # Nobody else waits meanwhile.
        assert engine.submit("other", request()).result(PATIENCE_S).iterations == 4
        engine.cancel("waits") if end == "cancel" else engine.drain()
        with pytest.raises(JobCanceled if end == "cancel" else EngineStopped):
            entered.result(PATIENCE_S).result(PATIENCE_S)
    engine.stop()
    with pytest.raises(EngineStopped):
        held.result(PATIENCE_S)
