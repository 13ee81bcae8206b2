"""OpenAI's Images API: `/openai/v1` as a base URL for its SDKs."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.auth import Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.holding import EventStream, Held, HeldRequest
from api.openai.edits import EDIT_FORM, EditForm, read_edit
from api.openai.order import Order, read_order
from api.openai.pictures import Reader, show_images, stream_images
from api.openai.schemas import ImageCreate, ImagesBody, OpenAiModel, OpenAiModelList
from api.openai.wait import MAX_WAIT_S, check_success, make_job, wait_until_ended
from api.openapi import events_named, refusals
from api.services import ServicesOf
from api.translation import Translation
from shared.access import Scope
from shared.errors import NotFound


def _pictures(kind: str) -> dict[int | str, dict[str, Any]]:
    events = (f"{kind}.partial_image", f"{kind}.completed", "error")
    description = "The pictures; with `stream: true` an event for each"
    return {200: {"description": description, "content": events_named(*events)}}


_MODELS = [Depends(Requires(Scope.MODELS_READ))]

router = APIRouter(prefix="/openai/v1", tags=["openai"], route_class=JsonRoute)


@router.post(
    "/images/generations",
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
    response_model=ImagesBody,
    response_model_exclude_none=True,
    responses={**_pictures("image_generation"), **refusals(400, 409, 413, 415, 422, 429, 504)},
)
async def generate_images(
    body: ImageCreate, request: Request, response: Response, held: HeldRequest
) -> ImagesBody | Response:
    """Make pictures and wait for them.

    The job goes on if the answer is 504, and is canceled if the client goes away. With an
    Idempotency-Key it is not, and the same body again answers the pictures of the same job.
    """
    order = read_order(body, Translation())
    kind = "image_generation" if body.stream else None
    return await _serve(request, response, held, order, kind=kind)


@router.post(
    "/images/edits",
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
    response_model=ImagesBody,
    response_model_exclude_none=True,
    responses={**_pictures("image_edit"), **refusals(400, 409, 413, 415, 422, 429, 504)},
    openapi_extra={"requestBody": EDIT_FORM},
)
async def edit_images(
    edit: EditForm, request: Request, response: Response, held: HeldRequest
) -> ImagesBody | Response:
    """Make pictures that start from one, where a mask is white or everywhere, and wait for them."""
    order = await run_in_threadpool(read_edit, held.services, held.caller.tenant, edit)
    kind = "image_edit" if edit.body.stream else None
    return await _serve(request, response, held, order, kind=kind)


@router.get("/models", dependencies=_MODELS)
def list_openai_models(services: ServicesOf) -> OpenAiModelList:
    """Read which models there are."""
    return OpenAiModelList(data=[OpenAiModel(id=spec.id) for spec in services.resolver.catalog])


@router.get("/models/{model}", dependencies=_MODELS, responses=refusals(404))
def get_openai_model(model: str, services: ServicesOf) -> OpenAiModel:
    """Read that there is a model."""
    if services.resolver.catalog.get(model) is None:
        known = ", ".join(services.resolver.catalog.models)
        raise NotFound(f"there is no such model; known: {known}")
    return OpenAiModel(id=model)


async def _serve(
    request: Request, response: Response, held: Held, order: Order, *, kind: str | None
) -> ImagesBody | Response:
    """Make an order's job and answer its pictures, as a stream if there is a kind of events."""
    reader: Reader = request.app.state.reader
    made = await make_job(held, order)
    if kind is not None:
        return EventStream(stream_images(held, order, made, reader, kind=kind))
    job = await wait_until_ended(held, made, wait_s=MAX_WAIT_S)
    check_success(job)
    forbid_caching(response)
    if made.is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    return await show_images(held, order, job, reader)
