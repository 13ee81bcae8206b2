from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.batcher import Batch, Batcher


@dataclass(eq=False)
class Ride:
    """A trajectory, as far as planning knows it."""

    key: str = "a"
    num_rows: int = 2
    max_rows: int = 8
    exact_rows: int | None = None
    priority: int = 5
    steps: int = 3
    taken: int = 0

    @property
    def is_ended(self) -> bool:
        return self.taken >= self.steps


rides = st.lists(
    st.builds(
        Ride,
        key=st.sampled_from("abc"),
        num_rows=st.integers(1, 2),
        exact_rows=st.sampled_from([None, 4]),
        priority=st.integers(0, 9),
        steps=st.integers(1, 6),
    ),
    max_size=20,
)


@given(rides)
def test_every_entry_gets_all_its_steps_and_none_starves(entries: list[Ride]) -> None:
    batcher: Batcher[Ride] = Batcher()
    for entry in entries:
        batcher.add(entry)
    rounds = 0
    while (batch := batcher.next_batch()) is not None:
        rounds += 1
        assert len({entry.key for entry in batch}) == 1
        assert sum(entry.num_rows for entry in batch) <= 8
        for entry in batch:
            entry.taken += 1
        for entry in batcher.retire(batch):
            assert entry.is_ended
    assert len(batcher) == 0
    assert all(entry.taken == entry.steps for entry in entries)
    assert rounds <= sum(entry.steps for entry in entries)


@given(rides.filter(bool))
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


@given(rides)
def test_what_runs_keeps_its_place_and_the_urgent_come_next(entries: list[Ride]) -> None:
    for entry in entries:
        entry.key = "a"
    batcher: Batcher[Ride] = Batcher()
    for entry in entries:
        batcher.add(entry)
    batch = batcher.next_batch()
    if batch is None:
        assert not entries
        return
    waiting = [entry for entry in entries if entry not in batch.entries]
    assert all(inside.priority >= outside.priority for inside in batch for outside in waiting)
    batcher.add(urgent := Ride(priority=9, num_rows=2))
    following = batcher.next_batch()
    assert following is not None
    assert following.entries[: len(batch)] == batch.entries
    assert urgent in following.entries or sum(e.num_rows for e in following) > 6


@given(st.lists(st.integers(1, 2), min_size=1, max_size=9))
def test_halves_hold_everything_once(sizes: list[int]) -> None:
    batch = Batch(tuple(Ride(num_rows=size) for size in sizes))
    if len(batch) > 1:
        first, second = batch.halves()
        assert first.entries + second.entries == batch.entries
        assert abs(len(first) - len(second)) <= 1


def test_keys_take_turns() -> None:
    batcher: Batcher[Ride] = Batcher()
    for key in "abab":
        batcher.add(Ride(key=key))
    turns = []
    for _ in range(4):
        batch = batcher.next_batch()
        assert batch is not None
        turns.append(batch.entries[0].key)
    assert turns == ["a", "b", "a", "b"]
    assert len(batcher.discard(lambda entry: entry.key == "a")) == 2
    assert len(batcher) == 2
