"""Decide which trajectories share the next forward, and in which rows: planning, no tensors."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
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
        """How many rows a forward of its key may have."""

    @property
    def exact_rows(self) -> int | None:
        """How many rows each of its forwards must have; None leaves it free."""

    @property
    def priority(self) -> int:
        """How urgent it is, 9 most."""

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


@dataclass(slots=True)
class _Lane(Generic[EntryT]):
    """All entries of one key."""

    running: list[EntryT] = field(default_factory=list)
    waiting: list[EntryT] = field(default_factory=list)

    def admit(self) -> None:
        """Let waiting entries in, in their order, as far as the rows allow; one always fits."""
        while self.waiting:
            taken = sum(entry.num_rows for entry in self.running)
            newcomer = self.waiting[0]
            if self.running and taken + newcomer.num_rows > newcomer.max_rows:
                return
            self.running.append(self.waiting.pop(0))


class Batcher(Generic[EntryT]):
    """Keep the order of entries: urgent first, then by arrival; what runs keeps its place.

    Keys take turns, one forward each, so that none starves.
    """

    def __init__(self) -> None:
        # The first lane has its turn next.
        self._lanes: dict[Hashable, _Lane[EntryT]] = {}

    def __len__(self) -> int:
        return sum(len(lane.running) + len(lane.waiting) for lane in self._lanes.values())

    def add(self, entry: EntryT) -> None:
        """Let an entry wait for its first forward."""
        lane = self._lanes.setdefault(entry.key, _Lane())
        lane.waiting.append(entry)
        lane.waiting.sort(key=lambda waiting: -waiting.priority)  # stable: arrival decides then

    def next_batch(self) -> Batch[EntryT] | None:
        """Return the entries of the next forward; None if there are none at all."""
        for key in list(self._lanes):
            lane = self._lanes.pop(key)
            lane.admit()
            if lane.running:
                self._lanes[key] = lane
                return Batch(tuple(lane.running))
        return None

    def retire(self, batch: Batch[EntryT]) -> list[EntryT]:
        """Take the ended entries of a batch out and return them."""
        return self.discard(lambda entry: entry.is_ended) if any(e.is_ended for e in batch) else []

    def discard(self, is_unwanted: Callable[[EntryT], bool]) -> list[EntryT]:
        """Take all entries out that a condition holds for, and return them."""
        unwanted = []
        for lane in self._lanes.values():
            for entries in (lane.running, lane.waiting):
                unwanted += [entry for entry in entries if is_unwanted(entry)]
                entries[:] = [entry for entry in entries if not is_unwanted(entry)]
        return unwanted
