"""Intervals by drawing cases again."""

import numpy as np
import pytest

from evals.bootstrap import find_interval, show
from evals.proportion import Proportion


def test_a_share_gets_about_the_interval_that_theory_gives() -> None:
    hits = np.arange(400) < 300
    low, high = find_interval(lambda cases: float(hits[cases].mean()), len(hits))
    assert (low, high) == pytest.approx(Proportion.of(hits.tolist()).interval, abs=0.01)


def test_what_was_measured_on_the_same_cases_stays_together() -> None:
    values = np.random.default_rng(1).normal(size=100)
    other = values + 1
    low, high = find_interval(lambda cases: float((other[cases] - values[cases]).mean()), 100)
    assert (low, high) == pytest.approx((1, 1))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=50)

    def interval(seed: int) -> tuple[float, float]:
        return find_interval(lambda cases: float(np.median(values[cases])), 50, seed=seed)

    assert interval(3) == interval(3) != interval(4)


def test_a_figure_is_written_with_its_interval() -> None:
    assert show(0.9, (0.873, 0.922), ".1%") == "90.0% (87.3% to 92.2%)"
