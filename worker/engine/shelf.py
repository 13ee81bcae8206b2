"""The models that are warm: what they take, who uses them, and who has to leave for another."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from worker.engine.families.family import Family


@dataclass(slots=True, eq=False)
class Place:
    """A warm model."""

    family: Family
    num_bytes: int
    #: How many use it now.
    pins: int = 0


class Shelf:
    """Warm models within a budget of bytes, the least recently used first; used by one thread."""

    def __init__(self, budget_bytes: float) -> None:
        self.budget_bytes = budget_bytes
        #: What is taken by a model that is still on its way here.
        self.reserved_bytes = 0
        self._places: OrderedDict[str, Place] = OrderedDict()

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, model_id: str) -> Place:
        return self._places[model_id]

    @property
    def used_bytes(self) -> int:
        """What all take, the one on its way too."""
        return self.reserved_bytes + sum(place.num_bytes for place in self._places.values())

    def fits(self, num_bytes: int) -> bool:
        """Tell whether there is room for so much."""
        return self.used_bytes + num_bytes <= self.budget_bytes

    def put(self, model_id: str, family: Family, num_bytes: int) -> None:
        """Take a model in, as the most recently used."""
        self._places[model_id] = Place(family, num_bytes)

    def touch(self, model_id: str) -> Place:
        """Use a model: now it is the most recently used."""
        self._places.move_to_end(model_id)
        return self._places[model_id]

    def drop(self, model_id: str) -> Place:
        """Let a model go."""
        return self._places.pop(model_id)

    def leaving(self, num_bytes: int) -> list[str]:
        """Name those that have to leave before so much fits, in their order.

        Those that nobody uses go before those in use, and the least recently used first.
        """
        leaving = []
        excess = self.used_bytes + num_bytes - self.budget_bytes
        for name in sorted(self._places, key=lambda name: self._places[name].pins > 0):
            if excess <= 0:
                break
            leaving.append(name)
            excess -= self._places[name].num_bytes
        return leaving
