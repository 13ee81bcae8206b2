"""The engine: jobs in, pictures and sounds out, one denoising step at a time for all of them."""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import structlog
import torch

from shared.errors import InternalFailure, JobError
from shared.preview import Preview
from shared.request import GenerationRequest
from worker.company import Company
from worker.engine.adapters import AdapterCache
from worker.engine.batcher import Batcher
from worker.engine.calibration import Calibration, Calibrations, CostMemory, calibrate, run_through
from worker.engine.config import EngineConfig
from worker.engine.cost import Cost, CostModel
from worker.engine.decoder import Decoder
from worker.engine.fault import as_job_error
from worker.engine.headroom import Headroom
from worker.engine.intake import Intake
from worker.engine.lane import predict_left_ms
from worker.engine.last_call import choose_to_finish
from worker.engine.model_cache import ModelCache
from worker.engine.previews import Previewer
from worker.engine.recorder import Recorder
from worker.engine.result import EngineStopped, JobResult
from worker.engine.roster import Roster
from worker.engine.run import Run
from worker.engine.runner import Runner
from worker.engine.source import SourceImage
from worker.engine.state import JobState, StateMisfit
from worker.engine.tally import Tally
from worker.engine.timings import TimeAccount
from worker.engine.trajectory import Trajectory, fail_non_finite

#: Finished latents that may wait for the decoder before the step loop waits too.
DECODE_BACKLOG = 32
#: How long the end of the engine waits for a load under way, in seconds.
STOP_S = 1.0

log = structlog.get_logger(__name__)


