"""Read a history out of PostgreSQL and the object store."""

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from PIL import Image

from shared.db.tables import artifacts, attempts, jobs, transitions, workers
from shared.db.webhook_tables import events
from shared.errors import NotFound
from shared.job import AttemptOutcome, JobStatus
from shared.queue import JobQueue
from shared.storage import ObjectStore
from shared.webhook import EventType
from tests.chaos.history import (
    Attempt,
    Event,
    History,
    JobHistory,
    Output,
    QueueSample,
    StoredFile,
    Transition,
)
from tests.fixtures.receiver import Received


def read_history(
    database: sa.Engine,
    fetch: Callable[[str], StoredFile | None],
    accepted: Collection[str],
    samples: Sequence[QueueSample] = (),
    received: Iterable[Received] = (),
) -> History:
    """Read what became of accepted jobs.

    Args:
        fetch: Tells what the store holds under a key.
        received: What the receiver of their webhooks heard.
    """
    bodies: dict[str, list[bytes]] = {}
    for message in received:
        bodies.setdefault(message.headers["webhook-id"], []).append(message.body)
    with database.connect() as connection:

        def rows_of(table: sa.Table, *order: sa.Column[Any]) -> dict[str, list[sa.Row[Any]]]:
            query = sa.select(table).where(table.c.job_id.in_(accepted)).order_by(*order)
            found: dict[str, list[sa.Row[Any]]] = {}
            for row in connection.execute(query):
                found.setdefault(row.job_id, []).append(row)
            return found

        rows = connection.execute(sa.select(jobs).where(jobs.c.id.in_(accepted))).all()
        changes = rows_of(transitions, transitions.c.id)
        tries = rows_of(attempts, attempts.c.attempt)
        files = rows_of(artifacts, artifacts.c.output_index)
        told = rows_of(events, events.c.created_at)
    return History(
        accepted=frozenset(accepted),
        jobs={
            row.id: JobHistory(
                status=JobStatus(row.status),
                deadline_at=row.deadline_at,
                lost_leases=row.lost_leases,
                lost_alone=row.lost_alone,
                num_outputs=row.request["num_outputs"],
                transitions=[_transition(change) for change in changes.get(row.id, ())],
                attempts=[_attempt(one) for one in tries.get(row.id, ())],
                outputs=[_output(fetch, file) for file in files.get(row.id, ())],
                events=None
                if row.webhook is None
                else [
                    Event(event.id, EventType(event.type), bodies.get(event.id, []))
                    for event in told.get(row.id, ())
                ],
            )
            for row in rows
        },
        samples=samples,
    )


def fetch_file(store: ObjectStore, key: str) -> StoredFile | None:
    """Read what the store holds under a key, and the recipe inside it."""
    try:
        data = store.get(key)
    except NotFound:
        return None
    recipe = json.loads(Image.open(io.BytesIO(data)).info["latentq"])
    return StoredFile(hashlib.sha256(data).hexdigest(), len(data), recipe["seed"])


def sample_queue(database: sa.Engine, queue: JobQueue, name: str) -> QueueSample:
    """Look at a queue as it is now.

    Raises:
        ServiceUnavailable: Redis is away.
    """
    is_announced = sa.and_(
        jobs.c.queue == name, jobs.c.status == JobStatus.QUEUED, jobs.c.dispatched_at.is_not(None)
    )
    slots = sa.select(sa.func.coalesce(sa.func.sum(workers.c.slots), 0))
    with database.connect() as connection:
        announced = connection.scalar(sa.select(sa.func.count()).where(is_announced)) or 0
        seen = connection.scalar(slots.where(workers.c.queues.contains([name]))) or 0
    return QueueSample(name, announced=announced, messages=queue.length(name), slots=seen)


def _transition(row: sa.Row[Any]) -> Transition:
    source = None if row.from_status is None else JobStatus(row.from_status)
    return Transition(row.attempt, source, JobStatus(row.to_status), row.at)


def _attempt(row: sa.Row[Any]) -> Attempt:
    return Attempt(
        number=row.attempt,
        token=str(row.token),
        worker=row.worker,
        is_alone=row.is_alone,
        started_at=row.started_at,
        outcome=None if row.outcome is None else AttemptOutcome(row.outcome),
    )


def _output(fetch: Callable[[str], StoredFile | None], row: sa.Row[Any]) -> Output:
    return Output(row.key, row.sha256, row.num_bytes, row.seed, fetch(row.key))
