import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from evals.company import Outcome, Scenario, draw_jobs
from evals.determinism import find_differing, find_off_size, stock_jobs
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import DIFFUSION_SAMPLERS, max_steps
from shared.vocab import OUTPUT_FORMATS, Determinism, Medium, Schedule

SPEC = Catalog.load(CATALOG).models["demo"]
JOBS = draw_jobs(SPEC)


def outcome(order: int, *, with_neighbours: bool = False, rows: int = 8) -> Outcome:
    digests = tuple((f"file-{job}",) for job in range(5))
    return Outcome(Scenario(0, order, with_neighbours), digests, {rows: 3}, frozenset({8}))


def test_the_jobs_are_of_all_kinds_and_each_can_be_drawn() -> None:
    assert len(JOBS) >= 24
    assert {job.sampler for job in JOBS} == set(DIFFUSION_SAMPLERS)
    assert {job.schedule for job in JOBS} == set(Schedule)
    assert {job.output_format for job in JOBS} == set(OUTPUT_FORMATS[Medium.IMAGE])
    assert {job.determinism for job in JOBS} == {Determinism.EXACT}
    assert len({(job.width, job.height) for job in JOBS}) > 1
    assert {job.is_guided for job in JOBS} == {True, False}
    assert {job.num_outputs for job in JOBS} == {1, 2}
    for job in JOBS:
        most = max_steps(job.sampler, job.schedule, SPEC, allow_undistilled=True)
        assert job.steps <= most


def test_each_sampler_is_compared_with_stock_diffusers() -> None:
    chosen = stock_jobs(JOBS)
    assert [job.sampler for job in chosen] == list(DIFFUSION_SAMPLERS)
    assert all(job.is_guided and job.schedule is Schedule.NATIVE for job in chosen)


@given(st.integers(2, 6), st.sets(st.integers(0, 4)), st.randoms(use_true_random=False))
def test_one_other_file_anywhere_is_found(
    num_orders: int, changed: set[int], rng: random.Random
) -> None:
    outcomes = [outcome(order) for order in range(num_orders)]
    for job in changed:
        where = rng.randrange(num_orders)
        digests = list(outcomes[where].digests)
        digests[job] = ("another",)
        outcomes[where] = replace(outcomes[where], digests=tuple(digests))
    assert find_differing(outcomes) == sorted(changed)


def test_a_forward_of_another_size_is_found_unless_it_may_hold_fast_jobs_only() -> None:
    assert find_off_size([outcome(0), outcome(1, with_neighbours=True, rows=5)], 8) == []
    assert find_off_size([outcome(0), outcome(1, rows=7)], 8) == ["process 0 order 1"]
    assert len(find_off_size([outcome(0, rows=4)], 4)) == 1  # the job says 8
