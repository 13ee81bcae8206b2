"""What a worker shows at `/metrics`: counted as it happens, or read off the engine when asked."""

from collections import Counter as Counts
from collections.abc import Callable, Iterator

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from shared.catalog import Catalog
from shared.job import Claim
from worker.engine import Engine, ModelCache
from worker.engine.trajectory import ForwardKey

#: Upper ends of buckets, in seconds.
WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
RUN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600)
#: Rows of a forward.
ROW_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
#: Of so many batch keys the cap is shown: those that were run most.
MAX_KEYS = 32
#: Rows of the jobs that a cap is told for: those with guidance.
GUIDED_ROWS = 2


class AttemptMetrics:
    """How attempts go; any thread may count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waits = Histogram(
            "latentq_queue_wait_seconds",
            "From the moment a job may run until its first attempt begins",
            ["model", "service_class"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._runs = Histogram(
            "latentq_run_seconds",
            "Time of an attempt, from its claim to its end",
            ["model"],
            buckets=RUN_BUCKETS,
            registry=registry,
        )
        self._attempts = Counter(
            "latentq_attempts",
            "Attempts that ended here: succeeded, failed, canceled, handed_back or put_off",
            ["outcome"],
            registry=registry,
        )
        self._fenced = Counter(
            "latentq_fenced_writes",
            "Ends of attempts that were not written, since the lease was lost",
            registry=registry,
        )

    def note_claim(self, claim: Claim) -> None:
        """Count how long a job had waited; it waits once, whatever becomes of its first attempt."""
        if claim.lease.attempt == 1:
            request = claim.request
            self._waits.labels(request.model, request.service_class).observe(claim.waited_s)

    def note_run(self, model: str, seconds: float) -> None:
        """Count an attempt's time."""
        self._runs.labels(model).observe(seconds)

    def note_end(self, outcome: str) -> None:
        """Count an attempt whose end was written."""
        self._attempts.labels(outcome).inc()

    def note_fenced(self) -> None:
        """Count an end that was not written."""
        self._fenced.inc()


