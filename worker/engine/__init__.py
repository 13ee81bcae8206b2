"""The engine: a library that denoises many jobs together. It knows tensors and time, no stores."""

from worker.engine.adapters import AdapterCache
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.loader import ModelLoader
from worker.engine.model_cache import ModelCache
from worker.engine.result import (
    DeviceLost,
    EngineStopped,
    ImageOutput,
    JobCanceled,
    JobResult,
    SoundOutput,
    Stages,
)
from worker.engine.sound import Sound
from worker.engine.source import SourceImage
from worker.engine.state import JobState, StateMisfit

__all__ = [
    "AdapterCache",
    "DeviceLost",
    "Engine",
    "EngineConfig",
    "EngineStopped",
    "ImageOutput",
    "JobCanceled",
    "JobResult",
    "JobState",
    "ModelCache",
    "ModelLoader",
    "Sound",
    "SoundOutput",
    "SourceImage",
    "Stages",
    "StateMisfit",
]
