"""Rows of `jobs` and `artifacts` as the vocabulary's types."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from shared.db.tables import artifacts
from shared.errors import ErrorCode
from shared.job import Artifact, BatchPlace, Job, JobStatus, PresetRef
from shared.request import GenerationRequest
from shared.webhook import EventType, PredictionRef, Webhook


def read_job(row: sa.Row[Any], job_artifacts: Iterable[Artifact] = ()) -> Job:
    """Read a row of `jobs`; what `select_outlook` adds may stand beside its own columns."""
    return Job(
        id=row.id,
        tenant=row.tenant,
        status=JobStatus(row.status),
        request=GenerationRequest.model_validate(row.request),
        preset=PresetRef(row.preset_name, row.preset_version),
        metadata=row.metadata,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        deadline_at=row.deadline_at,
        cancel_requested=row.cancel_requested_at is not None,
        attempt=row.attempt,
        iteration=row.iteration,
        predicted_s=row.predicted_s,
        queue_position=getattr(row, "queue_position", None),
        queue_eta_s=getattr(row, "queue_eta_s", None),
        unschedulable=(explain_unserved(row.model) if getattr(row, "is_unserved", False) else None),
        error_code=ErrorCode(row.error_code) if row.error_code else None,
        error_message=row.error_message,
        execution=row.execution,
        artifacts=tuple(job_artifacts),
        webhook=row.webhook and _read_webhook(row.webhook),
        retry_of=row.retry_of,
        batch=row.batch_id and BatchPlace(row.batch_id, row.batch_index),
        resumed_at=row.resumed_at,
    )


def explain_unserved(model: str) -> str:
    """Say why no worker can take a job of a model at the moment."""
    return f"no live worker serves {model}; it waits for one until its deadline"


def webhook_values(webhook: Webhook) -> dict[str, Any]:
    """Turn a webhook into the value of the column `webhook`."""
    values: dict[str, Any] = {"url": webhook.url, "events": list(webhook.events)}
    if webhook.prediction is not None:
        values["prediction"] = asdict(webhook.prediction)
    return values


def artifact_values(job_id: str, artifact: Artifact) -> dict[str, Any]:
    """Turn an artifact into a row of `artifacts`."""
    return {
        "job_id": job_id,
        "output_index": artifact.index,
        "key": artifact.key,
        "content_type": artifact.content_type,
        "width": artifact.width,
        "height": artifact.height,
        "seed": artifact.seed,
        "sha256": artifact.sha256,
        "num_bytes": artifact.num_bytes,
        "duration_s": artifact.duration_s,
        "sample_rate": artifact.sample_rate,
        "thumbnail_key": artifact.thumbnail_key,
    }


def read_artifacts(connection: sa.Connection, job_ids: list[str]) -> dict[str, list[Artifact]]:
    """Read the artifacts of several jobs, in order."""
    found: dict[str, list[Artifact]] = {job_id: [] for job_id in job_ids}
    if not job_ids:
        return found
    query = (
        sa.select(artifacts)
        .where(artifacts.c.job_id.in_(job_ids))
        .order_by(artifacts.c.job_id, artifacts.c.output_index)
    )
    for row in connection.execute(query):
        found[row.job_id].append(
            Artifact(
                index=row.output_index,
                key=row.key,
                content_type=row.content_type,
                width=row.width,
                height=row.height,
                seed=row.seed,
                sha256=row.sha256,
                num_bytes=row.num_bytes,
                duration_s=row.duration_s,
                sample_rate=row.sample_rate,
                thumbnail_key=row.thumbnail_key,
            )
        )
    return found


def _read_webhook(value: Mapping[str, Any]) -> Webhook:
    prediction = value.get("prediction")
    return Webhook(
        value["url"],
        tuple(map(EventType, value["events"])),
        prediction and PredictionRef(**prediction),
    )
