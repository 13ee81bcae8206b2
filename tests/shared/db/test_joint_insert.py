import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
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


@contextmanager
def gathered(joint: JointInsert) -> Iterator[None]:
    """Let all jobs that come meanwhile wait, as they do while others are stored."""
    done = threading.Event()
    joint._thread.submit(done.wait, TIMEOUT_S)
    yield
    done.set()


@contextmanager
def counting(database: sa.Engine) -> Iterator[list[int]]:
    """Count the rows of each statement that inserts jobs."""
    counts: list[int] = []

    def count(
        _connection: object,
        _statement: object,
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
    database: sa.Engine, make_job: NewJobs
) -> None:
    joint = JointInsert(database)
    new = [make_job() for _ in range(12)]
    with counting(database) as counts:
        with gathered(joint):
            stored = [joint.insert(job) for job in new]
        rows = [future.result(TIMEOUT_S) for future in stored]
    assert counts == [12]
    assert [row and row.id for row in rows] == [job.id for job in new]
    assert count_rows(database) == 12


def test_no_statement_grows_without_bound(
    database: sa.Engine, make_job: NewJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_insert, "MAX_TOGETHER", 4)
    joint = JointInsert(database)
    with counting(database) as counts:
        with gathered(joint):
            stored = [joint.insert(make_job()) for _ in range(10)]
        assert all(future.result(TIMEOUT_S) is not None for future in stored)
    assert counts == [4, 4, 2]


def test_one_that_cannot_be_stored_harms_no_other(database: sa.Engine, make_job: NewJobs) -> None:
    joint = JointInsert(database)
    new = [make_job() for _ in range(6)]
    new[3] = replace(new[3], predicted_s=-1.0)
    with gathered(joint):
        stored = [joint.insert(job) for job in new]
    errors = [future.exception(TIMEOUT_S) for future in stored]
    assert [isinstance(error, IntegrityError) for error in errors] == [job is new[3] for job in new]
    assert count_rows(database) == 5


def test_all_are_told_when_the_database_is_away(database: sa.Engine, make_job: NewJobs) -> None:
    joint = JointInsert(database)

    def cut(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO jobs" in statement:
            raise OperationalError(statement, {}, Exception("gone"))

    sa.event.listen(database, "before_cursor_execute", cut)
    try:
        with counting(database) as counts:
            with gathered(joint):
                stored = [joint.insert(make_job()) for _ in range(4)]
            errors = [future.exception(TIMEOUT_S) for future in stored]
    finally:
        sa.event.remove(database, "before_cursor_execute", cut)
    assert all(isinstance(error, OperationalError) for error in errors)
    assert counts == [4]  # nobody tries again on its own
    assert joint.insert(make_job()).result(TIMEOUT_S) is not None


def test_who_has_gone_away_meanwhile_stores_nothing(database: sa.Engine, make_job: NewJobs) -> None:
    joint = JointInsert(database)
    with gathered(joint):
        first, gone, last = [joint.insert(make_job()) for _ in range(3)]
        assert gone.cancel()
    assert first.result(TIMEOUT_S) is not None
    assert last.result(TIMEOUT_S) is not None
    with pytest.raises(CancelledError):
        gone.result(TIMEOUT_S)
    assert count_rows(database) == 2


def test_of_those_with_one_key_that_come_together_one_is_stored(
    database: sa.Engine, make_job: NewJobs
) -> None:
    jobs = JobRepository(database)

    async def submit(new: NewJob) -> tuple[Job, bool]:
        job = await jobs.insert_soon(new)
        return (job, False) if job is not None else await asyncio.to_thread(jobs.insert, new)

    async def submit_all() -> list[tuple[Job, bool] | BaseException]:
        new = [make_job(idempotency_key="k", body_sha256=body) for body in "aaaaaaaabb"]
        with gathered(jobs._joint):
            tasks = [asyncio.ensure_future(submit(job)) for job in new]
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(submit_all())
    answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len({job.id for job, _ in answers}) == 1
    assert [is_replay for _, is_replay in answers].count(False) == 1
    assert len(answers) == 8  # the first one's body is that of eight
    assert all(isinstance(outcome, Conflict) for outcome in outcomes[8:])
    assert count_rows(database) == 1


def test_processes_that_store_the_same_keys_do_not_wait_for_each_other(
    database: sa.Engine, make_job: NewJobs
) -> None:
    for turn in range(10):
        keys = [f"{turn}-{number:02}" for number in range(MAX_TOGETHER)]
        one, other = JointInsert(database), JointInsert(database)
        with gathered(one), gathered(other):
            stored = [
                joint.insert(make_job(idempotency_key=key, body_sha256="a"))
                for joint, order in ((one, keys), (other, keys[::-1]))
                for key in order
            ]
        rows = [future.result(TIMEOUT_S) for future in stored]
        assert sum(row is not None for row in rows) == len(keys)
