"""Route that accepts one job in all combinations of some of its values."""

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from api.auth import Caller, Requires
from api.batches import MAX_JOBS, describe_batch
from api.body import JsonRoute
from api.grid import Coordinate, Point, SweepCreate, expand
from api.idempotency import WITH_KEY, read_key
from api.intake import Member, accept_together, prepare_together
from api.openapi import refusals
from api.problems import FieldError
from api.services import ServicesOf
from shared.access import Scope
from shared.errors import FieldProblem, InvalidRequest
from shared.job_body import JobBody

router = APIRouter(
    prefix="/v1/sweeps",
    tags=["jobs"],
    route_class=JsonRoute,
    dependencies=[Depends(Requires(Scope.JOBS_WRITE))],
)


class SweptJobBody(JobBody):
    """A job, and the values that tell it from the others of its sweep."""

    coordinates: dict[str, Coordinate]


class SkippedBody(BaseModel):
    """A combination that cannot work, and why."""

    coordinates: dict[str, Coordinate]
    errors: list[FieldError]


class SweepBody(BaseModel):
    """Jobs of a sweep in the order of their combinations, the last list varying fastest.

    `GET /v1/jobs?batch=` finds them again. Their positions in the queue are left out, as in lists.
    """

    batch: str
    data: list[SweptJobBody]
    skipped: list[SkippedBody]


@router.post("", status_code=202, responses=refusals(400, 413, 415, 422), openapi_extra=WITH_KEY)
def submit_sweep(
    body: SweepCreate, request: Request, response: Response, caller: Caller, services: ServicesOf
) -> SweepBody:
    """Accept a job in every combination of the values listed, 100 at most, or none.

    Combinations that cannot work are refused all at once, or left out with `skip_invalid`. Without
    any seed one is chosen for all. With an Idempotency-Key, the same body again answers the same
    jobs.
    """
    key = read_key(request)
    if body.num_points > MAX_JOBS:
        sizes = " x ".join(str(len(values)) for values in body.axes.values())
        detail = f"{sizes} makes {body.num_points:,} jobs; a sweep may have {MAX_JOBS}"
        raise InvalidRequest([FieldProblem("#", detail)])
    points = expand(body, new_seed=services.resolver.new_seed)
    members: list[Member] = []
    refused: list[tuple[Point, InvalidRequest]] = []
    prepared = prepare_together(services, caller, (point.body for point in points))
    for point, settled in zip(points, prepared, strict=True):
        if isinstance(settled, InvalidRequest):
            refused.append((point, point.locate(settled)))
        else:
            members.append(Member(settled, point.index, "#/job"))
    if refused and not (members and body.skip_invalid):
        raise _explain(refused, points)
    skipped = [
        {"index": point.index, "errors": [asdict(problem) for problem in refusal.problems]}
        for point, refusal in refused
    ]
    batch, is_replay = accept_together(
        services,
        caller,
        members,
        body=body,
        idempotency_key=key,
        skipped=skipped,
    )
    describe_batch(response, batch, is_replay=is_replay)
    return SweepBody(
        batch=batch.id,
        data=[
            SweptJobBody(
                **dict(services.renderer.render(job)),
                coordinates=dict(points[job.batch.index].coordinates),
            )
            for job in batch.jobs
            if job.batch is not None
        ],
        skipped=[
            SkippedBody(coordinates=dict(points[one["index"]].coordinates), errors=one["errors"])
            for one in batch.skipped
        ],
    )


def _explain(
    refused: Sequence[tuple[Point, InvalidRequest]], points: Sequence[Point]
) -> InvalidRequest:
    """Refuse a sweep: what is wrong with a value in every combination once, all else with each."""
    by_problem: dict[FieldProblem, list[Point]] = {}
    for point, refusal in refused:
        for problem in refusal.problems:
            by_problem.setdefault(problem, []).append(point)
    problems = []
    for problem, where in by_problem.items():
        if len(where) == sum(point.has(problem.pointer) for point in points):
            problems.append(problem)
        else:
            problems += [
                FieldProblem(problem.pointer, f"with {point}: {problem.detail}") for point in where
            ]
    joined = InvalidRequest.join([refusal for _, refusal in refused])
    return InvalidRequest(problems, code=joined.code)
