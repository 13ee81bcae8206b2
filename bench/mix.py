"""The jobs that are measured: a seeded mix of what people ask for, from drafts to fine prints."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from shared.vocab import Sampler, Schedule

GUIDANCES = (2.0, 3.0, 5.0, 7.5)
SIZES = ("small", "large")
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "white")
THINGS = ("star", "heart", "ring", "circle", "square", "frog", "cat", "rocket")


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that differ in prompt, seed and strength of guidance only, and so cost the same."""

    sampler: Sampler
    schedule: Schedule
    steps: int
    is_guided: bool


#: A mix holds each of them equally often: 4 to 50 steps, 7 of 12 guided, which is 58%.
KINDS = (
    Kind(Sampler.EULER, Schedule.NATIVE, 4, is_guided=False),
    Kind(Sampler.DPMPP_2M, Schedule.NATIVE, 8, is_guided=False),
    Kind(Sampler.DPMPP_2M, Schedule.KARRAS, 15, is_guided=False),
    Kind(Sampler.EULER_ANCESTRAL, Schedule.NATIVE, 25, is_guided=False),
    Kind(Sampler.DDIM, Schedule.NATIVE, 30, is_guided=False),
    Kind(Sampler.HEUN, Schedule.KARRAS, 10, is_guided=True),
    Kind(Sampler.DPMPP_2M, Schedule.KARRAS, 15, is_guided=True),
    Kind(Sampler.UNIPC, Schedule.NATIVE, 20, is_guided=True),
    Kind(Sampler.DPMPP_2M, Schedule.LINEAR, 25, is_guided=True),
    Kind(Sampler.DPMPP_2M_SDE, Schedule.COSINE, 25, is_guided=True),
    Kind(Sampler.EULER_ANCESTRAL, Schedule.NATIVE, 30, is_guided=True),
    Kind(Sampler.DDIM, Schedule.NATIVE, 50, is_guided=True),
)


def draw_mix(spec: ModelSpec, *, decks: int, seed: int) -> list[GenerationRequest]:
    """Draw so many jobs of each kind on a model, shuffled like decks of cards.

    Every deck holds each kind once, so that no stretch of the mix is all long or all short jobs.
    """
    rng = random.Random(seed)  # noqa: S311 # the same mix everywhere
    kinds = [kind for _ in range(decks) for kind in rng.sample(KINDS, k=len(KINDS))]
    return [_draw_job(spec, kind, rng) for kind in kinds]


def draw_jobs(spec: ModelSpec, kinds: Sequence[Kind], *, seed: int) -> list[GenerationRequest]:
    """Draw a job on a model of each kind that is given, in order."""
    rng = random.Random(seed)  # noqa: S311 # the same jobs everywhere
    return [_draw_job(spec, kind, rng) for kind in kinds]


def kind_of(request: GenerationRequest) -> Kind:
    """Tell which kind a job of the mix is."""
    return Kind(request.sampler, request.schedule, request.steps, request.is_guided)


def rows_of(request: GenerationRequest) -> int:
    """Count a job's rows in a forward."""
    return 2 if request.is_guided else 1


def row_iterations(request: GenerationRequest) -> int:
    """Count the rows that the denoiser sees of a job from start to end."""
    return rows_of(request) * request.iterations


def _draw_job(spec: ModelSpec, kind: Kind, rng: random.Random) -> GenerationRequest:
    guidance = rng.choice(GUIDANCES)
    return GenerationRequest(
        prompt=_draw_prompt(rng),
        model=spec.id,
        sampler=kind.sampler,
        schedule=kind.schedule,
        steps=kind.steps,
        guidance=guidance if kind.is_guided else 1.0,
        seed=rng.randrange(2**32),
        width=spec.width,
        height=spec.height,
    )


def _draw_prompt(rng: random.Random) -> str:
    color, background = rng.sample(COLORS, k=2)
    return f"a {rng.choice(SIZES)} {color} {rng.choice(THINGS)} on a {background} background"
