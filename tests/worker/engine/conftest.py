from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
import torch

from models import CATALOG
from shared.catalog import Catalog
from shared.request import GenerationRequest
from worker.engine import (
    AdapterCache,
    Engine,
    EngineConfig,
    JobResult,
    ModelCache,
    SourceImage,
)

#: No test waits longer for the engine, in seconds.
PATIENCE_S = 60


@pytest.fixture(scope="session")
def models() -> ModelCache:
    """The demo model, warm, on the CPU and in one thread as a worker has it."""
    torch.set_num_threads(1)
    cache = ModelCache(Catalog.load(CATALOG), "cpu")
    cache.load("demo")
    return cache


@pytest.fixture
def engine(models: ModelCache) -> Iterator[Engine]:
    """An engine that runs."""
    engine = Engine(EngineConfig(), models)
    engine.start()
    yield engine
    engine.stop()


def request(**changes: object) -> GenerationRequest:
    """A small request."""
    fields: dict[str, object] = {
        "prompt": "a large red star on a yellow background",
        "model": "demo",
        "sampler": "ddim",
        "schedule": "native",
        "steps": 4,
        "guidance": 3.0,
        "seed": 7,
        "width": 64,
        "height": 64,
    }
    return GenerationRequest.model_validate(fields | changes)


Submit = Callable[[Sequence[GenerationRequest]], "list[Future[JobResult]]"]


@pytest.fixture
def submit_together(models: ModelCache) -> Iterator[Submit]:
    """Submit requests to an engine that has not begun, so that all share its first forward."""
    engine = Engine(EngineConfig(), models)

    def submit(requests: Sequence[GenerationRequest]) -> "list[Future[JobResult]]":
        futures = [engine.submit(f"job-{n}", request) for n, request in enumerate(requests)]
        engine.start()
        return futures

    yield submit
    engine.stop()


def run_alone(
    models: ModelCache,
    request: GenerationRequest,
    source: SourceImage | None = None,
    *,
    adapters: AdapterCache | None = None,
) -> JobResult:
    """Run a request on an engine of its own."""
    engine = Engine(EngineConfig(), models, adapters=adapters)
    engine.start()
    try:
        return engine.submit("alone", request, source).result(PATIENCE_S)
    finally:
        engine.stop()
