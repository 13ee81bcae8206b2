"""Each bad state is told, and nothing else is while all is well."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.checks import CHECKS, Verdict
from dispatcher.situation import DatabaseState, Situation
from shared.db.diagnosis import QueueState, Snapshot, WorkerState
from shared.db.read_only import ReadOnlyNotice
from shared.queue import RedisState

QUEUES = ("demo.interactive", "demo.batch")
WORKER = WorkerState("w", QUEUES, slots=2, clock_offset_s=0.1)
HEALTHY = Situation(
    database=DatabaseState(
        is_migration_missing=False,
        clock_offset_s=-0.2,
        snapshot=Snapshot(
            queues=(QueueState(QUEUES[0], "demo", waiting=3, unclaimed=0, running=2),),
            workers=(WORKER,),
            silent_workers=0,
            dispatchers=1,
            stale_leases=0,
            dead_letters=0,
            dead_letter_ids=(),
            dead_deliveries=0,
            overdue_deletions=0,
        ),
    ),
    redis=RedisState("noeviction", is_persistent=True),
    store_trouble=None,
    queues={"demo": [*QUEUES]},
)
UNKNOWN_WITHOUT_REDIS = {"redis_evicts", "redis_forgets"}
KNOWN_WITHOUT_POSTGRESQL = {
    "postgresql_unreachable",
    "redis_unreachable",
    "store_unreachable",
} | UNKNOWN_WITHOUT_REDIS


def judge(situation: Situation) -> dict[str, Verdict | None]:
    return {check.name: check.judge(situation) for check in CHECKS}


def bad(situation: Situation) -> set[str]:
    return {name for name, verdict in judge(situation).items() if verdict and verdict.is_bad}


def seen(**changes: Any) -> Situation:
    assert HEALTHY.database is not None
    assert HEALTHY.database.snapshot is not None
    snapshot = replace(HEALTHY.database.snapshot, **changes)
    return replace(HEALTHY, database=replace(HEALTHY.database, snapshot=snapshot))


def queue(**changes: int) -> tuple[QueueState]:
    numbers = {"waiting": 3, "unclaimed": 0, "running": 2} | changes
    return (QueueState(QUEUES[0], "demo", **numbers),)


def test_nothing_is_told_while_all_is_well() -> None:
    assert bad(HEALTHY) == set()
    assert None not in judge(HEALTHY).values()
    amounts = {name: verdict.amount for name, verdict in judge(HEALTHY).items() if verdict}
    assert amounts.pop("clock_skew_seconds") == 0.2
    assert set(amounts.values()) == {0}


@pytest.mark.parametrize(
    ("situation", "name", "amount", "says"),
    [
        (replace(HEALTHY, redis=None), "redis_unreachable", 1, "Redis"),
        (
            replace(HEALTHY, redis=RedisState("allkeys-lru", is_persistent=True)),
            "redis_evicts", 1, "allkeys-lru",
        ),
        (
            replace(HEALTHY, redis=RedisState("noeviction", is_persistent=False)),
            "redis_forgets", 1, "append-only",
        ),
        (replace(HEALTHY, store_trouble="no bucket x"), "store_unreachable", 1, "no bucket x"),
        (
            seen(read_only=ReadOnlyNotice(datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "it moves")),
            "read_only", 1, "since 2026-01-02 03:04 UTC: it moves",
        ),
        (seen(dispatchers=0), "dispatchers_missing", 1, "no dispatcher"),
        (seen(stale_leases=2), "stale_leases", 2, "2 running jobs"),
        (seen(dead_letters=7, dead_letter_ids=("job_7",)), "dead_letters", 7, "job_7"),
        (seen(dead_deliveries=3), "undeliverable_webhooks", 3, "3 webhooks"),
        (seen(overdue_deletions=4), "overdue_deletions", 4, "4 deleted jobs"),
        (seen(queues=queue(unclaimed=2, running=1)), "unclaimed_jobs", 2, QUEUES[0]),
        (
            seen(workers=(WORKER, replace(WORKER, id="far", clock_offset_s=-9.0))),
            "clock_skew_seconds", 9, "of far is 9.0 s behind",
        ),
        (
            replace(HEALTHY, queues={"demo": [*QUEUES], "other": ["other.batch"]}),
            "models_without_worker", 1, "other",
        ),
        (
            seen(queues=(QueueState("x.batch", "x", waiting=5, unclaimed=5, running=0),)),
            "unschedulable_jobs", 5, "x.batch",
        ),
    ],
)  # fmt: skip
def test_each_bad_state_is_told_alone(
    situation: Situation, name: str, amount: float, says: str
) -> None:
    assert bad(situation) == {name}
    verdict = judge(situation)[name]
    assert verdict is not None
    assert verdict.amount == amount
    assert says in verdict.detail


def test_a_model_without_a_worker_and_its_waiting_jobs_are_told_both() -> None:
    situation = seen(workers=())
    assert bad(situation) == {"models_without_worker", "unschedulable_jobs"}


def test_messages_that_wait_for_a_busy_worker_are_no_bad_sign() -> None:
    assert bad(seen(queues=queue(unclaimed=4, running=2))) == set()
    # What runs of another queue keeps the worker busy as well.
    other = QueueState(QUEUES[1], "demo", waiting=0, unclaimed=0, running=2)
    assert bad(seen(queues=(*queue(unclaimed=4, running=0), other))) == set()


def test_a_worker_that_does_not_tell_its_clock_is_passed_over() -> None:
    assert bad(seen(workers=(replace(WORKER, clock_offset_s=None),))) == set()


def test_the_clock_of_this_host_counts() -> None:
    assert HEALTHY.database is not None
    wrong = replace(HEALTHY, database=replace(HEALTHY.database, clock_offset_s=3600.0))
    assert bad(wrong) == {"clock_skew_seconds"}


def test_without_postgresql_only_the_other_stores_are_known() -> None:
    verdicts = judge(replace(HEALTHY, database=None))
    assert {name for name, verdict in verdicts.items() if verdict} == KNOWN_WITHOUT_POSTGRESQL
    assert bad(replace(HEALTHY, database=None)) == {"postgresql_unreachable"}


def test_with_an_older_schema_nothing_is_counted() -> None:
    database = DatabaseState(is_migration_missing=True, clock_offset_s=0.0, snapshot=None)
    situation = replace(HEALTHY, database=database)
    known = {name for name, verdict in judge(situation).items() if verdict}
    assert known == KNOWN_WITHOUT_POSTGRESQL | {"migrations_missing", "clock_skew_seconds"}
    assert bad(situation) == {"migrations_missing"}


def test_without_redis_nothing_is_said_of_how_it_keeps_things() -> None:
    verdicts = judge(replace(HEALTHY, redis=None))
    assert {name for name, verdict in verdicts.items() if not verdict} == UNKNOWN_WITHOUT_REDIS


def test_names_are_one_word_each() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
