from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.rides import Ride
from worker.engine.batch import Batch

rides = st.lists(
    st.builds(Ride, num_rows=st.integers(1, 2), exact_rows=st.sampled_from([None, 4])),
    min_size=1,
    max_size=20,
)


@given(rides)
def test_rows_are_laid_out_once_and_exact_ones_in_forwards_of_their_size(
    entries: list[Ride],
) -> None:
    forwards = Batch(tuple(entries)).forwards()
    rows = [row for forward in forwards for row in forward.rows]
    assert sorted((row.entry, row.row) for row in rows) == [
        (n, row) for n, entry in enumerate(entries) for row in range(entry.num_rows)
    ]
    for forward in forwards:
        assert 1 <= len(forward.rows) <= forward.size
        if any(entries[row.entry].exact_rows is not None for row in forward.rows):
            assert forward.size == 4


@given(st.lists(st.integers(1, 2), min_size=2, max_size=9))
def test_halves_hold_everything_once(sizes: list[int]) -> None:
    batch = Batch(tuple(Ride(num_rows=size) for size in sizes))
    first, second = batch.halves()
    assert first.entries + second.entries == batch.entries
    assert abs(len(first) - len(second)) <= 1
