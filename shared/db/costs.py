"""What stages of models were measured to cost, by kind of device."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from shared.db.presence import is_live
from shared.db.tables import costs, workers
from shared.estimate import CostCell, DeviceCosts, Fleet, Workload

#: Most cells of a model and device that anybody reads, the best known ones.
MAX_CELLS = 500

log = structlog.get_logger(__name__)


class CostRepository:
    """Save and load measured costs. Each method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def save(self, cells: Iterable[CostCell]) -> None:
        """Store cells in one statement; who measured a cell last is right."""
        values = [
            {
                "model": cell.model,
                "device": cell.device,
                "workload": str(cell.workload),
                "rows": cell.rows,
                "ms": cell.ms,
                "samples": cell.samples,
            }
            for cell in cells
        ]
        if not values:
            return
        # In one order for all: two workers would wait for each other's rows otherwise.
        values.sort(key=lambda row: (row["model"], row["device"], row["workload"], row["rows"]))
        statement = insert(costs).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=list(costs.primary_key),
            set_={
                "ms": statement.excluded.ms,
                "samples": statement.excluded.samples,
                "updated_at": sa.func.now(),
            },
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def load(self, *, model: str, device: str) -> list[CostCell]:
        """Read what is known of a model on a kind of device."""
        with self._engine.connect() as connection:
            return _read(connection, costs.c.model == model, costs.c.device == device)

    def forget(self, *, model: str, device: str) -> None:
        """Drop what was found to be wrong of a model on a kind of device."""
        with self._engine.begin() as connection:
            connection.execute(
                costs.delete().where(costs.c.model == model, costs.c.device == device)
            )

    def load_fleet(self) -> Fleet:
        """Read what estimates need: the workers that live, and what their devices cost."""
        living = sa.select(workers.c.device, workers.c.queues).where(is_live())
        with self._engine.connect() as connection:
            serving: dict[str, Counter[str]] = defaultdict(Counter)
            for row in connection.execute(living):
                for queue in row.queues:
                    serving[queue][row.device] += 1
            devices = {device for counts in serving.values() for device in counts}
            cells = _read(connection, costs.c.device.in_(devices)) if devices else []
        by_device: dict[tuple[str, str], list[CostCell]] = defaultdict(list)
        for cell in cells:
            by_device[cell.model, cell.device].append(cell)
        return Fleet(
            workers=serving, costs={key: DeviceCosts(found) for key, found in by_device.items()}
        )


def _read(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[CostCell]:
    rank = sa.func.row_number().over(
        partition_by=(costs.c.model, costs.c.device),
        order_by=(costs.c.samples.desc(), costs.c.workload, costs.c.rows),
    )
    ranked = sa.select(costs, rank.label("rank")).where(*conditions).subquery()
    query = sa.select(ranked).where(ranked.c.rank <= MAX_CELLS).order_by(ranked.c.rank)
    cells = (_read_cell(row) for row in connection.execute(query))
    return [cell for cell in cells if cell is not None]


def _read_cell(row: sa.Row[Any]) -> CostCell | None:
    """Read a row; one that no measurement gives is told of and left out."""
    try:
        workload = Workload.parse(row.workload)
        return CostCell(row.model, row.device, workload, row.rows, row.ms, row.samples)
    except ValueError as error:
        log.warning("cost_refused", model=row.model, device=row.device, reason=str(error))
        return None
