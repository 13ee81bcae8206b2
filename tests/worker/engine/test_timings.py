import itertools

import pytest

from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.timings import TimeAccount


def test_a_block_is_counted_to_its_stage_also_when_it_fails() -> None:
    ticks = iter([10.0, 12.0, 20.0, 23.0])
    timings = TimeAccount(lambda: next(ticks))
    with timings.measure("forward_s"):
        pass
    with pytest.raises(ZeroDivisionError), timings.measure("forward_s"):
        raise ZeroDivisionError
    assert timings.forward_s == 5.0
    assert timings.step_s == timings.scheduler_s == timings.encode_s == timings.decode_s == 0.0


def test_an_engine_says_where_its_time_went(models: ModelCache) -> None:
    ticks = itertools.count()  # one second passes at every look at the clock
    engine = Engine(EngineConfig(), models, clock=lambda: float(next(ticks)))
    future = engine.submit("job", request(steps=3, num_outputs=2))
    engine.start()
    future.result(PATIENCE_S)
    engine.stop()
    timings = engine.timings
    assert min(timings.encode_s, timings.decode_s) > 0
    assert timings.forward_s >= 3
    assert timings.scheduler_s >= 3
    assert timings.other_s > 0
