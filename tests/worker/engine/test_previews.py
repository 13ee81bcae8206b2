import io
import queue
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from shared.errors import InternalFailure, JobError
from shared.preview import INTERVAL_S, Preview
from tests.worker.engine.conftest import PATIENCE_S, request, run_alone
from worker.company import Company
from worker.engine import Engine, EngineConfig, JobCanceled, ModelCache
from worker.engine.batch import Batch
from worker.engine.conditioning import collate
from worker.engine.intake import Intake
from worker.engine.previews import Previewer
from worker.engine.trajectory import Trajectory

#: Longer than any test.
FOREVER_S = 1000.0


class Made(queue.Queue[Preview]):
    """The previews that arrived."""

    def next(self) -> Preview:
        return self.get(timeout=PATIENCE_S)

    def all(self) -> list[Preview]:
        return [self.get() for _ in range(self.qsize())]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def start(models: ModelCache, **changes: object) -> list[Trajectory]:
    with torch.inference_mode():
        return Intake(models, company=Company(), prompt_cache_size=1).prepare(
            0, request(**changes), None
        )


def wait_until_made(previewer: Previewer) -> None:
    """A preview is handed out a moment before its job may have the next."""
    while any(watch.is_making for watch in list(previewer._watches.values())):
        pass


def pixels_of(preview: Preview) -> np.ndarray:
    with Image.open(io.BytesIO(preview.data)) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB"))


def run_watched(models: ModelCache, *watched: str, **changes: object) -> tuple[bytes, Made]:
    """Run a job `mine` beside another; returns its pixels and what was made of both."""
    made = Made()
    engine = Engine(EngineConfig(), models, on_preview=made.put)
    for job_id in watched:
        engine.watch(job_id, for_s=FOREVER_S)  # before it comes
    mine = engine.submit("mine", request(**changes))
    other = engine.submit("other", request(steps=4))
    engine.start()
    try:
        pixels = mine.result(PATIENCE_S).outputs[0].pixels
        other.result(PATIENCE_S)
    finally:
        engine.stop()
    return pixels.tobytes(), made


def test_a_watched_job_is_previewed_and_no_other(models: ModelCache) -> None:
    _, made = run_watched(models, "mine", "nobody", steps=12)
    previews = made.all()
    assert previews
    assert {preview.job_id for preview in previews} == {"mine"}
    assert previews[0].iteration == 1
    assert pixels_of(previews[0]).shape == (64, 64, 3)


def test_nothing_is_made_unless_somebody_watches(models: ModelCache) -> None:
    _, made = run_watched(models, steps=12)
    assert made.empty()


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
def test_watching_changes_no_byte(models: ModelCache, sampler: str) -> None:
    job = {"sampler": sampler, "determinism": "exact", "steps": 3}
    unwatched, _ = run_watched(models, **job)
    watched, made = run_watched(models, "mine", "other", **job)
    assert watched == unwatched
    assert not made.empty()


def test_a_preview_looks_like_what_the_job_will_draw(models: ModelCache) -> None:
    clock = Clock()
    made = Made()
    (trajectory,) = start(models, sampler="ddim", steps=12)
    previewer = Previewer(models, made.put, clock=clock)
    previewer.start()
    previewer.watch("job", for_s=FOREVER_S)
    family = models.get("demo")
    final = run_alone(models, request(sampler="ddim", steps=12)).outputs[0].pixels.astype(float)
    errors = []
    with torch.inference_mode():
        while not trajectory.is_ended:
            noisy, timestep = trajectory.model_input()
            uncond, cond = family.predict(
                noisy.repeat(2, 1, 1, 1),
                timestep.repeat(2).float(),
                collate(trajectory.conditionings),
            ).split(1)
            prediction = uncond + trajectory.guidance_scale * (cond - uncond)
            previewer.look(Batch((trajectory,)), [prediction], lambda _: "job")
            errors.append(float(np.abs(pixels_of(made.next()) - final).mean()))
            wait_until_made(previewer)
            trajectory.advance(prediction)
            clock.now += INTERVAL_S
    previewer.stop()
    gray = float(np.abs(final - final.mean(axis=(0, 1))).mean())
    assert errors[-1] < errors[0]
    # Another picture is 60 levels off and more, noise 80.
    assert max(errors[4:]) < 45, (errors, gray)


class Stepper:
    """Step boundaries of trajectories at times of the test's choosing."""

    def __init__(self, models: ModelCache, trajectories: list[Trajectory]) -> None:
        self.clock = Clock()
        self.made = Made()
        self.previewer = Previewer(models, self.made.put, clock=self.clock)
        self.batch = Batch(tuple(trajectories))
        self.predictions: list[torch.Tensor | JobError] = [
            torch.zeros_like(trajectory.latents) for trajectory in trajectories
        ]

    def step(self) -> list[tuple[str, int]]:
        self.previewer.look(self.batch, self.predictions, lambda entry: f"job-{entry.run_id}")
        wait_until_made(self.previewer)
        return [(preview.job_id, preview.output_index) for preview in self.made.all()]


