"""The one task of a worker: claim a job, have the engine run it, store the result, finish."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import stamina
import structlog
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry

from shared.crash_point import CrashPoint, reached
from shared.db.leases import LeaseRepository
from shared.db.session import DATABASE_AWAY
from shared.errors import (
    ErrorCode,
    InvalidInput,
    JobError,
    NotFound,
    StorageUnavailable,
)
from shared.job import Claim, Lease, Success
from shared.request import InputImage
from shared.storage import ObjectStore, artifact_key, upload_key
from shared.vocab import CONTENT_TYPES, Determinism, OutputFormat
from worker.activity import Activity
from worker.checkpoint_keeper import CheckpointKeeper
from worker.company import Company
from worker.engine import (
    Engine,
    EngineStopped,
    JobCanceled,
    JobResult,
    JobState,
    SourceImage,
    StateMisfit,
)
from worker.input_image import decode_image, decode_mask
from worker.lease import LeaseKeeper
from worker.metrics import AttemptMetrics
from worker.outputs import describe, encode, say_gains, thumbnail_key
from worker.records import Records

#: How long the store may be away before a job is handed back for it, in seconds.
STORAGE_PATIENCE_S = 120.0
#: Longest pause between two tries of the store, in seconds: how late a wish to stop may be heard.
STORAGE_PAUSE_S = 1.0
#: What ends within this time after SIGTERM is finished, in seconds; the rest is handed back.
FINISH_WITHIN_S = 1.0
#: How long the database may be away before a finished job is left to the rescuer, in seconds.
DATABASE_PATIENCE_S = 120.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """Somebody else may own the job by now: its result must not be used."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who runs a job, as the job will show it."""

    name: str
    #: Which process of that name: host and process id.
    process: str
    device: str
    versions: Mapping[str, str]


