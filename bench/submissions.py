"""How many submissions an API process takes, beside what others take on the same machine."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import httpx
import psycopg
from psycopg.types.json import Jsonb

from bench.cluster import Cluster, wait_until
from bench.load import Load, drive, write_request
from bench.plain_api import create_table, serve_plain
from cli.standalone.state import choose_port
from shared.db.session import make_engine

#: Requests under way at any moment.
CONNECTIONS = 16
BODY = b'{"prompt": "a red star above a blue circle", "steps": 25, "seed": 7}'
READY_TIMEOUT_S = 30.0

COMMIT, BARE, PLAIN, OURS = (
    "a commit of one row, no HTTP",
    "FastAPI alone: no row, no message",
    "FastAPI, SQLAlchemy, Celery",
    "LatentQ",
)


class Submitter:
    """LatentQ's API and those that it is compared with, all running."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        servers = cluster.servers
        database = make_engine(servers.database_url)
        create_table(database)
        database.dispose()
        self._plain_port = choose_port()
        cluster.start(
            "plain",
            program=partial(serve_plain, servers.database_url, servers.redis_url, self._plain_port),
        )
        wait_until(self._plain_answers, timeout_s=READY_TIMEOUT_S)

    def contenders(self) -> Mapping[str, Callable[[float], Load]]:
        """Return by name what can be measured for a number of seconds."""
        key = {"Authorization": f"Bearer {self._cluster.api_key}"}
        return {
            COMMIT: partial(commit_rows, self._cluster.servers.database_url),
            BARE: partial(self._post, self._plain_port, "/bare", {}),
            PLAIN: partial(self._post, self._plain_port, "/jobs", {}),
            OURS: partial(self._post, self._cluster.api_port, "/v1/jobs", key),
        }

    def _post(self, port: int, path: str, headers: Mapping[str, str], seconds: float) -> Load:
        headers = {"Content-Type": "application/json", **headers}
        request = write_request("POST", path, headers, BODY)
        load = drive(port, request, connections=CONNECTIONS, seconds=seconds)
        if set(load.statuses) != {202}:
            raise RuntimeError(f"{path} answered {load.statuses}")
        return load

    def _plain_answers(self) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._plain_port}/openapi.json")
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK


def commit_rows(database_url: str, seconds: float) -> Load:
    """Insert rows of a job's size, each in a transaction of its own, on as many connections."""
    latencies: list[float] = []
    ends_at = time.perf_counter() + seconds
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS raw_jobs (id text PRIMARY KEY, body jsonb)")

    def insert(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            count = 0
            while (began := time.perf_counter()) < ends_at:
                connection.execute(
                    "INSERT INTO raw_jobs VALUES (%s, %s)",
                    [f"{began}-{number}-{count}", Jsonb({"body": BODY.decode()})],
                )
                latencies.append(time.perf_counter() - began)
                count += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=insert, args=[number]) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - began, latencies, {})
