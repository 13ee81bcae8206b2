"""Measure what a model's forwards cost before there is work for it."""

import math
import statistics
from collections.abc import Callable, Generator, Iterable, Sequence

import torch

from worker.engine.conditioning import count_tokens, repeat, shapes_of
from worker.engine.cost import Cost
from worker.engine.device import synchronize
from worker.engine.families.family import Family
from worker.engine.fault import is_out_of_memory, release_memory
from worker.engine.trajectory import ForwardKey

#: Row counts that are measured, as far as the model allows and the time reaches.
ROWS = (1, 2, 4, 8, 16)
#: Forwards of each; the first of all, which sets the device up, is not counted.
REPEATS = 3
#: After so much time in forwards no further row count is begun, in seconds: a large model is
#: learned at work.
PATIENCE_S = 2.0
#: A forward that takes so many times longer or shorter than was known contradicts it.
CONTRADICTION_RATIO = 1.5


def probe(
    family: Family, *, clock: Callable[[], float], row_counts: Sequence[int] = ROWS
) -> Generator[None, None, list[Cost]]:
    """Time forwards of the model's default size, from few rows to many.

    Takes one forward for each item, so that others have their turn between them.
    """
    spec = family.spec
    latents, conditioning = family.example()
    num_tokens = count_tokens(shapes_of(conditioning))
    key = ForwardKey(spec.id, tuple(latents.shape), num_tokens)
    timestep = torch.tensor([spec.training.num_train_timesteps / 2], device=latents.device)

    def time_forward(rows: int) -> float:
        inputs = (
            torch.cat([latents] * rows),
            timestep.repeat(rows),
            repeat(conditioning, rows),
        )
        synchronize(family.device)
        started = clock()
        family.predict(*inputs)
        synchronize(family.device)
        return clock() - started

    costs: list[Cost] = []
    try:
        spent_s = time_forward(1)
        yield
        for rows in row_counts:
            if rows > spec.max_rows or spent_s > PATIENCE_S:
                break
            took_s = []
            for _ in range(REPEATS):
                took_s.append(time_forward(rows))
                yield
            spent_s += sum(took_s)
            costs.append(Cost(key, rows, 1000 * statistics.median(took_s), samples=REPEATS))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_memory(error)  # more rows would not fit either
    return costs


def confirm(
    family: Family, known: Iterable[Cost], *, clock: Callable[[], float]
) -> Generator[None, None, bool]:
    """Tell whether a model's forwards still cost what is known of them, by a shorter probe.

    It tries the fewest and the most of the probe's row counts that are known. What it cannot
    compare it does not confirm, and one that contradicts what is known is enough: the device or
    the model is another.
    """
    table = {(cost.key, cost.rows): cost.ms for cost in known}
    # A large model may never have been run with more.
    seen = {rows for _, rows in table if rows in ROWS and rows <= family.spec.max_rows}
    most = max(seen, default=ROWS[0])
    measured = yield from probe(family, clock=clock, row_counts=sorted({ROWS[0], most}))
    return bool(measured) and all(
        table.get((cost.key, cost.rows), math.inf) / CONTRADICTION_RATIO
        <= cost.ms
        <= table.get((cost.key, cost.rows), 0.0) * CONTRADICTION_RATIO
        for cost in measured
    )
