"""What `latentq top` shows: jobs, models and workers at one moment, as a document and as tables."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shared.db.diagnosis import (
    RECENT_S,
    DiagnosisRepository,
    QueueState,
    Snapshot,
    WorkerState,
    backlog_s,
)
from shared.db.migrate import is_pending
from shared.errors import ConfigurationError

JsonObject = dict[str, Any]
STATES = ("held", "waiting", "announced", "running")


def look_at_fleet(database: sa.Engine) -> JsonObject:
    """Look once.

    Raises:
        ConfigurationError: The schema is another one than this program's.
        OperationalError: PostgreSQL does not answer.
    """
    if is_pending(database):
        raise ConfigurationError("migrations are missing: run latentq migrate")
    diagnosis = DiagnosisRepository(database)
    snapshot = diagnosis.look()
    models = [_describe_model(name, snapshot) for name in sorted(_models_of(snapshot))]
    return {
        "jobs": {
            **{state: sum(model[state] for model in models) for state in STATES},
            **diagnosis.recent_ends(),
        },
        "ended_within_s": RECENT_S,
        "models": models,
        "workers": [_describe_worker(worker) for worker in snapshot.workers],
        "silent_workers": snapshot.silent_workers,
        "dispatchers": snapshot.dispatchers,
        "webhooks": {"pending": snapshot.pending_deliveries, "dead": snapshot.dead_deliveries},
    }


def draw_fleet(fleet: JsonObject) -> RenderableType:
    """Draw what was seen."""
    jobs, minutes = fleet["jobs"], fleet["ended_within_s"] / 60
    webhooks = fleet["webhooks"]
    lines = [
        "jobs      " + "  ".join(f"{jobs[state]:,} {state}" for state in STATES),
        f"ended     {jobs['succeeded']:,} succeeded  {jobs['failed']:,} failed  "
        f"{jobs['canceled']:,} canceled  in the last {minutes:g} minutes",
        f"webhooks  {webhooks['pending']:,} pending  {webhooks['dead']:,} given up",
        f"alive     {len(fleet['workers'])} workers  {fleet['dispatchers']} dispatchers  "
        f"({fleet['silent_workers']} workers fell silent)",
    ]
    return Group(
        *(Text(line) for line in lines),
        Text(),
        _draw_models(fleet["models"]),
        Text(),
        _draw_workers(fleet["workers"]),
    )


def _models_of(snapshot: Snapshot) -> set[str]:
    served = {_model_of(queue) for worker in snapshot.workers for queue in worker.queues}
    return served | {queue.model for queue in snapshot.queues}


def _model_of(queue: str) -> str:
    """Name the model of a queue; its service class stands behind the last dot."""
    return queue.rpartition(".")[0]


def _describe_model(name: str, snapshot: Snapshot) -> JsonObject:
    queues: Sequence[QueueState] = [queue for queue in snapshot.queues if queue.model == name]
    serving = [w for w in snapshot.workers if name in map(_model_of, w.queues)]
    return {
        "model": name,
        "held": sum(queue.held for queue in queues),
        "waiting": sum(queue.waiting - queue.announced for queue in queues),
        "announced": sum(queue.announced for queue in queues),
        "running": sum(queue.running for queue in queues),
        "backlog_s": round(backlog_s(queues), 3),
        "oldest_s": round(max((queue.oldest_s for queue in queues), default=0.0), 3),
        "workers": len(serving),
        "slots": sum(worker.slots for worker in serving),
    }


def _describe_worker(worker: WorkerState) -> JsonObject:
    models: dict[str, bool] = defaultdict(bool)
    for queue in worker.queues:
        models[_model_of(queue)] |= queue in worker.warm_queues
    return {
        "id": worker.id,
        "device": worker.device,
        "models": list(models),
        "warm_models": [name for name, is_warm in models.items() if is_warm],
        "running": worker.running,
        "slots": worker.slots,
        "rows_per_forward": worker.pace.rows_per_forward,
        "iterations_per_s": worker.pace.iterations_per_s,
        "forward_share": worker.pace.forward_share,
        "memory_bytes": worker.pace.memory_bytes,
        "heard_of_ago_s": round(worker.silent_s, 3),
    }


def _draw_models(models: Sequence[JsonObject]) -> Table:
    table = _new_table("model", "held", "waiting", "announced", "running", "backlog", "oldest")
    table.add_column("workers", justify="right")
    table.add_column("slots", justify="right")
    for model in models:
        table.add_row(
            Text(model["model"]),
            *(f"{model[state]:,}" for state in STATES),
            _show_time(model["backlog_s"]),
            _show_time(model["oldest_s"]),
            f"{model['workers']:,}",
            f"{model['slots']:,}",
        )
    return table


def _draw_workers(workers: Sequence[JsonObject]) -> Table:
    table = _new_table("worker", "jobs", "rows", "it/s", "forward", "memory", "heard of")
    table.add_column("models", overflow="fold")
    table.add_column("device", overflow="ellipsis", no_wrap=True)
    for worker in workers:
        table.add_row(
            Text(worker["id"]),
            f"{worker['running']}/{worker['slots']}",
            _show(worker["rows_per_forward"], "{:.1f}"),
            _show(worker["iterations_per_s"], "{:,.1f}"),
            _show(worker["forward_share"], "{:.0%}"),
            _show(worker["memory_bytes"], "{:,.0f} MiB", unit=2**20),
            f"{worker['heard_of_ago_s']:.0f} s ago",
            Text.assemble(
                *(
                    (f"{name} ", "bold" if name in worker["warm_models"] else "dim")
                    for name in worker["models"]
                )
            ),
            Text(worker["device"]),
        )
    return table


def _new_table(name: str, *figures: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(name, no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def _show(value: float | None, pattern: str, *, unit: float = 1) -> str:
    return "-" if value is None else pattern.format(value / unit)


def _show_time(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
