"""Routes of deliveries: what receivers were told, and once more."""

from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.ids import check_id
from api.listing import Place, cut_page, read_place
from api.openapi import refusals
from api.schemas import Text
from api.services import ServicesOf
from shared.access import Scope
from shared.db.delivery_log import Delivery, DeliveryFilters
from shared.errors import FieldProblem, InvalidRequest
from shared.webhook import DeliveryStatus, EndpointEvent, EventType, Outcome

log = structlog.get_logger(__name__)

_PARAMETERS = {"limit", "cursor", "status", "job_id", "endpoint_id"}

router = APIRouter(prefix="/v1/deliveries", tags=["webhooks"])


class DeliveryAttemptBody(BaseModel):
    """One attempt; what the receiver said besides its status is not kept."""

    attempt: int
    started_at: datetime
    duration_s: float
    outcome: Outcome
    status_code: int | None


class DeliveryBody(BaseModel):
    """An event on its way to a receiver; `event_id` is the `webhook-id` that it gets.

    `job_id` is null for an event that an endpoint is tried with.
    """

    id: str
    event_id: str
    endpoint_id: str
    job_id: str | None
    type: EventType | EndpointEvent
    host: str
    status: DeliveryStatus
    last_outcome: Outcome | None
    next_attempt_at: datetime | None
    created_at: datetime
    attempts: list[DeliveryAttemptBody]


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    data: list[DeliveryBody]
    next_cursor: str | None
    has_more: bool


def read_filters(
    request: Request,
    status: DeliveryStatus | None = None,
    job_id: Text | None = None,
    endpoint_id: Text | None = None,
) -> DeliveryFilters:
    """Read which deliveries are wanted.

    Raises:
        InvalidRequest: A parameter is unknown, or stands twice.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) != len(names) or not _PARAMETERS.issuperset(names):
        known = ", ".join(sorted(_PARAMETERS))
        raise InvalidRequest([FieldProblem("#", f"known parameters, each once: {known}")])
    return DeliveryFilters(status=status, job_id=job_id, endpoint_id=endpoint_id)


@router.get("", dependencies=[Depends(Requires(Scope.WEBHOOKS_READ))], responses=refusals(400, 422))
def list_deliveries(
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    filters: Annotated[DeliveryFilters, Depends(read_filters)],
    place: Annotated[Place, Depends(read_place)],
) -> DeliveryPage:
    """Read what was told of jobs, newest first, a page at a time."""
    found = services.deliveries.page(
        caller.tenant, limit=place.num_read, after=place.after, filters=filters
    )
    page, next_cursor = cut_page(found, place, request, response)
    return DeliveryPage(
        data=[show_delivery(item) for item in page],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


@router.post(
    "/{delivery_id}/redeliver",
    status_code=202,
    dependencies=[Depends(Requires(Scope.WEBHOOKS_WRITE))],
    responses=refusals(404, 409),
)
def redeliver(delivery_id: str, caller: Caller, services: ServicesOf) -> DeliveryBody:
    """Send an event again, now, whatever became of it.

    A receiver that a job named is tried again even if it was gone.
    """
    check_id(delivery_id, of="delivery")
    delivery = services.deliveries.redeliver(caller.tenant, delivery_id)
    log.info("redelivery_requested", delivery_id=delivery.id, job_id=delivery.job_id)
    return show_delivery(delivery)


def show_delivery(delivery: Delivery) -> DeliveryBody:
    """Write a delivery for clients."""
    return DeliveryBody(
        id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        job_id=delivery.job_id,
        type=delivery.type,
        host=delivery.host,
        status=delivery.status,
        last_outcome=delivery.last_outcome,
        next_attempt_at=delivery.next_attempt_at,
        created_at=delivery.created_at,
        attempts=[
            DeliveryAttemptBody(
                attempt=attempt.attempt,
                started_at=attempt.started_at,
                duration_s=round((attempt.ended_at - attempt.started_at).total_seconds(), 3),
                outcome=attempt.outcome,
                status_code=attempt.status_code,
            )
            for attempt in delivery.attempts
        ],
    )