class EngineCollector(Collector):
    """Reads an engine and its models, which know nothing of metrics."""

    def __init__(
        self, engine: Engine, models: ModelCache, catalog: Catalog, *, device: str
    ) -> None:
        self._engine = engine
        self._models = models
        self._catalog = catalog
        self._device = torch.device(device)

    def collect(self) -> Iterator[Metric]:
        """Return everything as it stands."""
        yield from self._collect_work()
        yield from self._collect_time()
        yield self._collect_caps()
        yield from self._collect_models()
        yield self._collect_memory()

    def _collect_work(self) -> Iterator[Metric]:
        tally = self._engine.tally
        yield _count("latentq_iterations", "Steps of outputs", "model", tally.iterations)
        rows = HistogramMetricFamily(
            "latentq_forward_rows", "Rows of jobs in a forward, padding left out", labels=["model"]
        )
        forwards = tally.forwards.copy()
        for model in sorted({model for model, _ in forwards}):
            sizes = {size: count for (name, size), count in forwards.items() if name == model}
            rows.add_metric([model], *_bucket(sizes))
        yield rows
        yield _count(
            "latentq_padding_rows", "Rows that only filled forwards up", "model", tally.padding_rows
        )
        yield _count(
            "latentq_unfit_forwards",
            "Forwards that the device had no memory for; fewer rows were tried then",
            "model",
            tally.unfit_forwards,
        )
        found = {"hit": tally.prompt_hits, "miss": tally.prompt_misses}
        yield _count(
            "latentq_prompt_cache_requests",
            "Prompts that were found encoded (hit), or had to be (miss)",
            "result",
            found,
        )
        yield GaugeMetricFamily(
            "latentq_engine_jobs", "Jobs in the engine", value=len(self._engine.progress())
        )

    def _collect_time(self) -> Iterator[Metric]:
        timings = self._engine.timings
        seconds = {
            "forward": timings.forward_s,
            "scheduler": timings.scheduler_s,
            "other": max(timings.other_s, 0.0),
            "encode": timings.encode_s,
            "decode": timings.decode_s,
        }
        yield _count(
            "latentq_engine_seconds",
            "Time at work: forward, scheduler and other are parts of steps, encode and decode lie "
            "beside them",
            "stage",
            seconds,
        )

    def _collect_caps(self) -> Metric:
        """Tell up to how many rows share a forward, of the keys that were run most."""
        caps = GaugeMetricFamily(
            "latentq_row_cap",
            f"Rows that jobs with guidance may share a forward up to, for the {MAX_KEYS} batch "
            "keys that were run most",
            labels=["model", "latent_shape", "num_tokens", "num_adapters"],
        )
        costs = self._engine.costs
        run: Counts[ForwardKey] = Counts()
        for cost in costs.table():
            if isinstance(cost.key, ForwardKey):
                run[cost.key] += cost.samples
        for key, _ in run.most_common(MAX_KEYS):
            spec = self._catalog.get(key.model)
            if spec is None:
                continue
            limits = {"job_rows": GUIDED_ROWS, "max_rows": spec.max_rows}
            gains = costs.gains_from_batching(key, **limits)
            cap = costs.row_cap(key, **limits) if gains else GUIDED_ROWS
            cap = min(cap, self._engine.headroom.cap(key, max_rows=spec.max_rows))
            shape = "x".join(map(str, key.latent_shape))
            labels = [key.model, shape, str(key.num_tokens), str(key.num_adapters)]
            caps.add_metric(labels, cap)
        return caps

    def _collect_models(self) -> Iterator[Metric]:
        loaded = set(self._models.loaded)
        warm = GaugeMetricFamily(
            "latentq_model_loaded", "1 for a model that is in memory", labels=["model"]
        )
        for spec in self._catalog:
            warm.add_metric([spec.id], float(spec.id in loaded))
        yield warm
        yield _count("latentq_model_loads", "Loads of models", "model", self._models.loads)
        yield _count(
            "latentq_model_load_seconds", "Time of loading models", "model", self._models.load_s
        )
        size = GaugeMetricFamily(
            "latentq_model_bytes",
            "Memory of a model's weights, of one that is being loaded too",
            labels=["model"],
        )
        for model, holding in self._models.holdings().items():
            if holding.num_bytes is not None:
                size.add_metric([model], holding.num_bytes)
        yield size
        yield GaugeMetricFamily(
            "latentq_model_budget_bytes",
            "What the weights of all models may take together",
            value=self._models.budget_bytes,
        )

    def _collect_memory(self) -> Metric:
        memory = GaugeMetricFamily(
            "latentq_device_memory_bytes",
            "Memory of a CUDA device: allocated by tensors, reserved by this process, in all; a "
            "worker on a CPU has none",
            labels=["kind"],
        )
        if self._device.type == "cuda":
            memory.add_metric(["allocated"], torch.cuda.memory_allocated(self._device))
            memory.add_metric(["reserved"], torch.cuda.memory_reserved(self._device))
            memory.add_metric(["total"], torch.cuda.mem_get_info(self._device)[1])
        return memory


def show_leases(registry: CollectorRegistry, count: Callable[[], int]) -> None:
    """Show how many leases a worker holds."""
    held = Gauge("latentq_leases_held", "Leases that this worker holds", registry=registry)
    held.set_function(count)


def _count(
    name: str, meaning: str, label: str, values: "dict[str, int] | dict[str, float]"
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value in sorted(values.copy().items()):
        family.add_metric([value[0]], value[1])
    return family


def _bucket(sizes: dict[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Sum up counts by size as a histogram's buckets, and the sum of all sizes."""
    buckets: list[tuple[str, float]] = [
        (f"{end:.1f}", sum(count for size, count in sizes.items() if size <= end))
        for end in ROW_BUCKETS
    ]
    buckets.append(("+Inf", sum(sizes.values())))
    return buckets, sum(size * count for size, count in sizes.items())
