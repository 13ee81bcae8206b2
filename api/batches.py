"""Route that accepts many jobs together or none."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.idempotency import WITH_KEY, read_key
from api.intake import Member, accept_together, prepare_together
from api.jobs import POLL_AFTER_S
from api.openapi import refusals
from api.schemas import JobCreate
from api.services import ServicesOf
from shared.access import Scope
from shared.db.batches import Batch
from shared.errors import InvalidRequest
from shared.job_body import JobBody

#: Most jobs that come together.
MAX_JOBS = 100


class BatchRoute(JsonRoute):
    """A route for many jobs, each with two prompts of up to 4,000 characters."""

    max_body_bytes = 1024 * 1024


router = APIRouter(
    prefix="/v1/batches",
    tags=["jobs"],
    route_class=BatchRoute,
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
)


class BatchCreate(BaseModel):
    """Jobs to be accepted together, each as `POST /v1/jobs` takes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    jobs: Annotated[list[JobCreate], Field(min_length=1, max_length=MAX_JOBS)]


class BatchBody(BaseModel):
    """Jobs that came together, in their order; `GET /v1/jobs?batch=` finds them again.

    Their positions in the queue are left out, as in lists.
    """

    batch: str
    data: list[JobBody]


@router.post("", status_code=202, responses=refusals(400, 413, 415, 422), openapi_extra=WITH_KEY)
def submit_batch(
    body: BatchCreate, request: Request, response: Response, caller: Caller, services: ServicesOf
) -> BatchBody:
    """Accept all of 1 to 100 jobs, or none and say what is wrong with which.

    With an Idempotency-Key, the same body again answers the same jobs.
    """
    key = read_key(request)
    members, refused = [], []
    for index, settled in enumerate(prepare_together(services, caller, body.jobs)):
        pointer = f"#/jobs/{index}"
        if isinstance(settled, InvalidRequest):
            refused.append(settled.within(pointer))
        else:
            members.append(Member(settled, index, pointer))
    if refused:
        raise InvalidRequest.join(refused)
    batch, is_replay = accept_together(services, caller, members, body=body, idempotency_key=key)
    describe_batch(response, batch, is_replay=is_replay)
    return BatchBody(batch=batch.id, data=[services.renderer.render(job) for job in batch.jobs])


def describe_batch(response: Response, batch: Batch, *, is_replay: bool) -> None:
    """Tell a client where the jobs of a batch are found and how soon to ask for them."""
    if is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/v1/jobs?batch={batch.id}"
    response.headers["Retry-After"] = str(POLL_AFTER_S)
    forbid_caching(response)
