"""What advances together, and in which rows of which forwards."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """What planning needs to know of a trajectory."""

    @property
    def key(self) -> Hashable:
        """What it must have in common with others to share a forward."""

    @property
    def cost_key(self) -> Hashable:
        """What its forwards cost by."""

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

    def halves(self) -> "tuple[Batch[EntryT], Batch[EntryT]]":
        """Split the batch to find out which half cannot be run."""
        middle = len(self.entries) // 2
        return Batch(self.entries[:middle]), Batch(self.entries[middle:])

    def forwards(self) -> list[Forward]:
        """Lay all rows out in forwards.

        Without exact entries there is one, of as many rows as there are. Exact entries fill
        forwards of exactly their size; free entries take the places that are left, and one more
        forward if they need it.
        """
        exact = [entry.exact_rows for entry in self.entries if entry.exact_rows is not None]
        in_order = sorted(range(len(self)), key=lambda n: self.entries[n].exact_rows is None)
        rows = [Row(n, row) for n in in_order for row in range(self.entries[n].num_rows)]
        if not exact:
            return [Forward(tuple(rows), size=len(rows))]
        size = exact[0]
        num_exact = sum(1 for row in rows if self.entries[row.entry].exact_rows is not None)
        end = -(-num_exact // size) * size  # the places of whole forwards
        forwards = [
            Forward(tuple(rows[start : start + size]), size=size) for start in range(0, end, size)
        ]
        if rest := rows[end:]:
            forwards.append(Forward(tuple(rest), size=len(rest)))
        return forwards
