"""The device that is measured, and the clocks that tell how long it took."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from bench.pinning import pinned_to_one_core

NAMES = ("cpu", "cuda", "mps")

DeviceName = Annotated[
    str, typer.Option("--device", help=f"What to measure: {', '.join(NAMES)}.", metavar="DEVICE")
]


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """A device that is here.

    A processor's work is counted in CPU seconds, in which no other program has a part. A GPU's own
    time shows on the wall only, so that the machine must have nothing else to do.
    """

    name: str
    #: Seconds of the whole process.
    clock: Callable[[], float]
    #: Seconds of one thread.
    thread_clock: Callable[[], float]

    @property
    def unit(self) -> str:
        """What the clocks count."""
        return "CPU s" if self.name == "cpu" else "s"

    def quiet(self) -> AbstractContextManager[None]:
        """Keep the processor's work in one place; a GPU's driver has threads of its own."""
        return pinned_to_one_core() if self.name == "cpu" else nullcontext()


def find_device(name: str) -> MeasuredDevice:
    """Find a device by the name of its kind.

    Raises:
        typer.BadParameter: There is no such kind, or this machine has none.
    """
    if name not in NAMES:
        raise typer.BadParameter(f"one of {', '.join(NAMES)}", param_hint="--device")
    if name == "cpu":
        return MeasuredDevice(name, time.process_time, time.thread_time)
    is_here = torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()
    if not is_here:
        raise typer.BadParameter(
            f"this machine has no {name} that torch {torch.__version__} can use; nothing was "
            "measured",
            param_hint="--device",
        )
    return MeasuredDevice(name, time.perf_counter, time.perf_counter)


def milli(unit: str) -> str:
    """Name the thousandth of a clock's unit."""
    return unit.replace("s", "ms")
