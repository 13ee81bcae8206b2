"""LatentQ's processes on real servers, each started, killed and frozen by its name.

They are forked off one process that has everything loaded, so that a worker that was killed is back
at once, on a machine that would take many seconds to load torch. What runs in them is what `latentq
api`, `dispatcher` and `worker` run, on a simulated device.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self, TypeVar

import httpx
import psutil

import api.main
import dispatcher.main
from bench.simulated_device import run_worker
from cli.standalone.servers import Servers
from cli.standalone.state import choose_port
from shared.db.keys import KeyRepository, mint_key
from shared.db.migrate import upgrade
from shared.db.session import make_engine
from shared.storage import ObjectStore
from shared.store_address import StoreAddress

HOST = "127.0.0.1"
TENANT = "cluster"
#: How long a process may take to serve, or to end, in seconds.
READY_TIMEOUT_S = 100.0
POLL_S = 0.02
#: What a worker and a dispatcher log when they serve.
_READY = {"worker": " ready.", "dispatcher": "dispatcher_started"}

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["api.main", "dispatcher.main", "bench.simulated_device"])

Program = Callable[[], None]
T = TypeVar("T")


class Cluster:
    """The processes of one LatentQ: `api`, and any `dispatcher…` and `worker…`.

    Args:
        servers: PostgreSQL, Valkey and SeaweedFS, which run.
        logs: Where each start of a process has a file of its own.
        variables: More of the processes' environment.
        routes: Where a process finds the servers, by its name.
        step_s: How long a forward of the simulated device takes.
    """

    def __init__(
        self,
        servers: Servers,
        logs: Path,
        *,
        variables: Mapping[str, str],
        routes: Callable[[str], Mapping[str, str]] = lambda _: {},
        step_s: float,
    ) -> None:
        self.servers = servers
        self.api_key = mint_key()
        self.api_port = choose_port()
        self._logs = logs
        self._variables = variables
        self._routes = routes
        self._step_s = step_s
        self._starts: Counter[str] = Counter()
        self._processes: dict[str, ForkServerProcess] = {}

    def __enter__(self) -> Self:
        warm_up()
        database = make_engine(self.servers.database_url)
        upgrade(database)
        KeyRepository(database).ensure(self.api_key, tenant=TENANT, name="cluster")
        database.dispose()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.running():
            self.kill(name)

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return f"http://{HOST}:{self.api_port}"

    def start(self, name: str, *, program: Program | None = None, **variables: str) -> None:
        """Start a process, with another program or more variables than it has by its name."""
        if self.is_running(name):
            raise ValueError(f"{name} runs already")
        self._starts[name] += 1
        environment = {**self.servers.environment(), **self._variables, **self._routes(name)}
        process = _CONTEXT.Process(
            target=_run,
            args=(program or self._program_of(name), environment | variables, self._log_path(name)),
            name=name,
            daemon=True,
        )
        process.start()
        self._processes[name] = process

    def wait_until_ready(self, name: str) -> None:
        """Wait until a process that was started serves.

        Raises:
            TimeoutError: It does not.
        """
        kind = name.partition("-")[0]
        if kind == "api":
            wait_until(self._answers, timeout_s=READY_TIMEOUT_S)
        else:
            wait_until(lambda: _READY[kind] in self.read_log(name), timeout_s=READY_TIMEOUT_S)

    def running(self) -> list[str]:
        """Name the processes that run, or are frozen."""
        return [name for name in self._processes if self.is_running(name)]

    def is_running(self, name: str) -> bool:
        """Tell whether a process runs, or is frozen."""
        return name in self._processes and self._processes[name].is_alive()

    def pid(self, name: str) -> int:
        """Return the id of a process that runs.

        Raises:
            LookupError: It does not.
        """
        pid = self._processes[name].pid if self.is_running(name) else None
        if pid is None:
            raise LookupError(f"{name} does not run")
        return pid

    def kill(self, name: str) -> None:
        """End a process with -9."""
        self._signal(name, signal.SIGKILL)
        self.wait_for_end(name)

    def freeze(self, name: str) -> None:
        """Stop a process where it stands; one that has ended stays as it is."""
        self._signal(name, signal.SIGSTOP)
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._processes[name].pid)
            wait_until(lambda: process.status() == psutil.STATUS_STOPPED, timeout_s=READY_TIMEOUT_S)

    def thaw(self, name: str) -> None:
        """Let a frozen process go on."""
        self._signal(name, signal.SIGCONT)

    def terminate(self, name: str) -> None:
        """Ask a process to end."""
        self._signal(name, signal.SIGTERM)

    def wait_for_end(self, name: str, *, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait for a process to end, and return its exit code; a signal's number is negative.

        Raises:
            TimeoutError: It does not end.
        """
        process = self._processes[name]
        process.join(timeout_s)
        if process.exitcode is None:
            raise TimeoutError(f"{name} does not end")
        return process.exitcode

    def read_log(self, name: str) -> str:
        """Read what a process has logged since its last start."""
        try:
            return self._log_path(name).read_text()
        except FileNotFoundError:
            return ""

    def _program_of(self, name: str) -> Program:
        kind = name.partition("-")[0]
        if kind == "api":
            return partial(api.main.main, host=HOST, port=self.api_port)
        if kind == "dispatcher":
            return dispatcher.main.main
        return partial(run_worker, name, self._step_s)

    def _log_path(self, name: str) -> Path:
        return self._logs / f"{name}-{self._starts[name]}.log"

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.base_url}/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self._processes[name].pid
        # It may have ended by itself.
        if pid is not None and self.is_running(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def warm_up() -> None:
    """Have the process that all others are forked off load what they need, in the background."""
    forkserver.ensure_running()


def open_store(servers: Servers, *, endpoint: str | None = None) -> ObjectStore:
    """Open the bucket of servers, past everything that serves it, or by another way."""
    return ObjectStore(
        StoreAddress(
            endpoint=endpoint or servers.s3_endpoint,
            bucket=servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
    )


def wait_until(condition: Callable[[], T], *, timeout_s: float) -> T:
    """Ask until the answer is true, and return it.

    Raises:
        TimeoutError: It never was.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it within {timeout_s} s")
        time.sleep(POLL_S)
    return answer


def _run(program: Program, environment: Mapping[str, str], log_path: Path) -> None:
    """Be a process of the cluster."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    names = [name for name in os.environ if name.startswith("LATENTQ_")]  # noqa: TID251 - not read
    for name in names:
        del os.environ[name]  # noqa: TID251
    os.environ.update(environment)  # noqa: TID251
    with log_path.open("ab") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    program()


def _end_with_parent() -> None:
    """Leave nothing behind when whoever started the cluster is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
