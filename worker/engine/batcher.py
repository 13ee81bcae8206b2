"""Decide which trajectories advance next: planning, no tensors."""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic

from worker.engine.batch import Batch, EntryT
from worker.engine.cost import CostModel
from worker.engine.headroom import Headroom
from worker.engine.lane import Lane, Seat
from worker.engine.shares import Shares

#: What a lane may use in a turn, in milliseconds, if all of its tenants are in it alone.
QUANTUM_MS = 20.0


class Batcher(Generic[EntryT]):
    """Say who goes next.

    Keys take turns by deficit round robin in milliseconds of the device; those with the most
    urgent entries only. Inside of a key see `Lane`.

    Source: Shreedhar & Varghese (1995), deficit round robin; a turn is charged when it is over.
    """

    def __init__(self, costs: CostModel, headroom: Headroom) -> None:
        self._costs = costs
        self._headroom = headroom
        # The first lane has its turn next.
        self._lanes: dict[Hashable, Lane[EntryT]] = {}
        self._shares = Shares()
        # Who is in the forward, and since when.
        self._in_turn: list[Seat[EntryT]] = []
        self._began_at = 0.0

    def __len__(self) -> int:
        return sum(len(lane.seats) for lane in self._lanes.values())

    def add(self, entry: EntryT, *, tenant: str, now: float) -> None:
        """Let a tenant's entry wait for its first forward; `now` is in seconds."""
        lane = self._lanes.setdefault(entry.key, Lane(self._costs, self._headroom))
        lane.seats.append(Seat(entry, tenant, now))
        self._shares.join(tenant)

    def next_batch(self, *, now: float) -> Batch[EntryT] | None:
        """Return the entries that advance next; None if there are none at all."""
        if not self._lanes:
            return None
        self._began_at = now
        lane = self._take_turn()
        self._in_turn = lane.choose(now=now, leads=self._shares.leads())
        return Batch(tuple(seat.entry for seat in self._in_turn))

    def retire(self, batch: Batch[EntryT], *, now: float) -> list[EntryT]:
        """Charge a batch for its time, take its ended entries out and return them."""
        ms = 1000 * (now - self._began_at)
        self._lanes[batch.entries[0].key].credit_ms -= ms
        num_rows = sum(entry.num_rows for entry in batch)
        for seat in self._in_turn:
            self._shares.charge(seat.tenant, ms * seat.entry.num_rows / num_rows)
        return self.discard(lambda entry: entry.is_ended) if any(e.is_ended for e in batch) else []

    def discard(self, is_unwanted: Callable[[EntryT], bool]) -> list[EntryT]:
        """Take all entries out that a condition holds for, and return them."""
        unwanted: list[Seat[EntryT]] = []
        for key, lane in list(self._lanes.items()):
            unwanted += [seat for seat in lane.seats if is_unwanted(seat.entry)]
            lane.seats = [seat for seat in lane.seats if not is_unwanted(seat.entry)]
            if not lane.seats:
                del self._lanes[key]
        for seat in unwanted:
            self._shares.leave(seat.tenant)
        return [seat.entry for seat in unwanted]

    def _take_turn(self) -> Lane[EntryT]:
        """Return the lane whose turn it is, among those with the most urgent entries."""
        top = max(lane.priority for lane in self._lanes.values())
        turns = [(key, lane) for key, lane in self._lanes.items() if lane.priority == top]
        if len(turns) == 1:
            turns[0][1].credit_ms = 0.0  # nobody waited for it
            return turns[0][1]
        weights = self._weigh()
        while turns[0][1].credit_ms <= 0:
            key, lane = turns.pop(0)
            lane.credit_ms += QUANTUM_MS * weights[key]
            turns.append((key, lane))
            self._lanes[key] = self._lanes.pop(key)
        return turns[0][1]

    def _weigh(self) -> dict[Hashable, float]:
        """Weigh lanes by their tenants, so that more keys are no more of the device."""
        tenants = {key: lane.tenants for key, lane in self._lanes.items()}
        num_lanes = Counter(name for names in tenants.values() for name in names)
        return {key: sum(1 / num_lanes[name] for name in names) for key, names in tenants.items()}
