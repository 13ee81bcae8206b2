"""Single keys of a terminal."""

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reading_keys() -> Iterator[Callable[[float], str]]:
    """Read keys as they are pressed, unseen; yields what waits for one, as long as it is told to.

    It returns nothing if none was pressed, and where there is no keyboard it only waits.
    """
    if not sys.stdin.isatty():
        yield _wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _read_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _wait(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""


def _read_key(timeout_s: float) -> str:
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return sys.stdin.read(1) if ready else ""
