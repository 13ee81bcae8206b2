"""Receivers are told once of each end, whatever dies; the same thing again at worst."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from bench.cluster import wait_until
from shared.crash_point import EXIT_CODE, CrashPoint
from shared.job import JobStatus
from shared.webhook import EventType, Webhook
from tests.chaos.history import check
from tests.chaos.system import LONG, PATIENCE_S, System
from tests.fixtures.receiver import Received, drop, status


def heard_of(system: System, job_id: str) -> list[Received]:
    """Return what the receiver heard of a job."""
    return [
        message
        for message in system.receiver.received
        if json.loads(message.body)["data"]["id"] == job_id
    ]


def tries_noted(system: System, job_id: str) -> int:
    """Count the tries that the delivery log of a job tells of."""
    query = sa.text("""
        SELECT count(*) FROM delivery_attempts AS tried
          JOIN deliveries ON deliveries.id = tried.delivery_id
          JOIN events ON events.id = deliveries.event_id WHERE events.job_id = :job
    """)
    with system.database.connect() as connection:
        number: int = connection.execute(query, {"job": job_id}).scalar_one()
    return number


def test_a_dispatcher_that_dies_when_it_has_told_tells_the_very_same_again(system: System) -> None:
    system.cluster.kill("dispatcher")
    system.start("dispatcher", LATENTQ_CRASH_AT=CrashPoint.AFTER_WEBHOOK_POST)
    job_id = system.insert(webhook=Webhook(system.receiver.url))
    assert system.cluster.wait_for_end("dispatcher") == EXIT_CODE
    system.revive()
    system.wait_until_told()
    first, second = heard_of(system, job_id)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def test_a_receiver_that_fails_or_hangs_up_hears_it_again(system: System) -> None:
    system.receiver.script = [status(500), drop]
    job_id = system.submit(webhook={"url": system.receiver.url})
    system.wait([job_id])
    for tries in (1, 2):
        wait_until(lambda: tries_noted(system, job_id) == tries, timeout_s=PATIENCE_S)  # noqa: B023
        system.hurry_deliveries()
    system.wait_until_told()
    assert len(heard_of(system, job_id)) == 3
    assert len({message.headers["webhook-id"] for message in heard_of(system, job_id)}) == 1


@pytest.mark.slow
def test_without_the_unique_row_the_checker_finds_a_start_that_was_told_twice(
    system: System,
) -> None:
    wanted = Webhook(system.receiver.url, (EventType.STARTED, EventType.SUCCEEDED))
    with duplicate_events(system.database):
        job_id = system.insert(webhook=wanted, steps=2 * LONG)
        worker = system.wait_for_progress(job_id)
        system.cluster.kill(worker)
        system.wait([job_id])
        system.wait_until_told()
        assert {violation.invariant for violation in check(system.history())} == {"I6"}
    system.abandon()
    system.receiver.received.clear()


@pytest.mark.slow
def test_a_start_is_told_once_however_often_the_job_starts(system: System) -> None:
    wanted = Webhook(system.receiver.url, (EventType.STARTED, EventType.SUCCEEDED))
    job_id = system.insert(webhook=wanted, steps=2 * LONG)
    system.cluster.kill(system.wait_for_progress(job_id))
    (job,) = system.wait([job_id])
    system.wait_until_told()
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    types = [json.loads(message.body)["type"] for message in heard_of(system, job_id)]
    assert sorted(types) == ["job.started", "job.succeeded"]


@contextmanager
def duplicate_events(database: sa.Engine) -> Iterator[None]:
    """Have the database write an event as often as its moment comes."""
    unique = "uq_events_job_id_type"
    with database.begin() as connection:
        written = connection.execute(sa.text("SELECT pg_get_functiondef('note_event'::regproc)"))
        function = written.scalar_one()
        careless = function.replace("ON CONFLICT (job_id, type) DO NOTHING", "")
        assert careless != function
        connection.exec_driver_sql(f"ALTER TABLE events DROP CONSTRAINT {unique}")
        connection.exec_driver_sql(careless)
    try:
        yield
    finally:
        with database.begin() as connection:
            connection.exec_driver_sql("DELETE FROM events")
            connection.exec_driver_sql(
                f"ALTER TABLE events ADD CONSTRAINT {unique} UNIQUE (job_id, type)"
            )
            connection.exec_driver_sql(function)
