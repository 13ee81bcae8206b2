"""What a receiver gets, in the form of Standard Webhooks 1.0."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from standardwebhooks import Webhook

from shared.event_body import EndpointEventBody, EndpointRef, JobEventBody
from shared.job import Job
from shared.job_body import JobRenderer
from shared.prediction import show_prediction
from shared.webhook import EndpointEvent, EventType

USER_AGENT = "latentq-webhooks/1.0"


def write_body(
    renderer: JobRenderer, job: Job, *, event_type: EventType, occurred_at: datetime
) -> bytes:
    """Write the bytes of a job's event."""
    body = JobEventBody(type=event_type, timestamp=occurred_at, data=renderer.render(job))
    return body.model_dump_json().encode()


def write_prediction(renderer: JobRenderer, job: Job) -> bytes:
    """Write the bytes of a job that came as a prediction and tells of itself as one."""
    ref = None if job.webhook is None else job.webhook.prediction
    if ref is None:
        raise ValueError("the job is no prediction")
    return show_prediction(renderer, job, ref).model_dump_json().encode()


def write_test_body(*, endpoint_id: str, occurred_at: datetime) -> bytes:
    """Write the bytes of an event that an endpoint is tried with."""
    body = EndpointEventBody(
        type=EndpointEvent.TEST, timestamp=occurred_at, data=EndpointRef(endpoint_id=endpoint_id)
    )
    return body.model_dump_json().encode()


def write_headers(
    body: bytes, *, event_id: str, secrets: Sequence[str], now: datetime
) -> Mapping[str, str]:
    """Write the headers of one attempt, with one signature for each secret.

    `now` is in UTC, which the library takes for granted.
    """
    signatures = [Webhook(secret).sign(event_id, now, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
