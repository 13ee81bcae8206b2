"""Python client of LatentQ: submit jobs, wait for them, fetch what they made."""

from latentq_client.client import AsyncClient, Client
from latentq_client.errors import (
    ClientError,
    FieldProblem,
    JobFailed,
    ServiceRefused,
    ServiceUnreachable,
    WaitTimeout,
    WebhookRefused,
)
from latentq_client.events import Event, Preview
from latentq_client.fields import (
    AdapterFields,
    EndpointChanges,
    EndpointFields,
    JobBody,
    JobFields,
    PresetFields,
    SweepFields,
)
from latentq_client.handle import AsyncJobHandle, JobHandle
from latentq_client.job import Artifact, Job, JobError, Progress
from latentq_client.together import Batch, Estimate, Skipped, Sweep, SweepPoint
from latentq_client.uploads import Upload

__all__ = [
    "AdapterFields",
    "Artifact",
    "AsyncClient",
    "AsyncJobHandle",
    "Batch",
    "Client",
    "ClientError",
    "EndpointChanges",
    "EndpointFields",
    "Estimate",
    "Event",
    "FieldProblem",
    "Job",
    "JobBody",
    "JobError",
    "JobFailed",
    "JobFields",
    "JobHandle",
    "PresetFields",
    "Preview",
    "Progress",
    "ServiceRefused",
    "ServiceUnreachable",
    "Skipped",
    "Sweep",
    "SweepFields",
    "SweepPoint",
    "Upload",
    "WaitTimeout",
    "WebhookRefused",
]
