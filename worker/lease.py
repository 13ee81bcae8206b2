"""Keep the leases of all jobs that this process runs."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from shared.db.leases import Beat, BeatAnswer, LeaseRepository
from shared.db.session import DATABASE_AWAY
from shared.job import Lease

#: Progress is written this often while it changes, in seconds.
PROGRESS_INTERVAL_S = 0.5
#: Share of the lease after which a worker that hears nothing gives its jobs up by itself.
SELF_FENCE = 0.9

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    lease: Lease
    #: When the last confirmed heartbeat was sent; the lease runs from then at the earliest.
    confirmed_at: float
    is_lost: bool = False
    is_canceled: bool = False
    #: The iteration that it goes on from; None if it began at the beginning.
    resumed_at: int | None = None


class LeaseKeeper:
    """Prolong leases, write progress, and stop the jobs whose lease is lost or whose owner cancels.

    Two threads: one talks to the database, the other fences, since a database that is silent holds
    the first one up.
    """

    def __init__(
        self,
        leases: LeaseRepository,
        *,
        lease_s: float,
        progress: Callable[[], Mapping[str, int]],
        stop_job: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._lease_s = lease_s
        self._progress = progress
        self._stop_job = stop_job
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[UUID, _Held] = {}
        self._last_beat_at = clock()
        self._last_iterations: dict[UUID, int] = {}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_beats, name="lease-beat", daemon=True),
            threading.Thread(target=self._run_fence, name="lease-fence", daemon=True),
        ]

    def start(self) -> None:
        """Begin to keep leases."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop keeping leases; those still held run out."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def hold(self, lease: Lease, *, claimed_at: float) -> None:
        """Keep a lease; `claimed_at` is this keeper's clock before the claim was sent."""
        with self._lock:
            self._held[lease.token] = _Held(lease, confirmed_at=claimed_at)

    def drop(self, lease: Lease) -> None:
        """Keep a lease no longer: its job has ended."""
        with self._lock:
            self._held.pop(lease.token, None)
            self._last_iterations.pop(lease.token, None)

    def resume(self, lease: Lease, iteration: int | None) -> None:
        """Tell from which iteration a job goes on, with the next heartbeat."""
        with self._lock:
            if (held := self._held.get(lease.token)) is not None:
                held.resumed_at = iteration

    def is_lost(self, lease: Lease) -> bool:
        """Tell whether the right to run this attempt is gone, or may be."""
        with self._lock:
            held = self._held.get(lease.token)
            return held is None or held.is_lost

    def is_canceled(self, lease: Lease) -> bool:
        """Tell whether the owner wants this attempt stopped."""
        with self._lock:
            held = self._held.get(lease.token)
            return held is not None and held.is_canceled

    def cancel(self, job_id: str) -> None:
        """Stop a job that its owner cancels, wherever it is on its way; others are none of ours."""
        with self._lock:
            held = [held for held in self._held.values() if held.lease.job_id == job_id]
            for one in held:
                one.is_canceled = True
        if held:
            self._stop_job(job_id)

    def held(self) -> list[Lease]:
        """Return the leases that may still be ours."""
        with self._lock:
            return [held.lease for held in self._held.values() if not held.is_lost]

    def beat(self) -> None:
        """Send one heartbeat for everything held, and act on the answer.

        Raises:
            DATABASE_AWAY: The database does not answer.
        """
        progress = self._progress()
        with self._lock:
            beats = [
                Beat(token, self._iteration(held, progress), held.resumed_at)
                for token, held in self._held.items()
                if not held.is_lost
            ]
        if not beats:
            return
        sent_at = self._clock()
        answer = self._leases.beat(beats)
        self._last_beat_at = sent_at
        self._last_iterations = {beat.token: beat.iteration for beat in beats}
        self._apply(answer, sent=[beat.token for beat in beats], sent_at=sent_at)

    def fence(self) -> None:
        """Give up every job whose lease may have run out unseen."""
        now = self._clock()
        with self._lock:
            expired = [
                held
                for held in self._held.values()
                if not held.is_lost and now - held.confirmed_at > SELF_FENCE * self._lease_s
            ]
            for held in expired:
                held.is_lost = True
        for held in expired:
            log.warning("lease_fenced", job_id=held.lease.job_id, attempt=held.lease.attempt)
            self._stop_job(held.lease.job_id)

    def _apply(self, answer: BeatAnswer, *, sent: list[UUID], sent_at: float) -> None:
        lost, canceled = [], []
        with self._lock:
            for token in sent:
                held = self._held.get(token)
                if held is None:
                    continue  # ended while the heartbeat was under way
                if token in answer.held:
                    held.confirmed_at = sent_at
                else:
                    held.is_lost = True
                    lost.append(held.lease)
                if token in answer.cancel_requested:
                    canceled.append(held.lease)
        for lease in lost:
            log.warning("lease_lost", job_id=lease.job_id, attempt=lease.attempt)
            self._stop_job(lease.job_id)
        for lease in canceled:
            self.cancel(lease.job_id)

    def _iteration(self, held: _Held, progress: Mapping[str, int]) -> int:
        """Return how far a job is; one that the engine is done with stays where it was."""
        seen = self._last_iterations.get(held.lease.token, 0)
        return max(progress.get(held.lease.job_id, seen), held.resumed_at or 0)

    def _is_due(self) -> bool:
        if self._clock() - self._last_beat_at >= self._lease_s / 3:
            return True
        progress = self._progress()
        with self._lock:
            return any(
                self._iteration(held, progress) != self._last_iterations.get(token, 0)
                for token, held in self._held.items()
            )

    def _run_beats(self) -> None:
        while not self._stopping.wait(min(PROGRESS_INTERVAL_S, self._lease_s / 6)):
            if not self._is_due():
                continue
            try:
                self.beat()
            except DATABASE_AWAY:
                log.warning("heartbeat_failed")

    def _run_fence(self) -> None:
        while not self._stopping.wait(self._lease_s / 30):
            self.fence()
