"""Who may run beside whom: a job that may be what kills workers runs alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
    def alone(self) -> Iterator[None]:
        """Run with nobody beside; waits for all others to end."""
        with self._changed:
            self._num_wanting_alone += 1
            self._changed.wait_for(lambda: self._num_together == 0 and not self._is_one_alone)
            self._is_one_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_one_alone = False
                self._num_wanting_alone -= 1
                self._changed.notify_all()
