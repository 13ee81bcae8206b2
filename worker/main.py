"""The worker process: warm pipelines, one engine, and Celery to bring it jobs."""

import os
import platform
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
import torch
import transformers
from celery import signals

from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from shared.db.costs import CostRepository
from shared.db.leases import LeaseRepository, WorkerRepository
from shared.db.session import make_engine
from shared.errors import ConfigurationError, ModelUnavailable
from shared.queue import TASK_GENERATE, CancelListener, make_celery, queues_of
from shared.settings import WorkerSettings
from shared.storage import ObjectStore
from shared.telemetry import configure_logging
from worker.affinity import Affinity, Lookout
from worker.costs import CostKeeper
from worker.device import describe_device
from worker.engine import Engine, EngineConfig, ModelCache
from worker.lease import LeaseKeeper
from worker.presence import Presence
from worker.task import GenerateTask, WorkerIdentity

log = structlog.get_logger(__name__)


def main(*, name: str) -> None:
    """Run a worker until it is told to stop.

    Raises:
        ConfigurationError: A setting, the catalog or a model cannot be used.
    """
    settings = WorkerSettings.read()
    configure_logging(name)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    device = _pick_device(settings.device)
    catalog = Catalog.load(settings.catalog or CATALOG)
    # A worker without its engine would fail every job it takes; a new process will not.
    models = ModelCache(catalog, device)
    engine = Engine(EngineConfig(), models, on_crash=lambda: os._exit(1))
    # Each job's thread holds a connection only for the moment of a statement.
    database = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    kind = describe_device(device)
    costs = CostKeeper(CostRepository(database), engine.costs, device=kind)
    _warm_up(engine, _choose_warm(catalog, settings.warm_models), costs)

    slots = settings.worker_slots
    redis_url = settings.redis_url.get_secret_value()
    leases = LeaseRepository(database, lease_s=settings.lease_s)
    keeper = LeaseKeeper(
        leases, lease_s=settings.lease_s, progress=engine.progress, stop_job=engine.cancel
    )
    task = GenerateTask(
        identity=WorkerIdentity(name=name, device=device, versions=_versions()),
        leases=leases,
        keeper=keeper,
        engine=engine,
        store=ObjectStore(
            endpoint=settings.s3_endpoint,
            public_endpoint=None,
            region=settings.s3_region,
            bucket=settings.s3_bucket,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
        ),
    )
    worker_id = f"{name}@{socket.gethostname()}:{os.getpid()}"
    workers = WorkerRepository(database)

    def warm_queues() -> list[str]:
        return [queue for model in models.loaded for queue in queues_of(model)]

    # Both urgency classes, the urgent one first, each with the queues of all models.
    affinity = Affinity([*zip(*(queues_of(spec.id) for spec in catalog), strict=True)], warm_queues)
    presence = Presence(
        workers,
        worker_id=worker_id,
        device=kind,
        slots=slots,
        affinity=affinity,
        save_costs=costs.save,
    )
    lookout = Lookout(affinity, lambda: workers.look_around(worker_id))
    listener = CancelListener(redis_url, engine.cancel)

    engine.start()
    for service in (keeper, presence, lookout, listener):
        service.start()
    _drain_on_shutdown(engine.drain, grace_s=settings.grace_s)
    try:
        _consume(redis_url, task.run, affinity, worker_id=worker_id, slots=slots)
    finally:
        for service in (listener, lookout, presence, keeper):
            service.stop()
        engine.stop()


def _choose_warm(catalog: Catalog, wanted: str | None) -> list[ModelSpec]:
    """Say which models to load at the start.

    Raises:
        ConfigurationError: The catalog has no such model.
    """
    ids = catalog.models if wanted is None else [name.strip() for name in wanted.split(",")]
    if missing := [model_id for model_id in ids if model_id not in catalog.models]:
        known = ", ".join(catalog.models)
        raise ConfigurationError(f"LATENTQ_WARM_MODELS: no model {missing[0]!r}; known: {known}")
    return [catalog.models[model_id] for model_id in ids]


def _warm_up(engine: Engine, models: Iterable[ModelSpec], costs: CostKeeper) -> None:
    """Load models and learn what they cost here, from SQL as far as that still holds.

    Raises:
        ConfigurationError: A model cannot be used.
    """
    for spec in models:
        known = costs.recall(spec.id)
        try:
            is_known = engine.warm_up(spec.id, known=known)
        except ModelUnavailable as error:
            raise ConfigurationError(error.detail) from error
        if known and not is_known:
            costs.forget(spec.id)
        log.info("model_warm", model=spec.id, costs_known=is_known)


def _consume(
    redis_url: str, run: Callable[[str], None], affinity: Affinity, *, worker_id: str, slots: int
) -> None:
    """Take messages off the queues until SIGTERM, each in a thread of its own."""
    app = make_celery(redis_url, order=affinity)
    # On SIGTERM Celery writes there past all logging, and its lines are not JSON.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())

    @app.task(name=TASK_GENERATE)  # type: ignore[untyped-decorator]
    def generate(job_id: str, parameters: dict[str, Any]) -> None:  # noqa: ARG001
        # The parameters are for people who look into Redis; the row decides.
        run(job_id)

    app.Worker(
        hostname=worker_id,
        pool="threads",
        concurrency=slots,
        queues=affinity.queues,
        without_gossip=True,
        without_mingle=True,
        quiet=True,  # no banner
        loglevel="INFO",
        redirect_stdouts=False,
    ).start()


def _drain_on_shutdown(drain: Callable[[], None], *, grace_s: float) -> None:
    """Hand all jobs back on SIGTERM, and leave for good when the grace is over."""

    def begin(**_: object) -> None:
        log.info("draining")
        drain()
        # Celery waits for its threads without end; the leases bring back what they held.
        deadline = threading.Timer(grace_s, os._exit, args=(1,))
        deadline.daemon = True
        deadline.start()

    signals.worker_shutting_down.connect(begin, weak=False)


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
