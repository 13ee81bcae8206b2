"""The store is away, or silent in the wrong moment."""

import socket
import socketserver
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest
import sqlalchemy as sa

from cli.standalone.servers import Servers
from shared.errors import ErrorCode
from shared.job import JobStatus, NewJob
from shared.storage import ObjectStore, artifact_key
from shared.store_address import StoreAddress
from tests.fixtures.stack import free_port, wait_until
from tests.worker.conftest import Bench

MakeJob = Callable[..., NewJob]


class Door(socketserver.ThreadingTCPServer):
    """Stands before the store, and can keep its next replies to itself."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, servers: Servers, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Visit)
        self.store_port = int(servers.s3_endpoint.rsplit(":", 1)[1])
        self.replies_to_lose = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Visit(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.store_port)) as store:
            asking = threading.Thread(target=self._ask, args=(store,), daemon=True)
            asking.start()
            while reply := store.recv(1 << 16):
                if self.server.replies_to_lose and reply.startswith(b"HTTP/1.1 200"):
                    self.server.replies_to_lose -= 1
                    break
                self.request.sendall(reply)
            self.request.shutdown(socket.SHUT_RDWR)
            asking.join()

    def _ask(self, store: socket.socket) -> None:
        while data := self.request.recv(1 << 16):
            store.sendall(data)
        store.shutdown(socket.SHUT_RDWR)


def connect(servers: Servers, port: int) -> ObjectStore:
    return ObjectStore(
        StoreAddress(
            endpoint=f"http://127.0.0.1:{port}",
            bucket=servers.s3_bucket,
            access_key=servers.s3_access_key,
            secret_key=servers.s3_secret_key,
        )
    )


@pytest.fixture
def port(bench: Bench, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> int:
    """Where the bench looks for its store, and nobody is."""
    port = free_port()
    monkeypatch.setattr(bench.task, "_store", connect(servers, port))
    return port


def test_a_put_whose_reply_was_lost_has_succeeded(servers: Servers, bench: Bench) -> None:
    key = artifact_key("job_1", attempt=1, token=uuid4(), index=0, extension="png")
    with Door(servers, port := free_port()) as door:
        door.replies_to_lose = 1
        connect(servers, port).put(key, b"picture", content_type="image/png")
        assert door.replies_to_lose == 0
    assert bench.store.get(key) == b"picture"


def test_the_engine_goes_on_while_results_wait_for_the_store(
    bench: Bench, servers: Servers, make_job: MakeJob, port: int
) -> None:
    jobs = [make_job(steps=2), make_job(steps=2)]
    threads = []
    for job in jobs:
        bench.jobs.insert(job)
        threads.append(threading.Thread(target=bench.task.run, args=(job.id,)))
        threads[-1].start()
        # Nobody has taken the result of the one before.
        wait_until(lambda: bench.get(job.id).status is JobStatus.RUNNING)  # noqa: B023
        wait_until(lambda: bench.engine.progress() == {})
    assert {bench.get(job.id).status for job in jobs} == {JobStatus.RUNNING}
    with Door(servers, port):
        for thread in threads:
            thread.join(timeout=60)
    assert {bench.get(job.id).status for job in jobs} == {JobStatus.SUCCEEDED}


@pytest.mark.parametrize("has_picture", [False, True])
def test_a_store_that_stays_away_puts_a_job_off(
    bench: Bench,
    make_job: MakeJob,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    has_picture: bool,
) -> None:
    monkeypatch.setattr("worker.task.STORAGE_PATIENCE_S", 0.5)
    start = {"strength": 0.5, "init_image": bench.note_upload()} if has_picture else {}
    bench.jobs.insert(job := make_job(steps=2, **start))
    bench.task.run(job.id)
    back = bench.get(job.id)
    assert (back.status, back.attempt, back.error_code) == (JobStatus.QUEUED, 1, None)
    with bench.database.connect() as connection:
        assert connection.scalar(sa.text("SELECT outcome FROM attempts")) == "unstored"


@pytest.mark.parametrize("has_picture", [False, True])
def test_who_waits_for_the_store_hears_that_the_owner_cancels(
    bench: Bench, make_job: MakeJob, port: int, has_picture: bool
) -> None:
    start = {"strength": 0.5, "init_image": bench.note_upload()} if has_picture else {}
    bench.jobs.insert(job := make_job(steps=2, **start))
    thread = threading.Thread(target=bench.task.run, args=(job.id,))
    thread.start()
    wait_until(lambda: bench.get(job.id).status is JobStatus.RUNNING)
    bench.jobs.request_cancel("tenant", job.id)
    bench.keeper.cancel(job.id)
    thread.join(timeout=30)
    canceled = bench.get(job.id)
    assert (canceled.status, canceled.error_code) == (JobStatus.CANCELED, None)


def test_a_worker_that_leaves_does_not_wait_for_the_store(
    bench: Bench, make_job: MakeJob, port: int
) -> None:
    bench.jobs.insert(job := make_job(steps=2))
    thread = threading.Thread(target=bench.task.run, args=(job.id,))
    thread.start()
    wait_until(lambda: bench.get(job.id).status is JobStatus.RUNNING)
    wait_until(lambda: bench.engine.progress() == {})
    bench.task.drain()
    thread.join(timeout=30)
    assert bench.get(job.id).status is JobStatus.QUEUED
    assert bench.get(job.id).error_code is not ErrorCode.STORAGE_UNAVAILABLE
