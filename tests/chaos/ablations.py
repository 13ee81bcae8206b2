"""Processes from which one mechanism was taken away, to see that its absence is noticed.

Each is the usual program with one function exchanged, in a process of its own: production code has
no switch for it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery

import dispatcher.main
import shared.db.leases
import worker.consumer
from bench.cluster import Program
from bench.simulated_device import run_worker
from dispatcher.redispatcher import Redispatcher
from dispatcher.rescuer import Rescuer
from shared.db.tables import jobs
from shared.job import Lease
from shared.queue import QueueOrder
from tests.chaos.programs import poisonable_worker, telling_worker
from tests.chaos.system import STEP_S
from worker.lease import LeaseKeeper


def unfenced_worker(name: str) -> Program:
    """A worker that ends whatever runs, whoever holds the lease."""
    return partial(_run_unfenced, name)


def unguarded_worker(name: str, steps_path: Path) -> Program:
    """A worker that goes on when its lease has run out unseen."""
    return partial(_run_unguarded, name, steps_path)


def trusting_worker(name: str) -> Program:
    """A worker that suspects no job, and can be poisoned."""
    return partial(_run_trusting, name)


def late_acking_worker(name: str) -> Program:
    """A worker with the settings that are usually recommended for reliability."""
    return partial(_run_late_acking, name)


def dispatcher_without_redispatch() -> None:
    """A dispatcher that sends each message once."""
    Redispatcher.run_once = lambda _: 0
    dispatcher.main.main()


def dispatcher_without_rescuer() -> None:
    """A dispatcher that takes nothing back."""
    Rescuer.run_once = lambda _: {}
    dispatcher.main.main()


def _run_unfenced(name: str) -> None:
    end = shared.db.leases._end

    def end_unfenced(connection: sa.Connection, lease: Lease, *arguments: Any) -> bool:
        query = sa.select(jobs.c.lease_token).where(jobs.c.id == lease.job_id)
        token = connection.execute(query).scalar_one() or lease.token
        return end(connection, replace(lease, token=token), *arguments)

    shared.db.leases._end = end_unfenced
    run_worker(name, STEP_S)


def _run_unguarded(name: str, steps_path: Path) -> None:
    LeaseKeeper.fence = lambda _: None
    telling_worker(name, steps_path)()


def _run_trusting(name: str) -> None:
    shared.db.leases.SUSPECTED_AFTER = 1_000
    poisonable_worker(name)()


def _run_late_acking(name: str) -> None:
    worker.consumer.make_celery = _late_acking(worker.consumer.make_celery)
    run_worker(name, STEP_S)


def _late_acking(make_celery: Callable[..., Celery]) -> Callable[..., Celery]:
    def make(redis_url: str, *, order: QueueOrder) -> Celery:
        app = make_celery(redis_url, order=order)
        app.conf.update(
            task_acks_late=True,
            worker_prefetch_multiplier=1,
            worker_disable_prefetch=False,
            worker_enable_remote_control=False,
        )
        # Its own timer would use the connection, and notice.
        app.Worker = partial(app.Worker, without_heartbeat=True)
        return app

    return make
