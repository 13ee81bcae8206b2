"""The dispatcher process: every service in turn, five times a second; any number of copies."""

import signal
import threading

import sqlalchemy as sa
import structlog

from dispatcher.redispatcher import Redispatcher
from dispatcher.rescuer import Rescuer
from shared import crash_point
from shared.db.dispatch import DispatchRepository
from shared.db.rescue import RescueRepository
from shared.db.session import DATABASE_AWAY, make_engine
from shared.dispatch import dispatch
from shared.errors import ServiceUnavailable
from shared.queue import JobQueue
from shared.settings import DispatcherSettings
from shared.telemetry import configure_logging

#: Pause between two rounds, in seconds.
TICK_S = 0.2

log = structlog.get_logger(__name__)


class Dispatcher:
    """All services of the process; each is safe to run in several copies."""

    def __init__(self, database: sa.Engine, queue: JobQueue, *, redispatch_s: float) -> None:
        self._repository = DispatchRepository(database)
        self._queue = queue
        self._rescuer = Rescuer(RescueRepository(database))
        self._redispatcher = Redispatcher(self._repository, queue, redispatch_s=redispatch_s)

    def run_once(self) -> None:
        """Do one round: SQL first, so that a Redis that is away delays only what needs it.

        Raises:
            DATABASE_AWAY: PostgreSQL is away.
            ServiceUnavailable: Redis is away.
        """
        for job_id, status in self._rescuer.run_once().items():
            log.info("job_taken_back", job_id=job_id, status=status)
        if announced := dispatch(self._repository, self._queue):
            log.debug("jobs_announced", count=announced)
        if resent := self._redispatcher.run_once():
            log.info("jobs_announced_again", count=resent)


def main() -> None:
    """Run the dispatcher until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    settings = DispatcherSettings.read()
    configure_logging("dispatcher")
    crash_point.arm(settings.crash_at)
    dispatcher = Dispatcher(
        make_engine(settings.database_url.get_secret_value(), pool_size=2),
        JobQueue(settings.redis_url.get_secret_value()),
        redispatch_s=settings.redispatch_s,
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("dispatcher_started")
    while not stopping.is_set():
        try:
            dispatcher.run_once()
        except DATABASE_AWAY:
            log.warning("postgresql_away")
            stopping.wait(1.0)
        except ServiceUnavailable as error:
            log.warning("redis_away", detail=error.detail)
        stopping.wait(TICK_S)
    log.info("dispatcher_stopped")
