"""What a figure must reach."""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.report import Table


@dataclass(frozen=True, slots=True)
class Gate:
    """A measured figure and its limit on one side."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the figure is on the right side; one that is not a number never is."""
        is_high = self.at_least is None or self.value >= self.at_least
        is_low = self.at_most is None or self.value <= self.at_most
        return is_high and is_low

    @property
    def limit(self) -> str:
        """The limit in words."""
        parts = {"at least": self.at_least, "at most": self.at_most}
        return ", ".join(f"{side} {limit:g}" for side, limit in parts.items() if limit is not None)


def tabulate(gates: Sequence[Gate]) -> Table:
    """Show figures beside what they must reach."""
    rows = [
        [gate.name, f"{gate.value:.3f}", gate.limit, "" if gate.passes else "missed"]
        for gate in gates
    ]
    return Table("Targets", ["figure", "median", "target", ""], rows)
