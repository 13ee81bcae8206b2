import threading
import time
from collections.abc import Iterable, Iterator

import pytest
import redis
from kombu.exceptions import ContentDisallowed

from cli.standalone.servers import Servers
from shared.errors import ServiceUnavailable
from shared.queue import (
    CANCEL_CHANNEL,
    JobQueue,
    WorkerListener,
    make_celery,
    queues_of,
)
from tests.fixtures.stack import free_port

QUEUE = "demo.interactive"


@pytest.fixture
def broker(servers: Servers) -> Iterator[redis.Redis]:
    """The raw server, empty."""
    client = redis.Redis.from_url(servers.redis_url)
    client.flushall()
    yield client
    client.close()


def test_an_announcement_is_one_message_in_the_queue(servers: Servers, broker: redis.Redis) -> None:
    queue = JobQueue(servers.redis_url)
    queue.announce(QUEUE, "job_1", {"sampler": "euler"})
    assert queue.length(QUEUE) == broker.llen(QUEUE) == 1
    (message,) = broker.lrange(QUEUE, 0, -1)
    assert b"application/json" in message


def test_a_worker_consumes_the_urgent_queue_first() -> None:
    assert queues_of("demo") == ["demo.interactive", "demo.batch"]


class LastFirst:
    """An order of queues that changes with what was taken."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def arrange(self, queues: Iterable[str]) -> list[str]:
        return sorted(queues, key=lambda queue: (self.taken.count(queue), queue))

    def note_taken(self, queue: str) -> None:
        self.taken.append(queue)


def test_a_consumer_takes_from_its_queues_in_the_order_of_the_moment(
    servers: Servers, broker: redis.Redis
) -> None:
    queue = JobQueue(servers.redis_url)
    for name in ("a.batch", "b.batch"):
        for _ in range(2):
            queue.announce(name, "job_1", {})
    order = LastFirst()
    app = make_celery(servers.redis_url, order=order)
    taken = []
    with app.connection_for_read() as connection:
        queues = [app.amqp.queues[name] for name in ("b.batch", "a.batch")]
        with connection.Consumer(queues, no_ack=True, on_message=lambda m: taken.append(m)):
            while len(taken) < 4:
                connection.drain_events(timeout=5)
    assert [message.delivery_info["routing_key"] for message in taken] == order.taken
    assert order.taken == ["a.batch", "b.batch", "a.batch", "b.batch"]


def test_a_message_that_is_not_json_is_refused(servers: Servers, broker: redis.Redis) -> None:
    app, seen = make_celery(servers.redis_url), []
    with app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            b"cos\nsystem\n(S'true'\ntR.",
            routing_key=QUEUE,
            content_type="application/x-python-serialize",
            content_encoding="binary",
            declare=[app.amqp.queues[QUEUE]],
        )
        # As a worker consumes.
        with app.amqp.TaskConsumer(
            connection.default_channel, queues=[app.amqp.queues[QUEUE]]
        ) as consumer:
            consumer.on_message = seen.append
            connection.drain_events(timeout=5)
    (message,) = seen
    with pytest.raises(ContentDisallowed):
        message.decode()


@pytest.mark.parametrize("call", ["announce", "length", "announce_cancel", "ping"])
def test_a_server_that_is_away_is_an_error_within_moments(call: str) -> None:
    queue = JobQueue(f"redis://127.0.0.1:{free_port()}/0")
    arguments = {
        "announce": (QUEUE, "job_1", {}),
        "length": (QUEUE,),
        "announce_cancel": ("job_1",),
        "ping": (),
    }
    started = time.monotonic()
    with pytest.raises(ServiceUnavailable):
        getattr(queue, call)(*arguments[call])
    assert time.monotonic() - started < 10


def test_a_cancel_request_reaches_the_listener(servers: Servers, broker: redis.Redis) -> None:
    heard: list[str] = []
    arrived = threading.Event()

    def hear(job_id: str) -> None:
        heard.append(job_id)
        arrived.set()

    listener = WorkerListener(servers.redis_url, on_cancel=hear, on_watch=print)
    listener.start()
    try:
        queue = JobQueue(servers.redis_url)
        # A subscription takes a moment; what is sent before it is left to the heartbeats.
        while not arrived.wait(0.05):
            for unreadable in (b"\xff", b"[]", b"{}", b"null", b"1"):
                broker.publish(CANCEL_CHANNEL, unreadable)
            queue.announce_cancel("job_1")
    finally:
        listener.stop()
    assert set(heard) == {"job_1"}
