"""What advances together, and in which rows of which forwards."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """What planning needs to know of a trajectory."""

    @property
    def key(self) -> Hashable:
        """What it must have in common with others to share a forward."""

    @property
    def num_rows(self) -> int:
        """How many rows of a forward it takes."""

    @property
    def max_rows(self) -> int:
        """How many rows a forward of its key may have at most."""

    @property
    def exact_rows(self) -> int | None:
        """How many rows each of its forwards must have; None leaves it free."""

    @property
    def priority(self) -> int:
        """How urgent it is, 9 most."""

    @property
    def iterations_left(self) -> int:
        """How many forwards it needs until its end."""

    @property
    def is_ended(self) -> bool:
        """Whether it needs no further forward."""


EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a forward: which entry of the batch, and which of its rows."""

    entry: int
    row: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Rows that go through the network together, then padded to `size`."""

    rows: tuple[Row, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Batch(Generic[EntryT]):
    """Entries of one key that advance together."""

    entries: tuple[EntryT, ...]

    def __iter__(self) -> Iterator[EntryT]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def forwards(self) -> list[Forward]:
        """Lay all rows out in forwards.

        Without exact entries there is one, of as many rows as there are. Exact entries fill
        forwards of exactly their size; free entries take the places that are left, and one more
        forward if they need it.
        """
        in_order = sorted(range(len(self)), key=lambda n: self.entries[n].exact_rows is None)
        rows = [Row(n, row) for n in in_order for row in range(self.entries[n].num_rows)]
        num_exact = sum(1 for row in rows if self._is_exact(row))
        if num_exact == 0:
            return [self._lay(rows)]
        size = self._lay(rows).size
        end = -(-num_exact // size) * size  # the places of whole forwards
        return self.split(rows[:end], size) + self.split(rows[end:], len(rows))

    def halve(self, forward: Forward) -> list[Forward]:
        """Split a forward that cannot be run between its entries, to find the one to blame.

        Nothing is left to be split of a single entry. Where exact entries are, the size stays.
        """
        entries = list(dict.fromkeys(row.entry for row in forward.rows))
        if len(entries) == 1:
            return []
        first = set(entries[: len(entries) // 2])
        return [
            self._lay([row for row in forward.rows if row.entry in first]),
            self._lay([row for row in forward.rows if row.entry not in first]),
        ]

    def split(self, rows: Sequence[Row], max_rows: int) -> list[Forward]:
        """Lay rows out in forwards of so many at most."""
        return [
            self._lay(rows[start : start + max_rows]) for start in range(0, len(rows), max_rows)
        ]

    def exact_entries(self, forward: Forward) -> list[int]:
        """Return those of a forward's entries that fix its size."""
        return list(dict.fromkeys(row.entry for row in forward.rows if self._is_exact(row)))

    def _is_exact(self, row: Row) -> bool:
        return self.entries[row.entry].exact_rows is not None

    def _lay(self, rows: Sequence[Row]) -> Forward:
        # Entries of a key have one size, their model's.
        sizes = (self.entries[row.entry].exact_rows for row in rows)
        size = next((size for size in sizes if size is not None), len(rows))
        return Forward(tuple(rows), size=size)
