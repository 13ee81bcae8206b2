"""Jobs for a fleet, submitted over HTTP as clients do: always enough, or at random moments."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import httpx
import sqlalchemy as sa

from bench.cluster import Cluster
from shared.db.session import make_engine

#: Steps of jobs, each as often as the others: they end one by one, as real ones do.
STEPS = (8, 12, 16, 20, 24)
MEAN_STEPS = sum(STEPS) / len(STEPS)
#: Requests under way at once.
CLIENTS = 4
#: How often jobs are counted, in seconds.
POLL_S = 0.1
#: How long an answer may take, in seconds.
TIMEOUT_S = 60.0
_UNFINISHED = sa.text("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')")


class Feeder:
    """Submits jobs that differ in steps and seed alone; one row each, since none is guided."""

    def __init__(self, cluster: Cluster) -> None:
        self._database = make_engine(cluster.servers.database_url)
        headers = {"Authorization": f"Bearer {cluster.api_key}"}
        self._http = httpx.Client(base_url=cluster.base_url, headers=headers, timeout=TIMEOUT_S)
        self._pool = ThreadPoolExecutor(CLIENTS, thread_name_prefix="client")
        self._random = random.Random(1)  # noqa: S311 - the same jobs everywhere
        self._deck: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._http.close()
        self._database.dispose()

    @contextmanager
    def backlog(self, size: int) -> Iterator[None]:
        """Keep so many jobs waiting or running, until the exit.

        Raises:
            httpx.HTTPError: The API did not take one.
        """
        stopping = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="backlog") as thread:
            filling = thread.submit(self._fill, size, stopping)
            try:
                yield
            finally:
                stopping.set()
        filling.result()

    def arrive(self, rate: float, seconds: float) -> None:
        """Submit jobs for a while as a Poisson process, at so many a second on average.

        Raises:
            httpx.HTTPError: The API did not take one.
        """
        ends_at = time.monotonic() + seconds
        next_at = time.monotonic()
        sent = []
        while (next_at := next_at + self._random.expovariate(rate)) < ends_at:
            time.sleep(max(next_at - time.monotonic(), 0.0))
            sent.append(self._pool.submit(self._submit, self._draw_steps()))
        time.sleep(max(ends_at - time.monotonic(), 0.0))
        for one in sent:
            one.result()

    def _fill(self, size: int, stopping: threading.Event) -> None:
        while not stopping.wait(POLL_S):
            with self._database.connect() as connection:
                missing = size - connection.execute(_UNFINISHED).scalar_one()
            list(self._pool.map(self._submit, [self._draw_steps() for _ in range(missing)]))

    def _submit(self, steps: int) -> None:
        body = {"prompt": "a red star", "sampler": "dpmpp_2m", "guidance": 1, "steps": steps}
        self._http.post("/v1/jobs", json=body).raise_for_status()

    def _draw_steps(self) -> int:
        """Draw from all kinds by turns, in an order without a pattern."""
        if not self._deck:
            self._deck = list(STEPS)
            self._random.shuffle(self._deck)
        return self._deck.pop()
