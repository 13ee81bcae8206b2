"""Which workers and dispatchers are alive, and what workers serve."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from shared.db.tables import dispatchers, jobs, workers
from shared.holding import Holding, HoldingState, Stock
from shared.job import JobStatus

#: A worker that has not been heard of for this long gives its queues no more room, in seconds.
WORKER_SILENCE_S = 60
#: A process that does its work is heard of at least this often, in seconds.
HEALTHY_SILENCE_S = 30


def is_live() -> sa.ColumnElement[bool]:
    """Tell, of a row of `workers`, whether it was heard of lately."""
    return workers.c.heartbeat_at > sa.func.now() - timedelta(seconds=WORKER_SILENCE_S)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What goes on around a worker."""

    #: For how long the oldest announced job of a queue has waited for a worker, in seconds.
    waited_s: Mapping[str, float]
    #: Queues whose models other live workers hold warm.
    warm_elsewhere: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pace:
    """What a worker did since it was heard of before; None where it did nothing, or did not say."""

    rows_per_forward: float | None = None
    iterations_per_s: float | None = None
    #: Of the time in steps.
    forward_share: float | None = None
    #: What its process has in memory.
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerStock:
    """What a live worker holds."""

    worker_id: str
    device: str
    stock: Stock


class WorkerRepository:
    """Which workers are alive and what they serve."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(  # noqa: PLR0913 - one for each column
        self,
        worker_id: str,
        *,
        device: str,
        queues: list[str],
        slots: int,
        stock: Stock = Stock(),  # noqa: B008 - never changed
        clock: datetime | None = None,
        pace: Pace = Pace(),
    ) -> None:
        """Say that a worker is alive.

        Args:
            stock: What it holds.
            pace: How fast it went since the last time.
            clock: What its clock shows, if it has one that matters.
        """
        ahead = sa.literal(clock, sa.TIMESTAMP(timezone=True)) - sa.func.clock_timestamp()
        values = {
            "id": worker_id,
            "device": device,
            "queues": queues,
            "slots": slots,
            "warm_queues": list(stock.warm_queues),
            "models": [asdict(holding) for holding in stock.holdings],
            "model_budget_bytes": stock.budget_bytes,
            "clock_offset_s": sa.extract("epoch", ahead),
            **asdict(pace),
        }
        statement = insert(workers).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_=values | {"heartbeat_at": sa.func.now()}
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def look_around(self, worker_id: str) -> Surroundings:
        """Tell a worker what it needs to know to choose a queue."""
        waits = (
            sa.select(
                jobs.c.queue,
                sa.extract("epoch", sa.func.now() - sa.func.min(jobs.c.dispatched_at)).label("s"),
            )
            .where(jobs.c.status == JobStatus.QUEUED, jobs.c.dispatched_at.is_not(None))
            .group_by(jobs.c.queue)
        )
        warm = (
            sa.select(sa.func.unnest(workers.c.warm_queues))
            .where(workers.c.id != worker_id, is_live())
            .distinct()
        )
        with self._engine.connect() as connection:
            return Surroundings(
                waited_s={row.queue: float(row.s) for row in connection.execute(waits)},
                warm_elsewhere=frozenset(connection.scalars(warm)),
            )

    def read_stocks(self) -> list[WorkerStock]:
        """Read what the live workers hold."""
        query = sa.select(workers).where(is_live()).order_by(workers.c.id)
        with self._engine.connect() as connection:
            return [_read_stock(row) for row in connection.execute(query)]

    def is_heard_of(self, host: str) -> bool:
        """Tell whether a worker of a host was heard of lately."""
        is_there = workers.c.id.contains(f"@{host}:", autoescape=True)
        return _is_heard_of(self._engine, is_there, workers.c.heartbeat_at)

    def leave(self, worker_id: str) -> None:
        """Say that a worker has gone."""
        with self._engine.begin() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker_id))


def _read_stock(row: sa.Row[Any]) -> WorkerStock:
    holdings = (
        Holding(**holding | {"state": HoldingState(holding["state"])}) for holding in row.models
    )
    stock = Stock(tuple(row.warm_queues), tuple(holdings), row.model_budget_bytes)
    return WorkerStock(row.id, row.device, stock)


class DispatcherRepository:
    """Note the dispatchers that are alive. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def beat(self, dispatcher_id: str) -> None:
        """Say that a dispatcher is alive."""
        statement = insert(dispatchers).values(id=dispatcher_id)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"heartbeat_at": sa.func.now()}
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def is_heard_of(self, host: str) -> bool:
        """Tell whether a dispatcher of a host was heard of lately."""
        is_there = dispatchers.c.id.startswith(f"{host}:", autoescape=True)
        return _is_heard_of(self._engine, is_there, dispatchers.c.heartbeat_at)

    def leave(self, dispatcher_id: str) -> None:
        """Say that a dispatcher has gone."""
        with self._engine.begin() as connection:
            connection.execute(dispatchers.delete().where(dispatchers.c.id == dispatcher_id))


def _is_heard_of(
    engine: sa.Engine, is_there: sa.ColumnElement[bool], heartbeat_at: sa.ColumnElement[datetime]
) -> bool:
    is_fresh = heartbeat_at > sa.func.now() - timedelta(seconds=HEALTHY_SILENCE_S)
    with engine.connect() as connection:
        return bool(connection.scalar(sa.select(sa.exists().where(is_there, is_fresh))))
