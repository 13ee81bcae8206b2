"""Outputs by an address that does not change, unlike the links to them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import RedirectResponse

from api.auth import Caller, Requires
from api.caching import forbid_caching
from api.ids import check_id
from api.openapi import refusals
from api.services import ServicesOf
from shared.access import Scope
from shared.errors import Conflict, NotFound

router = APIRouter(
    prefix="/v1/jobs/{job_id}/artifacts",
    tags=["jobs"],
    dependencies=[Depends(Requires(Scope.JOBS_READ))],
)


@router.get(
    "/{index}",
    status_code=303,
    response_class=RedirectResponse,
    responses={
        303: {
            "description": "See Other",
            "headers": {
                "Location": {
                    "description": "A link that needs no key, and ends soon",
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        },
        **refusals(404, 409, 422),
    },
)
def get_artifact(
    job_id: str,
    index: Annotated[int, Path(ge=0)],
    caller: Caller,
    services: ServicesOf,
    download: bool = False,
) -> RedirectResponse:
    """Go to an output by a fresh link; with `download` browsers save it instead of showing it."""
    job = services.jobs.get(caller.tenant, check_id(job_id))
    if not job.status.is_terminal:
        raise Conflict(f"the job is {job.status}", code="job_not_finished")
    artifact = next((found for found in job.artifacts if found.index == index), None)
    if artifact is None:
        raise NotFound("the job has no such output")
    url = services.renderer.link(job, artifact, is_attachment=download)
    answer = RedirectResponse(url, status_code=303)
    forbid_caching(answer)
    return answer
