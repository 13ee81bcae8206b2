import itertools
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner

import bench.history
from bench.backlog import fill
from bench.history import GATED, UNCHANGED, Course, Pace, compare, judge
from bench.past import FAILED_EVERY, MAX_ROWS, TENANT, add_past

NUM_JOBS, NUM_TENANTS = 400, 10


@pytest.fixture
def past(database: sa.Engine) -> sa.Engine:
    add_past(database, num_jobs=NUM_JOBS, num_tenants=NUM_TENANTS)
    return database


def test_the_past_is_one_that_jobs_leave(past: sa.Engine) -> None:
    query = sa.text("""
        SELECT count(*) AS jobs, count(DISTINCT tenant) AS tenants,
               count(*) FILTER (WHERE tenant = :tenant) AS ours,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               count(*) FILTER (WHERE finished_at < now() AND started_at > created_at) AS ended
          FROM jobs
    """)
    with past.connect() as connection:
        row = connection.execute(query, {"tenant": TENANT}).one()
        histories = connection.execute(
            sa.text("SELECT job_id, from_status, to_status FROM transitions ORDER BY job_id, id")
        ).all()
        counts = {
            table: connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))
            for table in ("attempts", "artifacts")
        }
    failed = NUM_JOBS // FAILED_EVERY
    assert tuple(row) == (NUM_JOBS, NUM_TENANTS, NUM_JOBS // 2 + NUM_JOBS // 2 // NUM_TENANTS,
                          failed, NUM_JOBS)  # fmt: skip
    assert counts == {"attempts": NUM_JOBS, "artifacts": NUM_JOBS - failed}
    for _, steps in itertools.groupby(histories, key=lambda step: step.job_id):
        born, begun, ended = ((step.from_status, step.to_status) for step in steps)
        assert born == (None, "queued")
        assert begun == ("queued", "running")
        assert ended[0] == "running"
        assert ended[1] in {"succeeded", "failed"}


def test_a_past_of_several_transactions_has_every_job_once(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.past.MAX_ROWS", 7)
    add_past(database, num_jobs=20, num_tenants=3)
    with database.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(DISTINCT id) FROM jobs")) == 20
    assert MAX_ROWS > 7


def test_every_part_of_a_jobs_way_is_timed_and_the_jobs_end(past: sa.Engine) -> None:
    fill(past, num_jobs=100, num_tenants=NUM_TENANTS)
    course = Course(past)
    paces = compare(course, course, rounds=2, pairs=2)
    assert set(GATED) < set(paces)
    for pace in paces.values():
        assert [len(times) for times in (*pace.few, *pace.many)] == [2] * 4
        assert all(seconds > 0 for times in pace.many for seconds in times)
    ended = "SELECT count(*) FROM attempts WHERE outcome = 'succeeded' AND worker = 'worker-1'"
    with past.connect() as connection:
        num_ended = connection.scalar(sa.text(f"{ended} AND process IS NULL"))
    # Those of both sides that count, and those before.
    assert num_ended == 2 * 2 * 2 + 2 * bench.history.WARM_UPS


def test_each_part_that_gets_slower_misses_its_target() -> None:
    same = Pace([[1.0, 1.0]] * 3, [[1.0, 1.2]] * 3)
    slower = Pace([[1.0]] * 3, [[UNCHANGED + 0.1], [9.0], [1.0]])
    for name in GATED:
        gates = judge(dict.fromkeys(GATED, same) | {name: slower})
        assert [gate.name for gate in gates if not gate.passes] == [f"{name}: many / few"]


@pytest.mark.slow
def test_a_first_look_measures_everything(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench.history.main)
    result = CliRunner().invoke(app, ["--quick", "--json", str(tmp_path / "figures")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "figures").read_text())
    assert found["jobs"] == bench.history.MANY_QUICK
    assert {gate["name"] for gate in found["gates"]} == {f"{name}: many / few" for name in GATED}
    assert found["bytes"] > 10_000_000
