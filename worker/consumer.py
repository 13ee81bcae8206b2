"""Celery, as far as a worker needs it: one thread for each message that a slot is free for."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery.signals import task_postrun, task_prerun
from celery.worker import state

from shared.queue import TASK_GENERATE, make_celery
from worker.affinity import Affinity


class Consumer:
    """Takes messages off the queues until SIGTERM, each in a thread of its own."""

    def __init__(
        self,
        redis_url: str,
        run: Callable[[str], None],
        affinity: Affinity,
        *,
        worker_id: str,
        slots: int,
    ) -> None:
        app = make_celery(redis_url, order=affinity)
        name_jobs_in_logs()

        @app.task(name=TASK_GENERATE)  # type: ignore[untyped-decorator]
        def generate(job_id: str, parameters: dict[str, Any]) -> None:  # noqa: ARG001
            # The parameters are for people who look into Redis; the row decides.
            run(job_id)

        self._worker = app.Worker(
            hostname=worker_id,
            pool="threads",
            concurrency=slots,
            queues=affinity.queues,
            without_gossip=True,
            without_mingle=True,
            quiet=True,  # no banner
            loglevel="INFO",
            redirect_stdouts=False,
        )

    def run(self, on_signal: Callable[[signal.Signals], None]) -> None:
        """Consume until SIGTERM or SIGINT, and return when all threads have ended.

        `on_signal` is called at each of them, in the middle of whatever the main thread does.
        """

        def stop(number: int, _frame: FrameType | None) -> None:
            state.should_stop = 0
            on_signal(signal.Signals(number))

        def hear(_worker: object) -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, stop)

        # In place of Celery's own handlers: they write past all logging, and wait for threads.
        self._worker.install_platform_tweaks = hear
        self._worker.start()

    def wake(self) -> None:
        """Have Celery see at once that it was told to stop; it may sleep for seconds otherwise."""
        if self._worker.hub is not None:
            self._worker.hub.call_soon(lambda: None)


def name_jobs_in_logs() -> None:
    """Have every line of a task's thread tell of its job, Celery's own too."""
    task_prerun.connect(_name_job, weak=False, dispatch_uid="latentq.name_job")
    task_postrun.connect(_unname_job, weak=False, dispatch_uid="latentq.unname_job")


def _name_job(kwargs: dict[str, Any], **_: object) -> None:
    structlog.contextvars.bind_contextvars(job_id=kwargs.get("job_id"))


def _unname_job(**_: object) -> None:
    structlog.contextvars.unbind_contextvars("job_id")
