from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from bench.backlog import HELD_EVERY, QUEUE, end_announced, fill
from bench.dispatch import time_backlog
from cli.standalone.servers import Servers
from shared.db.dispatch import _PICK, MIN_WINDOW, DispatchRepository
from shared.queue import JobQueue

NUM_JOBS, NUM_TENANTS = 4_000, 40


@pytest.fixture
def backlog(database: sa.Engine) -> sa.Engine:
    fill(database, num_jobs=NUM_JOBS, num_tenants=NUM_TENANTS)
    return database


def test_the_backlog_is_what_is_to_be_measured(backlog: sa.Engine) -> None:
    query = sa.text("""
        SELECT count(*) AS jobs, count(DISTINCT tenant) AS tenants,
               count(held_until) AS held, count(DISTINCT priority) AS priorities
          FROM jobs WHERE status = 'queued'
    """)
    with backlog.connect() as connection:
        row = connection.execute(query).one()
    assert (row.jobs, row.tenants, row.priorities) == (NUM_JOBS, NUM_TENANTS, 10)
    assert row.held == NUM_JOBS // HELD_EVERY
    dispatch = DispatchRepository(backlog)
    for _ in range(2):
        assert len(dispatch.pick(QUEUE)) == MIN_WINDOW
        end_announced(backlog)


def test_a_pick_reads_neither_the_whole_backlog_nor_what_has_ended(backlog: sa.Engine) -> None:
    explain = sa.text(f"EXPLAIN (ANALYZE, FORMAT JSON) {_PICK.text}")
    with backlog.connect() as connection:
        (plan,) = connection.scalar(explain, {"queue": QUEUE, "room": 8})
        connection.rollback()
    scans = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "jobs"]
    reads = [node for node in scans if "Scan" in node["Node Type"]]
    assert len(reads) >= 6
    assert {node["Node Type"] for node in reads} <= {
        "Index Scan", "Index Only Scan", "Bitmap Heap Scan",
    }  # fmt: skip
    # One for each tenant, and few for each of the first ones.
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in reads) < 4 * NUM_TENANTS


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_picks_and_rounds_are_timed(backlog: sa.Engine, servers: Servers) -> None:
    pick, dispatch = time_backlog(backlog, JobQueue(servers.redis_url), rounds=3)
    for timing in (pick, dispatch):
        assert 0 < timing.median_ms <= timing.p99_ms <= timing.worst_ms
