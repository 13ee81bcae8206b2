"""The worker process: warm pipelines, one engine, and Celery to bring it jobs."""

import os
import platform
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import NoReturn

import structlog
import torch
import transformers

from models import CATALOG
from shared import crash_point
from shared.catalog import Catalog
from shared.db.costs import CostRepository
from shared.db.dispatch import DispatchRepository
from shared.db.leases import LeaseRepository
from shared.db.presence import WorkerRepository
from shared.db.session import make_engine
from shared.errors import ConfigurationError, ServiceUnavailable
from shared.job import Lease
from shared.metrics import StoreLatency, new_registry, serve_metrics
from shared.preview import Preview
from shared.queue import WATCH_S, JobQueue, WorkerListener, queues_of
from shared.settings import WorkerSettings
from shared.storage import ObjectStore
from shared.telemetry import configure_logging
from shared.tracing import start_tracing, trace_store
from worker.activity import Activity, Backlog
from worker.affinity import Affinity, Lookout
from worker.checkpoint import LIBRARIES
from worker.checkpoint_keeper import CheckpointKeeper
from worker.consumer import Consumer
from worker.costs import CostKeeper
from worker.device import describe_device
from worker.engine import AdapterCache, DeviceLost, Engine, EngineConfig, ModelCache, ModelLoader
from worker.hub_files import HubFiles
from worker.lease import LeaseKeeper
from worker.memory import choose_budget
from worker.metrics import AttemptMetrics, EngineCollector, show_leases
from worker.pace import PaceMeter
from worker.presence import Presence
from worker.records import Records
from worker.shutdown import Shutdown
from worker.stock import queue_states, take_stock
from worker.task import GenerateTask, WorkerIdentity
from worker.warm_up import WarmUp
from worker.watchdog import ExitReason, Limits, Vitals, Watchdog

#: Exit code of a worker that was stopped with Ctrl-C.
INTERRUPTED = 130

log = structlog.get_logger(__name__)


def main(*, name: str) -> NoReturn:
    """Run a worker until it is told to stop, and end the process.

    Raises:
        ConfigurationError: A setting, the catalog or a model cannot be used.
    """
    settings = WorkerSettings.read()
    configure_logging(name)
    crash_point.arm(settings.crash_at)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = _pick_device(settings.device)
    catalog = Catalog.load(settings.catalog or CATALOG, hub=settings.hub)
    models = ModelCache(
        catalog,
        device,
        budget_bytes=settings.model_memory or choose_budget(device),
        loader=ModelLoader(device, HubFiles(settings.hub)),
    )
    redis_url = settings.redis_url.get_secret_value()
    job_queue = JobQueue(redis_url)
    engine = Engine(
        EngineConfig(state_interval_s=settings.checkpoint_s),
        models,
        adapters=AdapterCache(
            catalog.adapters,
            device,
            max_bytes=settings.adapter_memory_mb * 2**20,
            max_adapters=settings.max_adapters,
        ),
        # A worker without its engine would fail every job it takes; a new process will not.
        on_crash=lambda error: watchdog.leave(_explain_crash(error)),
        on_preview=partial(show_preview, job_queue),
    )
    # Each job's thread holds a connection only for the moment of a statement.
    database = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    kind = describe_device(device)
    costs = CostKeeper(CostRepository(database), engine.costs, device=kind)
    engine.recall_from(costs)
    warm_up = WarmUp(engine, models, costs)
    if settings.warm_models is None:
        warm_up.load_what_fits(catalog)
    else:
        warm_up.load_named(catalog, settings.warm_models)

    slots = settings.worker_slots
    registry = new_registry(version=version("latentq"))
    leases = LeaseRepository(database, lease_s=settings.lease_s)
    keeper = LeaseKeeper(
        leases, lease_s=settings.lease_s, progress=engine.progress, stop_job=engine.cancel
    )
    store = ObjectStore(settings.store)
    traces = start_tracing("worker", is_wanted=settings.wants_traces)
    trace_store(traces.tracer, store)
    worker_id = f"{name}@{socket.gethostname()}:{os.getpid()}"
    checkpoints = CheckpointKeeper(
        store, catalog, libraries={library: version(library) for library in LIBRARIES}
    )
    task = GenerateTask(
        identity=WorkerIdentity(name=name, process=worker_id, device=device, versions=_versions()),
        leases=leases,
        keeper=keeper,
        engine=engine,
        store=store,
        records=Records(AttemptMetrics(registry), traces.tracer, worker=name),
        checkpoints=checkpoints,
    )
    workers = WorkerRepository(database)
    # Both urgency classes, the urgent one first, each with the queues of all models.
    affinity = Affinity(
        [*zip(*(queues_of(spec.id) for spec in catalog), strict=True)],
        lambda: queue_states(models.holdings()),
    )

    pace = PaceMeter(engine, time.monotonic)

    def beat() -> None:
        workers.beat(
            worker_id,
            device=kind,
            queues=affinity.queues,
            slots=slots,
            stock=take_stock(models, engine),
            clock=datetime.now(UTC),
            pace=pace.measure(),
        )

    presence = Presence(beat=beat, leave=partial(workers.leave, worker_id), save_costs=costs.save)
    models.on_change = presence.tell_news
    lookout = Lookout(affinity, lambda: workers.look_around(worker_id))
    listener = WorkerListener(
        redis_url, on_cancel=keeper.cancel, on_watch=partial(engine.watch, for_s=WATCH_S)
    )
    backlog = Backlog(
        DispatchRepository(database).announced, job_queue.ping, queues=affinity.queues
    )
    consumer = Consumer(redis_url, task.run, affinity, worker_id=worker_id, slots=slots)

    def drain() -> None:
        consumer.wake()
        task.drain()
        presence.stop()

    registry.register(EngineCollector(engine, models, catalog, device=device))
    show_leases(registry, lambda: len(keeper.held()))
    latency = StoreLatency(registry)
    latency.watch_database(database)
    latency.watch_store(store)
    serve_metrics(registry, host=settings.metrics_host, port=settings.metrics_port)

    shutdown = Shutdown(drain)
    watchdog = Watchdog(
        lambda: _observe(engine, models, shutdown, task.activity, backlog),
        Limits(grace_s=settings.grace_s, stall_s=settings.stall_s),
        held=keeper.held,
        settle=partial(_settle, leases),
    )

    engine.start()
    for service in (keeper, checkpoints, presence, lookout, listener, backlog, shutdown, watchdog):
        service.start()
    try:
        consumer.run(shutdown.request)
    finally:
        for service in (listener, lookout, presence, keeper):
            service.stop()
        engine.stop()
        checkpoints.stop()
    traces.close()
    log.info("worker_stopped")
    # Taking torch down by the book takes seconds, out of the watchdog's sight, and helps nobody.
    os._exit({None: 1, signal.SIGINT: INTERRUPTED}.get(shutdown.asked_by, 0))


