from typing import Any

import numpy as np
import pytest
import torch

from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import DIFFUSION_SAMPLERS
from shared.vocab import Sampler, Schedule
from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, ModelCache, runner
from worker.engine.device import synchronize
from worker.engine.forward_process import noise_to
from worker.engine.samplers import SamplerBook, scale_input, scale_noise, takes_generator
from worker.engine.trajectory import ForwardKey


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which devices torch was told to wait for."""
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: found.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: found.append("mps"))
    return found


def test_gpus_are_waited_for_and_cpus_are_not(waits: list[str]) -> None:
    for name in ("cuda:1", "cpu", "mps"):
        synchronize(torch.device(name))
    assert waits == ["cuda:1", "mps"]


def test_a_forward_is_timed_from_an_idle_device_to_its_end(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, queued = 0.0, 5.0  # seconds of work that the device has before the first forward

    def wait(device: torch.device) -> None:
        nonlocal now, queued
        now, queued = now + queued, 0.0

    class Device:
        """The demo model on a device that takes a second for each forward, some time later."""

        def __getattr__(self, name: str) -> object:
            return getattr(models.get("demo"), name)

        def predict(self, *inputs: Any) -> torch.Tensor:
            nonlocal queued
            queued += 1.0
            return models.get("demo").predict(*inputs)

    class Devices(ModelCache):
        def get(self, model_id: str) -> Any:
            return Device()

    monkeypatch.setattr(runner, "synchronize", wait)
    engine = Engine(EngineConfig(), Devices(Catalog.load(CATALOG), "cpu"), clock=lambda: now)
    engine.start()
    engine.submit("job", request(steps=3)).result(PATIENCE_S)
    engine.stop()
    forwards = [cost for cost in engine.costs.table() if isinstance(cost.key, ForwardKey)]
    assert [(cost.ms, cost.samples) for cost in forwards] == [(1000.0, 3)]


@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
@torch.inference_mode()
def test_a_sampler_steps_latents_of_another_device(models: ModelCache, sampler: Sampler) -> None:
    """`meta` computes no numbers, but minds as a GPU does where each tensor is."""
    family = models.get("demo")
    scheduler = SamplerBook().start(family.spec, family.scheduler, sampler, Schedule.NATIVE, 3)
    latents = scale_noise(scheduler, torch.zeros(1, 4, 16, 16, device="meta"))
    drawing = {"generator": torch.Generator("cpu")} if takes_generator(scheduler) else {}
    noisy = noise_to(scheduler, latents, latents, 1)
    assert noisy.device.type == "meta"
    for timestep in scheduler.timesteps:
        prediction = scale_input(scheduler, latents, timestep)
        latents = scheduler.step(prediction, timestep, latents, **drawing, return_dict=False)[0]
    assert latents.device.type == "meta"


@torch.inference_mode()
def test_a_model_takes_what_lies_on_the_cpu_to_its_device() -> None:
    family = ModelCache(Catalog.load(CATALOG), "cpu").load("demo")
    for part in (family._text_encoder, family._unet, family._vae):
        part.to("meta")
    family.device = torch.device("meta")
    prompt = family.encode("a red star")
    noise = family.latents(request(), torch.Generator("cpu"))
    mask = family.picture_codec.encode_mask(np.zeros((64, 64), np.float32))
    picture = family.picture_codec.encode_image(np.zeros((64, 64, 3), np.uint8)).mean
    # Schedulers have their timesteps on the CPU.
    prediction = family.predict(noise, torch.tensor([500.0]), prompt)
    tensors = (*prompt.values(), noise, mask, picture, prediction)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
