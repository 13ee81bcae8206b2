"""Celery and Redis: hints that a job waits or shall stop, and previews. The only place with either.

Every setting here is there because its opposite was measured to lose, double or stall messages;
`docs/explanation/celery.md` says which.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError as KombuError
from redis.client import PubSub

from shared.errors import ServiceUnavailable
from shared.preview import Preview, decode_preview
from shared.tls import blame_tls
from shared.vocab import ServiceClass

log = structlog.get_logger(__name__)

#: The one Celery task.
TASK_GENERATE = "latentq.generate"
CANCEL_CHANNEL = "latentq.cancel"
#: Which jobs somebody watches.
WATCH_CHANNEL = "latentq.watch"
#: How long one message about them holds, and how often it is repeated, in seconds.
WATCH_S, REPEAT_S = 5.0, 2.0
#: Missing where Redis was emptied, or is a new one.
EPOCH_KEY = "latentq.epoch"
#: How long a silent server may hold up a call, in seconds.
SOCKET_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 2
#: How long a listener waits for a message before it looks whether it shall stop, in seconds.
POLL_S = 0.5
#: How often a feed of previews looks who watches, in seconds.
LOOK_S = 0.1
#: Pause before a listener tries again after an error, in seconds.
RETRY_S = 1.0


def queue_of(model: str, service_class: ServiceClass) -> str:
    """Name the queue that a job waits in."""
    return f"{model}.{service_class}"


def queues_of(model: str) -> list[str]:
    """Name the queues that a worker of a model consumes, the urgent one first."""
    return [queue_of(model, ServiceClass.INTERACTIVE), queue_of(model, ServiceClass.BATCH)]


class QueueOrder(Protocol):
    """Where a worker looks for its next message; called by one thread."""

    def arrange(self, queues: Iterable[str]) -> list[str]:
        """Say which of the queues to take from, the first that holds a message first."""
        ...

    def note_taken(self, queue: str) -> None:
        """Hear that a message was taken."""
        ...


class _Cycle:
    """What kombu asks each time it waits for a message, a second at most."""

    def __init__(self, order: QueueOrder) -> None:
        self._order = order
        self._queues: list[str] = []

    def update(self, queues: Iterable[str]) -> None:
        self._queues = list(queues)

    def consume(self, n: int) -> list[str]:  # noqa: ARG002 - the signature is kombu's
        return self._order.arrange(self._queues)

    def rotate(self, last_used: str) -> str:
        self._order.note_taken(last_used)
        return last_used


def make_celery(redis_url: str, *, order: QueueOrder | None = None) -> Celery:
    """Make the Celery application of a process; one that consumes may say in which order."""
    app = Celery("latentq", broker=redis_url, set_as_current=False)
    app.conf.update(
        # SQL leases bring a lost job back; a late ack would run it twice or stall the worker.
        task_acks_late=False,
        worker_prefetch_multiplier=0,
        worker_disable_prefetch=True,
        task_ignore_result=True,
        result_backend=None,
        worker_send_task_events=False,
        # Its pub/sub socket is what notices a dead broker.
        worker_enable_remote_control=True,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # The dispatcher sends again; a publish that failed may have arrived all the same.
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=CONNECT_TIMEOUT_S,
        # Left alone, kombu believes any certificate unless the URL says something of its own.
        broker_use_ssl=(
            {"ssl_cert_reqs": ssl.CERT_REQUIRED} if redis_url.startswith("rediss:") else False
        ),
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0,
        worker_hijack_root_logger=False,
        broker_transport_options={
            "visibility_timeout": 43_200,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.2,
            "priority_steps": [0],
            # A name, or what makes a cycle: a class or something that is called like one.
            "queue_order_strategy": "priority" if order is None else partial(_Cycle, order),
        },
    )
    return app


@dataclass(frozen=True, slots=True)
class RedisState:
    """What Redis says of itself, as far as messages depend on it."""

    eviction_policy: str
    #: It writes an append-only file, and the last write succeeded.
    is_persistent: bool


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable(blame_tls("Redis does not answer", error)) from error


def _connect(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=5,
    )


class JobQueue:
    """Send hints to workers. Every call is bounded in time and may fail without harm."""

    def __init__(self, redis_url: str) -> None:
        self._celery = make_celery(redis_url)
        self._redis = _connect(redis_url)

    def announce(self, queue: str, job_id: str, parameters: dict[str, Any]) -> None:
        """Tell the workers of a queue that a job waits.

        Raises:
            ServiceUnavailable: Redis did not take the message, or took it and did not say so.
        """
        try:
            self._celery.send_task(
                TASK_GENERATE, kwargs={"job_id": job_id, "parameters": parameters}, queue=queue
            )
        except (KombuError, redis.RedisError, OSError) as error:
            raise ServiceUnavailable(blame_tls("Redis did not take a message", error)) from error

    def length(self, queue: str) -> int:
        """Count the messages of a queue that no worker has fetched.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        with _answering():
            length: int = self._redis.llen(queue)
        return length

    def begin_epoch(self) -> bool:
        """Tell whether all messages are gone since the last call of any process, once.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        with _answering():
            return bool(self._redis.set(EPOCH_KEY, "1", nx=True))

    def announce_cancel(self, job_id: str) -> None:
        """Tell the worker that runs a job to stop it.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        with _answering():
            self._redis.publish(CANCEL_CHANNEL, json.dumps({"job_id": job_id}))

    def publish_preview(self, preview: Preview) -> None:
        """Show a preview to whoever watches its job now; nobody keeps it.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        with _answering():
            self._redis.publish(_preview_channel(preview.job_id), preview.encode())

    def look(self) -> RedisState:
        """Ask Redis how it keeps what it holds.

        Raises:
            ServiceUnavailable: Redis does not answer.
        """
        with _answering():
            info = self._redis.info()
        return RedisState(
            eviction_policy=info["maxmemory_policy"],
            is_persistent=info["aof_enabled"] == 1 and info["aof_last_write_status"] == "ok",
        )

    def ping(self) -> None:
        """Check that Redis answers.

        Raises:
            ServiceUnavailable: It does not.
        """
        with _answering():
            self._redis.ping()


class WorkerListener:
    """A thread that hears of cancel requests, and of watchers, at once.

    Heartbeats hear of cancel requests anyway, later; watchers repeat themselves.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        on_cancel: Callable[[str], None],
        on_watch: Callable[[str], None],
    ) -> None:
        self._redis = _connect(redis_url)
        self._handlers = {CANCEL_CHANNEL: on_cancel, WATCH_CHANNEL: on_watch}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-listener", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; a Redis that is silent is not waited for."""
        self._stopping.set()
        self._thread.join(2 * POLL_S)
        self._redis.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for channel, job_id in self._messages():
                    self._handlers[channel](job_id)
            except redis.RedisError:
                # Redis is away: heartbeats bring cancel requests until it is back.
                self._stopping.wait(RETRY_S)

    def _messages(self) -> Iterator[tuple[str, str]]:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        with pubsub as subscription:
            subscription.subscribe(*self._handlers)
            while not self._stopping.is_set():
                message = subscription.get_message(timeout=POLL_S)
                if message is None:
                    continue
                try:
                    yield message["channel"].decode(), str(json.loads(message["data"])["job_id"])
                except (ValueError, KeyError, TypeError):
                    log.warning("hint_unreadable")  # by somebody else's hand


