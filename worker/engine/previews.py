"""Previews of the jobs that somebody watches, made on a thread of their own."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.preview_map import PreviewMap
from shared.catalog import ModelSpec
from shared.errors import JobError
from shared.preview import INTERVAL_S, Preview
from worker.engine.batch import Batch
from worker.engine.model_cache import ModelCache
from worker.engine.preview_picture import encode_preview, predict_clean
from worker.engine.trajectory import Trajectory

#: How often watches that are over are looked for, in seconds.
FORGET_S = 1.0
#: How long the end of the engine waits for a preview under way, in seconds.
STOP_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Watch:
    """That somebody watches a job, in seconds of the engine's clock."""

    until: float
    #: No preview is made before.
    next_at: float
    #: One is being made; the next waits for it, so no more than one of a job is ever pending.
    is_making: bool = False
    #: By output: those of a job take turns.
    num_made: Counter[int] = field(default_factory=Counter)

    def is_over(self, now: float) -> bool:
        """Whether it can be forgotten, and the rate still be kept."""
        return max(self.until, self.next_at) <= now and not self.is_making


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Copies of what a picture is made of."""

    job_id: str
    output_index: int
    iteration: int
    model: str
    noisy: NDArray[np.float32]  # [C, h, w]
    prediction: NDArray[np.float32]  # [C, h, w]
    timestep: float


class Previewer:
    """Copies latents of watched jobs at step boundaries, and makes pictures of them elsewhere."""

    def __init__(
        self,
        models: ModelCache,
        on_preview: Callable[[Preview], None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._models = models
        self._on_preview = on_preview
        self._clock = clock
        self._lock = threading.Lock()
        # By job.
        self._watches: dict[str, _Watch] = {}
        self._forget_at = clock()
        self._snapshots: queue.SimpleQueue[_Snapshot | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine-preview", daemon=True)

    def start(self) -> None:
        """Begin to make pictures."""
        self._thread.start()

    def stop(self) -> None:
        """Make no more; one that is held up somewhere is not waited for."""
        self._snapshots.put(None)
        self._thread.join(STOP_S)

    def watch(self, job_id: str, *, for_s: float) -> None:
        """Make previews of a job from now on, or go on for longer."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            watch = self._watches.setdefault(job_id, _Watch(until=now, next_at=now))
            watch.until = max(watch.until, now + for_s)

    def look(
        self,
        batch: Batch[Trajectory],
        predictions: Sequence[Tensor | JobError],
        name_job: Callable[[Trajectory], str],
    ) -> None:
        """Copy what is due between a forward and the step that it is for."""
        if not self._watches:
            return
        now = self._clock()
        due: dict[str, tuple[Trajectory, Tensor]] = {}
        with self._lock:
            self._forget(now)
            for trajectory, prediction in zip(batch, predictions, strict=True):
                job_id = name_job(trajectory)
                watch = self._watches.get(job_id)
                if watch is None or watch.is_making or not watch.next_at <= now < watch.until:
                    continue
                if isinstance(prediction, JobError):
                    continue
                if job_id not in due or (
                    watch.num_made[trajectory.index] < watch.num_made[due[job_id][0].index]
                ):
                    due[job_id] = trajectory, prediction
            for job_id, (trajectory, _) in due.items():
                watch = self._watches[job_id]
                watch.is_making = True
                watch.next_at = now + INTERVAL_S
                watch.num_made[trajectory.index] += 1
        for job_id, (trajectory, prediction) in due.items():
            try:
                self._snapshots.put(_copy(job_id, trajectory, prediction))
            except Exception:
                # On the engine's thread: neither the job nor any other may end for a preview.
                log.warning("preview_failed", job_id=job_id, exc_info=True)
                self._settle(job_id)

    def _forget(self, now: float) -> None:
        """Let go of watches that are over, now and then: most are of jobs that run elsewhere."""
        if now >= self._forget_at:
            self._forget_at = now + FORGET_S
            over = [name for name, watch in self._watches.items() if watch.is_over(now)]
            for job_id in over:
                del self._watches[job_id]

    def _run(self) -> None:
        while (snapshot := self._snapshots.get()) is not None:
            try:
                self._make(snapshot)
            except Exception:
                # Whatever it was, the job is as well as it would be unwatched.
                log.warning("preview_failed", job_id=snapshot.job_id, exc_info=True)
            finally:
                self._settle(snapshot.job_id)

    def _settle(self, job_id: str) -> None:
        """Let the job have its next preview."""
        with self._lock:
            self._watches[job_id].is_making = False

    def _make(self, snapshot: _Snapshot) -> None:
        preview_map, spec = self._look_up(snapshot.model)
        if preview_map is None:
            return
        clean = predict_clean(snapshot.noisy, snapshot.prediction, snapshot.timestep, spec)
        if not np.isfinite(clean).all():
            return  # the job is about to fail for it
        _, height, width = clean.shape
        size = {"width": spec.latent_factor * width, "height": spec.latent_factor * height}
        data = encode_preview(preview_map.apply(clean), **size)
        self._on_preview(
            Preview(
                job_id=snapshot.job_id,
                output_index=snapshot.output_index,
                iteration=snapshot.iteration,
                data=data,
            )
        )

    def _look_up(self, model_id: str) -> tuple[PreviewMap | None, ModelSpec]:
        """Return what a preview needs of a model, which may leave as soon as it likes."""
        with self._models.pinned(model_id):
            family = self._models.get(model_id)
            return family.preview_map, family.spec


def _copy(job_id: str, trajectory: Trajectory, prediction: Tensor) -> _Snapshot:
    noisy, timestep = trajectory.model_input()
    return _Snapshot(
        job_id=job_id,
        output_index=trajectory.index,
        iteration=trajectory.iteration + 1,
        model=trajectory.key.model,
        noisy=_to_array(noisy),
        prediction=_to_array(prediction),
        timestep=float(timestep),
    )


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    """Copy one latent [1, C, h, w] to the host as [C, h, w]."""
    array: NDArray[np.float32] = tensor[0].to("cpu", torch.float32, copy=True).numpy()
    return array
