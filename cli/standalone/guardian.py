"""A small process that ends what a killed supervisor leaves behind.

The supervisor writes a line of JSON for each child it starts. When the pipe closes, the supervisor
is gone: whatever of its children still runs is asked to end, and killed if it does not. After an
orderly stop there is nothing left to do.

A parent-death signal would be lost when PostgreSQL changes its account, and is Linux's alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import psutil

#: How long the children may take to end when they are asked, in seconds.
GRACE_S = 5.0
POLL_S = 0.1


class Ward(NamedTuple):
    """A child: its id may be another process's by the time it matters, its birth cannot."""

    pid: int
    born_at: float
    stop_signal: int

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.born_at and process.status() != "zombie"
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Guardian:
    """The supervisor's end of the pipe."""

    def __init__(self) -> None:
        self._wards: dict[int, Ward] = {}
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the guardian."""
        return self._process.pid

    def watch(self, pid: int, stop_signal: int) -> None:
        """Have a child ended should the supervisor die."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it died already
            self._wards[pid] = Ward(pid, psutil.Process(pid).create_time(), stop_signal)
            self._tell(self._wards[pid])

    def ensure_alive(self) -> None:
        """Start the guardian again if it died, and tell it of all children."""
        if self._process.poll() is None:
            return
        self._pipe.close()
        self._start()
        self._wards = {pid: ward for pid, ward in self._wards.items() if ward.is_alive}
        for ward in self._wards.values():
            self._tell(ward)

    def dismiss(self) -> None:
        """Close the pipe and wait; ends what still runs."""
        self._pipe.close()
        self._process.wait()

    def _start(self) -> None:
        reading, writing = os.pipe()
        self._pipe = os.fdopen(writing, "w")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.standalone.guardian"],
            stdin=reading,
            start_new_session=True,
        )
        os.close(reading)

    def _tell(self, ward: Ward) -> None:
        # A guardian that just died is told when it is started again.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(f"{json.dumps(ward)}\n")
            self._pipe.flush()


def guard() -> None:
    """Read children from standard input; at its end, end them."""
    wards = [Ward(*json.loads(line)) for line in sys.stdin]
    for ward in wards:
        if ward.is_alive:
            ward.signal(ward.stop_signal)
    deadline = time.monotonic() + GRACE_S
    while any(ward.is_alive for ward in wards) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for ward in wards:
        if ward.is_alive:
            ward.signal(signal.SIGKILL)


if __name__ == "__main__":
    guard()
