"""What streams cost that are open while nothing happens, and how soon they tell of an end."""

import asyncio
import time
from dataclasses import dataclass

import httpx
import psutil

from bench.cluster import Cluster
from bench.load import write_request

#: Of the streams that are open, so many are told of an end, one after the other.
TOLD = 20
#: How long a stream may take to begin, or to tell, in seconds.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Streams:
    """Streams of as many jobs, all open at once in one API process."""

    count: int
    #: Resident memory of the process before the first and with all of them, in bytes.
    memory_before: int
    memory_with: int
    #: CPU seconds that the process takes in a second while nothing happens to any of the jobs.
    idle_load: float
    #: From the request to cancel to the event that says so, in seconds.
    told_s: list[float]

    @property
    def bytes_each(self) -> float:
        """Memory that one more stream takes."""
        return (self.memory_with - self.memory_before) / self.count


def measure_streams(cluster: Cluster, *, count: int, idle_s: float) -> Streams:
    """Open a stream of each of so many jobs, wait, and cancel some of the jobs."""
    return asyncio.run(_measure(cluster, count, idle_s))


async def _measure(cluster: Cluster, count: int, idle_s: float) -> Streams:
    key = {"Authorization": f"Bearer {cluster.api_key}"}
    process = psutil.Process(cluster.pid("api"))
    async with httpx.AsyncClient(base_url=cluster.base_url, headers=key) as client:
        paths = []
        for _ in range(count):
            answer = await client.post("/v1/jobs", json={"prompt": "a red star"})
            paths.append(answer.raise_for_status().json()["links"])
        memory_before = process.memory_info().rss
        streams = []
        for links in paths:
            reader, writer = await asyncio.open_connection("127.0.0.1", cluster.api_port)
            writer.write(write_request("GET", links["events"], key))
            async with asyncio.timeout(TIMEOUT_S):
                await reader.readuntil(b"event: snapshot")
            streams.append((reader, writer))
        memory_with = process.memory_info().rss
        used_s = sum(process.cpu_times()[:2])
        await asyncio.sleep(idle_s)
        idle_load = (sum(process.cpu_times()[:2]) - used_s) / idle_s
        told_s = []
        for links, (reader, _) in list(zip(paths, streams, strict=True))[:TOLD]:
            began = time.monotonic()
            (await client.post(links["cancel"])).raise_for_status()
            async with asyncio.timeout(TIMEOUT_S):
                await reader.readuntil(b"event: canceled")
            told_s.append(time.monotonic() - began)
        for _, writer in streams:
            writer.close()
    return Streams(count, memory_before, memory_with, idle_load, told_s)
