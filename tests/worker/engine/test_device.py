from typing import Any

import pytest
import torch

from models import CATALOG
from shared.catalog import Catalog
from tests.worker.engine.conftest import PATIENCE_S, request
from worker.engine import Engine, EngineConfig, ModelCache, runner
from worker.engine.device import synchronize
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

        def predict(self, *inputs: torch.Tensor) -> torch.Tensor:
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
