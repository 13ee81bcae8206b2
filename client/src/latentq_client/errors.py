"""What a call can raise.

ClientError
├── ServiceUnreachable      nobody answered, or only a proxy did
├── ServiceRefused          the service answered with a problem
├── JobFailed               the job ended without a result
├── WaitTimeout             the job had not ended in time; it goes on
└── WebhookRefused          a message is not from the service, or too old
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from latentq_client.job import Job


class ClientError(Exception):
    """A call did not come to its result."""


class ServiceUnreachable(ClientError):
    """The service cannot be reached."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that cannot stay as it is, as a JSON Pointer, and what would work."""

    pointer: str
    detail: str


class ServiceRefused(ClientError):
    """The service refused a request; `code` is stable, `errors` names the fields."""

    def __init__(
        self, *, status: int, code: str, detail: str, errors: Sequence[FieldProblem] = ()
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)

    @classmethod
    def read(cls, answer: httpx.Response) -> "ServiceRefused":
        """Read an answer, which may come from something in front of the service."""
        try:
            problem: Mapping[str, Any] = answer.json()
            return cls(
                status=answer.status_code,
                code=problem["code"],
                detail=problem["detail"],
                errors=[FieldProblem(e["pointer"], e["detail"]) for e in problem["errors"]],
            )
        except (ValueError, KeyError, TypeError):
            return cls(
                status=answer.status_code,
                code=f"http_{answer.status_code}",
                detail=answer.reason_phrase or "no reason given",
            )


class JobFailed(ClientError):
    """A job failed or was canceled."""

    def __init__(self, job: Job) -> None:
        reason = job.error.message if job.error is not None else None
        super().__init__(f"{job.id} {job.status}" + (f": {reason}" if reason else ""))
        self.job = job


class WaitTimeout(ClientError):
    """A job had not ended in time; it goes on."""

    def __init__(self, job: Job, timeout: float) -> None:
        super().__init__(f"{job.id} is {job.status} after {timeout:g} s")
        self.job = job


class WebhookRefused(ClientError):
    """A message is not from the service, or too old."""
