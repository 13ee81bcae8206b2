"""Tell the dispatcher that this worker is alive and what it serves."""

import threading
from collections.abc import Callable

import structlog

from shared.db.session import DATABASE_AWAY, explain_away

#: The dispatcher forgets a worker after some of these, in seconds.
INTERVAL_S = 10.0
#: Pause between two heartbeats if there is news, in seconds.
MIN_INTERVAL_S = 0.5

log = structlog.get_logger(__name__)


class Presence:
    """A thread that keeps this worker's row fresh, and what it knows of costs."""

    def __init__(
        self,
        *,
        beat: Callable[[], None],
        leave: Callable[[], None],
        save_costs: Callable[[], None],
    ) -> None:
        """Make it; `beat` writes the row and `leave` takes it away."""
        self._beat = beat
        self._leave = leave
        self._save_costs = save_costs
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Announce the worker, now and from now on."""
        self._thread.start()

    def tell_news(self) -> None:
        """Have the row written soon; returns at once."""
        self._news.set()

    def stop(self) -> None:
        """Take the worker's row away, and leave what it learned, once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._news.set()
        self._thread.join()
        try:
            self._leave()
            self._save_costs()
        except DATABASE_AWAY as error:
            log.warning("presence_failed", detail=explain_away(error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                self._beat()
                self._save_costs()
            except DATABASE_AWAY as error:
                log.warning("presence_failed", detail=explain_away(error))
            if not self._stopping.wait(MIN_INTERVAL_S):
                self._news.wait(INTERVAL_S - MIN_INTERVAL_S)
