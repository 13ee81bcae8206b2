import itertools

from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, ModelCache
from worker.engine.intake import Intake
from worker.engine.tally import Tally


def test_forwards_are_counted_with_their_rows_and_their_padding(engine: Engine) -> None:
    result = engine.submit("job", request(determinism="exact", steps=2)).result(PATIENCE_S)
    assert result.exact_rows is not None
    assert engine.tally.forwards == {("demo", 2): 2}
    assert engine.tally.padding_rows == {"demo": 2 * (result.exact_rows - 2)}
    assert engine.tally.iterations == {"demo": 2}


def test_prompts_are_found_or_encoded(models: ModelCache) -> None:
    tally = Tally()
    intake = Intake(models, prompt_cache_size=8, tally=tally)
    for run_id in range(3):
        intake.prepare(run_id, request(prompt="a star", negative_prompt="blue"), None)
    assert (tally.prompt_misses, tally.prompt_hits) == (2, 4)


def test_a_result_says_how_long_each_stage_took(models: ModelCache) -> None:
    ticks = itertools.count()  # one second passes at every look at the clock
    engine = Engine(EngineConfig(), models, clock=lambda: float(next(ticks)))
    future = engine.submit("job", request(steps=3, num_outputs=2))
    engine.start()
    stages = future.result(PATIENCE_S).stages
    engine.stop()
    assert min(stages.encode_s, stages.denoise_s, stages.decode_s) > 0
    assert stages.denoise_s >= 3
    assert stages.encode_s + stages.denoise_s + stages.decode_s < next(ticks)
