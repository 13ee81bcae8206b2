"""Announce waiting jobs. The API calls it after a commit, the dispatcher five times a second."""

from collections.abc import Iterable

from shared.crash_point import CrashPoint, reached
from shared.db.dispatch import MAX_PICK, Announcement, DispatchRepository
from shared.queue import JobQueue


def dispatch(repository: DispatchRepository, queue: JobQueue) -> int:
    """Announce as many waiting jobs as the window of each queue has room for; returns how many.

    Rows are marked and committed before anything is sent, so a job may be announced twice or be
    marked and not announced, but never be sent by somebody who does not know that it was.

    Raises:
        ServiceUnavailable: Redis is away. The marked rows are sent again when they are stale.
    """
    repository.release_due()
    announced = 0
    for name in repository.waiting_queues():
        num_picked = MAX_PICK
        while num_picked == MAX_PICK:  # fewer, and the window is full or the queue is empty
            picked = repository.pick(name)
            if picked:
                reached(CrashPoint.AFTER_DISPATCH)
            num_picked = send(queue, picked)
            announced += num_picked
    return announced


def send(queue: JobQueue, announcements: Iterable[Announcement]) -> int:
    """Send announcements that are marked in SQL; returns how many.

    Raises:
        ServiceUnavailable: Redis is away.
    """
    sent = 0
    for announcement in announcements:
        queue.announce(announcement.queue, announcement.job_id, dict(announcement.parameters))
        sent += 1
    return sent
