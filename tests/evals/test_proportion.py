import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.proportion import Proportion


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_shrinks_with_the_sample(counts: tuple[int, int]) -> None:
    hits, count = counts
    low, high = Proportion(hits, count).interval
    assert 0 <= low <= hits / count + 1e-9
    assert hits / count - 1e-9 <= high <= 1
    wide = high - low
    low, high = Proportion(10 * hits, 10 * count).interval
    assert high - low < wide


def test_a_known_interval() -> None:
    # Newcombe (1998), table I: 81 of 263.
    low, high = Proportion(81, 263).interval
    assert (low, high) == (pytest.approx(0.2553, abs=1e-3), pytest.approx(0.3662, abs=1e-3))


def test_nothing_says_nothing() -> None:
    assert Proportion.of([]).interval == (0.0, 1.0)
    assert Proportion.of([True, False, True]).hits == 2
