"""What a receiver gets, in the form of Standard Webhooks 1.0."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel
from standardwebhooks import Webhook

from shared.job import Job
from shared.job_body import JobBody, JobRenderer
from shared.webhook import EventType

USER_AGENT = "latentq-webhooks/1.0"


class EventBody(BaseModel):
    """An event, and the job as it stood when it was first sent."""

    type: EventType
    timestamp: datetime
    data: JobBody


def write_body(
    renderer: JobRenderer, job: Job, *, event_type: EventType, occurred_at: datetime
) -> bytes:
    """Write the bytes of an event."""
    body = EventBody(type=event_type, timestamp=occurred_at, data=renderer.render(job))
    return body.model_dump_json().encode()


def write_headers(body: bytes, *, event_id: str, secret: str, now: datetime) -> Mapping[str, str]:
    """Write the headers of one attempt; `now` is in UTC, which the library takes for granted."""
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, now, body.decode()),
    }
