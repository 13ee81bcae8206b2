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
        else:
            assert forward.size == len(forward.rows)


@given(rides)
def test_halves_hold_everything_once_and_whole_entries(entries: list[Ride]) -> None:
    batch = Batch(tuple(entries))
    for forward in batch.forwards():
        halves = batch.halve(forward)
        held = [{row.entry for row in half.rows} for half in halves]
        if not halves:
            assert len({row.entry for row in forward.rows}) == 1
            continue
        assert sorted((row for half in halves for row in half.rows), key=repr) == sorted(
            forward.rows, key=repr
        )
        assert not held[0] & held[1]
        assert abs(len(held[0]) - len(held[1])) <= 1
        for half in halves:
            is_exact = any(entries[row.entry].exact_rows is not None for row in half.rows)
            assert half.size == (4 if is_exact else len(half.rows))


@given(rides, st.integers(1, 40))
def test_what_is_split_is_all_there_in_order_and_no_larger(
    entries: list[Ride], max_rows: int
) -> None:
    free = Batch(tuple(ride for ride in entries if ride.exact_rows is None))
    for forward in free.forwards() if len(free) else []:
        parts = free.split(forward.rows, max_rows)
        assert tuple(row for part in parts for row in part.rows) == forward.rows
        assert all(1 <= len(part.rows) == part.size <= max_rows for part in parts)
