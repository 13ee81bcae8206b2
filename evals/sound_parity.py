"""`python -m evals.sound_parity`: is a job's sound stock diffusers' own?

For one tiny model of each family of sounds: alone, samples must equal those of the model's own
pipeline bit for bit. In the company of all the others, with mixed prompts, durations, steps and
guidance, they may differ by rounding only.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from evals.report import JsonFile, PageFile, Report, Table
from evals.stock_sound import StockSound
from evals.tiny_sounds import write_audioldm2, write_stable_audio
from shared.catalog import Catalog, ModelSpec
from shared.compatibility import CONSISTENCY, find_refusal
from shared.request import GenerationRequest
from shared.vocab import OutputFormat, Process, Sampler, Schedule
from worker.engine import Engine, EngineConfig, ModelCache, SoundOutput

#: Most that company may change, as a share of the loudest sample: the decoder's and the vocoder's
#: roundings are in it, too.
MAX_CHANGE = 1e-4
#: What is compared; each writes its folder.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "stable_audio": write_stable_audio,
    "audioldm2": write_audioldm2,
}
#: Whole blocks of tokens, so that AudioLDM 2 adds none (`worker/engine/families/audioldm2.py`).
PROMPTS = ("tone " * 15, "a high tone then two low clicks " + "noise " * 8)
STEPS, STEPS_QUICK = (7, 12, 20, 9), (4, 6)
GUIDANCES = (4.0, 1.0, 7.0)
NEGATIVES = ("", "noise falling")
#: In shares of the longest.
DURATIONS = (1.0, 0.5, 0.123)
QUESTION = (
    "Does a job give what stock diffusers' own pipeline gives: alone bit for bit, in one engine "
    "with all the others but for rounding? A job is steps / guidance / seconds. Company is the "
    "largest change of a sample in company, relative to the loudest."
)


@dataclass(frozen=True, slots=True)
class Row:
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


def main(
    json_file: JsonFile = None,
    page_file: PageFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer steps.")] = False,
) -> None:
    """Compare every sampler with stock diffusers, alone and in company."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(family, Path(folder), STEPS_QUICK if quick else STEPS)
    figures = {"rows": [asdict(row) | {"passes": row.passes} for row in rows]}
    Report("Parity of sounds", QUESTION, [_table_of(rows)], figures).publish(
        "python -m evals.sound_parity", json_file=json_file, page_file=page_file, quick=quick
    )
    missed = [f"{row.sampler} on {row.schedule} ({row.family})" for row in rows if not row.passes]
    verdict = f"missed: {', '.join(missed)}" if missed else "all equal alone, all within in company"
    print(f"parity of {len(rows)} sounds: {verdict}")  # noqa: T201
    sys.exit(1 if missed else 0)


def compare(family: str, folder: Path, steps: Sequence[int]) -> list[Row]:
    """Make each request's sound with stock diffusers, alone, and together with all the others."""
    path = FAMILIES[family](folder / "tiny")
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
            Row(
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
    """Make sounds in one engine that begins when all requests are there."""
    engine = Engine(EngineConfig(), models)
    futures = [engine.submit(str(request.seed), request) for request in requests]
    engine.start()
    results = [future.result() for future in futures]
    engine.stop()
    return [
        output.sound.samples
        for result in results
        for output in result.outputs
        if isinstance(output, SoundOutput)
    ]


def _table_of(rows: Sequence[Row]) -> Table:
    return Table(
        "Against StableAudioPipeline and AudioLDM2Pipeline",
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


if __name__ == "__main__":
    typer.run(main)