def _observe(
    engine: Engine, models: ModelCache, shutdown: Shutdown, activity: Activity, backlog: Backlog
) -> Vitals:
    """Gather what the watchdog looks at."""
    timings = engine.timings
    return Vitals(
        now=time.monotonic(),
        num_requests=shutdown.num_requests,
        stopping_for_s=shutdown.age_s,
        step_s=max(timings.running_s("step_s"), timings.running_s("probe_s")),
        slow_stage_s=max(
            timings.running_s("encode_s"), timings.running_s("decode_s"), models.loading_s
        ),
        idle_since=activity.idle_since,
        backlog_since=backlog.since,
    )


def show_preview(job_queue: JobQueue, preview: Preview) -> None:
    """Send a preview to whoever watches its job; where Redis is away they wait for the next."""
    with suppress(ServiceUnavailable):
        job_queue.publish_preview(preview)


def _settle(leases: LeaseRepository, held: Iterable[Lease], reason: ExitReason) -> None:
    """Do for the jobs of a process that ends what their threads no longer will."""
    if reason.blames_jobs:
        leases.abandon(held, reason=reason)
        return
    for lease in held:
        leases.release(lease)


def _explain_crash(error: BaseException) -> ExitReason:
    is_device = isinstance(error, DeviceLost | torch.AcceleratorError)
    return ExitReason.DEVICE_LOST if is_device else ExitReason.ENGINE_CRASHED


def _pick_device(wanted: str) -> str:
    """Choose the device and set what its results depend on.

    Raises:
        ConfigurationError: There is no such device.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "cuda"
        else:
            wanted = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"LATENTQ_DEVICE: there is no device {wanted!r} here") from error
    if wanted == "cpu":
        # How sums are split over threads shows in the last bits of a result.
        torch.set_num_threads(1)
    return wanted


def _versions() -> dict[str, str]:
    """Name what a result's bytes depend on besides its request."""
    packages = ("latentq", "torch", "diffusers", "transformers")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}
