"""Keep a set of processes running until told to stop."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from cli.standalone.child import Child, stop_all
from cli.standalone.guardian import Guardian
from shared.errors import ConfigurationError

#: Delay before a child that died is started again: the first, and the longest, in seconds.
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
#: A child that lived for this long is no longer held to have failed at its start, in seconds.
SETTLED_S = 30.0
#: How often children are looked after, in seconds.
TICK_S = 0.1


@dataclass(slots=True)
class _Care:
    """What the supervisor knows of a child."""

    child: Child
    started_at: float
    #: Deaths in a row, each soon after the start.
    failures: int = 0
    #: When to start it again; None while it runs.
    due_at: float | None = None


class Supervisor:
    """Start children, start again those that die, and stop them all."""

    def __init__(
        self,
        *,
        say: Callable[[str], None],
        on_restart: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._on_restart = on_restart
        self._clock = clock
        self._cares: list[_Care] = []
        self._guardian = Guardian()
        self.stopping = threading.Event()
        #: The signal that asked to stop.
        self.stopped_by: signal.Signals | None = None

    def install_signal_handlers(self) -> None:
        """Stop on SIGTERM and Ctrl-C; a second one kills whatever still runs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def start(self, child: Child) -> None:
        """Start a child and look after it from now on.

        Raises:
            ConfigurationError: It cannot be started.
        """
        child.start()
        self._cares.append(_Care(child, started_at=self._clock()))
        self._guard(child)

    def run(self) -> None:
        """Look after the children until told to stop."""
        while not self.stopping.wait(TICK_S):
            self.look_after()

    def look_after(self) -> None:
        """Start again what died and is due."""
        self._guardian.ensure_alive()
        for care in self._cares:
            if care.due_at is not None:
                if self._clock() >= care.due_at:
                    self._revive(care)
            elif not care.child.is_alive:
                self._schedule(care, f"died, exit code {care.child.exit_code}")

    def stop(self, groups: Sequence[tuple[Sequence[Child], float]]) -> None:
        """Stop groups of children one after the other, each with its time-out in seconds."""
        for children, timeout_s in groups:
            stop_all(children, timeout_s=timeout_s)
        self._guardian.dismiss()

    def _revive(self, care: _Care) -> None:
        care.due_at = None
        care.started_at = self._clock()
        try:
            care.child.start()
        except ConfigurationError as error:
            self._schedule(care, error.detail)
            return
        self._guard(care.child)
        self._on_restart()

    def _schedule(self, care: _Care, reason: str) -> None:
        now = self._clock()
        if now - care.started_at > SETTLED_S:
            care.failures = 0
        delay_s = min(FIRST_DELAY_S * 2**care.failures, LONGEST_DELAY_S)
        care.failures += 1
        care.due_at = now + delay_s
        self._say(f"{care.child.spec.name} {reason}; starting it again in {delay_s:.1f} s")

    def _guard(self, child: Child) -> None:
        if child.pid is not None:
            self._guardian.watch(child.pid, child.spec.stop_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping.is_set():
            for care in self._cares:
                care.child.kill()
        self.stopped_by = self.stopped_by or signal.Signals(number)
        self.stopping.set()
