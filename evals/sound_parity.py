"""Is a job's sound stock diffusers' own? A part of `python -m evals.parity`.

For one tiny model of each family of sounds: alone, samples must equal those of the model's own
pipeline bit for bit. In the company of all the others, with mixed prompts, durations, steps and
guidance, they may differ by rounding only.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.report import Table
from evals.stock_sound import StockSound
from evals.tiny_sounds import write_audioldm2, write_stable_audio
from evals.together import run_together
from shared.catalog import Catalog, ModelSpec
from shared.compatibility import CONSISTENCY, find_refusal
from shared.request import GenerationRequest
from shared.vocab import OutputFormat, Process, Sampler, Schedule
from worker.engine import Engine, EngineConfig, ModelCache, SoundOutput

#: Most that company may change, as a share of the loudest sample: the decoder's and the vocoder's
#: roundings are in it, too.
MAX_CHANGE = 1e-4
#: What is compared; each writes its folder.
SOUND_FAMILIES: dict[str, Callable[[Path], Path]] = {
    "stable_audio": write_stable_audio,
    "audioldm2": write_audioldm2,
}
#: Whole blocks of tokens, so that AudioLDM 2 adds none (`worker/engine/families/audioldm2.py`).
PROMPTS = ("tone " * 15, "a high tone then two low clicks " + "noise " * 8)
GUIDANCES = (4.0, 1.0, 7.0)
NEGATIVES = ("", "noise falling")
#: In shares of the longest.
DURATIONS = (1.0, 0.5, 0.123)


@dataclass(frozen=True, slots=True)
class SoundRow:
    """How far a request's sounds are from stock diffusers'."""

    family: str
    sampler: Sampler
    schedule: Schedule
    steps: int
    guidance: float
    duration_s: float
    is_bitwise_alone: bool
    change: float

    @property
    def passes(self) -> bool:
        """Whether alone is equal and company changes rounding only."""
        return self.is_bitwise_alone and self.change <= MAX_CHANGE


def compare_sounds(family: str, folder: Path, steps: Sequence[int]) -> list[SoundRow]:
    """Make each request's sound with stock diffusers, alone, and together with all the others."""
    path = SOUND_FAMILIES[family](folder / "tiny")
    entry = '[models.tiny]\npath = "tiny"\nrevision = "1"\n'
    (folder / "catalog.toml").write_text(f'default = "tiny"\n{entry}')
    catalog = Catalog.load(folder / "catalog.toml")
    models, stock = ModelCache(catalog, "cpu"), StockSound(path)
    spec = models.load("tiny").spec
    cases = make_cases(spec, steps)
    together = make_together(models, [request for request, _ in cases])
    rows = []
    for (request, config), ours in zip(cases, together, strict=True):
        theirs = stock.make(request, **config)
        (alone,) = make_together(models, [request])
        rows.append(
            SoundRow(
                family=family,
                sampler=request.sampler,
                schedule=request.schedule,
                steps=request.steps,
                guidance=request.guidance,
                duration_s=request.duration_s or 0.0,
                is_bitwise_alone=np.array_equal(alone, theirs),
                change=float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
            )
        )
    return rows


def make_cases(
    spec: ModelSpec, steps: Sequence[int]
) -> list[tuple[GenerationRequest, dict[str, Any]]]:
    """List requests for every sampler, with what stock diffusers' scheduler is told besides."""
    sound = spec.sound
    longest = 0.0 if sound is None else sound.max_duration_s
    turns = zip(
        itertools.count(1),
        itertools.cycle(PROMPTS),
        itertools.cycle(NEGATIVES),
        itertools.cycle(DURATIONS),
        itertools.cycle(steps),
        itertools.cycle(GUIDANCES),
        strict=False,
    )
    cases = []
    for sampler, schedule in itertools.product(Sampler, Schedule):
        is_edm = spec.process is Process.EDM
        if sampler in CONSISTENCY or (schedule is not Schedule.NATIVE and not is_edm):
            continue
        if find_refusal(sampler, schedule, spec) is not None:
            continue
        for _ in range(len(GUIDANCES) if is_edm else 1):
            seed, prompt, negative_prompt, share, count, guidance = next(turns)
            request = GenerationRequest(
                prompt=prompt,
                negative_prompt=negative_prompt,
                model=spec.id,
                sampler=sampler,
                schedule=schedule,
                steps=count,
                guidance=guidance,
                seed=seed,
                duration_s=share * longest,
                output_format=OutputFormat.WAV,
            )
            config = {} if schedule is Schedule.NATIVE else {"sigma_schedule": schedule.value}
            cases.append((request, config))
    return cases


def make_together(
    models: ModelCache, requests: Sequence[GenerationRequest]
) -> list[NDArray[np.float32]]:
    """Make sounds in one engine."""
    return [
        output.sound.samples
        for result in run_together(Engine(EngineConfig(), models), requests)
        for output in result.outputs
        if isinstance(output, SoundOutput)
    ]


def show_sounds(rows: Sequence[SoundRow]) -> Table:
    """Lay the rows out; a job is steps / guidance / seconds."""
    return Table(
        "Sounds against StableAudioPipeline and AudioLDM2Pipeline; steps / guidance / seconds",
        ("family", "sampler", "schedule", "job", "alone", "company", ""),
        [
            (
                row.family,
                row.sampler,
                row.schedule,
                f"{row.steps} / {row.guidance:g} / {row.duration_s:.3g}",
                "equal" if row.is_bitwise_alone else "differs",
                f"{row.change:.0e}",
                "" if row.passes else "missed",
            )
            for row in rows
        ],
        num_names=4,
    )
