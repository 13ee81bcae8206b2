"""Routes of presets: those that come with LatentQ, and each tenant's own."""

from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.openapi import refusals
from api.own_presets import PRESET_NAME, PresetFields
from api.presets import Preset, PresetBook, Sampling
from api.schemas import Text
from api.services import Services, ServicesOf
from shared.access import Scope
from shared.catalog_entry import PresetValues
from shared.db.presets import StoredPreset
from shared.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from shared.job import PresetRef
from shared.vocab import Medium

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/presets", tags=["catalog"], route_class=JsonRoute)

_READ = [Depends(Requires(Scope.MODELS_READ))]
_WRITE = [Depends(Requires(Scope.PRESETS_WRITE))]


class PresetCreate(PresetFields):
    """A preset as a tenant writes it: at least one field of a job, with a sentence about it."""

    description: Annotated[Text, Field(max_length=500)] = ""


class PresetDescription(BaseModel):
    """A version of a preset: its values for each kind of model, before a model's own.

    `request` is what a tenant's own preset settles itself; all else is as in the default preset,
    the model's values for that included. It is null for those that come with LatentQ.
    """

    name: str
    version: int
    description: str
    builtin: bool
    values: dict[Medium, Sampling]
    #: For models of flow matching, as Stable Diffusion 3 and Flux are.
    flow: Sampling
    #: For models distilled for consistency sampling, whatever they make.
    distilled: Sampling
    request: PresetFields | None
    created_at: datetime | None


class PresetHistory(PresetDescription):
    """The newest version of a preset, and all of them, the newest first."""

    versions: list[PresetDescription]


class PresetList(BaseModel):
    """The newest version of every preset: those that come with LatentQ, and the tenant's own."""

    data: list[PresetDescription]


@router.get("", dependencies=_READ)
def list_presets(response: Response, caller: Caller, services: ServicesOf) -> PresetList:
    """Read which presets there are."""
    forbid_caching(response)
    book = services.resolver.presets
    own = services.presets.newest(caller.tenant)
    return PresetList(
        data=[
            *(_describe_builtin(preset) for preset in book),
            *(_describe_own(preset, book) for preset in own),
        ]
    )


@router.get("/{name}", dependencies=_READ, responses=refusals(404))
def get_preset(
    name: str, response: Response, caller: Caller, services: ServicesOf
) -> PresetHistory:
    """Read a preset with all its versions."""
    forbid_caching(response)
    book = services.resolver.presets
    builtin = book.presets.get(name)
    if builtin is not None:
        versions = [_describe_builtin(builtin)]
    else:
        _check_exists(name)
        found = services.presets.versions(caller.tenant, name)
        versions = [_describe_own(preset, book) for preset in found]
    return PresetHistory(**dict(versions[0]), versions=versions)


@router.put(
    "/{name}",
    dependencies=_WRITE,
    responses={201: {"model": PresetDescription}, **refusals(400, 409, 413, 415, 422)},
)
def put_preset(
    name: str, body: PresetCreate, response: Response, caller: Caller, services: ServicesOf
) -> PresetDescription:
    """Make the next version of a preset (201); one that says the same already stays (200)."""
    _refuse_builtin(name, services)
    if not PRESET_NAME.fullmatch(name):
        detail = "a preset's name has 1 to 64 of a-z, 0-9, dot, dash and underscore"
        raise InvalidRequest([FieldProblem("#", f"{detail}, and begins with a letter or digit")])
    settled = body.model_dump(mode="json", exclude_none=True, exclude={"description"})
    if not settled:
        known = ", ".join(PresetFields.model_fields)
        raise InvalidRequest([FieldProblem("#", f"settles nothing; it may say {known}")])
    services.resolver.check_preset(body)
    preset, is_new = services.presets.put(
        caller.tenant, name, description=body.description, request=settled
    )
    if is_new:
        response.status_code = 201
        log.info("preset_made", tenant=caller.tenant, preset=name, version=preset.version)
    forbid_caching(response)
    return _describe_own(preset, services.resolver.presets)


@router.delete("/{name}", status_code=204, dependencies=_WRITE, responses=refusals(404, 409))
def delete_preset(name: str, caller: Caller, services: ServicesOf) -> None:
    """Hide a preset with all its versions from new jobs; jobs that were made with it stay."""
    _refuse_builtin(name, services)
    _check_exists(name)
    services.presets.delete(caller.tenant, name)
    log.info("preset_deleted", tenant=caller.tenant, preset=name)


def _refuse_builtin(name: str, services: Services) -> None:
    if name in services.resolver.presets.presets:
        raise Conflict(
            f"{name} comes with LatentQ and stays as it is; take another name, such as my-{name}",
            code="builtin_preset",
        )


def _check_exists(name: str) -> None:
    # PostgreSQL would refuse some of the others with an error of its own.
    if not PRESET_NAME.fullmatch(name):
        raise NotFound("there is no such preset")


def _describe_builtin(preset: Preset) -> PresetDescription:
    return PresetDescription(
        name=preset.ref.name,
        version=preset.ref.version,
        description=preset.description,
        builtin=True,
        values=dict(preset.values),
        flow=preset.flow,
        distilled=preset.distilled,
        request=None,
        created_at=None,
    )


def _describe_own(stored: StoredPreset, book: PresetBook) -> PresetDescription:
    fields = PresetFields.model_validate(stored.request)
    mine = PresetValues.model_validate(fields.model_dump(include=set(PresetValues.model_fields)))
    preset = book.default.overlaid(PresetRef(stored.name, stored.version), stored.description, mine)
    return _describe_builtin(preset).model_copy(
        update={"builtin": False, "request": fields, "created_at": stored.created_at}
    )
