"""How many seconds of a device a request takes, from what its stages were measured to cost."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from shared.catalog import ModelSpec
from shared.curve import Curve, cap_rows
from shared.request import GenerationRequest
from shared.vocab import Determinism

_WORKLOAD = re.compile(r"([a-z]+)/([0-9]{1,6}(?:x[0-9]{1,6}){2,3})/([0-9]{1,6})(?:/([1-9]))?")
#: A measurement above this was of a process that slept, in milliseconds.
MAX_MS = 3_600_000.0


class Stage(StrEnum):
    """What was timed."""

    #: A forward of the denoiser, by its rows.
    FORWARD = "forward"
    #: From latents to pixels, one output at a time.
    DECODE = "decode"


class Workload(NamedTuple):
    """What besides model, device and rows decides how long a stage takes."""

    stage: Stage
    latent_shape: tuple[int, ...]
    #: Of the prompt; 0 where none has a part in it.
    num_tokens: int
    num_adapters: int = 0

    def __str__(self) -> str:
        """Write it as SQL keeps it: `forward/1x4x8x8/77`, and with two adapters `.../77/2`."""
        plain = f"{self.stage}/{'x'.join(map(str, self.latent_shape))}/{self.num_tokens}"
        return f"{plain}/{self.num_adapters}" if self.num_adapters else plain

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            ValueError: It is something else.
        """
        match = _WORKLOAD.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no workload")
        stage, shape, *numbers = match.groups(default="0")
        return cls(Stage(stage), tuple(map(int, shape.split("x"))), *map(int, numbers))

    @property
    def positions(self) -> int:
        """Count the places of the latents, whatever their channels."""
        return math.prod(self.latent_shape[2:])


@dataclass(frozen=True, slots=True)
class CostCell:
    """What a stage was measured to take, in milliseconds.

    Raises:
        ValueError: No measurement gives that.
    """

    model: str
    #: The kind of device, as its worker describes it.
    device: str
    workload: Workload
    rows: int
    ms: float
    samples: int

    def __post_init__(self) -> None:
        if not 0 < self.ms <= MAX_MS or self.rows < 1 or self.samples < 1:
            raise ValueError(f"{self.ms} ms for {self.rows} rows, seen {self.samples} times")
        if self.workload.positions < 1:
            raise ValueError(f"{self.workload} has no latents")


class DeviceCosts:
    """What one model is known to cost on one kind of device."""

    def __init__(self, cells: Iterable[CostCell]) -> None:
        measured: dict[Workload, dict[int, tuple[float, float]]] = defaultdict(dict)
        for cell in cells:
            measured[cell.workload][cell.rows] = (cell.ms, min(cell.samples, 10))
        curves = {workload: Curve(table) for workload, table in measured.items()}
        # By the number of adapters.
        self._forwards: dict[int, dict[Workload, Curve]] = defaultdict(dict)
        for workload, curve in curves.items():
            if workload.stage is Stage.FORWARD:
                self._forwards[workload.num_adapters][workload] = curve
        self._decode = _by_positions(
            (workload, curve.ms(1))
            for workload, curve in curves.items()
            if workload.stage is Stage.DECODE
        )
        # Milliseconds of a row by positions, for each way in which rows share forwards.
        self._row_ms: dict[tuple[int, Determinism, int], Curve | None] = {}

    def predict_s(self, request: GenerationRequest, spec: ModelSpec) -> float | None:
        """Predict the seconds of the device that a request takes when there is more to do.

        Each of its rows is charged with its share of the forward that the engine would run: whole
        jobs up to the knee, one job where sharing gains nothing, `exact_rows` for an exact one. A
        size that was never measured is put between those that were, and with as many adapters as
        never were it costs what fewer do. None if no forward was measured.
        """
        num_rows = 2 if request.is_guided and spec.guides_by_rows else 1
        positions = count_positions(request, spec)
        num_adapters = self._nearest(len(request.adapters))
        row_ms = self._row_curve((num_rows, request.determinism, num_adapters), spec)
        if row_ms is None:
            return None
        ms = row_ms.ms(positions) * num_rows * request.iterations
        if self._decode is not None:
            ms += self._decode.ms(positions) * request.num_outputs
        return ms / 1000

    def _nearest(self, num_adapters: int) -> int:
        """Return the number of adapters whose costs are known and tell most of another number's."""
        fewer = [known for known in self._forwards if known <= num_adapters]
        return max(fewer) if fewer else min(self._forwards, default=0)

    def _row_curve(self, way: tuple[int, Determinism, int], spec: ModelSpec) -> Curve | None:
        if way not in self._row_ms:
            num_rows, determinism, num_adapters = way
            self._row_ms[way] = _by_positions(
                (workload, _row_ms(curve, num_rows, determinism, spec))
                for workload, curve in self._forwards.get(num_adapters, {}).items()
            )
        return self._row_ms[way]


@dataclass(frozen=True)
class Fleet:
    """The workers that live, and what is known of the models on their devices."""

    #: By queue, how many workers of each kind of device serve it.
    workers: Mapping[str, Mapping[str, int]]
    #: By model and kind of device.
    costs: Mapping[tuple[str, str], DeviceCosts]

    def predict_s(self, queue: str, request: GenerationRequest, spec: ModelSpec) -> float | None:
        """Predict the seconds of a device that a request of a queue takes.

        Where devices differ, the faster one takes more of the jobs: it is the harmonic mean, so
        that work over workers is the time in which they get it done. A device that has not run the
        model yet counts as the others do. None if no worker of the queue has.
        """
        num_known, per_second = 0, 0.0
        for device, num_workers in self.workers.get(queue, {}).items():
            costs = self.costs.get((spec.id, device))
            seconds = None if costs is None else costs.predict_s(request, spec)
            if seconds is not None:
                num_known += num_workers
                per_second += num_workers / seconds
        return num_known / per_second if num_known else None


def count_positions(request: GenerationRequest, spec: ModelSpec) -> int:
    """Count the places of the latents of a request's outputs."""
    if spec.sound is not None and request.duration_s is not None:
        return spec.sound.cells(request.duration_s)
    width, height = request.size
    return (width // spec.latent_factor) * (height // spec.latent_factor)


def _row_ms(curve: Curve, num_rows: int, determinism: Determinism, spec: ModelSpec) -> float:
    """Return what one row costs in the forward that the engine would run."""
    limits = {"job_rows": num_rows, "max_rows": spec.max_rows}
    if determinism is Determinism.EXACT:
        size = spec.exact_rows
    elif curve.gains_from_batching(**limits):
        size = cap_rows(curve.knee(spec.max_rows), **limits)
    else:
        size = num_rows
    return curve.ms(size) / size


def _by_positions(costs: Iterable[tuple[Workload, float]]) -> Curve | None:
    """Put costs in order of size; a picture on its side counts as the same size."""
    found: dict[int, list[float]] = defaultdict(list)
    for workload, ms in costs:
        found[workload.positions].append(ms)
    if not found:
        return None
    return Curve({size: (sum(ms) / len(ms), len(ms)) for size, ms in found.items()})
