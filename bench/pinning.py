"""One core and one thread, as the figures of the benchmarks are meant."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pinned_to_one_core() -> Iterator[None]:
    """Keep this process on one core, and torch in one thread.

    The last core that it may use: the first has most of the system's own work.

    Raises:
        OSError: This system does not pin processes.
    """
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        raise OSError("benchmarks pin their process to a core, which takes Linux")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
