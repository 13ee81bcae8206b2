"""Draw requests with the project's own engine, on all cores."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from api.presets import Sampling
from shared.catalog import Catalog, ModelSpec
from shared.request import GenerationRequest
from worker.engine import AdapterCache, Engine, EngineConfig, ModelCache

Picture = NDArray[np.uint8]
#: Requests that one engine is given at a time.
CHUNK = 40


def ask_for(texts: Iterable[str], spec: ModelSpec, sampling: Sampling) -> list[GenerationRequest]:
    """Ask for a picture of each text, of the model's own size, their seeds counting from 0."""
    return [
        GenerationRequest(
            prompt=text,
            model=spec.id,
            seed=seed,
            width=spec.width,
            height=spec.height,
            **sampling.model_dump(),
        )
        for seed, text in enumerate(texts)
    ]


def draw(catalog: Path, requests: Sequence[GenerationRequest]) -> list[Picture]:
    """Draw one picture [H, W, 3] for each request, in their order."""
    chunks = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
    processes = min(os.cpu_count() or 1, len(chunks))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(chain.from_iterable(pool.map(partial(_draw_chunk, catalog), chunks)))


def _draw_chunk(catalog: Path, requests: Sequence[GenerationRequest]) -> list[Picture]:
    torch.set_num_threads(1)
    found = Catalog.load(catalog)
    models, adapters = ModelCache(found, "cpu"), AdapterCache(found.adapters, "cpu")
    models.load(requests[0].model)
    engine = Engine(EngineConfig(), models, adapters=adapters)
    engine.start()
    futures = [engine.submit(str(number), request) for number, request in enumerate(requests)]
    pictures = [future.result().pictures[0].pixels for future in futures]
    engine.stop()
    return pictures
