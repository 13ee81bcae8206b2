"""What the routes work with, made once per process and handed in, never global."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import Tracer

from api.admission import Admission
from api.estimator import Estimator
from api.health import Health
from api.hub import JobHub
from api.keyring import Keyring
from api.metrics import ApiMetrics
from api.rates import Rates
from api.read_only import ReadOnlyMode
from api.strangers import Strangers
from api.submission import Resolver
from shared.db.batches import BatchRepository
from shared.db.delivery_log import DeliveryLog
from shared.db.endpoints import EndpointRepository
from shared.db.incoming import IncomingUploadRepository
from shared.db.jobs import JobRepository
from shared.db.keys import KeyRepository
from shared.db.presence import WorkerRepository
from shared.db.presets import PresetRepository
from shared.db.uploads import UploadRepository
from shared.db.webhooks import WebhookSecretRepository
from shared.job_body import JobRenderer
from shared.queue import PreviewFeed
from shared.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a route may call."""

    resolver: Resolver
    estimator: Estimator
    jobs: JobRepository
    batches: BatchRepository
    uploads: UploadRepository
    incoming: IncomingUploadRepository
    presets: PresetRepository
    workers: WorkerRepository
    deliveries: DeliveryLog
    endpoints: EndpointRepository
    webhook_secrets: WebhookSecretRepository
    store: ObjectStore
    keys: KeyRepository
    keyring: Keyring
    rates: Rates
    strangers: Strangers
    admission: Admission
    read_only: ReadOnlyMode
    renderer: JobRenderer
    health: Health
    hub: JobHub
    metrics: ApiMetrics
    tracer: Tracer
    previews: PreviewFeed
    new_job_id: Callable[[], str]
    new_batch_id: Callable[[], str]
    #: Says that a job waits; called after the commit.
    nudge: Callable[[], None]
    #: Says that a running job shall stop; returns at once.
    notify_cancel: Callable[[str], None]
    #: Whether webhooks may go to this machine, by plain HTTP too.
    webhook_allow_loopback: bool = False


async def get_services(request: Request) -> Services:
    """Return the services that the application was made with."""
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(get_services)]
