"""One supervised process."""

import contextlib
import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigurationError

#: Pause between two questions whether a child is ready, in seconds.
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run a process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    #: Asked again and again after the start, until it says yes.
    is_ready: Callable[[], bool]
    #: What must be in order before each start.
    prepare: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    #: Account to run under; None for the supervisor's own.
    user: str | None = None
    ready_timeout_s: float = 60.0


@dataclass(slots=True)
class Child:
    """A process and how to bring it up and down."""

    spec: ChildSpec
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self.is_alive else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs or before it started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches the supervisor alone.

        Raises:
            ConfigurationError: It cannot be started.
        """
        self.spec.prepare()
        account = None if self.spec.user is None else pwd.getpwnam(self.spec.user)
        with self.spec.log_path.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.spec.command,
                    env=dict(self.spec.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    user=None if account is None else account.pw_uid,
                    group=None if account is None else account.pw_gid,
                    extra_groups=None if account is None else [],
                )
            except OSError as error:
                raise ConfigurationError(f"{self.spec.name} cannot be started: {error}") from error

    def wait_until_ready(self, interrupt: threading.Event) -> None:
        """Wait until the process serves, or until the wait is interrupted.

        Raises:
            ConfigurationError: It died, or took too long; names its log.
        """
        deadline = time.monotonic() + self.spec.ready_timeout_s
        while not self.spec.is_ready() and not interrupt.is_set():
            if not self.is_alive:
                raise ConfigurationError(
                    f"{self.spec.name} died at its start, exit code {self.exit_code}: "
                    f"{_last_line(self.spec.log_path)}"
                )
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self.spec.name} is not ready after {self.spec.ready_timeout_s:.0f} s; "
                    f"see {self.spec.log_path}"
                )
            interrupt.wait(POLL_S)

    def signal_stop(self) -> None:
        """Ask the process to end."""
        self._signal(self.spec.stop_signal)

    def kill(self) -> None:
        """End the process and all of its group at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; returns whether it has."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive and self._process is not None:
            # It may end between the look and the signal.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def stop_all(children: Sequence[Child], *, timeout_s: float) -> None:
    """Ask all processes at once to end, and kill what has not after the time-out."""
    for child in children:
        child.signal_stop()
    deadline = time.monotonic() + timeout_s
    for child in children:
        if not child.wait(max(deadline - time.monotonic(), 0.0)):
            child.kill()
            child.wait(timeout_s)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no log"
