"""Routes that say what can be asked for: models and samplers."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from api.auth import Requires
from api.openapi import refusals
from api.services import ServicesOf
from shared.access import Scope
from shared.catalog import Catalog, ModelSpec, PresetValues
from shared.compatibility import (
    BEGINS_AT_THE_TOP,
    STOCHASTIC,
    explain_limit,
    find_refusal,
    max_steps,
)
from shared.vocab import Medium, PredictionType, Process, Sampler, Schedule

router = APIRouter(
    prefix="/v1", tags=["catalog"], dependencies=[Depends(Requires(Scope.MODELS_READ))]
)


class ModelAdapterBody(BaseModel):
    """An adapter of a model, the weight that it has unless a job says, and those that it allows."""

    id: str
    description: str
    revision: str
    weight: float
    min_weight: float
    max_weight: float


class ModelBody(BaseModel):
    """A model and what it allows; sizes in pixels, tokens with start and end marks."""

    id: str
    description: str
    revision: str
    is_default: bool
    family: str
    medium: Medium
    process: Process
    prediction_type: PredictionType
    distilled: bool
    zero_terminal_snr: bool
    num_train_timesteps: int
    width: int
    height: int
    max_width: int
    max_height: int
    latent_factor: int
    max_tokens: int
    exact_rows: int
    #: The model's own values for presets, where it has any.
    presets: dict[str, PresetValues]
    adapters: list[ModelAdapterBody]


class ModelList(BaseModel):
    """All models of this installation."""

    data: list[ModelBody]


class Cell(BaseModel):
    """Whether a sampler works on a schedule, and with how many steps at most."""

    sampler: Sampler
    schedule: Schedule
    supported: bool
    #: 0 where it does not work.
    max_steps: int
    #: Why it does not work, or why `max_steps` is below what the model was trained on.
    reason: str | None
    #: The nearest sampler that works, where this one does not: on this schedule if any does.
    instead: Sampler | None
    instead_schedule: Schedule | None
    deterministic: bool
    #: Whether it can start from a picture at a strength below 1.
    starts_midway: bool


class SamplerTable(BaseModel):
    """Every sampler with every schedule, for one model."""

    model: str
    data: list[Cell]


@router.get("/models")
def list_models(services: ServicesOf) -> ModelList:
    """Read which models there are."""
    catalog = services.resolver.catalog
    return ModelList(data=[_describe_model(spec, catalog) for spec in catalog])


@router.get("/samplers", responses=refusals(422))
def list_samplers(
    services: ServicesOf,
    model: Annotated[str | None, Query()] = None,
    allow_undistilled: Annotated[bool, Query()] = False,
) -> SamplerTable:
    """Read which samplers work on which schedules; for the default model unless one is named.

    With `allow_undistilled` as a request with that field finds it.
    """
    resolver = services.resolver
    spec = resolver.find_model(resolver.catalog.default if model is None else model)
    return SamplerTable(
        model=spec.id,
        data=[
            _describe_cell(sampler, schedule, spec, allow_undistilled=allow_undistilled)
            for sampler in Sampler
            for schedule in Schedule
        ],
    )


def _describe_model(spec: ModelSpec, catalog: Catalog) -> ModelBody:
    return ModelBody(
        id=spec.id,
        description=spec.description,
        revision=spec.revision,
        is_default=spec.id == catalog.default,
        family=spec.family,
        medium=spec.medium,
        process=spec.process,
        prediction_type=spec.prediction_type,
        distilled=spec.is_distilled,
        zero_terminal_snr=spec.training.zero_terminal_snr,
        num_train_timesteps=spec.training.num_train_timesteps,
        width=spec.width,
        height=spec.height,
        max_width=spec.max_width,
        max_height=spec.max_height,
        latent_factor=spec.latent_factor,
        max_tokens=spec.max_tokens,
        exact_rows=spec.exact_rows,
        presets=dict(spec.presets),
        adapters=[
            ModelAdapterBody(
                id=adapter.id,
                description=adapter.description,
                revision=adapter.revision,
                weight=adapter.weight,
                min_weight=adapter.min_weight,
                max_weight=adapter.max_weight,
            )
            for adapter in catalog.adapters_of(spec.id)
        ],
    )


def _describe_cell(
    sampler: Sampler, schedule: Schedule, spec: ModelSpec, *, allow_undistilled: bool
) -> Cell:
    refusal = find_refusal(sampler, schedule, spec, allow_undistilled=allow_undistilled)
    most = max_steps(sampler, schedule, spec, allow_undistilled=allow_undistilled)
    reason = refusal.reason if refusal is not None else None
    if refusal is None and most < spec.training.num_train_timesteps:
        reason = explain_limit(sampler, spec)
    return Cell(
        sampler=sampler,
        schedule=schedule,
        supported=refusal is None,
        max_steps=most,
        reason=reason,
        instead=refusal.instead if refusal is not None else None,
        instead_schedule=refusal.instead_schedule if refusal is not None else None,
        deterministic=sampler not in STOCHASTIC,
        starts_midway=sampler not in BEGINS_AT_THE_TOP,
    )
