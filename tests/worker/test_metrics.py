"""What a worker shows of what it did."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from opentelemetry.trace import NoOpTracer
from prometheus_client import CollectorRegistry, generate_latest

from models import CATALOG
from shared.catalog import Catalog
from shared.job import JobStatus, NewJob
from tests.worker.conftest import Bench
from tests.worker.engine.conftest import request
from tests.worker.engine.faults import allocate_too_much, run_together
from worker.engine import Engine, JobResult, ModelCache
from worker.metrics import AttemptMetrics, EngineCollector
from worker.pace import PaceMeter
from worker.records import Records

MakeJob = Callable[..., NewJob]
CANARY = "canarykwyjibo"


def read(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_what_ran_is_counted_and_no_word_of_it_shown(bench: Bench, make_job: MakeJob) -> None:
    registry = CollectorRegistry()
    bench.task._records = Records(AttemptMetrics(registry), NoOpTracer(), worker="bench")
    catalog = Catalog.load(CATALOG)
    registry.register(EngineCollector(bench.engine, bench.engine._models, catalog, device="cpu"))
    ids = [bench.jobs.insert(make_job(prompt=CANARY, steps=4, num_outputs=2))[0].id]
    ids.append(bench.jobs.insert(make_job(prompt=CANARY, steps=4, guidance=1.0))[0].id)
    for job_id in ids:
        bench.task.run(job_id)
        assert bench.get(job_id).status is JobStatus.SUCCEEDED
    assert read(registry, "latentq_iterations_total", model="demo") == 4 * 2 + 4
    rows = {"model": "demo"}
    assert read(registry, "latentq_forward_rows_count", **rows) == 8
    # Two outputs with guidance are four rows of a forward, one without is one.
    assert read(registry, "latentq_forward_rows_sum", **rows) == 4 * 4 + 4 * 1
    assert read(registry, "latentq_forward_rows_bucket", le="1.0", **rows) == 4
    assert read(registry, "latentq_forward_rows_bucket", le="+Inf", **rows) == 8
    assert read(registry, "latentq_attempts_total", outcome="succeeded") == 2
    waits = {"model": "demo", "service_class": "interactive"}
    assert read(registry, "latentq_queue_wait_seconds_count", **waits) == 2
    assert read(registry, "latentq_run_seconds_count", **rows) == 2
    # The first job encodes its prompt and the empty one, the second finds its own.
    assert read(registry, "latentq_prompt_cache_requests_total", result="miss") == 2
    assert read(registry, "latentq_prompt_cache_requests_total", result="hit") == 1
    assert read(registry, "latentq_model_loaded", **rows) == 1
    assert read(registry, "latentq_model_loads_total", **rows) == 1
    assert read(registry, "latentq_model_bytes", **rows) == bench.engine._models.used_bytes > 0
    assert read(registry, "latentq_model_budget_bytes") == bench.engine._models.budget_bytes
    for stage in ("forward", "scheduler", "encode", "decode"):
        assert read(registry, "latentq_engine_seconds_total", stage=stage)
    (cap,) = (family for family in registry.collect() if family.name == "latentq_row_cap")
    assert [sample.labels["latent_shape"] for sample in cap.samples] == ["1x4x16x16"]
    assert CANARY not in generate_latest(registry).decode()


def test_a_result_that_comes_too_late_is_counted_as_fenced(bench: Bench, make_job: MakeJob) -> None:
    registry = CollectorRegistry()
    bench.task._records = Records(AttemptMetrics(registry), NoOpTracer(), worker="bench")
    job_id = bench.jobs.insert(make_job(sampler="ddpm", steps=1000))[0].id
    thread = bench.run_beside(job_id)
    bench.expire_leases()
    bench.keeper.beat()
    thread.join(30)
    assert read(registry, "latentq_fenced_writes_total") == 1


def test_a_pace_is_of_what_was_done_since_the_last_look(bench: Bench, make_job: MakeJob) -> None:
    now = [0.0]
    meter = PaceMeter(bench.engine, lambda: now[0])
    now[0] = 2.0
    idle = meter.measure()
    assert (idle.rows_per_forward, idle.iterations_per_s, idle.forward_share) == (None, 0, None)
    bench.task.run(bench.jobs.insert(make_job(steps=4, guidance=1.0))[0].id)
    now[0] = 4.0
    busy = meter.measure()
    assert (busy.rows_per_forward, busy.iterations_per_s) == (1, 2)
    assert busy.forward_share == pytest.approx(0.9, abs=0.4)
    assert busy.memory_bytes is not None


def test_forwards_without_memory_are_counted_and_lower_the_cap(
    models: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, registry = models.get("demo"), CollectorRegistry()
    predict = family.predict

    def predict_few(latents: torch.Tensor, *inputs: Any) -> torch.Tensor:
        if len(latents) > 2:
            allocate_too_much()
        return predict(latents, *inputs)

    def collect(engine: Engine) -> None:
        catalog = Catalog.load(CATALOG)
        registry.register(EngineCollector(engine, models, catalog, device="cpu"))

    monkeypatch.setattr(family, "predict", predict_few)
    jobs = [request(steps=2, seed=seed) for seed in range(2)]
    outcomes = run_together(models, jobs, prepare=collect)
    assert all(isinstance(outcome, JobResult) for outcome in outcomes)
    assert read(registry, "latentq_unfit_forwards_total", model="demo") == 1
    (cap,) = (family for family in registry.collect() if family.name == "latentq_row_cap")
    assert [sample.value for sample in cap.samples] == [2]
