"""Routes that say what can be asked for: models and samplers."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from api.auth import Requires
from api.caching import forbid_caching
from api.openapi import refusals
from api.services import ServicesOf
from shared.access import Scope
from shared.catalog import Catalog, ModelSpec
from shared.catalog_entry import PresetValues
from shared.compatibility import (
    BEGINS_AT_THE_TOP,
    STOCHASTIC,
    explain_limit,
    find_refusal,
    max_steps,
)
from shared.db.presence import WorkerStock
from shared.device_options import Dtype
from shared.holding import HoldingState
from shared.vocab import (
    OUTPUT_FORMATS,
    GuidanceForm,
    Medium,
    OutputFormat,
    PredictionType,
    Process,
    Sampler,
    Schedule,
)

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


class HoldingBody(BaseModel):
    """What one worker has of a model. Other workers load it when a job of it waits for long."""

    worker: str
    device: str
    state: HoldingState
    #: What it takes, where that is known.
    bytes: int | None
    #: How much of the loading or warming is done, from 0 to 1.
    progress: float | None
    #: Why it could not be loaded, where it could not.
    reason: str | None


class ModelBody(BaseModel):
    """A model and what it allows; sizes in pixels, tokens with start and end marks.

    Models of pictures have sizes, models of sounds durations, in seconds; the others are null.
    """

    id: str
    description: str
    revision: str
    #: The hub repository that it comes from, if it does.
    repo: str | None
    dtype: Dtype
    is_default: bool
    family: str
    medium: Medium
    process: Process
    prediction_type: PredictionType
    distilled: bool
    zero_terminal_snr: bool
    num_train_timesteps: int
    width: int | None
    height: int | None
    max_width: int | None
    max_height: int | None
    #: Of a sound by default.
    duration_s: float | None
    min_duration_s: float | None
    max_duration_s: float | None
    #: In samples a second.
    sample_rate: int | None
    #: What outputs may be written as, the default first.
    output_formats: list[OutputFormat]
    #: Pixels of a latent's cell along each side, or its samples along time.
    latent_factor: int
    #: Pixels of which sizes are multiples.
    size_step: int
    #: 0 where it reads no text.
    max_tokens: int
    #: By a second row for the negative prompt, by being told the scale, or not at all.
    guidance: GuidanceForm
    #: What a class-conditional model can be asked for: numbers by their names; null for others.
    labels: dict[str, int] | None
    takes_adapters: bool
    #: Whether jobs can start from a picture.
    starts_from_pictures: bool
    exact_rows: int
    #: The model's own values for presets, where it has any.
    presets: dict[str, PresetValues]
    adapters: list[ModelAdapterBody]
    #: The workers that hold it, load it, or could not.
    workers: list[HoldingBody]


class WorkerBody(BaseModel):
    """How much room for models a worker has."""

    worker: str
    device: str
    #: What its models take, those that are being loaded too.
    used_bytes: int
    #: What they may take together; null is without limit.
    budget_bytes: int | None


class ModelList(BaseModel):
    """All models of this installation, and where they are in memory."""

    data: list[ModelBody]
    workers: list[WorkerBody]


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
def list_models(services: ServicesOf, response: Response) -> ModelList:
    """Read which models there are, and which of them the workers hold at the moment."""
    forbid_caching(response)
    catalog, stocks = services.resolver.catalog, services.workers.read_stocks()
    return ModelList(
        data=[_describe_model(spec, catalog, _find_holders(stocks, spec.id)) for spec in catalog],
        workers=[_describe_worker(found) for found in stocks],
    )


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


def _find_holders(stocks: Iterable[WorkerStock], model_id: str) -> list[HoldingBody]:
    return [
        HoldingBody(
            worker=_name_of(found),
            device=found.device,
            state=holding.state,
            bytes=holding.num_bytes,
            progress=holding.progress,
            reason=holding.reason,
        )
        for found in stocks
        for holding in found.stock.holdings
        if holding.model == model_id
    ]


def _describe_worker(found: WorkerStock) -> WorkerBody:
    used = [
        holding.num_bytes or 0
        for holding in found.stock.holdings
        if holding.state in {HoldingState.LOADING, HoldingState.WARMING, HoldingState.WARM}
    ]
    return WorkerBody(
        worker=_name_of(found),
        device=found.device,
        used_bytes=sum(used),
        budget_bytes=found.stock.budget_bytes,
    )


def _name_of(found: WorkerStock) -> str:
    """Return a worker's name, without its host and process."""
    return found.worker_id.partition("@")[0]


def _describe_model(spec: ModelSpec, catalog: Catalog, workers: list[HoldingBody]) -> ModelBody:
    return ModelBody(
        id=spec.id,
        description=spec.description,
        revision=spec.revision,
        repo=spec.repo,
        dtype=spec.device_options.dtype,
        is_default=spec.id == catalog.default,
        family=spec.family,
        medium=spec.medium,
        process=spec.process,
        prediction_type=spec.prediction_type,
        distilled=spec.is_distilled,
        zero_terminal_snr=spec.training.zero_terminal_snr,
        num_train_timesteps=spec.training.num_train_timesteps,
        # A sound has none: 0.
        width=spec.width or None,
        height=spec.height or None,
        max_width=spec.max_width or None,
        max_height=spec.max_height or None,
        duration_s=spec.sound and spec.sound.duration_s,
        min_duration_s=spec.sound and spec.sound.min_duration_s,
        max_duration_s=spec.sound and spec.sound.max_duration_s,
        sample_rate=spec.sound and spec.sound.sample_rate,
        output_formats=list(OUTPUT_FORMATS[spec.medium]),
        latent_factor=spec.latent_factor,
        size_step=spec.size_step,
        max_tokens=spec.max_tokens,
        guidance=spec.guidance,
        labels=None if spec.labels is None else dict(spec.labels),
        takes_adapters=spec.takes_adapters,
        starts_from_pictures=spec.starts_from_pictures,
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
        workers=workers,
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
