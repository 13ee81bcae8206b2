from hypothesis import given
from hypothesis import strategies as st

from worker.engine.last_call import choose_to_finish


@given(
    left_ms=st.dictionaries(st.integers(), st.none() | st.floats(0, 1000), max_size=9),
    within_ms=st.floats(0, 3000),
)
def test_what_is_finished_fits_and_nothing_shorter_is_left_out(
    left_ms: dict[int, float | None], within_ms: float
) -> None:
    chosen = choose_to_finish(left_ms, within_ms=within_ms)
    times = sorted(ms for ms in left_ms.values() if ms is not None)
    taken = [left_ms[key] for key in chosen]
    assert None not in taken
    assert sum(times[: len(chosen)]) <= within_ms
    assert sorted(ms for ms in taken if ms is not None) == times[: len(chosen)]
    if len(chosen) < len(times):
        assert sum(times[: len(chosen) + 1]) > within_ms
