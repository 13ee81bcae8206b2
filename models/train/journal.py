"""A training's log: a line of CSV now and then, and a plot of it."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from matplotlib import pyplot


class Journal:
    """Writes means over the steps since the last line; a training that goes on appends."""

    def __init__(self, path: Path, *, every: int) -> None:
        self._path = path
        self._every = every
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()

    def note(self, step: int, values: Mapping[str, float], *, samples: int) -> None:
        """Take in one step's values; `samples` is how many it saw."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if step % self._every:
            return
        seconds = time.monotonic() - self._since
        row = {"step": step, "samples_per_s": round(self._count * samples / seconds, 1)}
        row |= {name: round(total / self._count, 5) for name, total in self._sums.items()}
        self._write(row)
        self._sums, self._count, self._since = {}, 0, time.monotonic()

    def _write(self, row: Mapping[str, float]) -> None:
        is_new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def plot(log: Path, picture: Path) -> None:
    """Draw each column of a log over its steps, each to its own scale."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    names = [name for name in rows[0] if name != "step"]
    figure, axes = pyplot.subplots(len(names), sharex=True, figsize=(8, 2 * len(names)))
    for axis, name in zip(axes, names, strict=True):
        axis.plot(steps, [float(row[name]) for row in rows])
        axis.set_ylabel(name)
    axes[-1].set_xlabel("step")
    figure.savefig(picture, dpi=100, bbox_inches="tight")
    pyplot.close(figure)
