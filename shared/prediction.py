"""A job as Replicate's API shows it: a prediction."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from shared.errors import ErrorCode
from shared.job import Job, JobStatus
from shared.job_body import JobRenderer, show_request
from shared.webhook import PredictionRef

#: Whose models all are, there.
OWNER = "latentq"
#: Members of a request that are no inputs of a model.
_NO_INPUTS = {"webhook", "metadata", "model"}
_BAR_CELLS = 10
_STATUSES = {
    JobStatus.QUEUED: "starting",
    JobStatus.RUNNING: "processing",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "canceled",
}


class MetricsBody(BaseModel):
    """How long it ran, and was there, in seconds."""

    predict_time: float | None
    total_time: float


class PredictionUrls(BaseModel):
    """Where to go from here."""

    get: str
    cancel: str
    stream: str


class PredictionBody(BaseModel):
    """A prediction; `logs` has how far it came in the last line."""

    id: str
    model: str
    version: str
    status: str
    #: The resolved request, by the names of a job's fields.
    input: dict[str, Any]
    output: list[str] | None
    logs: str
    error: str | None
    metrics: MetricsBody | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    urls: PredictionUrls


def show_prediction(renderer: JobRenderer, job: Job, ref: PredictionRef) -> PredictionBody:
    """Write a job as a prediction, with fresh links to what it made."""
    here = f"{ref.base_url}/predictions/{job.id}"
    return PredictionBody(
        id=job.id,
        model=f"{OWNER}/{job.request.model}",
        version=ref.version,
        status=_show_status(job),
        input=show_request(job).model_dump(mode="json", exclude=_NO_INPUTS, exclude_none=True),
        output=[renderer.link(job, made) for made in job.artifacts] or None,
        logs=show_progress(job),
        error=f"{job.error_code}: {job.error_message}" if job.error_code else None,
        metrics=_measure(job),
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.finished_at,
        urls=PredictionUrls(get=here, cancel=f"{here}/cancel", stream=f"{here}/stream"),
    )


def show_progress(job: Job) -> str:
    """Write how far a job came as tqdm does, which Replicate's SDK reads; nothing before it ran."""
    if job.started_at is None:
        return ""
    share = job.iteration / job.request.iterations
    bar = "#" * round(share * _BAR_CELLS)
    return f"{int(share * 100):3d}%|{bar:<{_BAR_CELLS}}| {job.iteration}/{job.request.iterations}\n"


def _show_status(job: Job) -> str:
    # What was never begun has not failed.
    if job.error_code is ErrorCode.DEADLINE_EXCEEDED and job.started_at is None:
        return _STATUSES[JobStatus.CANCELED]
    return _STATUSES[job.status]


def _measure(job: Job) -> MetricsBody | None:
    if job.finished_at is None:
        return None
    ran = None if job.started_at is None else (job.finished_at - job.started_at).total_seconds()
    return MetricsBody(
        predict_time=ran, total_time=(job.finished_at - job.created_at).total_seconds()
    )
