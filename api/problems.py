"""Every answer that is not a success: RFC 9457 problem details, from one registry.

Two extension members serve clients of other APIs: `error` is what OpenAI's SDK reads, `error_type`
what fal's reads. Nothing here repeats what a caller sent.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from api.observation import tell_problem
from api.request_id import request_id_of
from shared.errors import FieldProblem, LatentqError
from shared.job_body import path_of

MEDIA_TYPE = "application/problem+json"
#: When to come back after a limit was met or while a store is away, in seconds.
RETRY_AFTER_S = 5
_JOB_ID = "latentq.job_id"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem; `title` never changes, the occurrence has its own detail."""

    status: int
    title: str
    #: Names it where a standard does.
    uri: str | None = None


_REGISTERED = "https://iana.org/assignments/http-problem-types"

PROBLEM_TYPES = {
    "malformed_body": ProblemType(400, "The body cannot be read as JSON"),
    "malformed_form": ProblemType(400, "The form cannot be read"),
    "invalid_cursor": ProblemType(400, "The cursor is not one that a page ended with"),
    "invalid_idempotency_key": ProblemType(400, "The Idempotency-Key header is not valid"),
    "bad_request": ProblemType(400, "The request cannot be understood"),
    "unauthorized": ProblemType(401, "A valid API key is needed"),
    "forbidden": ProblemType(403, "The key does not allow this"),
    "over_key_limit": ProblemType(403, "The key does not allow so much"),
    "not_found": ProblemType(404, "There is no such thing"),
    "method_not_allowed": ProblemType(405, "The method is not allowed here"),
    "job_already_finished": ProblemType(409, "The job has finished"),
    "job_canceled": ProblemType(409, "The job was canceled"),
    "job_not_finished": ProblemType(409, "The job has not finished"),
    "endpoint_disabled": ProblemType(409, "The webhook endpoint is disabled"),
    "endpoint_exists": ProblemType(409, "There is a webhook endpoint with this URL"),
    "too_many_endpoints": ProblemType(409, "There are as many webhook endpoints as there may be"),
    "too_many_secrets": ProblemType(409, "The endpoint has as many secrets as it may have"),
    "upload_incomplete": ProblemType(409, "The file has not been sent yet"),
    "builtin_preset": ProblemType(409, "The preset comes with LatentQ and stays as it is"),
    "too_many_presets": ProblemType(409, "There are too many presets or versions of one"),
    "body_too_large": ProblemType(413, "The body is too large"),
    "upload_too_large": ProblemType(413, "The upload is too large"),
    "unsupported_image": ProblemType(415, "The file is no picture of a supported type"),
    "unsupported_media_type": ProblemType(415, "The body's media type is not supported"),
    "invalid_request": ProblemType(422, "The request is not valid"),
    "not_supported_yet": ProblemType(422, "The request asks for what is not supported yet"),
    "prompt_too_long": ProblemType(422, "The prompt is too long for the model"),
    "unknown_model": ProblemType(422, "There is no such model"),
    "unknown_preset": ProblemType(422, "There is no such preset"),
    "unknown_adapter": ProblemType(422, "There is no such adapter"),
    "unusable_input": ProblemType(422, "The picture cannot be used"),
    "unknown_upload": ProblemType(422, "There is no such upload"),
    "upload_mismatch": ProblemType(422, "The file is not the one that was announced"),
    "idempotency_key_reused": ProblemType(422, "The Idempotency-Key came with another body"),
    "too_many_waiting": ProblemType(429, "Too many requests of the key wait"),
    "quota_exceeded": ProblemType(
        429, "The key has used up what it may take", f"{_REGISTERED}#quota-exceeded"
    ),
    "job_failed": ProblemType(500, "The job failed"),
    "internal": ProblemType(500, "The service met an error of its own"),
    "service_unavailable": ProblemType(503, "The service cannot take requests at the moment"),
    "queue_full": ProblemType(
        503, "The service has as many jobs as it takes", f"{_REGISTERED}#temporary-reduced-capacity"
    ),
    "read_only": ProblemType(503, "The service only reads for now"),
    "timeout": ProblemType(504, "The job did not end in time"),
}


class RequestRefused(LatentqError):
    """The request as a whole cannot be served."""

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class FieldError(BaseModel):
    """One field that cannot stay as it is."""

    pointer: str
    detail: str


class SdkError(BaseModel):
    """The same problem in the shape of OpenAI's API.

    `job_id` is there if a job was made before the problem came up: the same request again would
    make another one.
    """

    message: str
    type: str
    param: str | None
    code: str
    job_id: str | None = Field(default=None, exclude_if=lambda job_id: job_id is None)


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str
    error: SdkError
    error_type: str
    #: The limits that are used up; only there where some are.
    violated_policies: Annotated[
        list[str], Field(serialization_alias="violated-policies", exclude_if=operator.not_)
    ] = []


def render_problem(
    request: Request,
    code: str,
    detail: str,
    *,
    problems: Sequence[FieldProblem] = (),
    policies: Sequence[str] = (),
    retry_after_s: int = RETRY_AFTER_S,
) -> Response:
    """Make the answer of a problem; `code` must be in the registry."""
    kind = PROBLEM_TYPES[code]
    tell_problem(request.scope, code)
    problem = Problem(
        type=kind.uri or f"/problems/{code.replace('_', '-')}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=quote(request.url.path),
        code=code,
        errors=[FieldError(pointer=p.pointer, detail=p.detail) for p in problems],
        request_id=request_id_of(request.scope),
        error=show_sdk_error(request, code, detail, problems=problems),
        error_type=code,
        violated_policies=list(policies),
    )
    headers = _headers(kind.status, retry_after_s)
    if (job_id := request.scope.get(_JOB_ID)) is not None:
        headers |= {"Location": path_of(job_id), "x-should-retry": "false"}
    return Response(
        problem.model_dump_json(by_alias=True),
        status_code=kind.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def show_sdk_error(
    request: Request, code: str, detail: str, *, problems: Sequence[FieldProblem] = ()
) -> SdkError:
    """Write a problem as OpenAI's API does."""
    return SdkError(
        message=detail,
        type=_sdk_type(PROBLEM_TYPES[code].status),
        # The whole body ("#") is no parameter.
        param=next((p.pointer[2:] for p in problems if p.pointer != "#"), None),
        code=code,
        job_id=request.scope.get(_JOB_ID),
    )


def note_job(request: Request, job_id: str) -> None:
    """Have what may yet go wrong with a request tell of the job that it made.

    OpenAI's SDK would send the request again, and make another one, unless it is told not to.
    """
    request.scope[_JOB_ID] = job_id


def _sdk_type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _headers(status: int, retry_after_s: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(retry_after_s)} if status in (429, 503) else {}
