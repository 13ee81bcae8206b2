"""Send again what may have been lost in Redis."""

from shared.db.dispatch import DispatchRepository
from shared.dispatch import send
from shared.queue import JobQueue


class Redispatcher:
    """Re-announce jobs whose message nobody claimed."""

    def __init__(
        self, repository: DispatchRepository, queue: JobQueue, *, redispatch_s: float
    ) -> None:
        self._repository = repository
        self._queue = queue
        self._redispatch_s = redispatch_s

    def run_once(self) -> int:
        """Send stale announcements again; returns how many.

        A queue that holds a message for each announced job has lost none: its jobs only wait.
        Sending them again would make the queue grow for as long as they do. A Redis that was
        emptied has lost all of them, and nobody needs to wait until they are stale.

        Raises:
            ServiceUnavailable: Redis is away.
        """
        sent = 0
        stale_after_s = 0.0 if self._queue.begin_epoch() else self._redispatch_s
        for name, announced in self._repository.announced().items():
            if self._queue.length(name) < announced:
                stale = self._repository.pick_stale(name, older_than_s=stale_after_s)
                sent += send(self._queue, stale)
        return sent
