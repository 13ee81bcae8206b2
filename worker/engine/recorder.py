"""Take a job's state down every few seconds."""

from collections.abc import Callable, Sequence

import structlog

from worker.engine.snapshot import capture
from worker.engine.state import JobState
from worker.engine.trajectory import Trajectory

log = structlog.get_logger(__name__)


class Recorder:
    """Hands the states of one job on. Used by the thread that holds the job, between two steps.

    Args:
        deliver: Takes a state, and returns at once.
        interval_s: Time between two states, in seconds; the first comes as late.
        clock: Tells the time, in seconds.
        seen: The iteration that is known already: where the job goes on from.
    """

    def __init__(
        self,
        deliver: Callable[[JobState], None],
        *,
        interval_s: float,
        clock: Callable[[], float],
        seen: int = 0,
    ) -> None:
        self._deliver = deliver
        self._interval_s = interval_s
        self._clock = clock
        self._due_at: float | None = None
        self._seen = seen

    def is_due(self) -> bool:
        """Tell whether it is time for a state; the time runs from the first question."""
        now = self._clock()
        if self._due_at is None:
            self._due_at = now + self._interval_s
        return now >= self._due_at

    def look(self, trajectories: Sequence[Trajectory]) -> None:
        """Hand a state on, if there is a new one."""
        self._due_at = self._clock() + self._interval_s
        state = self.take(trajectories)
        if state is not None:
            self._deliver(state)

    def take(self, trajectories: Sequence[Trajectory]) -> JobState | None:
        """Return the state, if it is a new one."""
        iteration = sum(trajectory.iteration for trajectory in trajectories)
        if iteration == self._seen or not all(one.can_be_restored for one in trajectories):
            return None  # of a job that waits for its turn, or has come no further than it was,
            # or of a pipeline's call, which only begins at the beginning
        try:
            state = capture(trajectories)
        except Exception:
            # Whatever it was, the job is as well as it would be without.
            log.warning("state_not_taken", exc_info=True)
            return None
        self._seen = iteration
        return state
