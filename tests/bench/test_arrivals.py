import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.arrivals import (
    CANDIDATES,
    Trace,
    VirtualClock,
    draw_trace,
    draw_typical_trace,
    poisson_arrivals,
)
from bench.mix import KINDS
from bench.policies import Arrival, pick_first, serve_groups

SERVICES = {kind: 0.1 * kind.steps for kind in KINDS}


@settings(max_examples=20)
@given(rate=st.floats(0.01, 100), seed=st.integers(0, 2**32))
def test_arrivals_rise_and_come_at_their_rate(rate: float, seed: int) -> None:
    moments = poisson_arrivals(rate, 4000, seed=seed)
    assert all(early < late for early, late in itertools.pairwise([0.0, *moments]))
    # The mean gap of 4,000 has a standard error of 1.6 %.
    assert moments[-1] * rate / 4000 == pytest.approx(1, abs=0.1)
    # At twice the rate all come in half the time: the traces of all loads are alike.
    assert poisson_arrivals(2 * rate, 4000, seed=seed) == pytest.approx([m / 2 for m in moments])


@given(st.integers(1, 60), st.floats(0.05, 5), st.integers(0, 2**32))
def test_fifo_follows_from_the_times_of_the_kinds_alone(count: int, rate: float, seed: int) -> None:
    trace = draw_trace(rate, count, seed=seed)
    used = 0.0
    left = iter(trace.kinds)

    def serve_next(_group: object) -> None:
        nonlocal used
        used += SERVICES[next(left)]

    # The general way to serve arrivals, of which this is the simplest.
    arrivals = [Arrival(moment, None) for moment in trace.moments]  # type: ignore[arg-type]
    served = serve_groups(arrivals, pick_first, serve_next, VirtualClock(lambda: used))
    assert trace.fifo(SERVICES) == pytest.approx(served)


def test_all_kinds_are_equally_likely() -> None:
    kinds = draw_trace(1.0, 12_000, seed=1).kinds
    # Twelve kinds: a thousand each, with a standard error of 30.
    assert all(kinds.count(kind) == pytest.approx(1000, abs=150) for kind in KINDS)


def test_a_typical_trace_is_as_bad_for_a_queue_as_all_are_on_average() -> None:
    rate = 0.8 / statistics.fmean(SERVICES.values())

    def mean_of(trace: Trace) -> float:
        return statistics.fmean(trace.fifo(SERVICES))

    candidates = [draw_trace(rate, 100, seed=seed) for seed in range(CANDIDATES, 2 * CANDIDATES)]
    means = [mean_of(trace) for trace in candidates]
    typical = draw_typical_trace(rate, 100, SERVICES, number=1)
    assert typical in candidates
    assert mean_of(typical) == pytest.approx(statistics.fmean(means), rel=0.05)
    assert max(means) > 2 * min(means)
    assert draw_typical_trace(rate, 100, SERVICES, number=2) not in candidates


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