class PreviewFeed:
    """Hears previews of the jobs that somebody watches; its thread runs only while anybody does.

    Nothing of it is kept: where Redis is away there are no previews, and nothing else is missing.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._lock = threading.Lock()
        # By job, those who watch it.
        self._watchers: dict[str, list[Callable[[Preview], None]]] = {}
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it holds a connection."""
        with self._lock:
            return self._thread is not None

    @contextmanager
    def watch(self, job_id: str, on_preview: Callable[[Preview], None]) -> Iterator[None]:
        """Have previews of a job made and handed over until the exit.

        `on_preview` is called on the feed's thread, and must return at once.
        """
        with self._lock:
            self._watchers.setdefault(job_id, []).append(on_preview)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="previews", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watchers[job_id].remove(on_preview)
                if not self._watchers[job_id]:
                    del self._watchers[job_id]

    def _run(self) -> None:
        with _connect(self._redis_url) as client:
            while self._is_wanted():
                try:
                    with client.pubsub(ignore_subscribe_messages=True) as subscription:
                        self._listen(client, subscription)
                except redis.RedisError:
                    time.sleep(RETRY_S)

    def _is_wanted(self) -> bool:
        """Tell whether anybody watches; if not, the thread ends; who comes next starts another."""
        with self._lock:
            if not self._watchers:
                self._thread = None
            return bool(self._watchers)

    def _listen(self, client: redis.Redis, subscription: PubSub) -> None:
        subscribed: set[str] = set()
        repeat_at = time.monotonic()
        while watched := self._watched():
            if new := watched - subscribed:
                subscription.subscribe(*map(_preview_channel, new))
            if gone := subscribed - watched:
                subscription.unsubscribe(*map(_preview_channel, gone))  # type: ignore[no-untyped-call]
            subscribed = watched
            if time.monotonic() >= repeat_at:
                new, repeat_at = watched, time.monotonic() + REPEAT_S
            for job_id in new:
                client.publish(WATCH_CHANNEL, json.dumps({"job_id": job_id}))
            look_at = time.monotonic() + LOOK_S
            while (left_s := look_at - time.monotonic()) > 0:
                if (message := subscription.get_message(timeout=left_s)) is not None:
                    self._hand_over(message["data"])

    def _watched(self) -> set[str]:
        with self._lock:
            return set(self._watchers)

    def _hand_over(self, message: bytes) -> None:
        try:
            preview = decode_preview(message)
        except ValueError:
            log.warning("preview_unreadable")  # by somebody else's hand
            return
        # Who has left under the lock hears of no more.
        with self._lock:
            for on_preview in self._watchers.get(preview.job_id, []):
                on_preview(preview)


def _preview_channel(job_id: str) -> str:
    return f"latentq.preview.{job_id}"
