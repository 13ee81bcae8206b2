"""A pace of its own for a service that may be slow."""

import threading
from collections.abc import Callable

import structlog

from shared.db.session import DATABASE_AWAY

#: How long a round that is under way may hold up the end of the process, in seconds.
STOP_PATIENCE_S = 1.0

log = structlog.get_logger(__name__)


class Rounds:
    """A thread that runs a service again and again, so that it holds up no other.

    The thread may die in the middle of a round, with its process: a service must not mind.
    """

    def __init__(self, name: str, run_once: Callable[[], None], *, interval_s: float) -> None:
        self._name = name
        self._run_once = run_once
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin the first round."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other round, and wait for the last one within reason."""
        self._stopping.set()
        self._thread.join(STOP_PATIENCE_S)

    def _run(self) -> None:
        while True:
            try:
                self._run_once()
            except DATABASE_AWAY:
                log.warning("postgresql_away", service=self._name)
            except Exception:
                # One service that fails must not take the others with it.
                log.exception("round_failed", service=self._name)
            if self._stopping.wait(self._interval_s):
                return
