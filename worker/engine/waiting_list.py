"""Who waits for which model."""

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future

from worker.engine.pin import Pin


class WaitingList:
    """Futures by model; the model that was asked for first is first. Used by one thread."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, list[Future[Pin]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._waiting))

    def add(self, model_id: str, wanted: "Future[Pin]") -> None:
        """Have one more wait for a model."""
        self._waiting.setdefault(model_id, []).append(wanted)

    def take(self, model_id: str) -> "list[Future[Pin]]":
        """Return all that wait for a model, who cannot be canceled any more, and forget them."""
        waiting = self._waiting.pop(model_id, [])
        return [wanted for wanted in waiting if wanted.set_running_or_notify_cancel()]

    def forget_canceled(self) -> None:
        """Forget those that want their model no longer."""
        for model_id, futures in list(self._waiting.items()):
            self._waiting[model_id] = [wanted for wanted in futures if not wanted.cancelled()]
            if not self._waiting[model_id]:
                del self._waiting[model_id]
