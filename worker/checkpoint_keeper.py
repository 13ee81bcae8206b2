"""Keep the states of running jobs in the store, so that they can go on elsewhere."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from shared.catalog import Catalog
from shared.crash_point import CrashPoint, reached
from shared.errors import NotFound, StorageUnavailable
from shared.job import Claim, Lease
from shared.storage import ObjectStore, checkpoint_key, checkpoints_prefix, parse_checkpoint_key
from worker.checkpoint import (
    CONTENT_TYPE,
    CheckpointUnusable,
    Circumstances,
    decode_checkpoint,
    describe_circumstances,
    encode_checkpoint,
)
from worker.engine import JobState

#: Stored states of a job of which the older ones are deleted, together: one request for all of them
#: costs as much as for one.
MAX_STORED = 8
#: How many of them stay: another attempt may be about to read what was the newest one.
NUM_KEPT = 2
#: How long the end of the process waits for a state that is on its way, in seconds.
STOP_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """A job of this process."""

    lease: Lease
    circumstances: Circumstances
    #: The newest state that waits to be stored.
    waiting: JobState | None = None
    #: Keys of what was stored, the newest last.
    stored: list[str] = field(default_factory=list)
    #: There is, or may be soon, something in the store.
    has_states: bool = False


class CheckpointKeeper:
    """Store what the engine takes down of jobs, and read it again for another attempt.

    One thread stores. Of a job whose states come faster than the store takes them, it stores the
    newest. A store that is away costs states, never a job.
    """

    def __init__(
        self, store: ObjectStore, catalog: Catalog, *, libraries: Mapping[str, str]
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._libraries = libraries
        self._lock = threading.Lock()
        self._held: dict[UUID, _Held] = {}
        # Those with a state that waits, in the order in which it came; None is the end.
        self._waiting: queue.SimpleQueue[UUID | None] = queue.SimpleQueue()
        # Held while a state is on its way: none comes after its job has ended.
        self._storing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        #: Processor time that the thread has taken, in seconds.
        self.spent_s = 0.0

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store no more; a store that is silent is not waited for."""
        self._waiting.put(None)
        self._thread.join(STOP_S)

    def hold(self, claim: Claim) -> None:
        """Take states of a job from now on."""
        request, adapters = claim.request, self._catalog.adapters
        spec = self._catalog.get(request.model)
        if spec is None or any(use.id not in adapters for use in request.adapters):
            return  # it is about to fail for that
        circumstances = describe_circumstances(request, spec, self._libraries, adapters)
        with self._lock:
            self._held[claim.lease.token] = _Held(claim.lease, circumstances)

    def take(self, lease: Lease, state: JobState) -> None:
        """Take a state, to be stored soon; returns at once."""
        with self._lock:
            held = self._held.get(lease.token)
            if held is None:
                return
            if held.waiting is None:
                self._waiting.put(lease.token)
            held.waiting = state
            held.has_states = True

    def save(self, lease: Lease, state: JobState | None) -> None:
        """Store a job's last state here now, before it is handed back.

        None if the last that was taken is the last.
        """
        with self._lock:
            held = self._held.get(lease.token)
            if held is None:
                return
            state, held.waiting = state or held.waiting, None
        if state is not None:
            self._put(held, state)

    def find(self, claim: Claim) -> JobState | None:
        """Read the newest state that an earlier attempt left.

        None if the job has to start over; the log says why.
        """
        if claim.lease.attempt == 1:
            return None
        try:
            state = self._find(claim)
        except (CheckpointUnusable, NotFound, StorageUnavailable) as error:
            log.warning("job_starts_over", why=str(error))
            return None
        reached(CrashPoint.AFTER_CHECKPOINT_READ)
        log.info("checkpoint_read", iteration=state.iteration)
        return state

    def drop(self, lease: Lease, *, has_ended: bool) -> None:
        """Take no more states of a job; one that has ended needs none of them any more."""
        with self._lock:
            held = self._held.pop(lease.token, None)
        if held is None or not has_ended or not held.has_states:
            return
        with self._storing:
            try:
                self._store.delete_prefix(checkpoints_prefix(lease.job_id))
            except StorageUnavailable as error:
                log.warning("checkpoints_left", detail=error.detail)  # for the sweeper

    def _find(self, claim: Claim) -> JobState:
        with self._lock:
            held = self._held.get(claim.lease.token)
        if held is None:
            raise CheckpointUnusable("there is no such model")
        found = self._store.list_all(checkpoints_prefix(claim.lease.job_id))
        order = {
            one.key: place
            for one in found
            if (place := parse_checkpoint_key(one.key)) is not None
            and place[0] < claim.lease.attempt
        }
        held.stored = sorted(order, key=lambda key: order[key])
        held.has_states = bool(held.stored)
        if not held.stored:
            raise CheckpointUnusable("there is no checkpoint")
        if claim.is_last_try:
            raise CheckpointUnusable("its checkpoint may be what kills its workers")
        return decode_checkpoint(self._store.get(held.stored[-1]), held.circumstances)

    def _run(self) -> None:
        while (token := self._waiting.get()) is not None:
            began_s = time.thread_time()
            with self._storing:
                self._store_next(token)
            self.spent_s += time.thread_time() - began_s

    def _store_next(self, token: UUID) -> None:
        """Store the state of a job that waits."""
        with self._lock:
            held = self._held.get(token)
            if held is None or held.waiting is None:
                return  # it has ended, or was saved by its own thread
            state, held.waiting = held.waiting, None
        lease = held.lease
        with structlog.contextvars.bound_contextvars(job_id=lease.job_id, attempt=lease.attempt):
            self._put(held, state)
            if len(held.stored) >= MAX_STORED:
                replaced, held.stored = held.stored[:-NUM_KEPT], held.stored[-NUM_KEPT:]
                self._delete(replaced)

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            self._store.delete(keys)
        except StorageUnavailable as error:
            log.warning("checkpoints_left", detail=error.detail)  # until the job has ended

    def _put(self, held: _Held, state: JobState) -> None:
        lease = held.lease
        key = checkpoint_key(
            lease.job_id, attempt=lease.attempt, token=lease.token, iteration=state.iteration
        )
        try:
            data = encode_checkpoint(state, held.circumstances)
            reached(CrashPoint.BEFORE_CHECKPOINT_UPLOAD)
            self._store.put(key, data, content_type=CONTENT_TYPE)
            reached(CrashPoint.AFTER_CHECKPOINT_UPLOAD)
            held.stored.append(key)
        except StorageUnavailable as error:
            log.warning("checkpoint_not_stored", detail=error.detail)
        except Exception:
            # The job is as well as it would be without.
            log.warning("checkpoint_not_stored", exc_info=True)
