from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.curve import BatchCurve
from bench.forward_log import Forward, count_rows, note_forward, read_forwards

moments = st.floats(0, 1e6, allow_nan=False)
lengths = st.floats(0, 10)


@st.composite
def forwards(draw: st.DrawFn) -> Forward:
    began_at = draw(moments)
    return Forward(began_at, began_at + draw(lengths), draw(st.integers(1, 64)))


@given(st.lists(forwards()))
def test_what_is_read_is_what_was_noted(
    tmp_path_factory: pytest.TempPathFactory, done: list[Forward]
) -> None:
    path = tmp_path_factory.mktemp("log") / "forwards"
    for forward in done:
        note_forward(path, forward)
    assert read_forwards(path) == done


def test_a_line_that_is_on_its_way_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "forwards"
    note_forward(path, Forward(1.0, 2.0, 8))
    with path.open("a") as file:
        file.write("2.0 3.")
    assert read_forwards(path) == [Forward(1.0, 2.0, 8)]
    assert read_forwards(tmp_path / "none") == []


@given(st.lists(forwards(), max_size=20), st.lists(moments, min_size=2, max_size=5))
def test_windows_share_the_rows_and_lose_none(done: list[Forward], cuts: list[float]) -> None:
    cuts = [-1.0, *sorted(cuts), 2e6]
    in_windows = sum(count_rows(done, start, end) for start, end in pairwise(cuts))
    assert in_windows == pytest.approx(sum(forward.rows for forward in done), abs=1e-3)


def test_a_forward_counts_by_the_part_that_lies_in_the_window() -> None:
    done = [Forward(0.0, 4.0, 8), Forward(4.0, 5.0, 2)]
    assert count_rows(done, 3.0, 4.5) == 8 / 4 + 2 / 2


def test_a_curve_goes_through_what_was_measured_and_a_faster_device_is_so_throughout() -> None:
    curve = BatchCurve({1: 0.2, 4: 0.5, 8: 0.9})
    assert [curve.predict_s(rows) for rows in (1, 4, 8)] == pytest.approx([0.2, 0.5, 0.9])
    assert curve.predict_s(2) == pytest.approx(0.3)
    assert curve.predict_s(16) == pytest.approx(1.8)
    assert curve.faster(4).predict_s(2) == pytest.approx(0.075)
