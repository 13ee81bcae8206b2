import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.slope import fit_slope

X = [float(n) for n in range(40)]


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_line_without_noise_has_its_own_slope_and_no_error(slope: float, start: float) -> None:
    fitted = fit_slope(X, [start + slope * x for x in X])
    assert fitted.value == pytest.approx(slope, abs=1e-6)
    assert fitted.error == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 2**32))
def test_noise_is_within_the_error_and_a_leak_is_not(seed: int) -> None:
    rng = random.Random(seed)
    noise = [rng.gauss(0, 1) for _ in X]
    flat, leaking = (
        fit_slope(X, noise),
        fit_slope(X, [n + x for n, x in zip(noise, X, strict=True)]),
    )
    # Five standard errors: no seed of a million is beyond.
    assert abs(flat.value) < 5.5 * flat.error
    assert leaking.is_growth(tolerance=0.1)
    assert not leaking.is_growth(tolerance=1.5)
    assert leaking.value == pytest.approx(flat.value + 1)


def test_neighbours_that_are_alike_make_the_error_larger() -> None:
    steps = [float(n // 10 % 2) for n in range(40)]
    shuffled = random.Random(1).sample(steps, k=len(steps))
    assert fit_slope(X, steps).error > 1.5 * fit_slope(X, shuffled).error


def test_shrinking_is_no_growth() -> None:
    assert not fit_slope(X, [-x for x in X]).is_growth(tolerance=0)


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="four"):
        fit_slope([1, 2, 3], [1, 2, 3])
