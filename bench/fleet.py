"""A cluster that grows: an API, a dispatcher and as many workers with simulated devices as told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.cluster import Cluster
from bench.curve import BatchCurve
from bench.forward_log import Forward, read_forwards
from bench.simulated_device import run_worker
from cli.standalone.state import choose_port

#: Jobs that a worker holds at once: what workers have unless they are told otherwise.
SLOTS = 8


class Fleet:
    """Processes that show their metrics, and devices that note their forwards.

    Args:
        cluster: Where they run.
        folder: Where their devices write.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        #: Where each process shows its metrics.
        self.metrics_ports: dict[str, int] = {}
        self._folder = folder
        self._starts: Counter[str] = Counter()
        self._logs: dict[str, Path] = {}

    @property
    def workers(self) -> Sequence[str]:
        """Those that run."""
        return [name for name in self.cluster.running() if name.startswith("worker")]

    def start_services(self) -> None:
        """Start what a fleet has one of."""
        for name in ("api", "dispatcher"):
            self.cluster.start(name, program=None, **self._show_metrics(name))
        for name in ("api", "dispatcher"):
            self.cluster.wait_until_ready(name)

    def grow(
        self, num_workers: int, device: BatchCurve, environment: Mapping[str, str] | None = None
    ) -> None:
        """Have so many workers serve; those that are missing get this device and environment."""
        names = [f"worker-{number}" for number in range(1, num_workers + 1)]
        missing = [name for name in names if not self.cluster.is_running(name)]
        for name in missing:
            self._starts[name] += 1
            self._logs[name] = self._folder / f"{name}-{self._starts[name]}.forwards"
            program = partial(run_worker, name, device, self._logs[name])
            variables = self._show_metrics(name) | dict(environment or {})
            self.cluster.start(name, program=program, **variables)
        for name in missing:
            self.cluster.wait_until_ready(name)

    def dismiss(self) -> None:
        """Have all workers leave; what they hold goes back to the queue."""
        names = self.workers
        for name in names:
            self.cluster.terminate(name)
        for name in names:
            self.cluster.wait_for_end(name)

    def read_forwards(self) -> list[list[Forward]]:
        """Read what the device of each worker that runs has done."""
        return [read_forwards(self._logs[name]) for name in self.workers]

    def _show_metrics(self, name: str) -> dict[str, str]:
        self.metrics_ports[name] = choose_port()
        return {"LATENTQ_METRICS_PORT": str(self.metrics_ports[name])}
