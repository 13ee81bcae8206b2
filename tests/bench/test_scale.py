import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import bench.scale
from bench.feeder import MEAN_STEPS
from bench.growth import NEAR, Failures, Level, Saturation
from bench.scale import LINEAR, MAX_GATED, Findings, judge, linear_shares
from bench.usage import Count, Usage

NONE = Failures(0, 0)
#: Over ten seconds.
USAGE = Usage(
    10.0, {Count("cpu", "api"): 3.0, Count("cpu", "worker"): 5.0, Count("sql", "api"): 40.0}
)


def saturation(workers: int, *rates: float, allowed: float = 1_000.0) -> Saturation:
    return Saturation(workers, rates, allowed, 8.0, USAGE)


def missed(saturations: Sequence[Saturation], failures: Failures = NONE) -> list[str]:
    return [gate.name for gate in judge(saturations, failures) if not gate.passes]


def test_linear_is_so_many_times_one_worker_window_by_window() -> None:
    one = saturation(1, 10.0, 20.0)
    assert linear_shares(saturation(4, 40.0, 60.0), one) == [1.0, 0.75]


@given(st.floats(0.5, 1.1))
def test_up_to_eight_workers_must_be_nearly_linear_and_more_are_shown(share: float) -> None:
    one = saturation(1, *[10.0] * 5)
    for workers in (2, MAX_GATED, 2 * MAX_GATED):
        more = saturation(workers, *[10.0 * workers * share] * 5)
        (gate, *_) = judge([one, more], NONE)
        is_gated = workers <= MAX_GATED
        assert gate.value == pytest.approx(share)
        assert gate.passes == (not is_gated or gate.value >= LINEAR)


def test_nothing_may_go_wrong_meanwhile() -> None:
    linear = [saturation(1, 10.0), saturation(2, 20.0)]
    assert missed(linear) == []
    assert missed(linear, Failures(1, 0)) == ["failed jobs"]
    assert missed(linear, Failures(0, 1)) == ["lost leases"]


def test_what_a_job_takes_is_what_all_took_over_the_jobs_of_these_rows() -> None:
    one = saturation(2, 3 * MEAN_STEPS, 5 * MEAN_STEPS)
    assert one.jobs_per_s == 4.0
    assert one.per_job("cpu") == pytest.approx(8.0 / 10.0 / 4.0)
    assert one.per_job("cpu", "api") == pytest.approx(3.0 / 10.0 / 4.0)
    assert one.per_job("s3", "PutObject") == 0.0
    assert one.cores == pytest.approx(0.8)


def test_a_difference_of_two_looks_has_what_was_not_there_before() -> None:
    before = Usage(1.0, {Count("redis", "lpush"): 5.0})
    after = Usage(3.0, {Count("redis", "lpush"): 9.0, Count("redis", "brpop"): 2.0})
    used = after.since(before)
    assert used.seconds == 2.0
    assert used.of("redis") == {"lpush": 4.0, "brpop": 2.0}
    assert used.total("redis") == 6.0


def findings(*ceiling: Saturation) -> Findings:
    one = saturation(1, 10.0, allowed=10.2)
    return Findings(
        rest=USAGE,
        levels=[Level(one, [0.1], 1e8)],
        ceiling=dict(enumerate(ceiling, 2)),
        far={NEAR: one},
        failures=NONE,
    )


def test_the_ceiling_is_found_where_the_devices_are_not_what_is_slow() -> None:
    kept_up = findings(saturation(1, 20.0, allowed=20.4))
    assert not kept_up.is_ceiling
    fell_behind = findings(saturation(1, 20.0, allowed=20.4), saturation(1, 19.0, allowed=40.8))
    assert fell_behind.is_ceiling
    assert statistics.median(fell_behind.most.rates) == 20.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_first_look_measures_everything(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench.scale.main)
    result = CliRunner().invoke(app, ["--quick", "--json", str(tmp_path / "figures")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "figures").read_text())
    assert [level["workers"] for level in found["levels"]] == [1, 2]
    assert found["failures"] == {"failed_jobs": 0, "lost_leases": 0}
    one, two = found["levels"]
    # Whatever else the machine does, two devices that sleep get more done than one.
    assert statistics.median(two["rows_per_s"]) > 1.3 * statistics.median(one["rows_per_s"])
    for level in found["levels"]:
        assert level["waits_s"]
        counts = level["usage"]["counts"]
        assert all(counts[f"sql {kind}"] > 0 for kind in ("api", "dispatcher", "worker"))
        assert counts["redis lpush"] > 0
        assert counts["cpu PostgreSQL"] > 0
    assert len(found["far"]) == 3
