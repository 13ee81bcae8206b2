"""The right to use a model."""

from collections.abc import Callable
from concurrent.futures import Future

from worker.engine.families.family import Family


class Pin:
    """A model stays loaded as long as anybody has a pin of it."""

    def __init__(self, family: Family, release: Callable[[], None]) -> None:
        self.family = family
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the right back; a second time does nothing."""
        release, self._release = self._release, None
        if release is not None:
            del self.family
            release()


def let_go(wanted: "Future[Pin]") -> None:
    """Want a model no longer, whether it has come or is still to come."""
    if not wanted.cancel():
        wanted.add_done_callback(_release)


def _release(wanted: "Future[Pin]") -> None:
    if wanted.exception() is None:
        wanted.result().release()
