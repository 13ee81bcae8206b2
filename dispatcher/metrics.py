"""Gauges of the dispatcher: how the queues stand, and each state that is bad."""

import math
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.checks import CHECKS
from dispatcher.situation import Observer, Situation
from shared.db.diagnosis import Snapshot, backlog_s

#: Pause between two looks at the stores, in seconds; a scrape shows the last one.
INTERVAL_S = 10.0


class StateGauges:
    """Gauges that show what an observer sees; NaN stands for what cannot be known now."""

    def __init__(self, observer: Observer, registry: CollectorRegistry) -> None:
        self._observer = observer
        self._gauges = [
            (check, Gauge(check.metric, check.meaning, registry=registry)) for check in CHECKS
        ]
        for _, gauge in self._gauges:
            gauge.set(math.nan)
        self._fleet = FleetCollector()
        registry.register(self._fleet)

    def run_once(self) -> None:
        """Look once."""
        situation = self._observer.look()
        for check, gauge in self._gauges:
            verdict = check.judge(situation)
            gauge.set(math.nan if verdict is None else verdict.amount)
        self._fleet.show(situation)


class FleetCollector(Collector):
    """Jobs and workers by model, as they were seen last: all of one look, or nothing.

    A database that is away leaves no numbers.
    """

    def __init__(self) -> None:
        self._seen: Situation | None = None

    def show(self, situation: Situation) -> None:
        """Show what was seen."""
        self._seen = situation

    def collect(self) -> Iterator[Metric]:
        """Return everything; a model of the catalog that has nothing has zeros."""
        families = {name: GaugeMetricFamily(name, *told) for name, told in _FLEET.items()}
        database = None if self._seen is None else self._seen.database
        if self._seen is not None and database is not None and database.snapshot is not None:
            snapshot = database.snapshot
            families["latentq_webhook_deliveries_pending"].add_metric(
                (), snapshot.pending_deliveries
            )
            names: dict[str, set[str]] = {name: {*own} for name, own in self._seen.queues.items()}
            for queue in snapshot.queues:
                names.setdefault(queue.model, set()).add(queue.queue)
            for model, own in names.items():
                _add_model(families, model, own, snapshot)
        yield from families.values()


def _add_model(
    families: Mapping[str, GaugeMetricFamily], model: str, names: set[str], snapshot: Snapshot
) -> None:
    queues = [queue for queue in snapshot.queues if queue.model == model]
    counts = {
        "held": sum(queue.held for queue in queues),
        "waiting": sum(queue.waiting - queue.announced for queue in queues),
        "announced": sum(queue.announced for queue in queues),
        "running": sum(queue.running for queue in queues),
    }
    for state, count in counts.items():
        families["latentq_jobs"].add_metric((model, state), count)
    serving = [worker for worker in snapshot.workers if names & set(worker.queues)]
    values = {
        "latentq_backlog_device_seconds": backlog_s(queues),
        "latentq_oldest_waiting_seconds": max((queue.oldest_s for queue in queues), default=0.0),
        "latentq_workers": len(serving),
        "latentq_worker_slots": sum(worker.slots for worker in serving),
    }
    for name, value in values.items():
        families[name].add_metric((model,), value)


#: What each gauge shows, None for its value, and its labels.
_FLEET: Mapping[str, tuple[str, None, Sequence[str]]] = {
    "latentq_jobs": (
        "Jobs that have not ended: held until their time, waiting in SQL, announced in Redis, "
        "running",
        None,
        ("model", "state"),
    ),
    "latentq_backlog_device_seconds": (
        "Predicted time of a device that queued and running jobs still need, those held until "
        "their time left out",
        None,
        ("model",),
    ),
    "latentq_oldest_waiting_seconds": (
        "For how long the job that has waited longest could have run",
        None,
        ("model",),
    ),
    "latentq_workers": ("Live workers that serve a model", None, ("model",)),
    "latentq_worker_slots": (
        "Jobs that the live workers which serve a model may hold at once",
        None,
        ("model",),
    ),
    "latentq_webhook_deliveries_pending": ("Webhooks that are still to be delivered", None, ()),
}
