"""Events as receivers get them."""

from datetime import datetime

from pydantic import BaseModel

from shared.job_body import JobBody
from shared.webhook import EndpointEvent, EventType


class JobEventBody(BaseModel):
    """An event, and the job as it stood when it was first sent."""

    type: EventType
    timestamp: datetime
    data: JobBody


class EndpointRef(BaseModel):
    """Which endpoint is tried."""

    endpoint_id: str


class EndpointEventBody(BaseModel):
    """An event that an endpoint is tried with."""

    type: EndpointEvent
    timestamp: datetime
    data: EndpointRef
