"""The API on a real PostgreSQL, with a recording nudge and time that only tests move."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from api.admission import Admission
from api.estimator import Estimator
from api.health import Health
from api.hub import JobHub
from api.keyring import Keyring
from api.main import create_app, new_batch_id, new_job_id
from api.metrics import ApiMetrics
from api.presets import PresetBook
from api.rates import Rates
from api.read_only import ReadOnlyMode
from api.services import Services
from api.strangers import Strangers
from api.submission import Resolver
from api.tokens import TokenCounter
from cli.standalone.servers import Servers
from models import CATALOG
from shared.catalog import Catalog
from shared.db.batches import BatchRepository
from shared.db.costs import CostRepository
from shared.db.delivery_log import DeliveryLog
from shared.db.endpoints import EndpointRepository
from shared.db.incoming import IncomingUploadRepository
from shared.db.jobs import JobRepository
from shared.db.keys import KeyRepository, mint_key
from shared.db.leases import LeaseRepository
from shared.db.presence import WorkerRepository
from shared.db.presets import PresetRepository
from shared.db.read_only import ReadOnlyRepository
from shared.db.uploads import UploadRepository
from shared.db.webhooks import WebhookSecretRepository
from shared.job_body import JobRenderer
from shared.queue import PreviewFeed
from shared.storage import ObjectStore
from shared.store_address import StoreAddress
from tests.fixtures.api import CHOSEN_SEED, LINK_TTL_S, Api, Clock
from tests.fixtures.served import Live, listening, serve


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog.load(CATALOG)


@pytest.fixture(scope="session")
def tokens(catalog: Catalog) -> TokenCounter:
    return TokenCounter(catalog)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(catalog: Catalog, tokens: TokenCounter, clock: Clock) -> Resolver:
    return Resolver(catalog, PresetBook.load(), tokens, lambda: CHOSEN_SEED, clock)


@pytest.fixture(scope="session")
def store() -> ObjectStore:
    """A store that signs links; nothing in these tests asks it for an object."""
    return ObjectStore(
        StoreAddress(
            endpoint="http://127.0.0.1:1",
            public_endpoint="https://files.example.test",
            bucket="latentq",
            access_key="access",
            secret_key="secret",
        )
    )


@pytest.fixture(scope="session")
def real_store(servers: Servers) -> ObjectStore:
    """A store that is there."""
    return ObjectStore(
        StoreAddress(
            endpoint=servers.s3_endpoint,
            bucket=servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
    )


@pytest.fixture
def api(
    database: sa.Engine, catalog: Catalog, resolver: Resolver, store: ObjectStore, clock: Clock
) -> Iterator[Api]:
    nudges: list[None] = []
    canceled: list[str] = []
    jobs = JobRepository(database)
    # Nobody listens: a key with such a limit is counted by the process.
    rates = Rates("redis://127.0.0.1:1/0")
    services = Services(
        resolver=resolver,
        estimator=Estimator(CostRepository(database), catalog),
        jobs=jobs,
        batches=BatchRepository(database),
        uploads=UploadRepository(database),
        incoming=IncomingUploadRepository(database),
        presets=PresetRepository(database),
        workers=WorkerRepository(database),
        deliveries=DeliveryLog(database),
        endpoints=EndpointRepository(database),
        webhook_secrets=WebhookSecretRepository(database),
        store=store,
        keys=KeyRepository(database),
        keyring=Keyring(KeyRepository(database), clock),
        rates=rates,
        strangers=Strangers(),
        admission=Admission(jobs, max_waiting=100_000),
        read_only=ReadOnlyMode(ReadOnlyRepository(database)),
        renderer=JobRenderer(store, LINK_TTL_S, clock),
        health=Health(jobs.ping, {}),
        hub=JobHub(),
        metrics=ApiMetrics(CollectorRegistry()),
        tracer=NoOpTracer(),
        previews=PreviewFeed("redis://127.0.0.1:1"),
        new_job_id=new_job_id,
        new_batch_id=new_batch_id,
        nudge=lambda: nudges.append(None),
        notify_cancel=canceled.append,
    )
    api = Api(services, database, clock, nudges, canceled)
    with api.client:
        yield api
    rates.close()


@pytest.fixture
def live(api: Api, real_store: ObjectStore, servers: Servers, clock: Clock) -> Iterator[Live]:
    """The API behind a real HTTP server, with a store that is there."""
    key = mint_key()
    KeyRepository(api.database).ensure(key, tenant="tenant", name="live")
    services = replace(
        api.services,
        store=real_store,
        renderer=JobRenderer(real_store, LINK_TTL_S, clock),
        previews=PreviewFeed(servers.redis_url),
    )
    leases = LeaseRepository(api.database, lease_s=60)
    statuses: list[int] = []
    with listening(api), serve(create_app(services), statuses) as url:
        yield Live(api, real_store, leases, url, key, statuses)
