"""Several models in one engine: some warm, some coming, some that cannot be had."""

import gc
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest

from shared.catalog import Catalog, ModelSpec
from shared.errors import ModelUnavailable
from tests.fixtures.shelves import catalog_of
from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, EngineStopped, JobCanceled, JobResult, ModelCache
from worker.engine.cost import Cost
from worker.engine.families.stable_diffusion import StableDiffusion
from worker.engine.loader import ModelLoader
from worker.engine.trajectory import ForwardKey

#: A copy of the demo model takes 26 MB: one fits, two do not.
ROOM_FOR_ONE = 40_000_000
ROOM_FOR_TWO = 60_000_000
#: Of a job of one step, of the short probe that contradicts what was known, and of the full one.
NUM_FORWARDS = 1 + 7 + 7
KEY = ForwardKey("b", (1, 4, 16, 16), 24)


class GatedLoader(ModelLoader):
    """Loads a model when its gate is open; some fail."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.gates: dict[str, threading.Event] = {}
        self.begun: list[str] = []
        self.failing: set[str] = set()

    def load(self, spec: ModelSpec, report: Callable[[float], None]) -> StableDiffusion:
        self.begun.append(spec.id)
        if spec.id in self.gates:
            assert self.gates[spec.id].wait(PATIENCE_S)
        if spec.id in self.failing:
            raise RuntimeError("broken")
        return super().load(spec, report)


class Shop:
    """An engine with copies of the demo model under a budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.loader = GatedLoader()
        self.models = ModelCache(
            catalog_of(["a", "b", "c"], max_rows=2),
            "cpu",
            budget_bytes=budget_bytes,
            loader=self.loader,
        )
        self.engine = Engine(EngineConfig(), self.models)

    def submit(self, model_id: str, job_id: str, **changes: object) -> "Future[JobResult]":
        return self.engine.submit(job_id, request(model=model_id, **changes))

    def close_gate(self, model_id: str) -> threading.Event:
        """Have a model's load wait; returns what lets it go on."""
        return self.loader.gates.setdefault(model_id, threading.Event())

    def wait_until_begun(self, model_id: str) -> None:
        while model_id not in self.loader.begun:
            threading.Event().wait(0.001)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop(ROOM_FOR_TWO)
    shop.models.load("a")
    shop.engine.start()
    yield shop
    for gate in shop.loader.gates.values():
        gate.set()
    shop.engine.stop()


def test_jobs_of_a_warm_model_go_on_while_another_loads(shop: Shop) -> None:
    gate = shop.close_gate("b")
    waiting = [shop.submit("b", f"b-{n}") for n in range(3)]
    shop.wait_until_begun("b")
    pixels = [shop.submit("a", f"a-{n}").result(PATIENCE_S).outputs[0].pixels for n in range(3)]
    assert not any(future.done() for future in waiting)
    gate.set()
    results = [future.result(PATIENCE_S) for future in waiting]
    assert shop.loader.begun == ["a", "b"]
    for result in results:  # copies of one model
        assert abs(result.outputs[0].pixels.astype(int) - pixels[0].astype(int)).max() <= 1


def test_a_job_whose_model_loads_can_be_canceled_and_handed_back(shop: Shop) -> None:
    shop.close_gate("b")
    canceled, replaced, left = (shop.submit("b", name) for name in ("one", "two", "three"))
    shop.wait_until_begun("b")
    shop.engine.cancel("one")
    with pytest.raises(JobCanceled):
        canceled.result(PATIENCE_S)
    again = shop.submit("a", "two")
    with pytest.raises(JobCanceled):
        replaced.result(PATIENCE_S)
    assert again.result(PATIENCE_S)
    shop.engine.drain()
    with pytest.raises(EngineStopped):
        left.result(PATIENCE_S)


def test_a_model_that_fails_fails_its_jobs_and_no_others(shop: Shop) -> None:
    shop.loader.failing.add("b")
    for name in ("first", "before the next try"):
        with pytest.raises(ModelUnavailable, match="model b cannot be loaded; it is tried again"):
            shop.submit("b", name).result(PATIENCE_S)
    assert shop.loader.begun == ["a", "b"]
    assert shop.submit("a", "well").result(PATIENCE_S)


def test_two_models_take_turns_in_room_for_one() -> None:
    shop = Shop(ROOM_FOR_ONE)
    shop.engine.start()
    try:
        futures = [shop.submit("ab"[n % 2], f"job-{n}", steps=2) for n in range(8)]
        for future in futures:
            assert future.result(PATIENCE_S)
            assert shop.models.used_bytes <= ROOM_FOR_ONE
    finally:
        shop.engine.stop()
    assert len(shop.models.loaded) == 1
    # All that waited for a model had their turn at once.
    assert shop.models.loads["a"] + shop.models.loads["b"] <= 4