class GenerateTask:
    """Run one job from claim to finish; called by Celery in one of its threads."""

    def __init__(  # noqa: PLR0913 - one for each part that it joins
        self,
        *,
        identity: WorkerIdentity,
        leases: LeaseRepository,
        keeper: LeaseKeeper,
        engine: Engine,
        store: ObjectStore,
        checkpoints: CheckpointKeeper,
        records: Records | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._records = records or Records(
            AttemptMetrics(CollectorRegistry()), NoOpTracer(), worker=identity.name
        )
        self._leases = leases
        self._keeper = keeper
        self._engine = engine
        self._store = store
        self._checkpoints = checkpoints
        self._clock = clock
        self._company = Company()
        self._draining = threading.Event()
        self.activity = Activity(clock)
        # A decoded picture may take 200 MB on its way, so they take turns.
        self._decoding = threading.Lock()

    def drain(self) -> None:
        """Begin nothing new; finish what is nearly done, and hand the rest back."""
        self._draining.set()
        self._engine.drain(finish_within_s=FINISH_WITHIN_S)

    def run(self, job_id: str) -> None:
        """Run a job that a message told of, if it still wants to be run."""
        with self.activity.busy():
            self._run(job_id)

    def _run(self, job_id: str) -> None:
        # Before the claim: whoever waits for one that runs alone holds no lease that it could cost.
        if self._leases.is_suspected(job_id):
            self._run_alone(job_id)
            return
        with self._company.together():
            if self._draining.is_set():
                self._leases.decline(job_id)
                return
            claim = self._claim(job_id)
            if claim is None:
                return  # the message was late or double
            if not claim.is_suspected:
                self._run_kept(claim)
                return
        # It has lost its worker since it was looked at.
        lease = claim.lease
        with self._company.alone(is_wanted=lambda: not self._shall_stop(lease)):
            self._run_kept(claim)

    def _run_alone(self, job_id: str) -> None:
        with self._company.alone(is_wanted=lambda: not self._draining.is_set()) as is_alone:
            if not is_alone:
                self._leases.decline(job_id)
                return
            claim = self._claim(job_id)
            if claim is not None:
                self._run_kept(claim)

    def _claim(self, job_id: str) -> Claim | None:
        claimed_at = self._clock()
        claim = self._leases.claim(
            job_id, worker=self._identity.name, process=self._identity.process
        )
        if claim is not None:
            reached(CrashPoint.AFTER_CLAIM)
            self._keeper.hold(claim.lease, claimed_at=claimed_at)
        return claim

    def _run_kept(self, claim: Claim) -> None:
        lease = claim.lease
        has_ended = False
        with self._records.attempt(claim):
            try:
                self._checkpoints.hold(claim)
                has_ended = self._run_claimed(claim)
            finally:
                self._keeper.drop(lease)
                self._checkpoints.drop(lease, has_ended=has_ended)

    def _run_claimed(self, claim: Claim) -> bool:
        """Run a job to the end of this attempt; returns whether that was the job's own end."""
        lease = claim.lease
        try:
            self._check(lease)
            # The lease may have run out while others ended.
            if claim.is_suspected and not self._leases.begin_alone(lease):
                return False
            result = self._generate(claim)
            with self._records.upload():
                success = self._store_result(claim, result)
            reached(CrashPoint.AFTER_UPLOAD)
            self._check(lease)
        except LeaseLost:
            self._records.note_discarded()
            return False
        except JobCanceled:
            # The engine was told to stop: by the owner, or by the keeper whose lease is gone.
            if not self._keeper.is_lost(lease):
                return self._finish("job_canceled", lambda: self._leases.cancel(lease))
            self._finish("job_handed_back", lambda: self._leases.release(lease))
            return False
        except EngineStopped as stopped:
            self._checkpoints.save(lease, stopped.state)
            self._finish("job_handed_back", lambda: self._leases.release(lease))
            return False
        except StorageUnavailable as error:
            message = error.detail
            log.warning("store_away", detail=message)
            self._finish("job_put_off", lambda: self._leases.put_off(lease, message))
            return False
        except JobError as error:
            code, message = error.job_code, error.detail
            self._records.note_error(code)
            log.warning("job_error", code=code, exc_info=error.__cause__)
            return self._finish("job_failed", lambda: self._leases.fail(lease, code, message))
        except Exception:
            self._records.note_error(ErrorCode.INTERNAL)
            log.exception("job_error", code=ErrorCode.INTERNAL)
            message = "the worker met an internal error; its log tells more under the job's id"
            return self._finish(
                "job_failed", lambda: self._leases.fail(lease, ErrorCode.INTERNAL, message)
            )
        else:
            return self._finish("job_succeeded", lambda: self._leases.succeed(lease, success))

    def _generate(self, claim: Claim) -> JobResult:
        """Have the engine run a job, on from where another attempt has left it if that can be.

        Raises:
            JobCanceled: Its owner cancels it, or the lease is gone.
            EngineStopped: The worker is leaving.
            JobError: It failed.
        """
        source = self._read_source(claim)
        state = self._checkpoints.find(claim)
        if state is not None:
            try:
                return self._run_in_engine(claim, source, state)
            except StateMisfit as misfit:
                log.warning("job_starts_over", why=str(misfit))
        return self._run_in_engine(claim, source, None)

    def _run_in_engine(
        self, claim: Claim, source: SourceImage | None, state: JobState | None
    ) -> JobResult:
        lease = claim.lease
        self._keeper.resume(lease, None if state is None else state.iteration)
        future = self._engine.submit(
            lease.job_id,
            claim.request,
            source,
            tenant=claim.tenant,
            state=state,
            on_state=partial(self._checkpoints.take, lease),
        )
        if self._shall_stop(lease):  # since before the engine knew the job
            self._engine.cancel(lease.job_id)
        result = future.result()
        self._records.note_stages(result)
        return result

    def _shall_stop(self, lease: Lease) -> bool:
        return self._keeper.is_lost(lease) or self._keeper.is_canceled(lease)

    def _check(self, lease: Lease) -> None:
        """Go on only while somebody wants the result.

        Raises:
            JobCanceled: The owner cancels the job.
            LeaseLost: The lease ran out.
        """
        if self._keeper.is_lost(lease):
            raise LeaseLost
        if self._keeper.is_canceled(lease):
            raise JobCanceled

    def _read_source(self, claim: Claim) -> SourceImage | None:
        """Fetch and decode what the job starts from, if it does.

        Raises:
            InvalidInput: It cannot be used.
            LeaseLost: The lease ran out meanwhile.
            StorageUnavailable: The store was away for too long.
        """
        request = claim.request
        if request.init_image is None:
            return None
        image = self._fetch(claim, "init_image", request.init_image)
        mask = None if request.mask is None else self._fetch(claim, "mask", request.mask)
        width, height = request.size
        size = {"width": width, "height": height}
        with self._decoding:
            return SourceImage(
                pixels=decode_image(image, name="init_image", **size),
                mask=None if mask is None else decode_mask(mask, name="mask", **size),
            )

    def _fetch(self, claim: Claim, name: str, image: InputImage) -> bytes:
        key = upload_key(claim.tenant, image.id)
        try:
            data = self._persist(claim.lease, lambda: self._store.get(key))
        except NotFound as error:
            raise InvalidInput(f"{name} is stored no longer; upload it again") from error
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise InvalidInput(f"{name} is not what was uploaded; upload it again")
        return data

    def _persist(self, lease: Lease, call: Callable[[], T]) -> T:
        """Call the store until it answers; meanwhile the engine goes on with other jobs.

        Raises:
            EngineStopped: The worker is leaving, and the store is away.
            JobCanceled: The owner canceled the job meanwhile.
            LeaseLost: The lease ran out meanwhile.
            StorageUnavailable: The store was away for too long.
        """
        for attempt in stamina.retry_context(
            StorageUnavailable, attempts=None, timeout=STORAGE_PATIENCE_S, wait_max=STORAGE_PAUSE_S
        ):
            with attempt:
                self._check(lease)
                if self._draining.is_set() and attempt.num > 1:
                    raise EngineStopped
                return call()
        raise AssertionError("the last try either returns or raises")

    def _store_result(self, claim: Claim, result: JobResult) -> Success:
        """Write the outputs under this attempt's own keys.

        Raises:
            LeaseLost: The lease ran out meanwhile.
            StorageUnavailable: The store was away for too long.
        """
        lease, request = claim.lease, claim.request
        artifacts, gains = [], []
        for output in result.outputs:
            file = encode(output, request, self._identity.versions)
            gains.append(file.gain)
            key = artifact_key(
                lease.job_id,
                attempt=lease.attempt,
                token=lease.token,
                index=output.index,
                extension=request.output_format,
            )
            self._put(lease, key, file.data, content_type=file.content_type)
            if file.thumbnail is not None:
                small = CONTENT_TYPES[OutputFormat.WEBP]
                self._put(lease, thumbnail_key(key, file), file.thumbnail, content_type=small)
            artifacts.append(describe(output, file, key))
        return Success(
            artifacts=tuple(artifacts),
            iterations=result.iterations,
            execution=self._describe(claim, result) | say_gains(gains),
            resumed_at=result.resumed_at,
        )

    def _put(self, lease: Lease, key: str, data: bytes, *, content_type: str) -> None:
        self._persist(lease, partial(self._store.put, key, data, content_type=content_type))

    def _describe(self, claim: Claim, result: JobResult) -> dict[str, Any]:
        is_exact = claim.request.determinism is Determinism.EXACT
        return {
            "worker": self._identity.name,
            "device": self._identity.device,
            "determinism": claim.request.determinism,
            "exact_rows": result.exact_rows if is_exact else None,
            "mean_rows": round(result.mean_rows, 3),
            "device_options": dict(result.device_options),
            "decoder_tiles": max(output.tiles for output in result.outputs),
            "resumed_at": result.resumed_at,
            "versions": dict(self._identity.versions),
        }

    def _finish(self, event: str, end: Callable[[], bool]) -> bool:
        """End the attempt in SQL, however long that takes; returns whether it did.

        A lost lease makes it a no-op. A statement whose answer was lost finds on its second try
        that it had been carried out.
        """
        for attempt in stamina.retry_context(
            DATABASE_AWAY, attempts=None, timeout=DATABASE_PATIENCE_S
        ):
            with attempt:
                if end():
                    self._records.note_end(event)
                    return True
                self._records.note_discarded()
                return False
        raise AssertionError("the last try either returns or raises")
