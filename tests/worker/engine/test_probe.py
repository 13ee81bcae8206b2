import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.worker.engine.conftest import PATIENCE_S, request
from tests.worker.engine.faults import allocate_too_much
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.calibration import run_through
from worker.engine.cost import Cost
from worker.engine.probe import CONTRADICTION_RATIO, ROWS, confirm, probe
from worker.engine.trajectory import DecodeKey, ForwardKey


def ticking(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


@torch.inference_mode()
def test_each_row_count_up_to_the_models_limit_is_measured(models: ModelCache) -> None:
    family = models.get("demo")
    clock = ticking(0.001)
    costs = run_through(probe(family, clock=lambda: next(clock)))
    assert [cost.rows for cost in costs] == [n for n in ROWS if n <= family.spec.max_rows]
    assert [cost.ms for cost in costs] == pytest.approx([1.0] * len(costs))


@torch.inference_mode()
def test_a_slow_model_is_not_probed_for_long(models: ModelCache) -> None:
    clock = ticking(1.5)
    costs = run_through(probe(models.get("demo"), clock=lambda: next(clock)))
    assert len(costs) < 2


@torch.inference_mode()
def test_rows_that_do_not_fit_into_memory_are_left_to_be_found_out_at_work(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = models.get("demo")
    original = family.predict

    def predict(latents: torch.Tensor, *inputs: Any) -> torch.Tensor:
        if len(latents) > 4:
            allocate_too_much()
        return original(latents, *inputs)

    monkeypatch.setattr(family, "predict", predict)
    clock = ticking(0.001)
    costs = run_through(probe(family, clock=lambda: next(clock)))
    assert [cost.rows for cost in costs] == [1, 2, 4]


def test_what_was_probed_is_what_jobs_of_the_default_size_cost(models: ModelCache) -> None:
    ticks = itertools.count()  # a busy machine would run out of patience
    engine = Engine(EngineConfig(), models, clock=lambda: next(ticks) / 1000)
    engine.warm_up("demo")
    (key,) = {cost.key for cost in engine.costs.table()}
    before = {cost.rows: cost.samples for cost in engine.costs.table()}
    engine.start()
    engine.submit("job", request(steps=2)).result(PATIENCE_S)
    engine.stop()
    learned = {cost.rows: cost.samples for cost in engine.costs.table() if cost.key == key}
    assert learned[2] == before[2] + 2


#: Seconds of a tick: so long does everything take that is begun and ended by a look at the clock.
TICK_S = 1 / 32


def known(*, factor: float = 1.0) -> list[Cost]:
    """Return what a probe would find where each forward takes a tick, or a multiple of it."""
    key = ForwardKey("demo", (1, 4, 16, 16), 24)  # of the demo model's own size
    return [Cost(key, rows, factor * 1000 * TICK_S, 50) for rows in ROWS]


@pytest.mark.parametrize(
    ("factor", "holds"),
    [
        (0.9 * CONTRADICTION_RATIO, True),
        (1.1 / CONTRADICTION_RATIO, True),
        (1.1 * CONTRADICTION_RATIO, False),
        (0.9 / CONTRADICTION_RATIO, False),
    ],
)
@torch.inference_mode()
def test_what_is_known_holds_if_a_few_forwards_agree(
    models: ModelCache, factor: float, holds: bool
) -> None:
    clock = ticking(TICK_S)
    costs = known(factor=factor)
    steps = confirm(models.get("demo"), costs, clock=lambda: next(clock))
    assert run_through(steps) is holds


@torch.inference_mode()
def test_one_end_that_disagrees_is_enough_and_what_was_never_run_is_not_asked_for(
    models: ModelCache,
) -> None:
    costs = known()
    most = max(cost.rows for cost in costs)
    slower = [Cost(c.key, c.rows, c.ms * (2 if c.rows == most else 1), 50) for c in costs]
    shorter = [cost for cost in costs if cost.rows != most]
    fewest = [cost for cost in costs if cost.rows == most]
    for table, holds in ((slower, False), (fewest, False), (shorter, True)):
        clock = ticking(TICK_S)
        steps = confirm(models.get("demo"), table, clock=lambda: next(clock))  # noqa: B023
        assert run_through(steps) is holds


def test_a_second_start_takes_over_what_holds_and_probes_what_does_not(models: ModelCache) -> None:
    def warm_up(costs: list[Cost]) -> tuple[bool, list[Cost]]:
        clock = ticking(TICK_S)
        engine = Engine(EngineConfig(), models, clock=lambda: next(clock))
        return engine.warm_up("demo", known=costs), engine.costs.table()

    decode = Cost(DecodeKey("demo", (1, 4, 16, 16)), 1, 7.0, 50)
    right = [*known(), decode]
    assert warm_up(right) == (True, right)
    is_known, table = warm_up([*known(factor=3.0), decode])
    assert not is_known
    assert [(cost.rows, cost.ms) for cost in table] == [(c.rows, c.ms) for c in known()]


def test_decoding_is_learned_from_every_picture(engine: Engine) -> None:
    engine.submit("job", request(steps=1, num_outputs=3)).result(PATIENCE_S)
    engine.stop()
    (cost,) = [c for c in engine.costs.table() if isinstance(c.key, DecodeKey)]
    assert (cost.rows, cost.samples) == (1, 3)
    assert cost.ms > 0
