import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.arrivals import VirtualClock, poisson_arrivals


@settings(max_examples=20)
@given(rate=st.floats(0.01, 100), seed=st.integers(0, 2**32))
def test_arrivals_rise_and_come_at_their_rate(rate: float, seed: int) -> None:
    moments = poisson_arrivals(rate, 4000, seed=seed)
    assert all(early < late for early, late in itertools.pairwise([0.0, *moments]))
    # The mean gap of 4,000 has a standard error of 1.6 %.
    assert moments[-1] * rate / 4000 == pytest.approx(1, abs=0.1)
    # At twice the rate all come in half the time: the traces of all loads are alike.
    assert poisson_arrivals(2 * rate, 4000, seed=seed) == pytest.approx([m / 2 for m in moments])


@given(st.lists(st.tuples(st.sampled_from(["work", "skip"]), st.floats(0, 100)), max_size=20))
def test_the_clock_counts_work_and_what_was_skipped_and_never_goes_back(
    happenings: list[tuple[str, float]],
) -> None:
    used = 7.0
    clock = VirtualClock(lambda: used)
    now = 0.0
    for what, seconds in happenings:
        if what == "work":
            used += seconds
            now += seconds
        else:
            clock.skip_to(seconds)
            now = max(now, seconds)
        assert clock.now() == pytest.approx(now)