def test_a_model_that_left_is_gone_from_memory_with_its_last_job() -> None:
    shop = Shop(ROOM_FOR_ONE)
    shop.engine.start()
    try:
        shop.submit("a", "first", steps=2).result(PATIENCE_S)
        parts = [weakref.ref(part) for part in shop.models.get("a").parts]
        gc.disable()
        shop.submit("b", "second", steps=1).result(PATIENCE_S)
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()
        shop.engine.stop()


@pytest.mark.slow
def test_models_that_come_and_go_leave_no_memory_behind() -> None:
    shop = Shop(ROOM_FOR_ONE)
    process, resident = psutil.Process(), []
    for number in range(40):
        shop.models.load("abc"[number % 3])
        resident.append(process.memory_info().rss)
    # Thirty loads of 26 MB each.
    assert max(resident[10:]) - resident[10] < ROOM_FOR_TWO


class Memory:
    """What is known of forwards from before."""

    def __init__(self, known: list[Cost]) -> None:
        self.known = known
        self.forgotten: list[str] = []

    def recall(self, model_id: str) -> list[Cost]:
        return [cost for cost in self.known if cost.key.model == model_id]  # type: ignore[attr-defined]

    def forget(self, model_id: str) -> None:
        self.forgotten.append(model_id)


def test_a_model_loaded_at_work_is_measured_between_steps_one_forward_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop(ROOM_FOR_TWO)
    memory = Memory([Cost(KEY, rows, 1e6, 50) for rows in (1, 2)])  # it is wrong
    shop.engine.recall_from(memory)
    shop.models.load("a")
    forwards: list[str] = []
    predict = StableDiffusion.predict

    def note(self: StableDiffusion, *inputs: object) -> object:
        forwards.append(self.spec.id)
        return predict(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(StableDiffusion, "predict", note)
    shop.engine.start()
    try:
        long = shop.submit("a", "long", steps=1000, sampler="ddpm")
        while "a" not in forwards:
            threading.Event().wait(0.001)
        result = shop.submit("b", "short", steps=1)
        assert result.result(PATIENCE_S)
        while forwards.count("b") < NUM_FORWARDS:
            assert not long.done()
            threading.Event().wait(0.001)
        shop.engine.cancel("long")
    finally:
        shop.engine.stop()
    runs = "".join(forwards)
    *alone, longest = sorted(len(run) for run in re.findall("b+", runs[: runs.rindex("a")]))
    assert set(alone) == {1}
    # The forward of its own job may stand between two that measure it.
    assert longest <= 3
    learned = {cost.rows: cost.ms for cost in shop.engine.costs.table() if cost.key == KEY}
    assert learned.keys() >= {1, 2}
    assert max(learned.values()) < 1e6
    assert memory.forgotten == ["b"]


def test_a_measurement_that_fails_harms_nobody(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = StableDiffusion.encode

    def refuse(self: StableDiffusion, prompt: str) -> object:
        if prompt == "":
            raise RuntimeError("no room")
        return encode(self, prompt)

    monkeypatch.setattr(StableDiffusion, "encode", refuse)
    assert shop.submit("b", "one", guidance=1.0).result(PATIENCE_S)
    assert shop.submit("b", "two", guidance=1.0).result(PATIENCE_S)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_model_of_another_type_takes_half_and_draws_much_the_same(
    models: ModelCache, tmp_path: Path, dtype: str
) -> None:
    spec = models.get("demo").spec
    (tmp_path / "catalog.toml").write_text(
        f'default = "demo"\n[models.demo]\npath = "{spec.path}"\nrevision = "1"\n'
        f'max_width = 64\nmax_height = 64\ndevice.dtype = "{dtype}"\n'
    )
    halved = ModelCache(Catalog.load(tmp_path / "catalog.toml"), "cpu")
    halved.load("demo")
    assert halved.used_bytes == pytest.approx(models.used_bytes / 2, rel=0.01)
    pictures = []
    for cache in (models, halved):
        engine = Engine(EngineConfig(), cache)
        engine.start()
        result = engine.submit("job", request(steps=4)).result(PATIENCE_S)
        engine.stop()
        pictures.append(result.outputs[0].pixels.astype(int))
    assert abs(pictures[0] - pictures[1]).mean() < 6
