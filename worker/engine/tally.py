"""How often an engine did what."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts since the engine was made; each field is written by one thread, any may read it."""

    #: Forwards by model and how many rows of jobs they had.
    forwards: Counter[tuple[str, int]] = field(default_factory=Counter)
    #: Rows that only filled forwards up, by model.
    padding_rows: Counter[str] = field(default_factory=Counter)
    #: Steps of trajectories, by model.
    iterations: Counter[str] = field(default_factory=Counter)
    #: Prompts that were found encoded, and those that were not.
    prompt_hits: int = 0
    prompt_misses: int = 0
