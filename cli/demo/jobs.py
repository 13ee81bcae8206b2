"""What the demo asks for: every model, preset, sampler, schedule and determinism."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Seeds are fixed: every run of the demo draws the same pictures, but for the last bits of `fast`.
FIRST_SEED = 2026


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A prompt, if its model reads one, and what of its request is not left to the preset."""

    prompt: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What it is of, as people say it."""
        return f"label {self.fields['class_label']}" if self.prompt is None else self.prompt


JOBS = (
    DemoJob("a large red star left of a small frog on a yellow background"),
    DemoJob("a large cat on a blue background", {"preset": "creative", "sampler": "dpmpp_2m_sde"}),
    DemoJob(
        "a green heart on a white background",
        {"preset": "precise", "sampler": "deis", "schedule": "beta"},
    ),
    DemoJob("a large rocket on a purple background", {"preset": "fast", "sampler": "kdpm2"}),
    DemoJob("a panda in the center on a pink background", {"preset": "reference"}),
    DemoJob(
        "a large sailboat on a pink background",
        {"sampler": "unipc", "schedule": "exponential", "steps": 20},
    ),
    DemoJob("a large apple on a white background", {"sampler": "euler_ancestral"}),
    DemoJob("a large tree on a yellow background", {"sampler": "sa_solver", "steps": 30}),
    DemoJob(
        "a large frog on a purple background",
        {"sampler": "kdpm2_ancestral", "schedule": "karras", "steps": 15},
    ),
    DemoJob(
        "a large blue ring in the center on a yellow background",
        {"sampler": "dpmpp_singlestep", "schedule": "linear", "steps": 20},
    ),
    DemoJob(
        "a large orange circle on a blue background",
        {"sampler": "heun", "schedule": "cosine", "steps": 12},
    ),
    DemoJob(
        "a large strawberry on a white background",
        {"sampler": "euler", "schedule": "karras", "determinism": "exact"},
    ),
    DemoJob(
        "a mushroom right of a yellow star on a green background",
        {"sampler": "ddim", "schedule": "cosine", "determinism": "exact", "steps": 20},
    ),
    DemoJob(
        "a large burger on a white background",
        {"sampler": "pndm", "num_outputs": 2, "determinism": "exact"},
    ),
    # The same noise thrice: what guidance alone does.
    *(
        DemoJob("a large red star on a yellow background", {"guidance": guidance, "seed": 7})
        for guidance in (1, 3, 12)
    ),
    *(
        DemoJob(None, {"model": "demo-classes", "class_label": label})
        for label in ("panda", "burger", "triangle", "sailboat", "circle", "frog")
    ),
)