class Engine:
    """Advance all jobs together on one device.

    Three threads: one encodes prompts and pictures, one owns the batch and steps it, one decodes.
    A job passes from one to the next and never back. A fourth loads models, for which jobs wait
    before the first, and a fifth makes previews of copies.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that it works with
        self,
        config: EngineConfig,
        models: ModelCache,
        *,
        adapters: AdapterCache | None = None,
        costs: CostModel | None = None,
        on_crash: Callable[[BaseException], None] = lambda _: None,
        on_preview: Callable[[Preview], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.costs = costs or CostModel()
        self.timings = TimeAccount(clock)
        self.tally = Tally()
        self.headroom = Headroom()
        self.batcher: Batcher[Trajectory] = Batcher(self.costs, self.headroom)
        # Who is out of memory has another try with nobody beside on the device.
        self._company = Company()
        self._intake = Intake(
            models,
            company=self._company,
            prompt_cache_size=config.prompt_cache_size,
            tally=self.tally,
        )
        self.runner = Runner(
            models,
            self.costs,
            self.timings,
            self.tally,
            headroom=self.headroom,
            company=self._company,
        )
        self._decoder = Decoder(
            models,
            self.costs,
            self.timings,
            company=self._company,
            check_device=self.runner.check_device,
        )
        self._clock = clock
        self._state_interval_s = config.state_interval_s
        self._models = models
        self._roster = Roster(models, adapters or AdapterCache({}, "cpu"))
        self._previews = Previewer(models, on_preview, clock=clock)
        self._calibrations = Calibrations(models, self.costs, clock=clock)
        self._on_crash = on_crash
        self._run_ids = itertools.count()
        # The step thread's own: runs in the batch, and whether no more will come.
        self._stepping: dict[int, Run] = {}
        self._is_closing = False
        self._is_stopping = False
        self._to_encode: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._to_step: queue.SimpleQueue[Run | Calibration | None] = queue.SimpleQueue()
        self._to_decode: queue.Queue[tuple[Run, Trajectory] | None] = queue.Queue(DECODE_BACKLOG)
        self._threads = [
            threading.Thread(target=self._guard, args=stages, name=name, daemon=True)
            for name, *stages in (
                ("engine-encode", self._run_encoder, lambda: self._to_step.put(None)),
                ("engine-step", self._run_steps, lambda: self._to_decode.put(None)),
                ("engine-decode", self._run_decoder, lambda: None),
            )
        ]
        self._loading = threading.Thread(
            target=self._guard,
            args=(self._run_loader, lambda: None),
            name="engine-load",
            daemon=True,
        )

    def warm_up(self, model_id: str, *, known: Sequence[Cost] = ()) -> bool:
        """Load a model and measure its forwards, before the engine is started.

        What is known of the model from before is taken over if a short probe confirms it. If not,
        it is left aside for a full one; returns whether the model has the costs that were known.

        Raises:
            ModelUnavailable: It cannot be loaded.
        """
        with torch.inference_mode():
            family = self._models.load(model_id)
            return run_through(calibrate(family, self.costs, known, clock=self._clock))

    def recall_from(self, memory: CostMemory) -> None:
        """Have the costs of models that are loaded from now on start from what is known of them."""
        self._calibrations.memory = memory

    def warming(self) -> dict[str, float]:
        """Tell of each model whose costs are being measured how much of that is done."""
        return self._calibrations.progress()

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in (*self._threads, self._loading):
            thread.start()
        self._previews.start()

    def stop(self) -> None:
        """End all jobs and all threads."""
        self.drain()
        self._is_stopping = True
        self._to_encode.put(None)
        for thread in self._threads:
            thread.join()
        self._previews.stop()
        self._models.wake()
        self._loading.join(STOP_S)
        for run in self._roster.runs():  # their model came when nobody listened any more
            self._roster.end(run, run.stop)

    def submit(
        self,
        job_id: str,
        request: GenerationRequest,
        source: SourceImage | None = None,
        *,
        tenant: str = "",
        state: JobState | None = None,
        on_state: Callable[[JobState], None] = lambda _: None,
    ) -> "Future[JobResult]":
        """Let a job join at the next step boundary; tenants have fair shares of the device.

        A request with a strength starts at `source`. A job goes on from `state`, if it comes with
        one, and gives its own to `on_state` now and then, on the step thread: it must return at
        once. One with adapters is held up here, in its own thread, while they are loaded and while
        other jobs have all the room that they need.

        The future raises JobCanceled, EngineStopped or a JobError if the job ends without a result,
        and StateMisfit if it cannot go on from this state.

        Raises:
            EngineStopped: The engine takes no more jobs.
            ValueError: The request has a strength and no source comes with it, or the reverse.
        """
        if (source is None) != (request.strength is None):
            raise ValueError("a source goes with a strength")
        recorder = Recorder(
            on_state,
            interval_s=self._state_interval_s,
            clock=self._clock,
            seen=0 if state is None else state.iteration,
        )
        run = Run(next(self._run_ids), job_id, request, tenant, source, state, recorder)
        self._roster.add(run)
        if self._roster.equip(run):
            # At once, unless the model has to be loaded first.
            run.model.add_done_callback(lambda _: self._to_encode.put(run))
        return run.future

    def cancel(self, job_id: str) -> None:
        """End a job at the next step boundary; one that is not here is none of ours."""
        self._roster.cancel(job_id)

    def watch(self, job_id: str, *, for_s: float) -> None:
        """Make previews of a job from now on, also if it comes later; two a second at most.

        They go to `on_preview`, on a thread of their own, and the last may come after the result.
        """
        self._previews.watch(job_id, for_s=for_s)

    def drain(self, *, finish_within_s: float = 0.0) -> None:
        """Take no more jobs; end those in flight at the next step boundary.

        Those that need less time than `finish_within_s`, all of them together, are finished.
        """
        left_ms = {run.id: self._predict_left_ms(run) for run in self._roster.runs()}
        self._roster.refuse(
            EngineStopped(), spare=choose_to_finish(left_ms, within_ms=1000 * finish_within_s)
        )

    def progress(self) -> dict[str, int]:
        """Count the forwards done so far of each job in flight."""
        return {run.job_id: run.iteration for run in self._roster.runs()}

    def step(self) -> list[Trajectory]:
        """Advance one batch by one denoising step; returns the trajectories that ended."""
        self._apply_commands()
        batch = self.batcher.next_batch(now=self._clock())
        if batch is None:
            return []
        with self._models.pinned(batch.entries[0].key.model):
            predictions = self.runner.predict(batch)  # guidance applied
        self._previews.look(batch, predictions, lambda entry: self._stepping[entry.run_id].job_id)
        with self.timings.measure("scheduler_s"):
            for trajectory, prediction in zip(batch, predictions, strict=True):
                trajectory.advance(prediction)  # own scheduler, own generator
            fail_non_finite(batch, predictions)
        return self.batcher.retire(batch, now=self._clock())

    def _apply_commands(self) -> None:
        """Take in what was encoded, let go what shall stop, and take down what is due."""
        while not self._to_step.empty():
            self._take_in()
        for run in [run for run in self._stepping.values() if run.stop is not None]:
            self._leave_batch(run)
            self._roster.end(run, run.stopped())
        for run in self._stepping.values():
            if run.recorder.is_due():
                with self.timings.measure("state_s"):
                    run.recorder.look(run.trajectories)

    def _take_in(self) -> None:
        """Let the next encoded run join; waits for one."""
        run = self._to_step.get()
        if run is None:
            self._is_closing = True
            return
        if isinstance(run, Calibration):
            self._calibrations.add(run)
            return
        self._stepping[run.id] = run
        run.denoise_at = self._clock()
        for trajectory in run.trajectories:
            if trajectory.is_ended:  # before its state was taken
                self._pass_on(trajectory)
            else:
                self.batcher.add(trajectory, tenant=run.tenant, now=self._clock())

    def _run_loader(self) -> None:
        """Load what jobs wait for, and have its costs measured between their steps."""
        while not self._is_stopping:
            model_id = self._models.load_next(is_over=lambda: self._is_stopping)
            if model_id is not None:
                self._to_step.put(self._calibrations.prepare(model_id))

    def _run_encoder(self) -> None:
        while (run := self._to_encode.get()) is not None:
            if run.stop is not None:
                self._roster.end(run, run.stop)
                continue
            run.encode_at = self._clock()
            try:
                run.spec = run.model.result().family.spec
                with self.timings.measure("encode_s"):
                    run.trajectories = self._intake.prepare(
                        run.id, run.request, run.source, run.state, adapters=run.adapters
                    )
            except StateMisfit as misfit:
                self._roster.end(run, misfit)
            except Exception as error:
                self.runner.check_device(error, run.request.model)
                self._roster.end(run, as_job_error(error, "the encoder"))
            else:
                self._to_step.put(run)

    def _run_steps(self) -> None:
        while not self._is_closing or self._stepping:
            if len(self.batcher) == 0 and not self._is_closing and not self._calibrations:
                self._take_in()
            with self.timings.measure("step_s"):
                ended = self.step()
            for trajectory in ended:
                self._pass_on(trajectory)
            if self._calibrations:
                with self.timings.measure("probe_s"), self._company.together():
                    self._calibrations.advance()
        self._calibrations.close()

    def _run_decoder(self) -> None:
        while (item := self._to_decode.get()) is not None:
            run, trajectory = item
            if run.stop is not None:
                if run.is_denoised:  # else it is the step thread's to end
                    self._roster.end(run, run.stopped())
            elif not run.future.done():
                self._decode(run, trajectory)

    def _pass_on(self, trajectory: Trajectory) -> None:
        """Move an ended trajectory to the decoder, or fail its job."""
        run = self._stepping.get(trajectory.run_id)
        if run is None:
            return  # another output of the job has failed
        if trajectory.error is not None:
            self.runner.check_device(trajectory.error.__cause__, trajectory.key.model)
            self._leave_batch(run)
            self._roster.end(run, trajectory.error)
            return
        run.decode_at = self._clock()
        run.num_passed_on += 1
        if run.is_denoised:
            del self._stepping[run.id]
        self._to_decode.put((run, trajectory))

    def _decode(self, run: Run, trajectory: Trajectory) -> None:
        try:
            decoded = self._decoder.decode(trajectory)
        except JobError as error:
            self._roster.end(run, error)
            return
        run.add(trajectory, decoded.content, tiles=decoded.tiles)
        if len(run.outputs) == len(run.trajectories):
            self._roster.end(run, run.result(now=self._clock()))

    def _leave_batch(self, run: Run) -> None:
        del self._stepping[run.id]
        self.batcher.discard(lambda trajectory: trajectory.run_id == run.id)

    def _predict_left_ms(self, run: Run) -> float | None:
        """Predict how long a run's forwards would take alone; None while nothing is known."""
        parts = [predict_left_ms(self.costs, trajectory) for trajectory in run.trajectories]
        known = [ms for ms in parts if ms is not None]
        # Without trajectories it has not been encoded yet.
        return sum(known) if parts and len(known) == len(parts) else None

    def _guard(self, stage: Callable[[], None], close_next: Callable[[], None]) -> None:
        """Run a stage to its end; its crash is the end of the engine, and nobody waits in vain."""
        try:
            with torch.inference_mode():
                stage()
        except BaseException as cause:
            log.exception("engine_crashed", stage=stage.__name__)
            # First: whoever leaves at once leaves its jobs to another try elsewhere.
            self._on_crash(cause)
            error = InternalFailure("the engine met an error of its own")
            self._roster.refuse(error)
            for run in self._roster.runs():
                self._roster.end(run, error)
        finally:
            close_next()
