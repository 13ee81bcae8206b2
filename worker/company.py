"""Who may run beside whom: what may kill workers runs alone, as does a second try for memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: How often one that waits to be alone is asked whether it still wants to, in seconds.
ASK_S = 0.1


class Company:
    """Lets any number of jobs run together, or one of them alone.

    One that wants to be alone goes first: nobody joins from then on, and it begins when the last of
    the others has left.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_together = 0
        self._num_wanting_alone = 0
        self._is_one_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run beside others; waits while one is alone, or wants to be."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_wanting_alone == 0)
            self._num_together += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, *, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[bool]:
        """Run with nobody beside; waits for all others to end, unless it is wanted no more.

        Yields whether it is alone.
        """
        with self._changed:
            self._num_wanting_alone += 1
            while is_wanted() and not self._is_empty():
                self._changed.wait_for(self._is_empty, timeout=ASK_S)
            is_alone = self._is_empty()
            self._is_one_alone = self._is_one_alone or is_alone
        try:
            yield is_alone
        finally:
            with self._changed:
                self._is_one_alone = self._is_one_alone and not is_alone
                self._num_wanting_alone -= 1
                self._changed.notify_all()

    def _is_empty(self) -> bool:
        return self._num_together == 0 and not self._is_one_alone
