from collections.abc import Iterator

import pytest
import torch

from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.probe import ROWS, probe


def ticking(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


@torch.inference_mode()
def test_each_row_count_up_to_the_models_limit_is_measured(models: ModelCache) -> None:
    family = models.get("demo")
    clock = ticking(0.001)
    costs = list(probe(family, clock=lambda: next(clock)))
    assert [cost.rows for cost in costs] == [n for n in ROWS if n <= family.spec.max_rows]
    assert [cost.ms for cost in costs] == pytest.approx([1.0] * len(costs))


@torch.inference_mode()
def test_a_slow_model_is_not_probed_for_long(models: ModelCache) -> None:
    clock = ticking(1.5)
    costs = list(probe(models.get("demo"), clock=lambda: next(clock)))
    assert len(costs) < 2


def test_what_was_probed_is_what_jobs_of_the_default_size_cost(models: ModelCache) -> None:
    engine = Engine(EngineConfig(), models)
    engine.warm_up("demo")
    (key,) = {cost.key for cost in engine.costs.table()}
    before = {cost.rows: cost.samples for cost in engine.costs.table()}
    engine.start()
    engine.submit("job", request(steps=2)).result(PATIENCE_S)
    engine.stop()
    learned = {cost.rows: cost.samples for cost in engine.costs.table() if cost.key == key}
    assert learned[2] == before[2] + 2
