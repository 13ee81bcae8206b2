import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import bench.recovery
from bench.checkpoint_cost import CheckpointCost
from bench.frozen_redis import Submissions, p99
from bench.recovery import Figure, Findings, find_missed, measure
from bench.repeated_work import Repetition

UNMOVED = Submissions(well=[[0.01, 0.02]], frozen=[[0.01, 0.02]])
CHEAP = CheckpointCost(total_s=100.0, copying_s=0.1, storing_s=0.4)


def findings(
    figures: Mapping[str, Figure],
    submissions: Submissions = UNMOVED,
    cost: CheckpointCost = CHEAP,
) -> Findings:
    return Findings(figures, submissions, [], cost)


class Stopwatch:
    """A trial whose every measurement takes as long as it is told."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = list(seconds)

    def _take(self, **_: bool) -> float:
        self._seconds.append(self._seconds.pop(0))
        return self._seconds[-1]

    kill_worker = restart_redis = restart_postgres = cancel = drain = _take


def test_every_figure_has_as_many_trials_as_were_asked_for() -> None:
    figures = measure(Stopwatch(0.01, 0.03), 4)
    assert len(figures) == 6
    assert all(one.seconds == [0.01, 0.03, 0.01, 0.03] for one in figures.values())
    assert find_missed(findings(figures)) == []


def test_one_slow_trial_misses_the_target() -> None:
    figures = {"fast": Figure([1.0, 1.0], at_most=2), "slow": Figure([1.0, 2.1], at_most=2)}
    assert find_missed(findings(figures)) == ["slow"]


def test_slower_answers_without_redis_miss_the_target() -> None:
    slower = Submissions(well=[[0.01] * 99 + [0.02]] * 3, frozen=[[0.01] * 98 + [0.04] * 2] * 3)
    assert p99(slower.well[0]) == 0.01
    assert slower.p99_ratio == 4
    assert find_missed(findings({}, slower)) == ["submissions, Redis frozen"]


def test_states_that_take_more_than_a_hundredth_miss_the_target() -> None:
    dear = CheckpointCost(total_s=100.0, copying_s=0.7, storing_s=0.4)
    assert dear.share == pytest.approx(0.011)
    assert find_missed(findings({}, cost=dear)) == ["share of checkpoints"]


def test_what_was_run_beyond_the_jobs_own_iterations_is_repeated() -> None:
    assert Repetition(iterations=300, run=317, resumed_at=120).repeated == 17


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_first_look_measures_everything(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench.recovery.main)
    result = CliRunner().invoke(app, ["--quick", "--json", str(tmp_path / "figures")])
    assert result.exit_code in (0, 1), result.output
    found = json.loads((tmp_path / "figures").read_text())
    assert len(found["figures"]) == 6
    # A state is stored each second, and a step takes 30 ms.
    assert [one["run"] - 300 < 60 for one in found["repetitions"]] == [True] * 2
    assert all(one["resumed_at"] for one in found["repetitions"])
    assert found["checkpoint_cost"]["storing_s"] > 0
    assert "2 trials of each failure" in result.output
    assert "p99 frozen / well" in result.output
