"""How an engine is set up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine."""

    #: Encoded prompts that are kept.
    prompt_cache_size: int = 256
    #: How often the state of a job is handed on, in seconds.
    state_interval_s: float = 5.0
