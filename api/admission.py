"""Whether the system takes more jobs: known before anything of a submission is stored."""

import threading

from api.problems import RequestRefused
from shared.db.jobs import JobRepository


class Admission:
    """Compare the jobs that wait with a limit; a thread counts them, no request does."""

    def __init__(self, jobs: JobRepository, *, max_waiting: int) -> None:
        self._jobs = jobs
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        # As of the last count, and those that this process has stored since.
        self._waiting = 0

    def refresh(self) -> None:
        """Count.

        Raises:
            OperationalError: PostgreSQL does not answer; the last count stays.
        """
        waiting = self._jobs.count_waiting(most=self._max_waiting)
        with self._lock:
            self._waiting = waiting

    def check(self, num_jobs: int) -> None:
        """Refuse jobs while too many wait.

        Raises:
            RequestRefused: They do; nothing is wrong with these.
        """
        with self._lock:
            is_full = self._waiting + num_jobs > self._max_waiting
        if is_full:
            raise RequestRefused(
                "as many jobs wait as the service takes; come back later", code="queue_full"
            )

    def note_accepted(self, num_jobs: int) -> None:
        """Count jobs that were stored, until the thread counts again."""
        with self._lock:
            self._waiting += num_jobs
