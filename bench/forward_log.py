"""What a simulated device did: a line of a file for each forward."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward, on the clock that all processes of a machine share, in seconds."""

    began_at: float
    ended_at: float
    rows: int

    def share_between(self, start: float, end: float) -> float:
        """Return which share of it lies between two moments."""
        took_s = self.ended_at - self.began_at
        if took_s <= 0:
            return float(start <= self.ended_at < end)
        inside_s = min(self.ended_at, end) - max(self.began_at, start)
        return max(inside_s, 0.0) / took_s


def note_forward(path: Path, forward: Forward) -> None:
    """Add a forward to a file."""
    with path.open("a") as file:
        file.write(f"{forward.began_at!r} {forward.ended_at!r} {forward.rows}\n")


def read_forwards(path: Path) -> list[Forward]:
    """Read what was noted; nothing if there is no file yet."""
    if not path.exists():
        return []
    # The last line may be on its way.
    *lines, _ = path.read_text().split("\n")
    return [_read(*line.split()) for line in lines]


def count_rows(forwards: Iterable[Forward], start: float, end: float) -> float:
    """Count the rows that went through the denoiser between two moments, parts of forwards too."""
    return sum(forward.rows * forward.share_between(start, end) for forward in forwards)


def _read(began_at: str, ended_at: str, rows: str) -> Forward:
    return Forward(float(began_at), float(ended_at), int(rows))
