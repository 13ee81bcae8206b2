"""What the processes and servers of a cluster have used, between two looks."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import httpx
import psutil
import redis
from prometheus_client.parser import text_string_to_metric_families

from bench.cluster import HOST
from bench.fleet import Fleet
from cli.standalone.child import Child

#: How long a process may take to tell, in seconds: at the ceiling all are slow.
TIMEOUT_S = 60.0
#: Who the load itself comes from.
CLIENTS = "clients"


class Count(NamedTuple):
    """What is counted, and of whom."""

    #: `cpu`, in seconds, `sql`, `s3` or `redis`, in calls.
    resource: str
    #: A kind of process, or the operation that is called.
    user: str


CPU, SQL, S3, REDIS = "cpu", "sql", "s3", "redis"


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts at a moment, or between two."""

    seconds: float
    counts: Mapping[Count, float]

    def since(self, start: "Usage") -> "Usage":
        """Leave out what had been used before."""
        counts = {key: value - start.counts.get(key, 0.0) for key, value in self.counts.items()}
        return Usage(self.seconds - start.seconds, counts)

    def of(self, resource: str) -> dict[str, float]:
        """Return what each user took of a resource."""
        return {key.user: value for key, value in self.counts.items() if key.resource == resource}

    def total(self, resource: str) -> float:
        """Return what all users took of a resource."""
        return sum(self.of(resource).values())


class Meter:
    """Looks at a fleet, its servers, and this process, which is its clients."""

    def __init__(self, fleet: Fleet) -> None:
        servers = fleet.cluster.servers
        self._fleet = fleet
        self._redis = redis.Redis.from_url(servers.redis_url)
        self._servers = {
            "PostgreSQL": servers.postgres,
            "Valkey": servers.valkey,
            "SeaweedFS": servers.seaweedfs,
        }

    def read(self) -> Usage:
        """Look now. Processes that start or end between two looks make them differ in more."""
        cluster = self._fleet.cluster
        counts: defaultdict[Count, float] = defaultdict(float)
        for name in cluster.running():
            counts[Count(CPU, _kind_of(name))] += _cpu_s(psutil.Process(cluster.pid(name)))
            for count, value in self._read_metrics(name):
                counts[count] += value
        for kind, child in self._servers.items():
            counts[Count(CPU, kind)] += _tree_cpu_s(child)
        counts[Count(CPU, CLIENTS)] += _cpu_s(psutil.Process(os.getpid()))
        # Redis counts the question too, once in each look.
        for command, figures in self._redis.info("commandstats").items():
            counts[Count(REDIS, command.removeprefix("cmdstat_"))] += figures["calls"]
        return Usage(time.monotonic(), dict(counts))

    def worker_bytes(self) -> float:
        """Return what a worker has in memory for itself alone, on average."""
        pids = [self._fleet.cluster.pid(name) for name in self._fleet.workers]
        own = [psutil.Process(pid).memory_full_info().uss for pid in pids]
        return sum(own) / len(own)

    def close(self) -> None:
        """Close its connection."""
        self._redis.close()

    def _read_metrics(self, name: str) -> Iterator[tuple[Count, float]]:
        port = self._fleet.metrics_ports[name]
        answer = httpx.get(f"http://{HOST}:{port}/metrics", timeout=TIMEOUT_S)
        text = answer.raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "latentq_sql_seconds_count":
                    yield Count(SQL, _kind_of(name)), sample.value
                elif sample.name == "latentq_s3_seconds_count":
                    yield Count(S3, sample.labels["operation"]), sample.value


def _kind_of(name: str) -> str:
    return name.partition("-")[0]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _tree_cpu_s(child: Child) -> float:
    """Return what a server took, with its own processes; those that have ended are counted in."""
    server = psutil.Process(child.pid)
    times = server.cpu_times()
    used_s = float(times.user + times.system + times.children_user + times.children_system)
    for process in server.children(recursive=True):
        try:
            used_s += _cpu_s(process)
        except psutil.NoSuchProcess:
            continue  # it has ended since
    return used_s
