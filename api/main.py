"""The API process."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version

import sqlalchemy as sa
import uuid_utils
from fastapi import Depends, FastAPI, Request
from opentelemetry.trace import Tracer

from api import (
    artifacts,
    batches,
    catalogue,
    deliveries,
    endpoints,
    estimates,
    events,
    health_routes,
    incoming,
    jobs,
    keys,
    messages,
    preset_routes,
    problem_routes,
    retries,
    sweeps,
    uploads,
)
from api.admission import Admission
from api.auth import authenticate
from api.edge_headers import EdgeHeaders
from api.error_handlers import UnexpectedErrors, add_error_handlers
from api.estimator import Estimator
from api.health import Health, check_database
from api.hub import JobHub
from api.keyring import Keyring
from api.metrics import ApiMetrics
from api.nudger import Nudger
from api.observation import Observation
from api.openai import routes as openai_routes
from api.openai.pictures import Reader
from api.openapi import SERVERS, TAGS, describe, name_operation, refusals
from api.presets import PresetBook
from api.rates import Rates
from api.read_only import ReadOnlyMode
from api.replicate import files as replicate_files
from api.replicate import models as replicate_models
from api.replicate import predictions
from api.request_id import RequestIds
from api.server import Server
from api.services import Services, ServicesOf
from api.strangers import Strangers
from api.submission import Resolver
from api.tokens import TokenCounter
from api.upkeep import Upkeep
from models import CATALOG
from shared import crash_point
from shared.catalog import Catalog
from shared.db.batches import BatchRepository
from shared.db.changes import ChangeListener
from shared.db.costs import CostRepository
from shared.db.delivery_log import DeliveryLog
from shared.db.dispatch import DispatchRepository
from shared.db.endpoints import EndpointRepository
from shared.db.incoming import IncomingUploadRepository
from shared.db.jobs import JobRepository
from shared.db.keys import KeyRepository
from shared.db.presence import WorkerRepository
from shared.db.presets import PresetRepository
from shared.db.read_only import ReadOnlyRepository
from shared.db.session import make_engine
from shared.db.uploads import UploadRepository
from shared.db.webhooks import WebhookSecretRepository
from shared.job_body import JobRenderer
from shared.metrics import StoreLatency, new_registry, serve_metrics
from shared.queue import JobQueue, PreviewFeed
from shared.request import SEED_LIMIT
from shared.settings import ApiSettings
from shared.storage import ObjectStore
from shared.telemetry import configure_logging
from shared.tracing import start_tracing, trace_store

#: Connections that are kept; as many again under load.
POOL_SIZE = 10

#: Methods that change nothing.
READING = ("GET", "HEAD", "OPTIONS")

REPLICATE_ROUTERS = (predictions.router, replicate_models.router, replicate_files.router)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


async def refuse_changes(request: Request, services: ServicesOf) -> None:
    """Let a request pass unless it may change something while the service is read-only.

    Raises:
        ServiceReadOnly: It may.
    """
    if request.method not in READING:
        services.read_only.check()


def create_app(
    services: Services,
    *,
    openai: bool = True,
    replicate: bool = True,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Make the application; it owns nothing that it is not given.

    `openai` and `replicate` say whether their APIs are spoken too.
    """
    app = FastAPI(
        title="LatentQ",
        version=version("latentq"),
        description="A durable job system for latent-diffusion models",
        lifespan=lifespan,
        webhooks=messages.router,
        openapi_tags=TAGS,
        servers=SERVERS,
        generate_unique_id_function=name_operation,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Records of failures would quote the values that failed, spans the queries.
        telemetry={"logs": False, "tracing": False, "metrics": False, "auto_configure": False},
    )
    app.state.services = services
    app.state.reader = Reader()
    app.include_router(health_routes.router)
    app.include_router(problem_routes.router, responses=refusals(500))
    for router in (
        jobs.router,
        events.router,
        retries.router,
        artifacts.router,
        estimates.router,
        batches.router,
        sweeps.router,
        uploads.router,
        incoming.router,
        deliveries.router,
        endpoints.router,
        catalogue.router,
        preset_routes.router,
        keys.router,
        *([openai_routes.router] if openai else []),
        *(REPLICATE_ROUTERS if replicate else []),
    ):
        # An estimate has a body and changes nothing.
        changes = [] if router is estimates.router else [Depends(refuse_changes)]
        app.include_router(
            router,
            dependencies=[Depends(authenticate), *changes],
            responses=refusals(401, 403, 429, 500, 503),
        )
    add_error_handlers(app)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(EdgeHeaders)
    app.add_middleware(RequestIds)
    app.add_middleware(Observation)
    describe(app)
    return app


