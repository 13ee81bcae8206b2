"""What went wrong on a device, and what becomes of the job that met it."""

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from shared.errors import InternalFailure, JobError, OutOfMemory
from worker.company import Company

#: What allocators that have no error class of their own say when memory is out.
_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
MORE_IN_LOG = "the worker's log tells more under the job's id"

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device's memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def release_memory(error: BaseException) -> None:
    """Let go of what a failed call held, so that another one finds the room.

    The frames that an error came through keep their tensors for as long as somebody has the error.
    """
    traceback.clear_frames(error.__traceback__)
    torch.cuda.empty_cache()  # does nothing where there is none
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def call_with_room(company: Company, call: Callable[[], T]) -> T:
    """Call what uses the device beside others and, if memory is out, once more with nobody beside.

    Only the second try can say that it was too large.
    """
    try:
        with company.together():
            return call()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_memory(error)
    with company.alone():
        return call()


def as_job_error(cause: BaseException, who: str) -> JobError:
    """Turn whatever went wrong for one job into the error that its row will show.

    `who` met it: the part of the engine that was at work.
    """
    error: JobError
    if isinstance(cause, JobError):
        return cause
    if is_out_of_memory(cause):
        error = OutOfMemory(
            f"{who} ran out of the device's memory; a smaller picture needs less, "
            "and so do fewer jobs at a time"
        )
    else:
        error = InternalFailure(f"{who} met an error; {MORE_IN_LOG}")
    release_memory(cause)
    error.__cause__ = cause
    return error
