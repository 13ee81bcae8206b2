"""What share of an engine's time the states of its jobs take: copied, written, sent to the store.

The engine is that of a worker, with the real model and as many jobs as a worker may hold; the
store is a real one. Everything shares one core, and all clocks count processor time, so that what
else the machine does makes the intervals between two states no shorter.
"""

import itertools
import time
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from uuid import uuid4

from bench.pinning import pinned_to_one_core
from models import CATALOG
from shared.catalog import Catalog
from shared.job import Claim, Lease
from shared.request import GenerationRequest
from shared.storage import ObjectStore
from shared.vocab import Sampler, Schedule
from worker.checkpoint import LIBRARIES
from worker.checkpoint_keeper import CheckpointKeeper
from worker.engine import Engine, EngineConfig, JobResult, ModelCache

#: Those of a worker, unless it is told otherwise.
SLOTS = 8
#: How long it is measured, in seconds of the processor.
RUN_S, RUN_S_QUICK = 120.0, 20.0
POLL_S = 0.1
#: Long jobs; one that ends is followed by another.
STEPS = 1000
#: One that keeps as much between two steps as any other.
SAMPLER = Sampler.UNIPC


@dataclass(frozen=True, slots=True)
class CheckpointCost:
    """Where the processor time of a run went, in seconds."""

    total_s: float
    #: On the engine's thread: every forward waits for it.
    copying_s: float
    #: On a thread of its own.
    storing_s: float

    @property
    def share(self) -> float:
        """What states took of all."""
        return (self.copying_s + self.storing_s) / self.total_s


def measure_cost(store: ObjectStore, *, run_s: float) -> CheckpointCost:
    """Run jobs on one core for so long, at a worker's own interval."""
    catalog = Catalog.load(CATALOG)
    libraries = {library: version(library) for library in LIBRARIES}
    checkpoints = CheckpointKeeper(store, catalog, libraries=libraries)
    with pinned_to_one_core():
        engine = Engine(EngineConfig(), ModelCache(catalog, "cpu"), clock=time.process_time)
        engine.warm_up(catalog.default)
        engine.start()
        checkpoints.start()
        began_s = time.process_time()
        seeds = itertools.count()
        jobs = [_submit(engine, checkpoints, catalog, next(seeds)) for _ in range(SLOTS)]
        while (total_s := time.process_time() - began_s) < run_s:
            time.sleep(POLL_S)
            for slot, (lease, future) in enumerate(jobs):
                if future.done():
                    checkpoints.drop(lease, has_ended=True)
                    jobs[slot] = _submit(engine, checkpoints, catalog, next(seeds))
        cost = CheckpointCost(
            total_s=total_s,
            copying_s=engine.timings.state_s,
            storing_s=checkpoints.spent_s,
        )
        engine.stop()
        for lease, _ in jobs:
            checkpoints.drop(lease, has_ended=True)
        checkpoints.stop()
    return cost


def _submit(
    engine: Engine, checkpoints: CheckpointKeeper, catalog: Catalog, seed: int
) -> "tuple[Lease, Future[JobResult]]":
    """Have the engine run a job as a worker's task does, its states stored by a lease."""
    spec = catalog.models[catalog.default]
    request = GenerationRequest(
        prompt="a large red star on a yellow background",
        model=spec.id,
        sampler=SAMPLER,
        schedule=Schedule.NATIVE,
        steps=STEPS,
        guidance=2.0,
        seed=seed,
        width=spec.width,
        height=spec.height,
    )
    lease = Lease(job_id=f"job_{uuid4().hex}", attempt=1, token=uuid4())
    claim = Claim(
        lease=lease,
        tenant="bench",
        request=request,
        deadline_at=datetime.now(UTC) + timedelta(days=1),
        is_suspected=False,
    )
    checkpoints.hold(claim)
    future = engine.submit(lease.job_id, request, on_state=partial(checkpoints.take, lease))
    return lease, future
