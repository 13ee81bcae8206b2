"""Is a picture of a label stock diffusers' own? A part of `python -m evals.parity`.

For a tiny class-conditional transformer: alone, pixels must equal those of DiTPipeline bit for bit.
In the company of all the others, with mixed labels, steps and guidance, a rounding may be seen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiTPipeline
from numpy.typing import NDArray

from evals.report import Table
from evals.stock import FLAGS, SCHEDULERS
from evals.tiny_dit import LABELS, SIDE, write_tiny_dit
from evals.together import run_together
from shared.catalog import Catalog
from shared.request import GenerationRequest
from shared.vocab import Sampler, Schedule
from worker.engine import Engine, EngineConfig, ModelCache

LABEL_FAMILY = "dit"
#: Most levels of 255 that company may change.
MAX_LEVELS = 1
#: The pipeline scales its first noise for no sampler and hands none a generator: these need
#: neither.
SAMPLERS = (
    Sampler.DDIM,
    Sampler.DPMPP_2M,
    Sampler.DPMPP_SINGLESTEP,
    Sampler.UNIPC,
    Sampler.DEIS,
    Sampler.PNDM,
)
#: Those that diffusers has its own schedules for.
FLAGGED = (Sampler.DPMPP_2M, Sampler.DPMPP_SINGLESTEP, Sampler.UNIPC, Sampler.DEIS)
GUIDANCES = (4.0, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """How far a request's pictures are from stock diffusers'."""

    sampler: Sampler
    schedule: Schedule
    steps: int
    guidance: float
    label: int | None
    is_bitwise_alone: bool
    most_levels: int

    @property
    def passes(self) -> bool:
        """Whether alone is equal and company changes rounding only."""
        return self.is_bitwise_alone and self.most_levels <= MAX_LEVELS


def compare_labels(folder: Path, steps: Sequence[int]) -> list[LabelRow]:
    """Draw each request with stock diffusers, alone, and together with all the others."""
    catalog = Catalog.load(write_tiny_dit(folder / "dit"))
    (spec,) = catalog.models.values()
    models = ModelCache(catalog, "cpu")
    models.load(spec.id)
    stock = StockLabels(spec.path)
    requests = make_requests(spec.id, steps)
    rows = []
    for request, company in zip(requests, draw_together(models, requests), strict=True):
        theirs = stock.draw(request)
        (alone,) = draw_together(models, [request])
        rows.append(
            LabelRow(
                sampler=request.sampler,
                schedule=request.schedule,
                steps=request.steps,
                guidance=request.guidance,
                label=request.class_label,
                is_bitwise_alone=np.array_equal(alone, theirs),
                most_levels=int(np.abs(company.astype(int) - theirs).max()),
            )
        )
    return rows


def make_requests(model_id: str, steps: Sequence[int]) -> list[GenerationRequest]:
    """List requests for every sampler, with and without guidance, and for every schedule."""
    cells = [
        *itertools.product(SAMPLERS, [Schedule.NATIVE], GUIDANCES),
        *itertools.product(FLAGGED, FLAGS, GUIDANCES[:1]),
    ]
    turns = zip(cells, itertools.cycle(LABELS), itertools.cycle(steps), strict=False)
    return [
        GenerationRequest(
            class_label=label,
            model=model_id,
            sampler=sampler,
            schedule=schedule,
            steps=count,
            guidance=guidance,
            seed=seed,
            width=SIDE,
            height=SIDE,
        )
        for seed, ((sampler, schedule, guidance), label, count) in enumerate(turns, start=1)
    ]


def draw_together(
    models: ModelCache, requests: Sequence[GenerationRequest]
) -> list[NDArray[np.uint8]]:
    """Draw requests in one engine; returns pixels [H, W, 3]."""
    results = run_together(Engine(EngineConfig(), models), requests)
    return [result.pictures[0].pixels for result in results]


class StockLabels:
    """Draws one label after the other, on the CPU and in one thread as a worker has it."""

    def __init__(self, folder: Path) -> None:
        """Load a folder as its own pipeline."""
        torch.set_num_threads(1)
        pipeline_class: Any = DiTPipeline  # ships no type information
        self._pipeline = pipeline_class.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._native = self._pipeline.scheduler.config

    def draw(self, request: GenerationRequest) -> NDArray[np.uint8]:
        """Draw a request with its sampler and schedule; returns pixels [H, W, 3]."""
        cls, own = SCHEDULERS[request.sampler]
        flags = {FLAGS[request.schedule]: True} if request.schedule in FLAGS else {}
        self._pipeline.scheduler = cls.from_config(self._native, **own | flags)
        (image,) = self._pipeline(
            class_labels=[request.class_label],
            guidance_scale=request.guidance,
            num_inference_steps=request.steps,
            generator=torch.Generator("cpu").manual_seed(request.seed),
        ).images
        return np.asarray(image)


def show_labels(rows: Sequence[LabelRow]) -> Table:
    """Lay the rows out; a job is steps / guidance / label."""
    return Table(
        "Labels against DiTPipeline; steps / guidance / label",
        ("sampler", "schedule", "job", "alone", "levels", ""),
        [
            (
                row.sampler,
                row.schedule,
                f"{row.steps} / {row.guidance:g} / {row.label}",
                "equal" if row.is_bitwise_alone else "differs",
                str(row.most_levels),
                "" if row.passes else "missed",
            )
            for row in rows
        ],
        num_names=3,
    )
