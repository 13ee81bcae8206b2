from collections import Counter

import pytest
import torch

from bench.soak import draw_job, find_growing, slopes_of, soak
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import DIFFUSION_SAMPLERS, max_steps
from shared.vocab import Schedule
from worker.engine import Engine, EngineConfig, ModelCache

#: The caches of the engine are full after half of them.
NUM_JOBS = 1_000
#: Growth of memory per 1,000 jobs, in MB: less than one latent kept of each. The full soak looks
#: closer; over so few jobs an arena that grows once is a slope.
MAX_MEMORY_MB = 3.0


def test_short_jobs_of_all_kinds_are_drawn() -> None:
    spec = Catalog.load(CATALOG).models["demo"]
    jobs = [draw_job(spec, number) for number in range(300)]
    assert {job.sampler for job in jobs} == set(DIFFUSION_SAMPLERS)
    assert {job.schedule for job in jobs} == set(Schedule)
    assert Counter(job.is_guided for job in jobs) == {True: 150, False: 150}
    for job in jobs:
        assert job.steps <= max_steps(job.sampler, job.schedule, spec, allow_undistilled=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_engine_keeps_its_size_over_many_jobs() -> None:
    torch.set_num_threads(1)
    catalog = Catalog.load(CATALOG)
    engine = Engine(EngineConfig(), ModelCache(catalog, "cpu"))
    engine.start()
    try:
        samples = list(soak(engine, catalog.models["demo"], NUM_JOBS))
    finally:
        engine.stop()
    assert samples[-1].jobs == NUM_JOBS
    slopes = slopes_of(samples)
    assert set(find_growing(slopes)) <= {"memory_mb"}
    assert slopes["memory_mb"].value < MAX_MEMORY_MB
