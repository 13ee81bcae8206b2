"""How long a submission takes while Redis does not answer, beside one while it does."""

import os
import signal
import statistics
import time
from dataclasses import dataclass, field

from bench.cluster import Cluster
from bench.percentile import percentile
from latentq_client import Client

#: Each round asks so often with Redis, and as often without.
SUBMISSIONS = 200


@dataclass(frozen=True, slots=True)
class Submissions:
    """How long the answers took in each round, in seconds."""

    well: list[list[float]] = field(default_factory=list)
    frozen: list[list[float]] = field(default_factory=list)

    @property
    def p99_ratio(self) -> float:
        """The 99th percentile without Redis against the one with it, median of the rounds."""
        pairs = zip(self.frozen, self.well, strict=True)
        return statistics.median(p99(frozen) / p99(well) for frozen, well in pairs)


def compare_submissions(cluster: Cluster, *, rounds: int) -> Submissions:
    """Submit jobs of one step, one after the other, while Redis is well and while it is frozen."""
    measured = Submissions()
    pid = cluster.servers.valkey.pid
    if pid is None:
        raise RuntimeError("Redis does not run")
    with Client(cluster.base_url, cluster.api_key) as client:
        _submit(client)  # opens the connection
        for _ in range(rounds):
            measured.well.append(_submit(client))
            os.kill(pid, signal.SIGSTOP)
            try:
                measured.frozen.append(_submit(client))
            finally:
                os.kill(pid, signal.SIGCONT)
    return measured


def p99(seconds: list[float]) -> float:
    """Return what 99 of 100 do not exceed."""
    return percentile(seconds, 0.99)


def _submit(client: Client) -> list[float]:
    taken = []
    for _ in range(SUBMISSIONS):
        began = time.monotonic()
        client.submit("a red star", sampler="ddim", guidance=1, steps=1)
        taken.append(time.monotonic() - began)
    return taken
