from collections.abc import Sequence
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.arrivals import VirtualClock
from bench.latency import Latency
from bench.mix import draw_mix, rows_of
from bench.policies import Arrival, Pick, pick_equals, pick_first, serve_engine, serve_groups
from models import CATALOG
from shared.catalog import Catalog
from shared.request import GenerationRequest
from worker.engine import Engine, EngineConfig, ModelCache

SPEC = Catalog.load(CATALOG).models["demo"]
JOBS = draw_mix(SPEC, decks=2, seed=3)
MAX_ROWS = 8

#: Few kinds, so that equals meet.
traces = st.lists(
    st.tuples(st.floats(0, 9), st.sampled_from(JOBS[:4])), min_size=1, max_size=25
).map(lambda drawn: [Arrival(at, job) for at, job in sorted(drawn, key=lambda pair: pair[0])])


def serve(trace: list[Arrival], pick: Pick) -> tuple[list[float], list[list[GenerationRequest]]]:
    """Serve a trace on a clock of its own, on which any group takes a second."""
    used = 0.0
    groups: list[list[GenerationRequest]] = []

    def run(group: Sequence[GenerationRequest]) -> None:
        nonlocal used
        used += 1.0
        groups.append(list(group))

    return serve_groups(trace, pick, run, VirtualClock(lambda: used)), groups


def last_end(trace: list[Arrival], latencies: list[float]) -> float:
    return max(arrival.at + late for arrival, late in zip(trace, latencies, strict=True))


@given(traces)
def test_first_come_is_first_served_and_no_server_idles_while_somebody_waits(
    trace: list[Arrival],
) -> None:
    latencies, groups = serve(trace, pick_first)
    assert groups == [[arrival.request] for arrival in trace]
    free = 0.0
    for arrival, latency in zip(trace, latencies, strict=True):
        # Lindley (1952): it starts when it is there and the one before it has left.
        free = max(free, arrival.at) + 1.0
        assert arrival.at + latency == pytest.approx(free)


@given(traces)
def test_static_batching_groups_equals_only_and_serves_everybody_once(
    trace: list[Arrival],
) -> None:
    latencies, groups = serve(trace, partial(pick_equals, max_rows=MAX_ROWS))
    assert sum(map(len, groups)) == len(trace)
    assert all(latency >= 1.0 - 1e-9 for latency in latencies)
    for group in groups:
        assert sum(map(rows_of, group)) <= MAX_ROWS
        assert len({(job.sampler, job.schedule, job.steps, job.guidance) for job in group}) == 1
    # Where a group takes no longer than one job, all are done no later.
    one_by_one, _ = serve(trace, pick_first)
    assert last_end(trace, latencies) <= last_end(trace, one_by_one) + 1e-9


def test_idle_time_costs_nothing_and_is_in_no_latency() -> None:
    torch.set_num_threads(1)
    engine = Engine(EngineConfig(), ModelCache(Catalog.load(CATALOG), "cpu"))
    engine.start()
    short = [job.model_copy(update={"steps": 2, "guidance": 1.0}) for job in JOBS[:6]]
    moments = [0.0, 0.0, 3600.0, 7200.0, 7200.0, 7200.01]
    clock = VirtualClock()
    try:
        latencies = serve_engine(
            [Arrival(at, job) for at, job in zip(moments, short, strict=True)], engine, clock
        )
    finally:
        engine.stop()
    assert all(0 < latency < 60 for latency in latencies)
    assert clock.now() > 7200


def test_latencies_are_summed_up_in_units_of_a_job_alone() -> None:
    latency = Latency.of([2.0 * n for n in range(1, 101)], unit_s=2.0)
    assert (latency.mean, latency.p95) == (pytest.approx(50.5), pytest.approx(95.0))
    assert Latency.of([3.0], unit_s=1.0).p95 == 3.0
