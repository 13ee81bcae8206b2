"""How an engine is set up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine."""

    #: Encoded prompts that are kept.
    prompt_cache_size: int = 256
