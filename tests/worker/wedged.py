"""A worker whose forwards stand still, or whose device is lost, while a file says so."""

import sys
import threading
from pathlib import Path
from typing import Any

import torch

from worker.engine.families.stable_diffusion import StableDiffusion
from worker.main import main

FAULT = Path(sys.argv[1])
_predict, _touch = StableDiffusion.predict, StableDiffusion.touch


def predict(self: StableDiffusion, *inputs: Any) -> torch.Tensor:
    fault = FAULT.read_text() if FAULT.exists() else ""
    if fault == "stall":
        threading.Event().wait()
    if fault == "lost":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return _predict(self, *inputs)


def touch(self: StableDiffusion) -> None:
    if FAULT.exists():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    _touch(self)


StableDiffusion.predict, StableDiffusion.touch = predict, touch  # type: ignore[method-assign]
main(name="wedged")