@pytest.fixture
def stepper(models: ModelCache) -> Stepper:
    trajectories = start(models, num_outputs=2)
    (other,) = start(models)
    other.run_id = 1
    stepper = Stepper(models, [*trajectories, other])
    stepper.previewer.start()
    return stepper


def test_a_job_has_two_previews_a_second_and_its_outputs_take_turns(stepper: Stepper) -> None:
    stepper.previewer.watch("job-0", for_s=FOREVER_S)
    seen = []
    for _ in range(40):
        seen += stepper.step()
        stepper.clock.now += 0.0625
    assert seen == [("job-0", 0), ("job-0", 1), ("job-0", 0), ("job-0", 1), ("job-0", 0)]


def test_each_job_has_a_rate_of_its_own(stepper: Stepper) -> None:
    stepper.previewer.watch("job-0", for_s=FOREVER_S)
    assert stepper.step() == [("job-0", 0)]
    stepper.previewer.watch("job-1", for_s=FOREVER_S)
    assert stepper.step() == [("job-1", 0)]
    assert stepper.step() == []


def test_a_watch_ends_unless_it_is_prolonged(stepper: Stepper) -> None:
    stepper.previewer.watch("job-0", for_s=1)
    assert len(stepper.step()) == 1
    stepper.clock.now += 0.75
    stepper.previewer.watch("job-0", for_s=1)
    stepper.clock.now += 0.75
    assert len(stepper.step()) == 1
    stepper.clock.now += 0.75
    assert stepper.step() == []


def test_watching_anew_is_no_way_round_the_rate(stepper: Stepper) -> None:
    num_made = 0
    for _ in range(16):
        stepper.previewer.watch("job-0", for_s=0.03125)
        num_made += len(stepper.step())
        stepper.clock.now += 0.0625
    assert num_made == 2


def test_who_met_an_error_is_not_previewed(stepper: Stepper) -> None:
    stepper.previewer.watch("job-0", for_s=FOREVER_S)
    stepper.previewer.watch("job-1", for_s=FOREVER_S)
    stepper.predictions[0] = InternalFailure("it broke")
    stepper.predictions[2] = torch.full((1, 4, 16, 16), float("nan"))
    assert stepper.step() == [("job-0", 1)]


def test_a_model_without_a_fit_has_no_previews(models: ModelCache) -> None:
    family = models.get("demo")
    fit, family.preview_map = family.preview_map, None
    try:
        _, made = run_watched(models, "mine", steps=3)
    finally:
        family.preview_map = fit
    assert made.empty()


def test_a_job_and_the_engine_end_while_a_preview_is_held_up(models: ModelCache) -> None:
    entered, go_on = threading.Event(), threading.Event()
    made = Made()

    def hold(preview: Preview) -> None:
        made.put(preview)
        entered.set()
        go_on.wait(PATIENCE_S)

    engine = Engine(EngineConfig(), models, on_preview=hold)
    engine.watch("job", for_s=FOREVER_S)
    engine.watch("canceled", for_s=FOREVER_S)
    engine.start()
    try:
        engine.submit("job", request(steps=4)).result(PATIENCE_S)
        assert entered.wait(PATIENCE_S)
        canceled = engine.submit("canceled", request(sampler="ddpm", steps=1000))
        engine.cancel("canceled")
        with pytest.raises(JobCanceled):
            canceled.result(PATIENCE_S)
        assert engine.submit("last", request(steps=2)).result(PATIENCE_S).iterations == 2
        engine.stop()  # returns, though the preview does not
        assert [preview.job_id for preview in made.all()] == ["job"]
    finally:
        go_on.set()


def test_a_preview_that_fails_harms_neither_its_job_nor_the_next(models: ModelCache) -> None:
    heard: list[str] = []

    def refuse_first(preview: Preview) -> None:
        heard.append(preview.job_id)
        if len(heard) == 1:
            raise RuntimeError("nobody listens")

    engine = Engine(EngineConfig(), models, on_preview=refuse_first)
    engine.watch("first", for_s=FOREVER_S)
    engine.watch("second", for_s=FOREVER_S)
    engine.start()
    try:
        for job_id in ("first", "second"):
            engine.submit(job_id, request(steps=3)).result(PATIENCE_S)
    finally:
        engine.stop()
    assert heard == ["first", "second"]


def test_watches_of_jobs_that_never_come_are_forgotten(stepper: Stepper) -> None:
    for n in range(100):
        stepper.previewer.watch(f"elsewhere-{n}", for_s=5)
    stepper.clock.now += 6
    assert stepper.step() == []
    assert not stepper.previewer._watches
