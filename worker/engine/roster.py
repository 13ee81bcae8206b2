"""Which jobs are in an engine: anybody may stop one, and each is settled once."""

import threading
from collections.abc import Set

from worker.engine.adapters import AdapterCache
from worker.engine.fault import as_job_error
from worker.engine.model_cache import ModelCache
from worker.engine.pin import let_go
from worker.engine.result import JobCanceled, JobResult
from worker.engine.run import Run


class Roster:
    """The runs in flight, and what they hold of models and adapters. Any thread may use it."""

    def __init__(self, models: ModelCache, adapters: AdapterCache) -> None:
        self._models = models
        self._adapters = adapters
        self._lock = threading.Lock()
        # By job: a job that comes back while its old run is being stopped replaces it.
        self._runs: dict[str, Run] = {}
        self._refusal: Exception | None = None

    def runs(self) -> list[Run]:
        """Return all runs in flight."""
        with self._lock:
            return list(self._runs.values())

    def add(self, run: Run) -> None:
        """Take a run in; an older one of the same job is stopped.

        Raises:
            Exception: No more are taken; why was said to `refuse`.
        """
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if (previous := self._runs.get(run.job_id)) is not None:
                _stop(previous, JobCanceled())
            self._runs[run.job_id] = run

    def equip(self, run: Run) -> bool:
        """Have a run hold its adapters, and its model as soon as that is warm, until it ends.

        Waits for adapters, and before it asks for the model: whoever has a model pinned waits for
        nobody, so that no two runs ever wait for each other. Returns whether it goes on; if not,
        it has ended.
        """
        self._take_adapters(run)
        with self._lock:  # it is stopped with the others, or sees that it was
            if run.stop is None:
                run.model = self._models.acquire(run.request.model)
                return True
        self.end(run, run.stop)
        return False

    def cancel(self, job_id: str) -> None:
        """Stop a job's run, if it has one here."""
        with self._lock:
            if (run := self._runs.get(job_id)) is not None:
                _stop(run, JobCanceled())

    def refuse(self, reason: Exception, *, spare: Set[int] = frozenset()) -> None:
        """Take no more runs, and stop those in flight but the ones to be spared."""
        with self._lock:
            self._refusal = self._refusal or reason
            for run in self._runs.values():
                if run.id not in spare:
                    _stop(run, run.stop or reason)

    def end(self, run: Run, outcome: JobResult | Exception | None) -> None:
        """Settle a run, once, and have it let go of what it holds."""
        with self._lock:
            if self._runs.get(run.job_id) is run:
                del self._runs[run.job_id]
            let_go(run.model)
            for trajectory in run.trajectories:
                if trajectory.call is not None:
                    trajectory.call.abandon()
            if run.future.done():
                return
            if isinstance(outcome, JobResult):
                run.future.set_result(outcome)
            else:
                run.future.set_exception(outcome)

    def _take_adapters(self, run: Run) -> None:
        if not run.request.adapters:
            return
        try:
            taken = self._adapters.take(run.request.adapters, is_wanted=lambda: run.stop is None)
        except Exception as error:
            run.stop = run.stop or as_job_error(error, "an adapter")
            return
        if taken is not None:
            run.adapters = taken
            held = {adapter.id for adapter in taken}
            run.future.add_done_callback(lambda _: self._adapters.release(held))


def _stop(run: Run, reason: Exception) -> None:
    """Have a run end early; one that waits for its model waits no longer."""
    run.stop = reason
    run.model.cancel()
