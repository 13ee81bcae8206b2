"""Routes of API keys: an administrator of a tenant manages the tenant's."""

from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.ids import check_id
from api.openapi import refusals
from api.schemas import Text
from api.services import Services, ServicesOf
from shared.access import DEFAULT_SCOPES, NO_LIMITS, KeyLimits, KeyTerms, Scope
from shared.db.keys import ApiKey, key_id_of, mint_key
from shared.errors import FieldProblem, InvalidRequest

log = structlog.get_logger(__name__)

MAX_EXPIRY_S = 10 * 365 * 86_400

router = APIRouter(
    prefix="/v1/keys",
    tags=["keys"],
    route_class=JsonRoute,
    dependencies=[Depends(Requires(Scope.ADMIN))],
)


def _refuse_repetition(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) != len(scopes):
        raise PydanticCustomError("repetition", "each scope may stand once")
    return scopes


class KeyCreate(BaseModel):
    """A key to be made; without `scopes` it has all but `admin`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]],
        Field(min_length=1),
        AfterValidator(_refuse_repetition),
    ] = sorted(DEFAULT_SCOPES)
    limits: KeyLimits = NO_LIMITS
    expires_in_s: Annotated[int, Field(ge=60, le=MAX_EXPIRY_S)] | None = None


class KeyBody(BaseModel):
    """A key; of its text only the last characters are known. Null limits are none."""

    id: str
    name: str
    last4: str | None
    scopes: list[Scope]
    limits: KeyLimits
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class MadeKeyBody(KeyBody):
    """A new key with its text, which is shown this once."""

    api_key: str


class KeyList(BaseModel):
    """The tenant's keys that were not revoked, oldest first."""

    data: list[KeyBody]


@router.get("")
def list_keys(response: Response, caller: Caller, services: ServicesOf) -> KeyList:
    """Read which keys the tenant has."""
    forbid_caching(response)
    return KeyList(data=[KeyBody(**_show(key)) for key in services.keys.all(caller.tenant)])


@router.post("", status_code=201, responses=refusals(400, 413, 415, 422))
def create_key(
    body: KeyCreate, response: Response, caller: Caller, services: ServicesOf
) -> MadeKeyBody:
    """Make a key of the tenant. Its text is in this answer and nowhere else."""
    _check_models(services, body.limits)
    plaintext = mint_key()
    terms = KeyTerms(frozenset(body.scopes), body.limits, body.expires_in_s)
    services.keys.ensure(plaintext, tenant=caller.tenant, name=body.name, terms=terms)
    key = services.keys.get(caller.tenant, key_id_of(plaintext))
    log.info("key_created", key_id=key.id, by=caller.key_id, tenant=caller.tenant)
    response.headers["Cache-Control"] = "no-store"
    return MadeKeyBody(api_key=plaintext, **_show(key))


@router.post("/{key_id}/rotate", status_code=201, responses=refusals(404))
def rotate_key(
    key_id: str, response: Response, caller: Caller, services: ServicesOf
) -> MadeKeyBody:
    """Make a key that takes a key's place, with its scopes, limits and lifetime.

    The one before it is valid for 24 hours more; revoke it when nobody uses it any more.
    """
    plaintext = mint_key()
    key = services.keys.rotate(caller.tenant, check_id(key_id, of="key"), plaintext)
    log.info("key_rotated", key_id=key_id, successor=key.id, by=caller.key_id, tenant=caller.tenant)
    response.headers["Cache-Control"] = "no-store"
    return MadeKeyBody(api_key=plaintext, **_show(key))


@router.delete("/{key_id}", status_code=204, responses=refusals(404))
def revoke_key(key_id: str, caller: Caller, services: ServicesOf) -> None:
    """Revoke a key of the tenant; within half a minute no process takes it any more."""
    check_id(key_id, of="key")
    services.keys.revoke(caller.tenant, key_id)
    log.info("key_revoked", key_id=key_id, by=caller.key_id, tenant=caller.tenant)


def _check_models(services: Services, limits: KeyLimits) -> None:
    known = services.resolver.catalog.models
    if not known.keys() >= set(limits.models or ()):
        detail = f"each must be one of {', '.join(sorted(known))}"
        raise InvalidRequest([FieldProblem("#/limits/models", detail)], code="unknown_model")


def _show(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "last4": key.last4,
        "scopes": sorted(key.scopes),
        "limits": key.limits,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
