"""What a process does every few seconds, so that no request has to."""

import threading
from collections.abc import Callable, Sequence

import structlog

from shared.db.session import DATABASE_AWAY

#: Pause between two rounds, in seconds.
INTERVAL_S = 5.0

log = structlog.get_logger(__name__)


class Upkeep:
    """A thread that calls each task in turn; without PostgreSQL the next round tries again."""

    def __init__(self, tasks: Sequence[Callable[[], None]]) -> None:
        self._tasks = tasks
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin with the first round."""
        self._thread.start()

    def stop(self) -> None:
        """Do a last round and stop."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            for task in self._tasks:
                try:
                    task()
                except DATABASE_AWAY:
                    log.warning("upkeep_postponed")
                except Exception:
                    # Such as a schema that is still older than this version's.
                    log.exception("upkeep_failed")
            self._stopping.wait(INTERVAL_S)
