"""Whether this worker does anything, and whether it should."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from shared.db.session import DATABASE_AWAY
from shared.errors import ServiceUnavailable

#: How often the backlog is looked at, in seconds.
LOOK_S = 5.0


class Activity:
    """Counts messages in hand, and remembers since when there are none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._in_hand = 0
        self._idle_since = clock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have a message in hand."""
        with self._lock:
            self._in_hand += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_hand -= 1
                self._idle_since = self._clock()

    @property
    def idle_since(self) -> float | None:
        """When the last message was dealt with; None while one is in hand."""
        with self._lock:
            return None if self._in_hand else self._idle_since


class Backlog:
    """A thread that watches whether announced jobs wait in the queues of this worker."""

    def __init__(
        self,
        announced: Callable[[], Mapping[str, int]],
        ping: Callable[[], None],
        *,
        queues: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._announced = announced
        self._ping = ping
        self._queues = queues
        self._clock = clock
        #: Since when there was always a job waiting; None if there is none, or nobody knows.
        self.since: float | None = None
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def look(self) -> None:
        """Ask SQL whether jobs wait, and Redis whether it could bring them."""
        try:
            announced = self._announced()
            self._ping()
        except (*DATABASE_AWAY, ServiceUnavailable):
            self.since = None  # a new process would see no more
            return
        if not any(announced.get(queue) for queue in self._queues):
            self.since = None
        elif self.since is None:
            self.since = self._clock()

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(LOOK_S)
