"""How fast a worker goes, and how large it is."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.db.presence import Pace
from worker.engine import Engine

#: Where Linux tells of a process's pages; the second number is of those in memory.
STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class _Counts:
    at: float
    iterations: int
    forwards: int
    rows: int
    forward_s: float
    step_s: float


class PaceMeter:
    """Compares what an engine has done with what it had done the last time; used by one thread."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._before = self._count()

    def measure(self) -> Pace:
        """Return the pace since the last call; None stands for what nothing was done for."""
        before, now = self._before, self._count()
        self._before = now
        forwards, step_s = now.forwards - before.forwards, now.step_s - before.step_s
        took_s = now.at - before.at
        return Pace(
            rows_per_forward=(now.rows - before.rows) / forwards if forwards else None,
            iterations_per_s=(now.iterations - before.iterations) / took_s if took_s else None,
            forward_share=(now.forward_s - before.forward_s) / step_s if step_s else None,
            memory_bytes=_resident_bytes(),
        )

    def _count(self) -> _Counts:
        tally, timings = self._engine.tally, self._engine.timings
        forwards = tally.forwards.copy()
        return _Counts(
            at=self._clock(),
            iterations=sum(tally.iterations.copy().values()),
            forwards=sum(forwards.values()),
            rows=sum(rows * count for (_, rows), count in forwards.items()),
            forward_s=timings.forward_s,
            step_s=timings.step_s,
        )


def _resident_bytes() -> int | None:
    """Count what this process has in memory; None where nobody tells."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
