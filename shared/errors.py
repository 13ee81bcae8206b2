"""Every error that has a code.

LatentqError
├── InvalidRequest          the caller must change the request
├── Unauthorized            no key, or a wrong one
├── Forbidden               the key is not for this
├── QuotaExceeded           the key has used up what it may take, for now
├── NotFound                no such thing for this tenant
├── Conflict                the thing is in a state that does not allow it
├── ServiceUnavailable      a store that the request needs cannot be reached
├── HubUnavailable          a model's files are not here and cannot be fetched
├── ConfigurationError      a process cannot start as it is configured
└── JobError                how a job fails, with the code that its row will show
    ├── InvalidInput
    ├── ModelUnavailable
    ├── AdapterUnavailable
    ├── NonFinite
    ├── OutOfMemory
    ├── StorageUnavailable
    └── InternalFailure
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a job failed."""

    WORKER_LOST = "worker_lost"
    OUT_OF_MEMORY = "out_of_memory"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NON_FINITE = "non_finite"
    INVALID_INPUT = "invalid_input"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    MODEL_UNAVAILABLE = "model_unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of a request that cannot stay as it is.

    `pointer` is a JSON Pointer fragment such as `#/steps`; `detail` says what would work and never
    repeats the value.
    """

    pointer: str
    detail: str


class LatentqError(Exception):
    """An error with a stable code; the docstring of a subclass is its title."""

    code = "internal"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(LatentqError):
    """The request is not valid."""

    code = "invalid_request"

    def __init__(self, problems: list[FieldProblem], *, code: str | None = None) -> None:
        super().__init__("; ".join(f"{p.pointer}: {p.detail}" for p in problems))
        self.problems = problems
        if code is not None:
            self.code = code

    def within(self, pointer: str) -> "InvalidRequest":
        """Return the same refusal of what stands at a place of a larger body."""
        return InvalidRequest(
            [FieldProblem(pointer + p.pointer.removeprefix("#"), p.detail) for p in self.problems],
            code=self.code,
        )

    @classmethod
    def join(cls, refusals: Sequence["InvalidRequest"]) -> "InvalidRequest":
        """Make one of several; they share a code if they all have the same."""
        codes = {refusal.code for refusal in refusals}
        return cls(
            [problem for refusal in refusals for problem in refusal.problems],
            code=codes.pop() if len(codes) == 1 else None,
        )


class Unauthorized(LatentqError):
    """A valid API key is needed."""

    code = "unauthorized"


class Forbidden(LatentqError):
    """The key does not allow this."""

    code = "forbidden"


class QuotaExceeded(LatentqError):
    """The key has used up what it may take, for now.

    `policies` names the limits; `retry_after_s` says when asking again may help.
    """

    code = "quota_exceeded"

    def __init__(self, detail: str, *, policies: list[str], retry_after_s: int) -> None:
        super().__init__(detail)
        self.policies = policies
        self.retry_after_s = retry_after_s


class NotFound(LatentqError):
    """There is no such thing."""

    code = "not_found"


class Conflict(LatentqError):
    """The current state does not allow this."""

    code = "conflict"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code


class ServiceUnavailable(LatentqError):
    """The service cannot take requests at the moment."""

    code = "service_unavailable"


class HubUnavailable(LatentqError):
    """A model's files are not here and cannot be fetched."""

    code = "hub_unavailable"


class ConfigurationError(LatentqError):
    """The process cannot start as it is configured."""

    code = "configuration"


class JobError(LatentqError):
    """The job failed."""

    job_code = ErrorCode.INTERNAL


class InvalidInput(JobError):
    """The model does not take what the request holds."""

    job_code = ErrorCode.INVALID_INPUT


class ModelUnavailable(JobError):
    """The model could not be loaded."""

    job_code = ErrorCode.MODEL_UNAVAILABLE


class AdapterUnavailable(JobError):
    """An adapter of the job could not be loaded, or does not fit the model."""

    job_code = ErrorCode.MODEL_UNAVAILABLE


class NonFinite(JobError):
    """The model returned numbers that are not finite."""

    job_code = ErrorCode.NON_FINITE


class OutOfMemory(JobError):
    """The device ran out of memory."""

    job_code = ErrorCode.OUT_OF_MEMORY


class StorageUnavailable(JobError):
    """The store did not answer for too long."""

    job_code = ErrorCode.STORAGE_UNAVAILABLE


class InternalFailure(JobError):
    """The worker met an error of its own."""
