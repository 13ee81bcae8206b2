import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import bench.models
from bench.model_log import ModelLog
from bench.models import SHARES, Traffic, judge


def line(event: str, **fields: object) -> str:
    return json.dumps({"event": event} | fields)


LOG = [
    line("model_loading", model="often", bytes=10),
    line("model_loaded", model="often", bytes=9),
    "not an event",
    line("job_started", job_id="1"),
    line("job_started", job_id="2"),
    line("model_loading", model="seldom", bytes=12),
    line("model_loaded", model="seldom", bytes=11),
    line("model_evicted", model="often"),
    line("job_started", job_id="1"),
    line("model_loading", model="often", bytes=10),
    line("model_failed", model="often"),
]
MODEL_OF = {"1": "often", "2": "seldom"}


def test_a_log_tells_what_was_loaded_and_who_found_it_warm() -> None:
    log = ModelLog(MODEL_OF)
    log.read(LOG)
    assert (log.jobs, log.hits) == (3, 1)
    assert log.loads == {"often": 1, "seldom": 1}
    assert (log.evictions, log.failures) == (1, 1)
    assert log.most_bytes == 9 + 12


def test_failures_and_a_budget_that_is_passed_miss_their_targets() -> None:
    log = ModelLog(MODEL_OF)
    log.read(LOG[:-2])
    well = Traffic(latencies={name: [1.0] for name in SHARES})
    assert [gate.passes for gate in judge(well, log, budget=21)] == [True] * 4
    ill = Traffic(latencies={"often": [1.0]}, failures=["seldom: it burns"])
    log.read(LOG[-1:])
    assert [gate.passes for gate in judge(ill, log, budget=20)] == [False] * 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_first_look_measures_everything(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench.models.main)
    result = CliRunner().invoke(app, ["--quick", "--json", str(tmp_path / "figures")])
    assert result.exit_code in (0, 1), result.output
    figures = json.loads((tmp_path / "figures").read_text())
    assert figures["failures"] == []
    assert figures["most_bytes"] <= figures["budget_bytes"]
    assert "loads a minute" in result.output
