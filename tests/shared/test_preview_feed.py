import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from cli.standalone.servers import Servers
from shared.errors import ServiceUnavailable
from shared.preview import Preview
from shared.queue import JobQueue, PreviewFeed, WorkerListener
from tests.fixtures.stack import free_port, wait_until

PATIENCE_S = 20


@pytest.fixture
def broker(servers: Servers) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(servers.redis_url)
    yield client
    client.close()


@contextmanager
def worker(servers: Servers, *, num_bytes: int = 9) -> Iterator[list[str]]:
    """A worker that answers watchers with a preview each time; yields which jobs it heard of."""
    heard: list[str] = []
    job_queue = JobQueue(servers.redis_url)

    def answer(job_id: str) -> None:
        heard.append(job_id)
        job_queue.publish_preview(Preview(job_id, 0, len(heard), b"x" * num_bytes))

    listener = WorkerListener(servers.redis_url, on_cancel=print, on_watch=answer)
    listener.start()
    try:
        yield heard
    finally:
        listener.stop()


def test_who_watches_a_job_gets_its_previews_and_no_others(servers: Servers) -> None:
    feed = PreviewFeed(servers.redis_url)
    first: queue.Queue[Preview] = queue.Queue()
    second: queue.Queue[Preview] = queue.Queue()
    with (
        worker(servers) as heard,
        feed.watch("job_a", first.put),
        feed.watch("job_b", second.put),
        feed.watch("job_b", second.put),
    ):
        assert first.get(timeout=PATIENCE_S).job_id == "job_a"
        twice = [second.get(timeout=PATIENCE_S) for _ in range(2)]
        assert twice[0] == twice[1]
        assert twice[0].job_id == "job_b"
        assert {"job_a", "job_b"} <= set(heard)


def test_a_worker_that_comes_later_hears_of_watchers_too(servers: Servers) -> None:
    feed = PreviewFeed(servers.redis_url)
    seen: queue.Queue[Preview] = queue.Queue()
    with feed.watch("job_late", seen.put):
        wait_until(lambda: feed.is_running, timeout_s=PATIENCE_S)
        with worker(servers, num_bytes=64_000):
            assert len(seen.get(timeout=PATIENCE_S).data) == 64_000


def test_the_thread_and_the_messages_end_with_the_last_watcher(servers: Servers) -> None:
    feed = PreviewFeed(servers.redis_url)
    assert not feed.is_running
    seen: queue.Queue[Preview] = queue.Queue()
    with worker(servers) as heard:
        for _ in range(2):  # it starts again
            with feed.watch("job_a", seen.put):
                seen.get(timeout=PATIENCE_S)
                assert feed.is_running
            wait_until(lambda: not feed.is_running, timeout_s=PATIENCE_S)
        num_heard = len(heard)
        assert num_heard >= 2
    assert "previews" not in {thread.name for thread in threading.enumerate()}


def test_what_is_no_preview_is_passed_over(servers: Servers, broker: redis.Redis) -> None:
    # A job of its own: another test's feed may still be leaving its channel.
    feed = PreviewFeed(servers.redis_url)
    seen: queue.Queue[Preview] = queue.Queue()
    good = Preview("job_spoiled", 1, 2, b"picture")
    with feed.watch("job_spoiled", seen.put):
        wait_until(
            lambda: broker.publish("latentq.preview.job_spoiled", b"\xff{}") == 1,
            timeout_s=PATIENCE_S,
        )
        broker.publish("latentq.preview.job_spoiled", good.encode() + bytes(64_000))
        broker.publish("latentq.preview.job_spoiled", Preview("job_b", 0, 1, b"other").encode())
        broker.publish("latentq.preview.job_spoiled", good.encode())
        assert seen.get(timeout=PATIENCE_S) == good
        assert seen.empty()


def test_while_redis_is_away_watching_shows_nothing_and_ends_at_once() -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    feed = PreviewFeed(away)
    started = time.monotonic()
    with feed.watch("job_a", print):
        assert feed.is_running
    assert time.monotonic() - started < PATIENCE_S
    wait_until(lambda: not feed.is_running, timeout_s=PATIENCE_S)
    with pytest.raises(ServiceUnavailable):
        JobQueue(away).publish_preview(Preview("job_a", 0, 1, b"x"))
