from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.architectures import write_compute_bound_model
from bench.mix import draw_mix, row_iterations
from bench.policies import pick_first
from bench.throughput import BACKLOG, STAGES, Work, measure_engine, measure_groups
from models import CATALOG
from shared.catalog import Catalog
from worker.engine import Engine, EngineConfig, ModelCache

works = st.builds(
    Work,
    st.integers(1, 1000),
    st.floats(1, 1000),
    st.fixed_dictionaries({stage: st.floats(0, 0.2) for stage in STAGES}),
)


@given(works, works)
def test_shares_are_all_of_the_time_and_add_up(before: Work, meanwhile: Work) -> None:
    after = Work(
        before.row_iterations + meanwhile.row_iterations,
        before.cpu_s + meanwhile.cpu_s,
        {stage: before.stages_s[stage] + meanwhile.stages_s[stage] for stage in STAGES},
    )
    measured = after.since(before)
    assert measured.rate == pytest.approx(meanwhile.rate)
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert all(share >= -1e-9 for share in measured.shares.values())


def test_an_engine_is_measured_over_what_it_did_in_the_steady_state() -> None:
    torch.set_num_threads(1)
    catalog = Catalog.load(CATALOG)
    now = [0.0]
    models = ModelCache(catalog, "cpu")
    models.load("demo")
    engine = Engine(EngineConfig(), models, clock=lambda: now[0])
    engine.start()
    jobs = [
        job.model_copy(update={"steps": min(job.steps, 2)})
        for job in draw_mix(catalog.models["demo"], decks=8, seed=1)
    ]
    try:
        work = measure_engine(engine, jobs)
        with pytest.raises(ValueError, match="steady"):
            measure_engine(engine, jobs[: 2 * BACKLOG])
    finally:
        engine.stop()
    # So many more have ended at its end than at its start, give or take the backlog.
    assert 0 < work.row_iterations < sum(map(row_iterations, jobs))
    assert work.cpu_s > 0
    assert engine.progress() == {}


def test_groups_are_measured_over_all_their_work() -> None:
    jobs = draw_mix(Catalog.load(CATALOG).models["demo"], decks=1, seed=1)
    served: list[str] = []
    work = measure_groups(
        jobs, pick_first, lambda group: served.extend(job.prompt for job in group)
    )
    assert served == [job.prompt for job in jobs]
    assert work.row_iterations == sum(map(row_iterations, jobs))


def test_the_compute_bound_model_is_a_catalog_entry_like_any_other(tmp_path: Path) -> None:
    catalog = Catalog.load(write_compute_bound_model(tmp_path / "first"))
    spec = catalog.models[catalog.default]
    assert (spec.width, spec.height) == (96, 96)
    again = Catalog.load(write_compute_bound_model(tmp_path / "second"))
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (spec.path / weights).read_bytes() == (
        again.models[again.default].path / weights
    ).read_bytes()
