"""Measure what a model's forwards cost before there is work for it."""

import statistics
from collections.abc import Callable, Iterator

import torch

from worker.engine.cost import Cost
from worker.engine.families.stable_diffusion import StableDiffusion
from worker.engine.trajectory import BatchKey

#: Row counts that are measured, as far as the model allows and the time reaches.
ROWS = (1, 2, 4, 8, 16)
#: Forwards of each; the first of all, which sets the device up, is not counted.
REPEATS = 3
#: After this long no further row count is begun, in seconds: a large model is learned at work.
PATIENCE_S = 2.0


def probe(family: StableDiffusion, *, clock: Callable[[], float]) -> Iterator[Cost]:
    """Time forwards of pictures of the model's default size, from few rows to many."""
    spec = family.spec
    generator = torch.Generator("cpu").manual_seed(0)
    latents = family.latents(width=spec.width, height=spec.height, generator=generator)
    prompt = family.encode("")
    key = BatchKey(spec.id, tuple(latents.shape), prompt.shape[1])
    timestep = torch.tensor([spec.training.num_train_timesteps / 2], device=latents.device)

    def time_forward(rows: int) -> float:
        inputs = (latents.repeat(rows, 1, 1, 1), timestep.repeat(rows), prompt.repeat(rows, 1, 1))
        started = clock()
        family.predict(*inputs)
        return 1000 * (clock() - started)

    begun = clock()
    time_forward(1)
    for rows in ROWS:
        if rows > spec.max_rows or clock() - begun > PATIENCE_S:
            return
        ms = statistics.median(time_forward(rows) for _ in range(REPEATS))
        yield Cost(key, rows, ms, samples=REPEATS)
