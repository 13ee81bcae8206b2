"""Routes of predictions: `/replicate` as a base URL for Replicate's SDKs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching, forbid_storing
from api.cancellation import cancel
from api.holding import EventStream, Held, HeldRequest
from api.ids import check_id
from api.jobs import say_what_was_applied
from api.listing import Place, cut_page, read_place
from api.openapi import events_named, refusals
from api.prefer import PreferencesOf
from api.replicate.models import find_model, find_version
from api.replicate.order import Prediction, accept_prediction
from api.replicate.place import BaseUrl
from api.replicate.schemas import (
    NewPredictionBody,
    PredictionCreate,
    PredictionPage,
    SigningSecret,
)
from api.replicate.stream import stream_prediction
from api.services import Services, ServicesOf
from api.waiting import wait_for_end
from shared.access import Scope
from shared.db.jobs import JobFilters
from shared.job import Job
from shared.prediction import PredictionBody, show_prediction
from shared.webhook import PredictionRef

#: A body may hold pictures as data: URIs.
MAX_BODY_BYTES = 16 * 1024 * 1024
#: How much earlier than its client would have it an answer comes, in seconds: the SDK hangs up half
#: a second after the time it asked to wait for.
SLACK_S = 0.5


class PredictionRoute(JsonRoute):
    """A route whose body may hold pictures."""

    max_body_bytes = MAX_BODY_BYTES


router = APIRouter(prefix="/replicate/v1", tags=["replicate"], route_class=PredictionRoute)
_READ = [Depends(Requires(Scope.JOBS_READ))]
_WRITE = [Depends(Requires(Scope.JOBS_WRITE))]
_REFUSALS = refusals(400, 413, 415, 422, 429)


@router.post("/predictions", status_code=201, dependencies=_WRITE, responses=_REFUSALS)
async def create_prediction(
    body: PredictionCreate,
    request: Request,
    response: Response,
    held: HeldRequest,
    preferences: PreferencesOf,
    base_url: BaseUrl,
) -> NewPredictionBody:
    """Make a prediction by a version.

    With `Prefer: wait=N` the answer waits for its end; if that does not come in time the prediction
    is `starting`, whatever it does.
    """
    model = find_version(held.services.resolver.catalog, body.version)
    prediction = Prediction(body, model, base_url)
    say_what_was_applied(response, preferences, is_async=True)
    return await _create(request, response, held, prediction, wait_s=preferences.wait_s)


@router.post(
    "/models/{owner}/{name}/predictions",
    status_code=201,
    dependencies=_WRITE,
    responses={**_REFUSALS, **refusals(404)},
)
async def create_model_prediction(  # noqa: PLR0913 - as above
    owner: str,  # noqa: ARG001 - whoever it is
    name: str,
    body: PredictionCreate,
    request: Request,
    response: Response,
    held: HeldRequest,
    preferences: PreferencesOf,
    base_url: BaseUrl,
) -> NewPredictionBody:
    """Make a prediction by a model; else as by a version."""
    model = find_model(held.services.resolver.catalog, name)
    prediction = Prediction(body, model, base_url)
    say_what_was_applied(response, preferences, is_async=True)
    return await _create(request, response, held, prediction, wait_s=preferences.wait_s)


@router.get("/predictions", dependencies=_READ, responses=refusals(400, 422))
def list_predictions(
    request: Request,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    place: Annotated[Place, Depends(read_place)],
    base_url: BaseUrl,
) -> PredictionPage:
    """Read predictions, newest first, a page at a time: all jobs, however they came."""
    found = services.jobs.page(
        caller.tenant, limit=place.num_read, after=place.after, filters=JobFilters()
    )
    page, next_cursor = cut_page(found, place, request, response)
    following = request.url.include_query_params(cursor=next_cursor)
    return PredictionPage(
        next=None if next_cursor is None else str(following),
        results=[_show(services, job, base_url) for job in page],
    )


@router.get("/predictions/{prediction_id}", dependencies=_READ, responses=refusals(404))
def get_prediction(
    prediction_id: str,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    base_url: BaseUrl,
) -> PredictionBody:
    """Read a prediction."""
    forbid_caching(response)
    job = services.jobs.get(caller.tenant, check_id(prediction_id))
    return _show(services, job, base_url)


@router.post("/predictions/{prediction_id}/cancel", dependencies=_WRITE, responses=refusals(404))
def cancel_prediction(
    prediction_id: str,
    response: Response,
    caller: Caller,
    services: ServicesOf,
    base_url: BaseUrl,
) -> PredictionBody:
    """Cancel a prediction; one that has ended stays as it is."""
    forbid_caching(response)
    job, _ = cancel(services, caller.tenant, check_id(prediction_id))
    return _show(services, job, base_url)


@router.get(
    "/predictions/{prediction_id}/stream",
    dependencies=_READ,
    response_class=EventStream,
    responses={
        200: {
            "description": "`logs`, `output`, `error` and `done`, each with an id",
            "content": events_named("logs", "output", "error", "done"),
        },
        **refusals(404, 429),
    },
)
async def follow_prediction(prediction_id: str, held: HeldRequest, base_url: BaseUrl) -> Response:
    """Follow a prediction as server-sent events until it has ended."""
    held.watch.follow(check_id(prediction_id))
    job = await run_in_threadpool(held.services.jobs.get, held.caller.tenant, prediction_id)
    return EventStream(stream_prediction(held, job, _ref_of(held.services, job, base_url)))


@router.get("/webhooks/default/secret", dependencies=[Depends(Requires(Scope.WEBHOOKS_READ))])
def get_default_secret(response: Response, caller: Caller, services: ServicesOf) -> SigningSecret:
    """Read what messages to receivers that predictions name are signed with."""
    forbid_storing(response)
    return SigningSecret(key=services.webhook_secrets.ensure(caller.tenant))


async def _create(
    request: Request, response: Response, held: Held, prediction: Prediction, *, wait_s: int | None
) -> NewPredictionBody:
    services, caller = held.services, held.caller
    job, warnings = await accept_prediction(services, caller, prediction, request)
    if wait_s:
        until_s = wait_s - min(SLACK_S, wait_s / 2)
        job = await wait_for_end(services, held.watch, caller, job, wait_s=until_s)
    shown = await run_in_threadpool(show_prediction, services.renderer, job, prediction.ref)
    forbid_caching(response)
    # The SDK takes everything else for an end.
    status = shown.status if job.status.is_terminal else "starting"
    return NewPredictionBody(**dict(shown) | {"status": status, "warnings": warnings})


def _show(services: Services, job: Job, base_url: str) -> PredictionBody:
    return show_prediction(services.renderer, job, _ref_of(services, job, base_url))


def _ref_of(services: Services, job: Job, base_url: str) -> PredictionRef:
    spec = services.resolver.catalog.get(job.request.model)
    return PredictionRef(base_url, "removed" if spec is None else spec.revision)
