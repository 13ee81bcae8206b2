"""A LatentQ for as long as the demo takes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from cli.standalone.state import choose_port
from latentq_client import Client
from shared.errors import ConfigurationError

START_TIMEOUT_S = 120.0
#: The supervisor stops everything within ten seconds.
STOP_TIMEOUT_S = 15.0
POLL_S = 0.1


@contextlib.contextmanager
def run_stack(
    data_dir: Path, *, num_workers: int, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Client]:
    """Start `latentq up`, hand out a client for it, and stop it in the end.

    `variables` go to its processes beside those of this one.

    Raises:
        ConfigurationError: It does not come up; it has said why itself.
    """
    arguments = ["--data-dir", data_dir, "--port", choose_port(), "--workers", num_workers]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", "up", *map(str, arguments)],
        env=os.environ | variables,  # noqa: TID251 - handed on, not read
        # Ctrl-C is for the demo, which stops the stack itself.
        start_new_session=True,
    )
    try:
        connection = _wait_for_connection(process, data_dir / "connection.json")
        with Client(connection["base_url"], connection["api_key"]) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its guardian ends what it leaves


def _wait_for_connection(process: "subprocess.Popen[bytes]", path: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not path.exists():
        if process.poll() is not None:
            raise ConfigurationError("latentq up ended before it was ready")
        if time.monotonic() > deadline:
            raise ConfigurationError(f"latentq up is not ready after {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
    connection: dict[str, str] = json.loads(path.read_text())
    return connection
