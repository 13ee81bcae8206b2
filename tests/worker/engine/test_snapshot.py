"""States of trajectories: taken, written down, read by another one, which ends at the same bits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from evals.convergence import cells
from evals.kinds import Kind, load_kinds
from evals.oracle import Oracle
from shared.compatibility import max_steps, min_steps
from shared.vocab import Sampler, Schedule
from worker.checkpoint import decode_checkpoint, encode_checkpoint
from worker.engine.recorder import Recorder
from worker.engine.samplers import SamplerBook, scale_noise
from worker.engine.snapshot import capture, restore
from worker.engine.state import JobState, StateMisfit
from worker.engine.trajectory import BatchKey, Trajectory

KINDS = load_kinds()
Cell = tuple[Kind, Sampler, Schedule]
CELLS: list[Cell] = [
    (kind, *cell)
    for kind in KINDS
    for stochastic in (False, True)
    for cell in cells(kind, stochastic=stochastic)
]
#: Each sampler on two schedules of the first kind of model that has it.
FEW = list(
    {(s, where is Schedule.NATIVE): (kind, s, where) for kind, s, where in CELLS[::-1]}.values()
)
BOOKS = {str(kind): SamplerBook() for kind in KINDS}
SHAPE = (1, 2, 2, 3)


def begin(cell: Cell, *, steps: int, seed: int = 0, **changes: Any) -> Trajectory:
    """Start a trajectory as the engine does."""
    kind, sampler, schedule = cell
    generator = torch.Generator().manual_seed(seed)
    scheduler = BOOKS[str(kind)].start(kind.spec, kind.native, sampler, schedule, steps)
    fields: dict[str, Any] = {
        "run_id": 0,
        "index": 0,
        "seed": seed,
        "key": BatchKey("model", SHAPE, ()),
        "scheduler": scheduler,
        "generator": generator,
        "latents": scale_noise(scheduler, torch.randn(SHAPE, generator=generator)),
        "conditionings": ({},),
        "guidance_scale": 1.0,
        "guidance_rescale": 0.0,
        "priority": 5,
        "max_rows": 8,
        "exact_rows": 8,
    }
    return Trajectory(**fields | changes)


@torch.inference_mode()
def run(cell: Cell, trajectory: Trajectory) -> list[JobState]:
    """Run a trajectory to its end; returns its states before each step and at the end."""
    oracle = Oracle(cell[0].spec)
    states = []
    while not trajectory.is_ended:
        states.append(capture([trajectory]))
        trajectory.advance(oracle.predict(*trajectory.model_input()).float())
    assert trajectory.error is None
    return [*states, capture([trajectory])]


@torch.inference_mode()
def go_on(cell: Cell, state: JobState, *, steps: int) -> Trajectory:
    """Run a new trajectory from a state to its end."""
    trajectory = begin(cell, steps=steps, seed=0)
    restore([trajectory], state)
    run(cell, trajectory)
    return trajectory


def write_and_read(state: JobState) -> JobState:
    return decode_checkpoint(encode_checkpoint(state, {}), {})


def assert_same_end(one: Trajectory, other: Trajectory) -> None:
    assert torch.equal(one.latents, other.latents)
    assert torch.equal(one.generator.get_state(), other.generator.get_state())
    assert one.iteration == other.iteration == one.num_iterations


@pytest.mark.parametrize(
    "cell",
    [cell if cell in FEW else pytest.param(cell, marks=pytest.mark.slow) for cell in CELLS],
    ids=lambda cell: "-".join(map(str, cell)),
)
def test_every_sampler_goes_on_from_any_step_as_if_nothing_had_been(cell: Cell) -> None:
    steps = min(6, max_steps(cell[1], cell[2], cell[0].spec))
    whole = begin(cell, steps=steps)
    # All of them are written when the trajectory has ended: no step may have changed them.
    states = list(map(write_and_read, run(cell, whole)))
    assert [state.iteration for state in states] == list(range(whole.num_iterations + 1))
    for state in states:
        assert_same_end(go_on(cell, state, steps=steps), whole)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), cell=st.sampled_from(FEW), seed=st.integers(0, 2**53 - 1))
def test_it_may_be_broken_off_several_times(data: st.DataObject, cell: Cell, seed: int) -> None:
    least, most = min_steps(cell[1]), max_steps(cell[1], cell[2], cell[0].spec)
    steps = data.draw(st.integers(least, min(most, 30)))
    whole = begin(cell, steps=steps, seed=seed)
    run(cell, whole)
    broken, last = begin(cell, steps=steps, seed=seed), 0
    for _ in range(data.draw(st.integers(1, 3))):
        last = data.draw(st.integers(last, whole.num_iterations))
        state = run_to(cell, broken, last)
        broken = begin(cell, steps=steps, seed=1)
        restore([broken], write_and_read(state))
    run(cell, broken)
    assert_same_end(broken, whole)


@torch.inference_mode()
def run_to(cell: Cell, trajectory: Trajectory, iteration: int) -> JobState:
    while trajectory.iteration < iteration:
        trajectory.advance(Oracle(cell[0].spec).predict(*trajectory.model_input()).float())
    return capture([trajectory])


def test_the_order_in_memory_is_kept() -> None:
    # An encoded picture has its channels innermost, which shows in a forward's last bits.
    cell = CELLS[0]
    latents = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last)
    trajectory = begin(cell, steps=4, latents=latents)
    (output,) = write_and_read(capture([trajectory])).outputs
    assert output.latents.stride() == latents.stride()
    assert torch.equal(output.latents, latents)


def other_outputs(state: JobState, **changes: Any) -> JobState:
    output = dataclasses.replace(state.outputs[0], **changes)
    return dataclasses.replace(state, outputs=(output,))


MISFITS: dict[str, Callable[[JobState], JobState]] = {
    "outputs": lambda state: dataclasses.replace(state, outputs=state.outputs * 2),
    "sampler": lambda state: other_outputs(state, scheduler="DDIMScheduler"),
    "shape": lambda state: other_outputs(state, latents=torch.zeros(1, 2, 2, 2)),
    "iteration 9": lambda state: other_outputs(state, iteration=9),
    "generator": lambda state: other_outputs(state, generator=torch.zeros(3).byte()),
    "step": lambda state: other_outputs(state, values={"step": 1}),
    **{
        name: lambda state, name=name, value=value: dataclasses.replace(
            state, conditions=dataclasses.replace(state.conditions, **{name: value})
        )
        for name, value in {
            "dtype": "bfloat16",
            "device": "cuda",
            "num_threads": 7,
            "exact_rows": 4,
        }.items()
    },
}


@pytest.mark.parametrize("says", MISFITS)
def test_a_state_of_something_else_is_refused_and_says_why(says: str) -> None:
    (cell,) = [one for one in CELLS if one[1:] == ("dpmpp_2m", "native")][:1]
    state = run(cell, begin(cell, steps=4))[2]
    with pytest.raises(StateMisfit, match=says):
        restore([begin(cell, steps=4)], MISFITS[says](state))
    assert_same_end(go_on(cell, state, steps=4), go_on(cell, state, steps=4))


class TestRecorder:
    """A job that stands at some iteration, and a clock that is moved."""

    def recorder(self, *, seen: int = 0) -> Recorder:
        self.now = 100.0
        self.states: list[JobState] = []
        return Recorder(self.states.append, interval_s=5, clock=lambda: self.now, seen=seen)

    def test_states_come_at_intervals_and_only_if_they_are_new(self) -> None:
        cell = CELLS[0]
        recorder, trajectory = self.recorder(), begin(cell, steps=6)
        assert not recorder.is_due()
        assert recorder.take([trajectory]) is None
        run_to(cell, trajectory, 2)
        self.now += 4.9
        assert not recorder.is_due()
        self.now += 0.1
        assert recorder.is_due()
        recorder.look([trajectory])
        assert not recorder.is_due()
        self.now += 5
        assert recorder.is_due()
        recorder.look([trajectory])
        assert not recorder.is_due()  # it is looked at no more often for having stood still
        run_to(cell, trajectory, 3)
        assert recorder.take([trajectory, trajectory]) is not None
        assert [state.iteration for state in self.states] == [2]

    def test_where_the_job_went_on_from_is_nothing_new(self) -> None:
        cell = CELLS[0]
        recorder, trajectory = self.recorder(seen=2), begin(cell, steps=6)
        run_to(cell, trajectory, 2)
        assert recorder.take([trajectory]) is None
        run_to(cell, trajectory, 3)
        assert recorder.take([trajectory]) is not None

    def test_a_state_that_cannot_be_taken_harms_nobody(self) -> None:
        cell = CELLS[0]
        recorder, trajectory = self.recorder(), begin(cell, steps=6)
        run_to(cell, trajectory, 2)
        trajectory.latents = None  # type: ignore[assignment] # a fault that nobody expects
        with capture_logs() as logs:
            recorder.look([trajectory])
        assert self.states == []
        assert [line["event"] for line in logs] == ["state_not_taken"]
