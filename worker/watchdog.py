"""End a process that cannot go on: the supervisor starts a new one, the leases bring its jobs back.

Some faults have no other cure: a thread in a device's driver cannot be stopped, nor a device that
is lost be found again.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from shared.job import Lease

#: How often the watchdog looks, in seconds.
LOOK_S = 0.1
#: Encoding, decoding and loading a model may stand this many times longer.
SLOW_STAGES = 10.0
#: How long the leases may take to be settled before the process ends without, in seconds.
SETTLE_S = 2.0
EXIT_CODE = 1
#: The thread whose place is told when a step stands still.
STEP_THREAD = "engine-step"

log = structlog.get_logger(__name__)


class ExitReason(StrEnum):
    """Why a worker ends itself."""

    #: It was told to stop, and had not left in time.
    GRACE_OVER = "grace_over"
    #: It was told to stop a second time.
    TOLD_AGAIN = "told_again"
    #: The engine is in the same forward, encoding, decoding or load for too long.
    STALLED = "stalled"
    #: It is idle, jobs are announced to it, and none arrives.
    STARVED = "starved"
    #: Every call of the device fails.
    DEVICE_LOST = "device_lost"
    #: The engine met an error that it has no answer to.
    ENGINE_CRASHED = "engine_crashed"

    @property
    def blames_jobs(self) -> bool:
        """Whether a job may be the cause, so that the attempt counts like any lost one."""
        return self not in {ExitReason.GRACE_OVER, ExitReason.TOLD_AGAIN, ExitReason.STARVED}


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker is, at one moment; times are of the watchdog's clock, in seconds."""

    now: float
    #: Requests to stop, and how long ago the first one came.
    num_requests: int = 0
    stopping_for_s: float | None = None
    #: How long the engine has been in its step, or in the slower stages around it.
    step_s: float = 0.0
    slow_stage_s: float = 0.0
    #: Since when nothing is in hand, and since when jobs wait all the time; None if not so.
    idle_since: float | None = None
    backlog_since: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too long, in seconds."""

    grace_s: float
    stall_s: float
    starved_s: float = 60.0


def find_reason(vitals: Vitals, limits: Limits) -> ExitReason | None:
    """Decide whether a worker has to end, and why."""
    if vitals.num_requests > 1:
        return ExitReason.TOLD_AGAIN
    if vitals.stopping_for_s is not None:
        return ExitReason.GRACE_OVER if vitals.stopping_for_s > limits.grace_s else None
    if vitals.step_s > limits.stall_s or vitals.slow_stage_s > SLOW_STAGES * limits.stall_s:
        return ExitReason.STALLED
    if vitals.idle_since is not None and vitals.backlog_since is not None:
        starved_s = vitals.now - max(vitals.idle_since, vitals.backlog_since)
        return ExitReason.STARVED if starved_s > limits.starved_s else None
    return None


class Watchdog:
    """A thread that looks after a worker, and the one way for it to end at once."""

    def __init__(
        self,
        observe: Callable[[], Vitals],
        limits: Limits,
        *,
        held: Callable[[], list[Lease]],
        settle: Callable[[Iterable[Lease], ExitReason], None],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._observe = observe
        self._limits = limits
        self._held = held
        self._settle = settle
        self._end = end
        self._leaving = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look(self) -> None:
        """Look once, and end the process if there is a reason."""
        reason = find_reason(self._observe(), self._limits)
        if reason is not None:
            self.leave(reason)

    def leave(self, reason: ExitReason) -> None:
        """Say why and what ran, settle its leases, and end the process; any thread may call it.

        Jobs that cannot be to blame are handed back, the others' leases end now, as lost.
        """
        with self._leaving:
            leases = self._held()
            log.error(
                "worker_ends_itself",
                reason=reason,
                jobs=[lease.job_id for lease in leases],
                attempts=[lease.attempt for lease in leases],
                where=_stack_of(STEP_THREAD),
            )
            settling = threading.Thread(target=self._settle, args=(leases, reason), daemon=True)
            settling.start()
            settling.join(SETTLE_S)
            self._end(EXIT_CODE)

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(LOOK_S)


def _stack_of(name: str) -> list[str]:
    """Tell where a thread stands: files, lines and functions, no values."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.name == name and thread.ident in frames:
            stack = traceback.extract_stack(frames[thread.ident])
            return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack]
    return []
