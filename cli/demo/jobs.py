"""What the demo asks for: every preset, several samplers and schedules, guidance 1 to 12."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A prompt and what of its request is not left to the preset."""

    prompt: str
    fields: Mapping[str, Any] = field(default_factory=dict)


JOBS = (
    DemoJob("a large red star left of a small frog on a yellow background"),
    DemoJob("a large cat on a blue background", {"preset": "creative"}),
    DemoJob("a green heart on a white background", {"preset": "precise"}),
    DemoJob("a large rocket on a purple background", {"preset": "fast"}),
    DemoJob("a panda in the center on a pink background", {"preset": "reference"}),
    DemoJob("a large sailboat on a pink background", {"sampler": "ddim", "steps": 20}),
    DemoJob("a large apple on a white background", {"sampler": "euler", "guidance": 2}),
    DemoJob("a large tree on a yellow background", {"sampler": "ddpm", "steps": 30}),
    DemoJob("a large frog on a purple background", {"schedule": "karras", "steps": 20}),
    DemoJob("a large blue ring on a yellow background", {"schedule": "linear", "steps": 20}),
    DemoJob("a large orange circle on a blue background", {"schedule": "cosine", "steps": 20}),
    DemoJob(
        "a large strawberry on a white background",
        {"sampler": "euler", "schedule": "karras", "determinism": "exact"},
    ),
    DemoJob(
        "a mushroom right of a yellow star on a green background",
        {"sampler": "ddim", "schedule": "cosine", "determinism": "exact", "steps": 20},
    ),
    DemoJob("a large burger on a white background", {"num_outputs": 2, "determinism": "exact"}),
    # The same noise thrice: what guidance alone does.
    *(
        DemoJob("a large red star on a yellow background", {"guidance": guidance, "seed": 7})
        for guidance in (1, 3, 12)
    ),
)
#: Seeds are fixed: every run of the demo draws the same pictures, but for the last bits of `fast`.
FIRST_SEED = 2026
