"""What forwards cost, kept beyond this process: for the next start and for estimates."""

import threading
from collections.abc import Hashable, Iterable, Iterator

import structlog

from shared.db.costs import CostRepository
from shared.db.session import DATABASE_AWAY
from shared.estimate import CostCell, Stage, Workload
from worker.engine.cost import Cost, CostModel
from worker.engine.trajectory import DecodeKey, ForwardKey

#: An average that moved by less than this share since it was saved is not worth a write.
MIN_CHANGE = 0.02

log = structlog.get_logger(__name__)


class CostKeeper:
    """Bring an engine's costs to SQL and back."""

    def __init__(self, repository: CostRepository, costs: CostModel, *, device: str) -> None:
        self._repository = repository
        self._costs = costs
        self._device = device
        # Models whose rows are wrong, until the next save.
        self._to_forget: set[str] = set()
        # Milliseconds that are stored, as far as this process knows.
        self._saved: dict[tuple[str, Workload, int], float] = {}
        # Costs are recalled by whoever loads a model, and saved with the heartbeats.
        self._lock = threading.Lock()

    def recall(self, model_id: str) -> list[Cost]:
        """Return what workers on this kind of device knew of a model; nothing if SQL is away."""
        try:
            cells = self._repository.load(model=model_id, device=self._device)
        except DATABASE_AWAY:
            log.warning("costs_not_loaded", model=model_id)
            return []
        self._note(cells)
        return [Cost(_read_key(cell), cell.rows, cell.ms, cell.samples) for cell in cells]

    def forget(self, model_id: str) -> None:
        """Have the next save drop what workers knew of a model on this kind of device.

        It was found to be wrong. Any thread may say so: it takes no time.
        """
        self._to_forget.add(model_id)

    def save(self) -> None:
        """Store what has changed since the last time.

        Raises:
            OperationalError: PostgreSQL is away; the next call saves all of it.
        """
        for model_id in list(self._to_forget):
            self._repository.forget(model=model_id, device=self._device)
            with self._lock:
                self._saved = {
                    place: ms for place, ms in self._saved.items() if place[0] != model_id
                }
            self._to_forget.discard(model_id)
        changed = [cell for cell in self._cells() if self._is_news(cell)]
        self._repository.save(changed)
        self._note(changed)

    def _cells(self) -> Iterator[CostCell]:
        for cost in self._costs.table():
            model, workload = _write_key(cost.key)
            try:
                yield CostCell(model, self._device, workload, cost.rows, cost.ms, cost.samples)
            except ValueError as error:
                log.warning("cost_refused", model=model, device=self._device, reason=str(error))

    def _is_news(self, cell: CostCell) -> bool:
        before = self._saved.get((cell.model, cell.workload, cell.rows))
        return before is None or abs(cell.ms - before) > MIN_CHANGE * before

    def _note(self, cells: Iterable[CostCell]) -> None:
        with self._lock:
            self._saved |= {(cell.model, cell.workload, cell.rows): cell.ms for cell in cells}


def _write_key(key: Hashable) -> tuple[str, Workload]:
    match key:
        case ForwardKey():
            return key.model, Workload(Stage.FORWARD, *key[1:])
        case DecodeKey():
            return key.model, Workload(Stage.DECODE, key.latent_shape, 0)
    raise TypeError(f"the engine has no costs by {type(key).__name__}")


def _read_key(cell: CostCell) -> Hashable:
    match cell.workload.stage:
        case Stage.FORWARD:
            return ForwardKey(cell.model, *cell.workload[1:])
        case Stage.DECODE:
            return DecodeKey(cell.model, cell.workload.latent_shape)
