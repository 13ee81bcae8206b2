"""Python client of LatentQ: submit jobs, wait for them, fetch what they made."""

from latentq_client.client import Client
from latentq_client.errors import (
    ClientError,
    JobFailed,
    ServiceRefused,
    ServiceUnreachable,
    WaitTimeout,
)
from latentq_client.job import Artifact, Job, JobError, Progress, Upload

__all__ = [
    "Artifact",
    "Client",
    "ClientError",
    "Job",
    "JobError",
    "JobFailed",
    "Progress",
    "ServiceRefused",
    "ServiceUnreachable",
    "Upload",
    "WaitTimeout",
]
