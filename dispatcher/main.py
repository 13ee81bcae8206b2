"""The dispatcher process: every service in turn, five times a second; any number of copies."""

import signal
import threading
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import OperationalError

from dispatcher.deliverer import Deliverer, Sender
from dispatcher.outbound import Outbound
from dispatcher.redispatcher import Redispatcher
from dispatcher.rescuer import Rescuer
from shared.db.deliveries import DeliveryRepository
from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobRepository
from shared.db.rescue import RescueRepository
from shared.db.session import make_engine
from shared.db.webhooks import WebhookSecretRepository
from shared.dispatch import dispatch
from shared.errors import ServiceUnavailable
from shared.job_body import JobRenderer
from shared.queue import JobQueue
from shared.settings import DispatcherSettings
from shared.storage import MAX_LINK_TTL_S, ObjectStore
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
            OperationalError: PostgreSQL is away.
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
    dispatcher = Dispatcher(
        make_engine(settings.database_url.get_secret_value(), pool_size=2),
        JobQueue(settings.redis_url.get_secret_value()),
        redispatch_s=settings.redispatch_s,
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    deliverer = make_deliverer(settings)
    deliverer.start()
    log.info("dispatcher_started")
    while not stopping.is_set():
        try:
            dispatcher.run_once()
        except OperationalError:
            log.warning("postgresql_away")
            stopping.wait(1.0)
        except ServiceUnavailable as error:
            log.warning("redis_away", detail=error.detail)
        deliverer.check()
        stopping.wait(TICK_S)
    deliverer.stop()
    log.info("dispatcher_stopped")


def make_deliverer(settings: DispatcherSettings) -> Deliverer:
    """Make the deliverer of a process, with connections of its own: it delays nothing else."""
    database = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    store = ObjectStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )
    sender = Sender(
        deliveries=DeliveryRepository(database),
        jobs=JobRepository(database),
        secrets=WebhookSecretRepository(database),
        # Links outlast the last attempt to deliver them.
        renderer=JobRenderer(store, MAX_LINK_TTL_S, now),
        outbound=Outbound(allow_loopback=settings.webhook_allow_loopback),
        clock=now,
    )
    return Deliverer(sender)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
