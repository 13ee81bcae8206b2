"""Route that tells what a job would take, and where it would stand, without making one."""

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.body import JsonRoute
from api.caching import forbid_caching
from api.intake import prepare
from api.openapi import refusals
from api.schemas import JobCreate
from api.services import ServicesOf
from shared.access import Scope
from shared.job_body import (
    CostBody,
    PresetBody,
    QueueBody,
    RequestBody,
    show_cost,
    show_preset,
    show_request,
    show_s,
)

router = APIRouter(
    prefix="/v1/estimates",
    tags=["jobs"],
    route_class=JsonRoute,
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
)


class QueueEstimateBody(QueueBody):
    """Where the job would stand, as a queued job says it, and the bounds of its waiting.

    `eta_low_s` is the time in which a slot can be free if the job is taken before all that is not
    announced yet; `eta_high_s` the time in which all that waits or runs on the same workers is
    done. Both rest on what is predicted and on the workers that live; `eta_high_s` is null where
    some of that work has no prediction.
    """

    eta_low_s: float | None
    eta_high_s: float | None


class EstimateBody(BaseModel):
    """What a job would say of itself if it were submitted now; `request` sent makes that job."""

    request: RequestBody
    preset: PresetBody
    iterations: int
    cost: CostBody
    queue: QueueEstimateBody


@router.post("", responses=refusals(400, 413, 415, 422))
def estimate_job(
    body: JobCreate, response: Response, caller: Caller, services: ServicesOf
) -> EstimateBody:
    """Tell what a job would take and when its turn would come; nothing is stored.

    What could not be accepted is refused as `POST /v1/jobs` refuses it.
    """
    new = prepare(services, caller, body, idempotency_key=None)
    forbid_caching(response)
    outlook = services.jobs.forecast(new)
    return EstimateBody(
        request=show_request(new),
        preset=show_preset(new),
        iterations=new.request.iterations,
        cost=show_cost(new),
        queue=QueueEstimateBody(
            position=outlook.position,
            eta_s=show_s(outlook.eta_s),
            unschedulable=outlook.unschedulable,
            eta_low_s=show_s(outlook.eta_low_s),
            eta_high_s=show_s(outlook.eta_high_s),
        ),
    )
