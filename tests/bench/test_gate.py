import math

from hypothesis import given
from hypothesis import strategies as st

from bench.curve import BatchCurve
from bench.gate import Gate


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_gate_has_two_sides_and_its_limit_is_on_the_right_one(value: float, limit: float) -> None:
    assert Gate("figure", value, at_least=limit).passes == (value >= limit)
    assert Gate("figure", value, at_most=limit).passes == (value <= limit)


def test_what_is_not_a_number_passes_nothing() -> None:
    assert not Gate("figure", math.nan, at_least=0.9).passes
    assert not Gate("figure", math.nan, at_most=0.9).passes


@given(st.dictionaries(st.integers(2, 64), st.floats(1e-3, 10)), st.floats(1e-3, 10))
def test_no_number_of_rows_is_faster_than_the_best(others: dict[int, float], one: float) -> None:
    curve = BatchCurve({1: one} | others)
    assert all(rows / seconds <= curve.best_rate for rows, seconds in curve.seconds.items())
    assert curve.gain >= 1 - 1e-9
