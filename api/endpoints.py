"""Routes of webhook endpoints: receivers of what becomes of all of a tenant's jobs."""

from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching, forbid_storing
from api.deliveries import DeliveryBody, show_delivery
from api.ids import check_id
from api.listing import Place, cut_page, read_place
from api.openapi import refusals
from api.schemas import Text, WebhookCreate, WebhookEvents
from api.services import Services, ServicesOf
from shared.access import Scope
from shared.db.endpoints import Endpoint, EndpointChanges
from shared.db.webhooks import mint_secret
from shared.errors import FieldProblem, InvalidRequest
from shared.webhook import DisabledReason, EventType, find_url_refusal

log = structlog.get_logger(__name__)

Description = Annotated[Text, Field(max_length=256)]

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"], route_class=JsonRoute)

_READ = [Depends(Requires(Scope.WEBHOOKS_READ))]
_WRITE = [Depends(Requires(Scope.WEBHOOKS_WRITE))]


class EndpointCreate(WebhookCreate):
    """Whom to tell of what becomes of all jobs."""

    description: Description = ""


class EndpointUpdate(BaseModel):
    """What shall be otherwise; what is absent or null stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    url: Text | None = None
    events: WebhookEvents | None = None
    description: Description | None = None
    enabled: bool | None = None


class EndpointBody(BaseModel):
    """A receiver; one that is not enabled is told of nothing, for the reason that stands here."""

    id: str
    url: str
    events: list[EventType]
    description: str
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    created_at: datetime


class EndpointSecretBody(BaseModel):
    """What messages to an endpoint are signed with."""

    secret: str


class NewEndpointBody(EndpointBody, EndpointSecretBody):
    """An endpoint, with the secret that its messages are signed with."""


class EndpointPage(BaseModel):
    """Endpoints, newest first."""

    data: list[EndpointBody]
    next_cursor: str | None
    has_more: bool


@router.post("", dependencies=_WRITE, status_code=201, responses=refusals(400, 409, 413, 415, 422))
def create_webhook_endpoint(
    body: EndpointCreate, response: Response, caller: Caller, services: ServicesOf
) -> NewEndpointBody:
    """Register a receiver; it is told of what happens from now on."""
    _check_url(services, body.url)
    secret = mint_secret()
    endpoint = services.endpoints.create(
        caller.tenant,
        url=body.url,
        events=body.events,
        description=body.description,
        secret=secret,
    )
    response.headers["Location"] = f"{router.prefix}/{endpoint.id}"
    forbid_storing(response)
    log.info("endpoint_created", endpoint_id=endpoint.id, tenant=caller.tenant)
    return NewEndpointBody(**_show(endpoint).model_dump(), secret=secret)


@router.get("", dependencies=_READ, responses=refusals(400, 422))
def list_webhook_endpoints(
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    place: Annotated[Place, Depends(read_place)],
) -> EndpointPage:
    """Read endpoints, newest first, a page at a time."""
    found = services.endpoints.page(caller.tenant, limit=place.num_read, after=place.after)
    page, next_cursor = cut_page(found, place, request, response)
    return EndpointPage(
        data=[_show(endpoint) for endpoint in page],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


@router.get("/{endpoint_id}", dependencies=_READ, responses=refusals(404))
def get_webhook_endpoint(
    endpoint_id: str, response: Response, caller: Caller, services: ServicesOf
) -> EndpointBody:
    """Read an endpoint."""
    forbid_caching(response)
    return _show(services.endpoints.get(caller.tenant, check_id(endpoint_id, of="endpoint")))


@router.patch(
    "/{endpoint_id}", dependencies=_WRITE, responses=refusals(400, 404, 409, 413, 415, 422)
)
def update_webhook_endpoint(
    endpoint_id: str, body: EndpointUpdate, response: Response, caller: Caller, services: ServicesOf
) -> EndpointBody:
    """Change an endpoint; one that answered 410 before is enabled again by `enabled`.

    What waits for one that gets disabled is given up; what waits while the URL changes goes to the
    new one.
    """
    if body.url is not None:
        _check_url(services, body.url)
    changes = EndpointChanges(
        url=body.url,
        events=None if body.events is None else tuple(body.events),
        description=body.description,
        enabled=body.enabled,
    )
    endpoint = services.endpoints.update(
        caller.tenant, check_id(endpoint_id, of="endpoint"), changes
    )
    forbid_caching(response)
    log.info("endpoint_changed", endpoint_id=endpoint.id, enabled=endpoint.disabled_at is None)
    return _show(endpoint)


@router.delete("/{endpoint_id}", dependencies=_WRITE, status_code=204, responses=refusals(404))
def delete_webhook_endpoint(endpoint_id: str, caller: Caller, services: ServicesOf) -> None:
    """Remove an endpoint, its secrets and its deliveries."""
    services.endpoints.delete(caller.tenant, check_id(endpoint_id, of="endpoint"))
    log.info("endpoint_deleted", endpoint_id=endpoint_id)


@router.get("/{endpoint_id}/secret", dependencies=_WRITE, responses=refusals(404))
def get_webhook_secret(
    endpoint_id: str, response: Response, caller: Caller, services: ServicesOf
) -> EndpointSecretBody:
    """Read what an endpoint's messages are signed with: the newest secret."""
    forbid_storing(response)
    secret = services.endpoints.secret(caller.tenant, check_id(endpoint_id, of="endpoint"))
    return EndpointSecretBody(secret=secret)


@router.post("/{endpoint_id}/rotate-secret", dependencies=_WRITE, responses=refusals(404, 409))
def rotate_webhook_secret(
    endpoint_id: str, response: Response, caller: Caller, services: ServicesOf
) -> EndpointSecretBody:
    """Give an endpoint another secret.

    For 24 hours messages carry a signature by the one before it, too, separated by a space.
    """
    secret = mint_secret()
    services.endpoints.rotate(caller.tenant, check_id(endpoint_id, of="endpoint"), secret)
    forbid_storing(response)
    log.info("endpoint_secret_rotated", endpoint_id=endpoint_id)
    return EndpointSecretBody(secret=secret)


@router.post(
    "/{endpoint_id}/test", dependencies=_WRITE, status_code=202, responses=refusals(404, 409)
)
def test_webhook_endpoint(endpoint_id: str, caller: Caller, services: ServicesOf) -> DeliveryBody:
    """Send an event `endpoint.test`, as any other is sent; returns its delivery."""
    delivery_id = services.endpoints.test(caller.tenant, check_id(endpoint_id, of="endpoint"))
    return show_delivery(services.deliveries.get(caller.tenant, delivery_id))


def _check_url(services: Services, url: str) -> None:
    refusal = find_url_refusal(url, allow_loopback=services.webhook_allow_loopback)
    if refusal is not None:
        raise InvalidRequest([FieldProblem("#/url", refusal)])


def _show(endpoint: Endpoint) -> EndpointBody:
    return EndpointBody(
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        description=endpoint.description,
        enabled=endpoint.disabled_at is None,
        disabled_at=endpoint.disabled_at,
        disabled_reason=endpoint.disabled_reason,
        created_at=endpoint.created_at,
    )
