"""Tell that this dispatcher is alive: from its loop, so that one that hangs falls silent."""

import time
from collections.abc import Callable

from shared.db.presence import DispatcherRepository

#: Pause between two heartbeats, in seconds.
INTERVAL_S = 5.0


class Presence:
    """Keep this dispatcher's row fresh."""

    def __init__(
        self,
        dispatchers: DispatcherRepository,
        dispatcher_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dispatchers = dispatchers
        self._id = dispatcher_id
        self._clock = clock
        self._next_at = clock()

    def run_once(self) -> None:
        """Send a heartbeat if it is time.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        now = self._clock()
        if now >= self._next_at:
            self._dispatchers.beat(self._id)
            self._next_at = now + INTERVAL_S

    def leave(self) -> None:
        """Take the row away.

        Raises:
            OperationalError: PostgreSQL is away.
        """
        self._dispatchers.leave(self._id)
