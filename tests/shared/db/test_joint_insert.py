import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from shared.db import joint_insert
from shared.db.jobs import JobRepository
from shared.db.joint_insert import MAX_TOGETHER, JointInsert
from shared.errors import Conflict
from shared.job import Job, NewJob

NewJobs = Callable[..., NewJob]
#: Long enough for anything but a thread that waits for ever, in seconds.
TIMEOUT_S = 10.0


@pytest.fixture
def jobs(database: sa.Engine) -> JobRepository:
    return JobRepository(database)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@contextmanager
def gathered(joint: JointInsert, number: int) -> Iterator[None]:
    """Let nobody have a turn until so many jobs wait for one."""
    pause = threading.Event()
    with joint._turn:
        yield
        for _ in range(int(TIMEOUT_S / 0.01)):
            if len(joint._waiting) == number:
                return
            pause.wait(0.01)
    pytest.fail("they do not wait")


@contextmanager
def counting(database: sa.Engine) -> Iterator[list[int]]:
    """Count the rows of each statement that inserts jobs."""
    counts: list[int] = []

    def count(
        _connection: object,
        statement: sa.ClauseElement,
        _many: object,
        parameters: dict[str, Any],
        _options: object,
    ) -> None:
        if "rows" in parameters:
            counts.append(len(parameters["rows"]))

    sa.event.listen(database, "before_execute", count)
    try:
        yield counts
    finally:
        sa.event.remove(database, "before_execute", count)


def count_rows(database: sa.Engine) -> int:
    with database.connect() as connection:
        rows: int = connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one()
    return rows


def test_those_who_come_while_one_is_stored_are_stored_together(
    database: sa.Engine, make_job: NewJobs, pool: ThreadPoolExecutor
) -> None:
    joint = JointInsert(database)
    new = [make_job() for _ in range(12)]
    with counting(database) as counts:
        with gathered(joint, 12):
            stored = [pool.submit(joint.insert, job) for job in new]
        rows = [future.result(TIMEOUT_S) for future in stored]
    assert counts == [12]
    assert [row and row.id for row in rows] == [job.id for job in new]
    assert count_rows(database) == 12


def test_no_statement_grows_without_bound(
    database: sa.Engine,
    make_job: NewJobs,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joint_insert, "MAX_TOGETHER", 4)
    joint = JointInsert(database)
    with counting(database) as counts:
        with gathered(joint, 10):
            stored = [pool.submit(joint.insert, make_job()) for _ in range(10)]
        assert all(future.result(TIMEOUT_S) is not None for future in stored)
    assert counts == [4, 4, 2]


def test_one_that_cannot_be_stored_harms_no_other(
    database: sa.Engine, make_job: NewJobs, pool: ThreadPoolExecutor
) -> None:
    joint = JointInsert(database)
    new = [make_job() for _ in range(6)]
    new[3] = replace(new[3], predicted_s=-1.0)
    with gathered(joint, 6):
        stored = [pool.submit(joint.insert, job) for job in new]
    errors = [future.exception(TIMEOUT_S) for future in stored]
    assert [isinstance(error, IntegrityError) for error in errors] == [job is new[3] for job in new]
    assert count_rows(database) == 5


def test_all_are_told_when_the_database_is_away(
    database: sa.Engine, make_job: NewJobs, pool: ThreadPoolExecutor
) -> None:
    joint = JointInsert(database)

    def cut(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO jobs" in statement:
            raise OperationalError(statement, {}, Exception("gone"))

    sa.event.listen(database, "before_cursor_execute", cut)
    try:
        with counting(database) as counts:
            with gathered(joint, 4):
                stored = [pool.submit(joint.insert, make_job()) for _ in range(4)]
            errors = [future.exception(TIMEOUT_S) for future in stored]
    finally:
        sa.event.remove(database, "before_cursor_execute", cut)
    assert all(isinstance(error, OperationalError) for error in errors)
    assert counts == [4]  # nobody tries again on its own


def test_of_those_with_one_key_that_come_together_one_is_stored(
    jobs: JobRepository, make_job: NewJobs, pool: ThreadPoolExecutor, database: sa.Engine
) -> None:
    def submit(body: str) -> Future[tuple[Job, bool]]:
        return pool.submit(jobs.insert, make_job(idempotency_key="k", body_sha256=body))

    with gathered(jobs._joint, 10):
        same = [submit("a") for _ in range(8)]
        other = [submit("b") for _ in range(2)]
    results = [future for future in (*same, *other) if future.exception(TIMEOUT_S) is None]
    answers = [future.result() for future in results]
    assert len({job.id for job, _ in answers}) == 1
    assert sum(not is_replay for _, is_replay in answers) == 1
    refused = [future.exception() for future in (*same, *other) if future not in results]
    assert all(isinstance(error, Conflict) for error in refused)
    assert len(results) in {8, 2}  # whoever's body came first
    assert count_rows(database) == 1


def test_processes_that_store_the_same_keys_do_not_wait_for_each_other(
    database: sa.Engine, make_job: NewJobs
) -> None:
    with ThreadPoolExecutor(2 * MAX_TOGETHER) as pool:
        for turn in range(10):
            keys = [f"{turn}-{number:02}" for number in range(MAX_TOGETHER)]
            one, other = JointInsert(database), JointInsert(database)
            with gathered(one, len(keys)), gathered(other, len(keys)):
                stored = [
                    pool.submit(joint.insert, make_job(idempotency_key=key, body_sha256="a"))
                    for joint, order in ((one, keys), (other, keys[::-1]))
                    for key in order
                ]
            rows = [future.result(TIMEOUT_S) for future in stored]
            assert sum(row is not None for row in rows) == len(keys)
