from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mix import KINDS, Kind, draw_jobs, draw_mix, kind_of, row_iterations
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import max_steps

SPEC = Catalog.load(CATALOG).models["demo"]


@given(decks=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_a_mix_is_the_same_for_a_seed_and_holds_each_kind_equally_often(
    decks: int, seed: int
) -> None:
    jobs = draw_mix(SPEC, decks=decks, seed=seed)
    assert jobs == draw_mix(SPEC, decks=decks, seed=seed)
    seen = Counter((job.sampler, job.schedule, job.steps, job.is_guided) for job in jobs)
    assert seen == {
        (kind.sampler, kind.schedule, kind.steps, kind.is_guided): decks for kind in KINDS
    }


def test_the_mix_is_the_one_that_the_figures_are_about() -> None:
    jobs = draw_mix(SPEC, decks=1, seed=1)
    assert (min(job.steps for job in jobs), max(job.steps for job in jobs)) == (4, 50)
    assert sum(job.is_guided for job in jobs) / len(jobs) == pytest.approx(0.58, abs=0.005)
    assert all(job.steps <= max_steps(job.sampler, job.schedule, SPEC) for job in jobs)
    assert draw_mix(SPEC, decks=1, seed=2) != jobs


def test_a_guided_job_has_two_rows_in_each_of_its_forwards() -> None:
    heun = next(job for job in draw_mix(SPEC, decks=1, seed=1) if job.sampler == "heun")
    assert row_iterations(heun) == 2 * (2 * 10 - 1)


@given(kinds=st.lists(st.sampled_from(KINDS), max_size=5), seed=st.integers(0, 2**32))
def test_jobs_are_of_the_kinds_that_were_given(kinds: list[Kind], seed: int) -> None:
    jobs = draw_jobs(SPEC, kinds, seed=seed)
    assert [kind_of(job) for job in jobs] == kinds
    assert jobs == draw_jobs(SPEC, kinds, seed=seed)
