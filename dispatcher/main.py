"""The dispatcher process: services in turn, five times a second, and slower ones at their own pace.

Any number of copies may run.
"""

import contextlib
import os
import signal
import socket
import threading
from datetime import UTC, datetime
from importlib.metadata import version

import sqlalchemy as sa
import structlog
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry

from dispatcher import cleaner, metrics, sweeper
from dispatcher.cleaner import Cleaner
from dispatcher.counters import Counters
from dispatcher.deliverer import Deliverer, Sender
from dispatcher.metrics import StateGauges
from dispatcher.outbound import Outbound
from dispatcher.presence import Presence
from dispatcher.read_only import unless_read_only
from dispatcher.redispatcher import Redispatcher
from dispatcher.rescuer import Rescuer
from dispatcher.rounds import Rounds
from dispatcher.situation import Observer
from dispatcher.sweeper import Sweeper
from models import CATALOG
from shared import crash_point
from shared.catalog import Catalog
from shared.db.deletions import DeletionRepository
from shared.db.deliveries import DeliveryRepository
from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobRepository
from shared.db.presence import DispatcherRepository
from shared.db.read_only import ReadOnlyRepository
from shared.db.rescue import RescueRepository
from shared.db.retention import RetentionRepository
from shared.db.session import DATABASE_AWAY, explain_away, make_engine
from shared.db.webhooks import WebhookSecretRepository
from shared.dispatch import dispatch
from shared.errors import ServiceUnavailable
from shared.job_body import JobRenderer
from shared.metrics import StoreLatency, new_registry, serve_metrics
from shared.queue import JobQueue
from shared.settings import DispatcherSettings
from shared.storage import MAX_LINK_TTL_S, ObjectStore
from shared.telemetry import configure_logging
from shared.tracing import start_tracing

#: Pause between two rounds, in seconds.
TICK_S = 0.2

log = structlog.get_logger(__name__)


class Dispatcher:
    """The services that jobs wait for; each is safe to run in several copies."""

    def __init__(
        self,
        database: sa.Engine,
        queue: JobQueue,
        *,
        redispatch_s: float,
        counters: Counters | None = None,
    ) -> None:
        self._repository = DispatchRepository(database)
        self._queue = queue
        self._rescuer = Rescuer(RescueRepository(database))
        self._redispatcher = Redispatcher(self._repository, queue, redispatch_s=redispatch_s)
        self._counters = counters or Counters(CollectorRegistry())

    def run_once(self) -> None:
        """Do one round: SQL first, so that a Redis that is away delays only what needs it.

        Raises:
            DATABASE_AWAY: PostgreSQL is away.
            ServiceUnavailable: Redis is away.
        """
        for job_id, status in self._rescuer.run_once().items():
            self._counters.note_taken_back(status)
            log.info("job_taken_back", job_id=job_id, status=status)
        if announced := dispatch(self._repository, self._queue):
            self._counters.note_announced(announced)
            log.debug("jobs_announced", count=announced)
        if resent := self._redispatcher.run_once():
            self._counters.note_redispatched(resent)
            log.info("jobs_announced_again", count=resent)


def main() -> None:
    """Run the dispatcher until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    settings = DispatcherSettings.read()
    configure_logging("dispatcher")
    crash_point.arm(settings.crash_at)
    # A connection for the loop, and one for each service with a pace of its own.
    database = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    queue = JobQueue(settings.redis_url.get_secret_value())
    registry = new_registry(version=version("latentq"))
    counters = Counters(registry)
    dispatcher = Dispatcher(database, queue, redispatch_s=settings.redispatch_s, counters=counters)
    store = ObjectStore(settings.store)
    latency = StoreLatency(registry)
    latency.watch_database(database)
    latency.watch_store(store)
    presence = Presence(DispatcherRepository(database), f"{socket.gethostname()}:{os.getpid()}")
    slow_services = make_slow_services(settings, database, queue, store, registry)
    serve_metrics(registry, host=settings.metrics_host, port=settings.metrics_port)
    traces = start_tracing("dispatcher", is_wanted=settings.wants_traces)
    deliverer = make_deliverer(settings, store, latency, counters, traces.tracer)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("dispatcher_started")
    for service in slow_services:
        service.start()
    deliverer.start()
    while not stopping.is_set():
        try:
            presence.run_once()
            dispatcher.run_once()
        except DATABASE_AWAY as error:
            log.warning("postgresql_away", detail=explain_away(error))
            stopping.wait(1.0)
        except ServiceUnavailable as error:
            log.warning("redis_away", detail=error.detail)
        deliverer.check()
        stopping.wait(TICK_S)
    for service in slow_services:
        service.stop()
    deliverer.stop()
    with contextlib.suppress(*DATABASE_AWAY):  # silence tells it as well, later
        presence.leave()
    traces.close()
    log.info("dispatcher_stopped")


def make_slow_services(
    settings: DispatcherSettings,
    database: sa.Engine,
    queue: JobQueue,
    store: ObjectStore,
    registry: CollectorRegistry,
) -> list[Rounds]:
    """Make the services that call the store, which may hold them up.

    Raises:
        ConfigurationError: The catalog cannot be used.
    """
    retention = RetentionRepository(database)
    cleaning = Cleaner(
        retention,
        DeletionRepository(database),
        store,
        retention_s=settings.retention_s,
        upload_retention_s=settings.upload_retention_s,
    )
    sweeping = Sweeper(retention, store)
    read_only = ReadOnlyRepository(database)
    services = [
        Rounds(name, unless_read_only(read_only, run_once), interval_s=interval_s)
        for name, run_once, interval_s in (
            ("cleaner", cleaning.run_once, cleaner.INTERVAL_S),
            ("sweeper", sweeping.run_once, sweeper.INTERVAL_S),
        )
    ]
    if settings.metrics_port is not None:
        catalog = Catalog.load(settings.catalog or CATALOG, hub=settings.hub)
        gauges = StateGauges(Observer(database, queue, store, catalog), registry)
        services.append(Rounds("metrics", gauges.run_once, interval_s=metrics.INTERVAL_S))
    return services


def make_deliverer(
    settings: DispatcherSettings,
    store: ObjectStore,
    latency: StoreLatency,
    counters: Counters,
    tracer: Tracer,
) -> Deliverer:
    """Make the deliverer of a process, with connections of its own: it delays nothing else."""
    database = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    latency.watch_database(database)
    sender = Sender(
        deliveries=DeliveryRepository(database),
        jobs=JobRepository(database),
        secrets=WebhookSecretRepository(database),
        # Links outlast the last attempt to deliver them.
        renderer=JobRenderer(store, MAX_LINK_TTL_S, now),
        outbound=Outbound(allow_loopback=settings.webhook_allow_loopback),
        clock=now,
        tracer=tracer,
    )
    return Deliverer(sender, counters=counters)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
