"""All processes of LatentQ on one machine."""

import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import httpx

from cli.standalone import seaweedfs
from cli.standalone.child import Child, ChildSpec, stop_all
from cli.standalone.servers import STOP_TIMEOUT_S, Servers
from cli.standalone.state import DataDir, is_free, write_private
from cli.standalone.supervisor import Supervisor
from shared.access import ALL_SCOPES, KeyTerms
from shared.db.keys import KeyRepository
from shared.db.session import make_engine
from shared.db.webhooks import WebhookSecretRepository
from shared.errors import ConfigurationError

#: How long the API, the dispatcher and the workers may take to end, in seconds.
PROCESS_STOP_TIMEOUT_S = 4.5
#: What a worker knows of it: by then it has handed back what it holds, and is not killed.
WORKER_GRACE_S = 4
READY_TIMEOUT_S = 1.0
TENANT = "default"
METRICS_PORT = "LATENTQ_METRICS_PORT"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API listens."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """What clients on this machine call it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"


class System:
    """The servers, the API, the dispatcher and the workers of one data directory."""

    def __init__(
        self,
        data_dir: DataDir,
        address: Address,
        *,
        num_workers: int,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """Choose ports, find programs, and see that nothing is in the way.

        Raises:
            ConfigurationError: Something is.
        """
        for package, extra in (("fastapi", "api"), ("torch", "worker")):
            if importlib.util.find_spec(package) is None:
                raise ConfigurationError(f"{package} is missing: install latentq[{extra}]")
        if not is_free(address.port, address.host):
            raise ConfigurationError(
                f"port {address.port} of {address.host} is in use; choose another with --port"
            )
        self._data_dir = data_dir
        self._address = address
        self._environment = environment
        self._say = say
        self._servers = Servers(data_dir)
        self._migrate = self._describe("migrate", "migrate")
        self._dispatcher = self._describe("dispatcher", "dispatcher")
        self._api = self._describe(
            "api", "api", "--host", address.host, "--port", str(address.port),
            is_ready=partial(_answers, f"{address.base_url}/readyz"),
            environment=self._show_metrics(1),
        )  # fmt: skip
        names = [f"worker-{number}" for number in range(1, num_workers + 1)]
        grace = {"LATENTQ_GRACE_S": str(WORKER_GRACE_S)}
        self._workers = [
            self._describe(
                name, "worker", "--name", name, environment=grace | self._show_metrics(place)
            )
            for place, name in enumerate(names, start=2)
        ]
        self._supervisor = Supervisor(say=say, on_restart=self._write_connection)

    def run(self) -> signal.Signals | None:
        """Start everything, keep it running, stop it on SIGTERM or Ctrl-C; returns which it was.

        Raises:
            ConfigurationError: Something does not come up; nothing is left running.
        """
        self._connection_file.unlink(missing_ok=True)
        self._supervisor.install_signal_handlers()
        try:
            self._start()
            self._supervisor.run()
        finally:
            self._say("stopping")
            self._supervisor.stop(
                [
                    ([*self._workers, self._dispatcher, self._api], PROCESS_STOP_TIMEOUT_S),
                    (self._servers.children, STOP_TIMEOUT_S),
                ]
            )
            self._connection_file.unlink(missing_ok=True)
        return self._supervisor.stopped_by

    def _start(self) -> None:
        interrupt = self._supervisor.stopping
        for child in self._servers.children:
            self._supervisor.start(child)
        self._servers.wait_until_ready(interrupt)
        self._run_migrations(interrupt)
        if interrupt.is_set():
            return
        database = make_engine(self._servers.database_url)
        keys = KeyRepository(database)
        terms = KeyTerms(scopes=ALL_SCOPES)
        keys.ensure(self._data_dir.secret("api_key"), tenant=TENANT, name="latentq up", terms=terms)
        chosen = self._data_dir.secret("webhook_secret")
        self._webhook_secret = WebhookSecretRepository(database).ensure(TENANT, chosen)
        database.dispose()
        for child in (self._api, self._dispatcher, *self._workers):
            self._supervisor.start(child)
        self._api.wait_until_ready(interrupt)
        if not interrupt.is_set():
            self._write_connection()
            self._say(f"ready at {self._address.base_url}; key and more in {self._connection_file}")

    def _run_migrations(self, interrupt: threading.Event) -> None:
        self._migrate.start()
        while not self._migrate.wait(timeout_s=0.1):
            if interrupt.is_set():
                stop_all([self._migrate], timeout_s=1.0)
        if self._migrate.exit_code and not interrupt.is_set():
            raise ConfigurationError(f"migrations failed; see {self._migrate.spec.log_path}")

    @property
    def _connection_file(self) -> Path:
        return self._data_dir.path / "connection.json"

    def _write_connection(self) -> None:
        """Say how to reach everything, where programs find it."""
        children = [*self._servers.children, self._api, self._dispatcher, *self._workers]
        connection = {
            "base_url": self._address.base_url,
            "api_key": self._data_dir.secret("api_key"),
            "webhook_secret": self._webhook_secret,
            "console_url": self._address.base_url,
            "s3_endpoint": self._servers.s3_endpoint,
            "s3_region": seaweedfs.REGION,
            "s3_bucket": self._servers.s3_bucket,
            "s3_access_key": self._servers.s3_access_key,
            "s3_secret_key": self._servers.s3_secret_key,
            "database_url": self._servers.database_url,
            "redis_url": self._servers.redis_url,
            "pids": {child.spec.name: child.pid for child in children},
        }
        write_private(self._connection_file, json.dumps(connection, indent=2))

    def _describe(
        self,
        name: str,
        *arguments: str,
        is_ready: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        return Child(
            ChildSpec(
                name=name,
                # -P: a folder called `api` where the user stands must not be taken for ours.
                command=[sys.executable, "-P", "-m", "cli.main", *arguments],
                environment={
                    **self._environment,
                    **self._servers.environment(),
                    **environment,
                },
                log_path=self._data_dir.logs / f"{name}.log",
                is_ready=is_ready,
            )
        )

    def _show_metrics(self, place: int) -> dict[str, str]:
        """Give a process a port of its own for its metrics: the dispatcher has the first one."""
        first = self._environment.get(METRICS_PORT, "")
        return {METRICS_PORT: str(int(first) + place)} if first.isdecimal() else {}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=READY_TIMEOUT_S).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