def main(*, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: A setting, the catalog or a tokenizer cannot be used.
    """
    settings = ApiSettings.read()
    configure_logging("api")
    crash_point.arm(settings.crash_at)
    database = make_engine(settings.database_url.get_secret_value(), pool_size=POOL_SIZE)
    queue = JobQueue(settings.redis_url.get_secret_value())
    nudger = Nudger(DispatchRepository(database), queue)

    traces = start_tracing("api", is_wanted=settings.wants_traces)
    services = make_services(settings, database, queue, nudger, traces.tracer)
    metrics = services.metrics
    metrics.show_waiting(lambda: services.hub.num_watches)
    latency = StoreLatency(metrics.registry)
    latency.watch_database(database)
    latency.watch_store(services.store)
    trace_store(traces.tracer, services.store)
    serve_metrics(metrics.registry, host=settings.metrics_host, port=settings.metrics_port)
    listener = ChangeListener(database, services.hub.wake, services.hub.wake_all)
    upkeep = Upkeep(
        [
            services.read_only.refresh,
            services.estimator.refresh,
            services.admission.refresh,
            services.keyring.write_usage,
        ]
    )

    @asynccontextmanager
    async def run_threads(_: FastAPI) -> AsyncIterator[None]:
        nudger.start()
        listener.start()
        upkeep.start()
        yield
        listener.stop()
        upkeep.stop()
        services.rates.close()
        nudger.stop()
        traces.close()

    app = create_app(
        services, openai=settings.openai, replicate=settings.replicate, lifespan=run_threads
    )
    Server(app, services.hub, host=host, port=port).serve_until_stopped()


def make_services(
    settings: ApiSettings, database: sa.Engine, queue: JobQueue, nudger: Nudger, tracer: Tracer
) -> Services:
    """Make the services of a process.

    Raises:
        ConfigurationError: The catalog or a tokenizer cannot be used.
    """
    catalog = Catalog.load(settings.catalog or CATALOG, hub=settings.hub)
    job_repository, key_repository = JobRepository(database), KeyRepository(database)
    store = ObjectStore(settings.store)
    return Services(
        resolver=Resolver(catalog, PresetBook.load(), TokenCounter(catalog), new_seed, now),
        estimator=Estimator(CostRepository(database), catalog),
        jobs=job_repository,
        batches=BatchRepository(database),
        uploads=UploadRepository(database),
        incoming=IncomingUploadRepository(database),
        presets=PresetRepository(database),
        workers=WorkerRepository(database),
        deliveries=DeliveryLog(database),
        endpoints=EndpointRepository(database),
        webhook_secrets=WebhookSecretRepository(database),
        store=store,
        keys=key_repository,
        keyring=Keyring(key_repository, now),
        rates=Rates(settings.redis_url.get_secret_value()),
        strangers=Strangers(),
        admission=Admission(job_repository, max_waiting=settings.max_queue_depth),
        read_only=ReadOnlyMode(ReadOnlyRepository(database)),
        renderer=JobRenderer(store, settings.link_ttl_s, now),
        health=Health(
            lambda: check_database(job_repository, database),
            {"redis": queue.ping, "s3": store.ping},
        ),
        hub=JobHub(),
        metrics=ApiMetrics(new_registry(version=version("latentq"))),
        tracer=tracer,
        previews=PreviewFeed(settings.redis_url.get_secret_value()),
        new_job_id=new_job_id,
        new_batch_id=new_batch_id,
        nudge=nudger.nudge,
        notify_cancel=nudger.notify_cancel,
        webhook_allow_loopback=settings.webhook_allow_loopback,
    )


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def new_seed() -> int:
    """Choose a seed that no other job is likely to have."""
    return secrets.randbelow(SEED_LIMIT)


def new_job_id() -> str:
    """Make an id that sorts by time (UUIDv7)."""
    return f"job_{uuid_utils.uuid7().hex}"


def new_batch_id() -> str:
    """Make an id of jobs that come together."""
    return f"batch_{uuid_utils.uuid7().hex}"
