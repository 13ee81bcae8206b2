"""From the signal to stop until nothing runs any more."""

import queue
import signal
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Shutdown:
    """Hears signals, and begins to leave at the first one; the watchdog minds the others."""

    def __init__(
        self, begin: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begin = begin
        self._clock = clock
        # A signal may arrive in the middle of whatever: no other queue can be trusted there.
        self._signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
        self._began_at: float | None = None
        self._num_requests = 0
        self._thread = threading.Thread(target=self._run, name="shutdown", daemon=True)
        #: The signal that asked first.
        self.asked_by: signal.Signals | None = None

    def start(self) -> None:
        """Begin to act on signals."""
        self._thread.start()

    def request(self, number: signal.Signals) -> None:
        """Ask the process to leave; called in a signal handler, as often as people like."""
        self._signals.put(number)

    @property
    def num_requests(self) -> int:
        """How often the process was asked to leave."""
        return self._num_requests

    @property
    def age_s(self) -> float | None:
        """Seconds since the first request; None if there was none."""
        return None if self._began_at is None else self._clock() - self._began_at

    def _run(self) -> None:
        while True:
            number = self._signals.get()
            self._num_requests += 1
            if self._began_at is None:
                self._began_at = self._clock()
                self.asked_by = number
                log.info("draining", signal=number.name)
                # In a thread of its own: a store that is silent must not make us deaf.
                threading.Thread(target=self._begin, name="drain", daemon=True).start()
