"""What the system adds to the time that a job takes alone: API, queue, worker, store."""

import random
import statistics
import time
from dataclasses import dataclass
from functools import partial

import httpx
import torch

import worker.main
from bench.cluster import Cluster
from bench.mix import Kind, draw_jobs
from bench.stock import StockPipeline
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from shared.vocab import Sampler, Schedule

WORKER = "worker-1"
KIND = Kind(Sampler.DPMPP_2M, Schedule.KARRAS, 10, is_guided=True)
WARM_UPS = 3
#: How long an answer may take, in seconds.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Overhead:
    """Seconds of jobs that were alone, by turns through the system and by the pipeline."""

    system: list[float]
    pipeline: list[float]

    @property
    def median_s(self) -> float:
        """How much longer the system takes than the pipeline, at the median."""
        return statistics.median(self.system) - statistics.median(self.pipeline)


def measure_overhead(cluster: Cluster, spec: ModelSpec, *, rounds: int) -> Overhead:
    """Time jobs from the submission until the picture is there, and in stock diffusers.

    The client holds one request until the job has ended, and follows the link in its answer.
    """
    cluster.start(WORKER, program=partial(worker.main.main, name=WORKER))
    cluster.wait_until_ready(WORKER)
    # As the worker has it: what a second thread gains or costs is none of the system's doing.
    torch.set_num_threads(1)
    stock = StockPipeline(spec)
    measured = Overhead([], [])
    # Prompts differ, so that neither side has encoded one before.
    jobs = draw_jobs(spec, [KIND] * 2 * (WARM_UPS + rounds), seed=1)
    random.Random(2).shuffle(jobs)  # noqa: S311
    headers = {"Authorization": f"Bearer {cluster.api_key}", "Prefer": f"wait={TIMEOUT_S:g}"}
    with (
        httpx.Client(base_url=cluster.base_url, headers=headers, timeout=TIMEOUT_S) as client,
        httpx.Client(timeout=TIMEOUT_S) as links,
    ):
        for number in range(WARM_UPS + rounds):
            by_pipeline = _time_pipeline(stock, jobs[2 * number])
            by_system = _time_system(client, links, jobs[2 * number + 1])
            if number >= WARM_UPS:
                measured.pipeline.append(by_pipeline)
                measured.system.append(by_system)
    cluster.terminate(WORKER)
    cluster.wait_for_end(WORKER)
    return measured


def _time_pipeline(stock: StockPipeline, job: GenerationRequest) -> float:
    began = time.monotonic()
    stock.run([job])
    return time.monotonic() - began


def _time_system(client: httpx.Client, links: httpx.Client, job: GenerationRequest) -> float:
    fields = ("prompt", "sampler", "schedule", "steps", "guidance", "seed")
    body = job.model_dump(mode="json", include=set(fields))
    began = time.monotonic()
    answer = client.post("/v1/jobs", json=body)
    if answer.status_code != httpx.codes.OK:
        raise RuntimeError(f"the job did not end in time: {answer.status_code}")
    (artifact,) = answer.raise_for_status().json()["artifacts"]
    links.get(artifact["url"]).raise_for_status()
    return time.monotonic() - began
