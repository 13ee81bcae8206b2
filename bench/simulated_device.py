"""A device that takes its time and computes nothing.

A worker with it does all that a worker does but the arithmetic: queues, leases and stores are
exercised by many workers on a machine that could not run one model fast enough.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import worker.main
from bench.curve import BatchCurve
from bench.forward_log import Forward, note_forward
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine import loader
from worker.engine.conditioning import Condition, Conditioning
from worker.engine.lora import NOTHING, ActiveAdapter, Attachment
from worker.engine.samplers import load_native

#: What a prompt becomes, [1, T, D]: as small as it may be.
PROMPT_SHAPE = (1, 2, 2)
NUM_CHANNELS = 4

#: How long a forward takes: by its rows, or the same for any number of them, in seconds.
StepTime = BatchCurve | float


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """Makes models out of catalog entries, in place of a family that loads weights."""

    step_s: StepTime
    #: A file in which each forward is noted.
    tally: Path | None = None

    #: No network is loaded.
    PARTS: ClassVar[tuple[str, ...]] = ()

    def __call__(
        self,
        spec: ModelSpec,
        device: str,
        *,
        on_part: Callable[[str], None],  # noqa: ARG002 - there are no parts
    ) -> "SimulatedModel":
        """Make a model."""
        return SimulatedModel(spec, device, self.step_s, tally=self.tally)


class SimulatedModel:
    """A family's interface without weights; what it draws is one flat color for each seed."""

    def __init__(
        self, spec: ModelSpec, device: str, step_s: StepTime, *, tally: Path | None = None
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.scheduler = load_native(spec.path)
        self.parts: tuple[torch.nn.Module, ...] = ()
        self._step_s = step_s
        self._tally = tally

    def bind(self, _part: str, _adapters: Sequence[ActiveAdapter]) -> Attachment:
        """Say that nothing is added: there are no layers to add it to."""
        return NOTHING

    def conditions(self, request: GenerationRequest) -> tuple[Condition, ...]:
        """Say that guidance takes two rows."""
        return (request.negative_prompt,) * request.is_guided + (request.prompt,)

    def encode(self, _condition: Condition) -> Conditioning:
        """Return [1, T, D]."""
        return {"prompt": torch.zeros(PROMPT_SHAPE)}

    def schedule_arguments(self, _request: GenerationRequest) -> dict[str, Any]:
        """Say nothing more."""
        return {}

    def latents(self, request: GenerationRequest, generator: torch.Generator) -> Tensor:
        """Draw one number and fill [1, C, h, w] with it."""
        return self._noise(*request.size, generator)

    def example(self) -> tuple[Tensor, Conditioning]:
        """Make the inputs of one row."""
        noise = self._noise(self.spec.width, self.spec.height, torch.Generator().manual_seed(0))
        return noise, self.encode("")

    def _noise(self, width: int, height: int, generator: torch.Generator) -> Tensor:
        factor = self.spec.latent_factor
        level = torch.randn((1, 1, 1, 1), generator=generator)
        return level.expand(1, NUM_CHANNELS, height // factor, width // factor).contiguous()

    def predict(self, latents: Tensor, _timesteps: Tensor, _conditioning: Conditioning) -> Tensor:
        """Take the time of a forward; predicts no noise. [B, C, h, w]"""
        began_at = time.monotonic()
        time.sleep(self._take_s(len(latents)))
        if self._tally is not None:
            note_forward(self._tally, Forward(began_at, time.monotonic(), len(latents)))
        return torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Paint all pixels [H, W, 3] alike."""
        factor = self.spec.latent_factor
        height, width = (side * factor for side in latents.shape[-2:])
        level = int(latents[0, 0, 0, 0].abs().clamp(max=1) * 255)
        return np.full((height, width, 3), level, dtype=np.uint8)

    def _take_s(self, num_rows: int) -> float:
        if isinstance(self._step_s, BatchCurve):
            return self._step_s.predict_s(num_rows)
        return self._step_s


def run_worker(name: str, step_s: StepTime, tally: Path | None = None) -> None:
    """Run a worker whose device is simulated, for the whole life of this process.

    `tally` is a file in which each forward is noted.
    """
    # A worker offers no choice of family, since none of its users has one.
    loader._FAMILIES = dict.fromkeys(
        loader._FAMILIES,
        SimulatedDevice(step_s, tally),  # type: ignore[arg-type]
    )
    worker.main.main(name=name)
