"""The entries of one key: who of them is in the next forward."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic

from worker.engine.batch import Entry, EntryT
from worker.engine.cost import CostModel
from worker.engine.headroom import Headroom

#: How much work a job may have left more than another of its tenant for each unit of time that it
#: came earlier. 0 would be shortest first without mercy, infinity first come first served.
AGEING_RATE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Seat(Generic[EntryT]):
    """An entry, whose it is and when it came, in seconds."""

    entry: EntryT
    tenant: str
    arrived_at: float


@dataclass(slots=True, eq=False)
class Lane(Generic[EntryT]):
    """All entries of one key, in the order in which they came.

    None of them has a place for good: at each step boundary another may overtake it. Who pauses
    keeps its latents and its scheduler, and costs nothing else.
    """

    costs: CostModel
    headroom: Headroom
    seats: list[Seat[EntryT]] = field(default_factory=list)
    #: Milliseconds of the device that it may use before the next lane's turn.
    credit_ms: float = 0.0

    @property
    def priority(self) -> int:
        """The most urgent entry's."""
        return max(seat.entry.priority for seat in self.seats)

    @property
    def tenants(self) -> set[str]:
        """Whose entries they are."""
        return {seat.tenant for seat in self.seats}

    def choose(self, *, now: float, leads: Mapping[str, float]) -> list[Seat[EntryT]]:
        """Choose the entries of the next forward: in order of rank, each that still fits.

        The first always does. Where an exact entry is among them, its padding is there to be used.

        Args:
            now: The time, in seconds.
            leads: How far each tenant is ahead of the least served one, in milliseconds.
        """
        cap = self._row_cap()
        if sum(seat.entry.num_rows for seat in self.seats) <= cap:
            return self.seats.copy()
        chosen: list[Seat[EntryT]] = []
        taken = 0
        for seat in self._rank(now, leads):
            if chosen and taken + seat.entry.num_rows > cap:
                continue  # one behind it may have fewer rows
            chosen.append(seat)
            taken += seat.entry.num_rows
            cap = max(cap, seat.entry.exact_rows or 0)
        return chosen

    def _rank(self, now: float, leads: Mapping[str, float]) -> list[Seat[EntryT]]:
        """Order the entries: urgent first, then by when a fair share would have ended them.

        Each tenant's own order is shortest first with ageing. An entry's turn comes when its tenant
        has had less than any other would have had, were their next entries done.

        Source: Demers et al. (1989), fair queueing by finish times, with jobs for packets.
        """
        left_ms = {seat: predict_left_ms(self.costs, seat.entry) or 0.0 for seat in self.seats}
        waited_ms = {seat: 1000 * (now - seat.arrived_at) for seat in self.seats}
        own_order = sorted(
            self.seats,
            key=lambda seat: (
                -seat.entry.priority,
                left_ms[seat] - AGEING_RATE * waited_ms[seat],
            ),
        )
        had_ms = dict(leads)
        ends_ms = {}
        for seat in own_order:
            had_ms[seat.tenant] += left_ms[seat]
            ends_ms[seat] = had_ms[seat.tenant]
        return sorted(own_order, key=lambda seat: (-seat.entry.priority, ends_ms[seat]))

    def _row_cap(self) -> int:
        """Return how many rows may share a forward: one job's, where more would gain nothing."""
        entry = self.seats[0].entry
        job_rows = max(seat.entry.num_rows for seat in self.seats)
        limits = {"job_rows": job_rows, "max_rows": entry.max_rows}
        if not self.costs.gains_from_batching(entry.cost_key, **limits):
            return 1
        fitting = self.headroom.cap(entry.cost_key, max_rows=entry.max_rows)
        return min(self.costs.row_cap(entry.cost_key, **limits), fitting)


def predict_left_ms(costs: CostModel, entry: Entry) -> float | None:
    """Predict how long an entry would take alone to its end; None while nothing is known."""
    size = entry.exact_rows or entry.num_rows
    ms = costs.predict_ms(entry.cost_key, size)
    return None if ms is None else ms * -(-entry.num_rows // size) * entry.iterations_left
