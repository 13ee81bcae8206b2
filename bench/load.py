"""A generator of HTTP load that leaves the processor to the server.

It writes requests that were made beforehand and reads answers just far enough to tell where one
ends: a client library would take more time for a request than the server takes for an answer.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.percentile import percentile


@dataclass(frozen=True, slots=True)
class Load:
    """What came of sending for a while."""

    seconds: float
    #: Of every answer, in seconds.
    latencies: list[float]
    #: How often each status came.
    statuses: Mapping[int, int]

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return what this share of the answers did not exceed, in seconds."""
        return percentile(self.latencies, share)


def write_request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Write a request of HTTP/1.1 that keeps its connection."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(port: int, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send a request over and over, on each connection as soon as it was answered.

    Raises:
        ConnectionError: The server hung up.
    """
    return asyncio.run(_drive(port, request, connections, seconds))


async def _drive(port: int, request: bytes, connections: int, seconds: float) -> Load:
    began = time.perf_counter()
    ends_at = began + seconds
    parts = await asyncio.gather(
        *(_repeat(port, request, ends_at=ends_at) for _ in range(connections))
    )
    elapsed = time.perf_counter() - began
    answers = [answer for part in parts for answer in part]
    statuses = Counter(status for status, _ in answers)
    return Load(elapsed, [latency for _, latency in answers], dict(statuses))


async def _repeat(port: int, request: bytes, *, ends_at: float) -> list[tuple[int, float]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    try:
        while (sent_at := time.perf_counter()) < ends_at:
            writer.write(request)
            status = await _read_answer(reader)
            answers.append((status, time.perf_counter() - sent_at))
    finally:
        writer.close()
    return answers


async def _read_answer(reader: asyncio.StreamReader) -> int:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        await reader.readexactly(_length_of(head))
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the server hung up") from error
    return status


def _length_of(head: bytes) -> int:
    return next((int(value) for name, value in _headers(head) if name == b"content-length"), 0)


def _headers(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.lower(), value
