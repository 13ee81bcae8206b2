"""Deliveries from the database to receivers on this machine, and what is noted of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook as Verifier

from dispatcher.deliverer import LEASE_S, Deliverer, Sender
from dispatcher.hosts import MAX_FAILURES, PER_HOST
from dispatcher.outbound import Outbound
from dispatcher.retries import PAUSES_S
from shared.db.deliveries import DeliveryRepository
from shared.db.jobs import JobRepository
from shared.db.leases import LeaseRepository
from shared.db.webhooks import WebhookSecretRepository
from shared.job import Artifact, NewJob, Success
from shared.job_body import JobRenderer
from shared.storage import ObjectStore
from shared.store_address import StoreAddress
from shared.webhook import TERMINAL_EVENTS, EventType, Webhook
from tests.fixtures.receiver import Behaviour, Receiver, drop, hang, run_receiver, status

NewJobs = Callable[..., NewJob]
#: No test waits longer for an attempt, in seconds.
PATIENCE_S = 10.0
ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)


EXECUTION = {
    "worker": "w", "device": "cpu", "determinism": "fast", "exact_rows": None, "mean_rows": 2.0,
    "resumed_at": None, "versions": {},
}  # fmt: skip


class Post:
    """Jobs that end, deliverers, and time that only tests move."""

    def __init__(self, database: sa.Engine, make_job: NewJobs) -> None:
        self.database = database
        self.jobs = JobRepository(database)
        self.leases = LeaseRepository(database, lease_s=60)
        self.secrets = WebhookSecretRepository(database)
        self._make_job = make_job
        self._made: list[Deliverer] = []
        self.seconds = 0.0

    def make_deliverer(self, *, timeout_s: float = 5.0) -> Deliverer:
        store = ObjectStore(
            StoreAddress(
                endpoint="http://127.0.0.1:1",
                public_endpoint="https://files.example.test",
                bucket="latentq",
                access_key="access",
                secret_key="secret",
            )
        )
        sender = Sender(
            deliveries=DeliveryRepository(self.database),
            jobs=self.jobs,
            secrets=self.secrets,
            renderer=JobRenderer(store, 900, lambda: datetime.now(UTC)),
            outbound=Outbound(allow_loopback=True, timeout_s=timeout_s),
            clock=lambda: datetime.now(UTC),
        )
        deliverer = Deliverer(sender, draw=lambda: 0.0, monotonic=lambda: self.seconds)
        self._made.append(deliverer)
        return deliverer

    def stop(self) -> None:
        for deliverer in self._made:
            deliverer.stop()

    def cancel_job(self, url: str, events: tuple[EventType, ...] = TERMINAL_EVENTS) -> str:
        job, _ = self.jobs.insert(self._make_job(webhook=Webhook(url, events)))
        self.jobs.request_cancel("tenant", job.id)
        return job.id

    def finish_job(self, url: str) -> str:
        job, _ = self.jobs.insert(self._make_job(webhook=Webhook(url)))
        claim = self.leases.claim(job.id, worker="w")
        assert claim is not None
        assert self.leases.succeed(claim.lease, Success((ARTIFACT,), 4, EXECUTION))
        return job.id

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()
            return [dict(row) for row in found]

    def statuses(self) -> set[tuple[str, str | None]]:
        return {(row["status"], row["last_outcome"]) for row in self.rows("deliveries")}

    def pass_time(self, seconds: float) -> None:
        with self.database.begin() as connection:
            connection.execute(
                sa.text("UPDATE deliveries SET next_attempt_at = next_attempt_at - :by"),
                {"by": timedelta(seconds=seconds)},
            )


@pytest.fixture
def post(database: sa.Engine, make_job: NewJobs) -> Iterator[Post]:
    post = Post(database, make_job)
    yield post
    post.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
        yield running


def deliver(deliverer: Deliverer) -> int:
    """Make the attempts that are due, and note them."""
    begun = 0
    while new := deliverer.run_once():
        begun += new
        deliverer.wait(PATIENCE_S)
    while deliverer._under_way:
        deliverer.wait(PATIENCE_S)
        begun += deliverer.run_once()
    return begun


def test_a_receiver_gets_the_job_signed_once(post: Post, receiver: Receiver) -> None:
    job_id = post.finish_job(receiver.url)
    deliverer = post.make_deliverer()
    assert deliver(deliverer) == 1
    assert deliver(deliverer) == 0
    (received,) = receiver.received
    verifier = Verifier(post.secrets.ensure("tenant"))
    message = verifier.verify(received.body, received.headers)
    assert message["type"] == "job.succeeded"
    assert message["data"]["id"] == job_id
    assert message["data"]["status"] == "succeeded"
    assert message["data"]["artifacts"][0]["url"].startswith("https://files.example.test/")
    (event,) = post.rows("events")
    assert received.headers["webhook-id"] == event["id"]
    assert datetime.fromisoformat(message["timestamp"]) == event["created_at"]
    assert received.headers["content-type"] == "application/json"
    assert post.statuses() == {("delivered", "accepted")}
    (attempt,) = post.rows("delivery_attempts")
    assert (attempt["attempt"], attempt["status_code"]) == (1, 204)


def test_nothing_of_the_job_stays_once_it_was_taken(post: Post, receiver: Receiver) -> None:
    receiver.script = [status(500)]
    post.finish_job(receiver.url)
    deliverer = post.make_deliverer()
    deliver(deliverer)
    (event,) = post.rows("events")
    assert event["body"] == receiver.received[0].body
    post.pass_time(PAUSES_S[0])
    deliver(deliverer)
    (event,) = post.rows("events")
    assert event["body"] is None


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (status(500), "refused"),
        (status(302, Location="https://example.com/"), "redirected"),
        (drop, "unreachable"),
        (hang, "timed_out"),
    ],
)
def test_what_failed_is_sent_again_with_the_same_id_and_the_same_bytes(
    post: Post, receiver: Receiver, behaviour: Behaviour, outcome: str
) -> None:
    receiver.script = [behaviour]
    post.cancel_job(receiver.url)
    deliverer = post.make_deliverer(timeout_s=0.5)
    deliver(deliverer)
    assert post.statuses() == {("pending", outcome)}
    post.pass_time(PAUSES_S[0])
    assert deliver(deliverer) == 1
    assert post.statuses() == {("delivered", "accepted")}
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_receiver_that_never_takes_it_is_tried_on_the_schedule_then_it_is_dead(
    post: Post, receiver: Receiver
) -> None:
    receiver.default = status(500)
    post.cancel_job(receiver.url)
    deliverer = post.make_deliverer()
    for number, pause_s in enumerate(PAUSES_S, start=1):
        assert deliver(deliverer) == 1
        (delivery,) = post.rows("deliveries")
        attempt = max(post.rows("delivery_attempts"), key=lambda row: row["attempt"])
        assert attempt["attempt"] == number
        # Without jitter, on one clock: exact.
        assert delivery["next_attempt_at"] - attempt["ended_at"] == timedelta(seconds=pause_s)
        assert deliver(deliverer) == 0
        post.pass_time(pause_s)
    assert deliver(deliverer) == 1
    assert post.statuses() == {("dead", "refused")}
    post.pass_time(10 * PAUSES_S[-1])
    assert deliver(deliverer) == 0
    assert len(receiver.received) == len(PAUSES_S) + 1
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1


def test_a_receiver_may_ask_for_more_time(post: Post, receiver: Receiver) -> None:
    receiver.script = [status(429, Retry_After="3600")]
    post.cancel_job(receiver.url)
    deliver(post.make_deliverer())
    (delivery,) = post.rows("deliveries")
    (attempt,) = post.rows("delivery_attempts")
    assert delivery["next_attempt_at"] - attempt["ended_at"] == timedelta(hours=1)


def test_a_receiver_that_is_gone_gets_nothing_more(post: Post, receiver: Receiver) -> None:
    receiver.script = [status(500), status(410)]
    post.cancel_job(receiver.url)
    deliverer = post.make_deliverer()
    deliver(deliverer)
    post.cancel_job(receiver.url)
    deliver(deliverer)
    assert post.statuses() == {("dead", "gone"), ("dead", "disabled")}
    post.cancel_job(receiver.url)
    post.pass_time(PAUSES_S[-1])
    assert deliver(deliverer) == 0
    assert len(receiver.received) == 2
    assert all(event["body"] is None for event in post.rows("events")[:2])
    # Another tenant's receiver, even of the same URL, is another one.
    assert len(post.rows("webhook_endpoints")) == 1


def test_a_sender_that_dies_between_post_and_note_leads_to_a_repeat(
    post: Post, receiver: Receiver
) -> None:
    post.finish_job(receiver.url)
    dying = post.make_deliverer()
    dying.run_once()
    dying.wait(PATIENCE_S)
    # It never comes to note the answer.
    other = post.make_deliverer()
    assert deliver(other) == 0
    post.pass_time(LEASE_S)
    assert deliver(other) == 1
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (
        second.body, second.headers["webhook-id"],
    )  # fmt: skip
    assert post.statuses() == {("delivered", "accepted")}
    # The dead come back: what they know is old.
    dying.run_once()
    assert [row["attempt"] for row in post.rows("delivery_attempts")] == [2]


def test_attempts_that_are_always_lost_come_to_an_end(post: Post, receiver: Receiver) -> None:
    post.cancel_job(receiver.url)
    repository = DeliveryRepository(post.database)
    for _ in range(len(PAUSES_S) + 1):
        assert repository.claim(limit=1, per_host=1, rooms={}, lease_s=1)
        post.pass_time(1)
    deliver(post.make_deliverer())
    assert post.statuses() == {("dead", "interrupted")}
    assert receiver.received == []


def test_a_slow_receiver_delays_no_other(post: Post, receiver: Receiver) -> None:
    with run_receiver() as slow:
        slow.default = hang
        for _ in range(3 * PER_HOST):
            post.cancel_job(slow.url)
        post.cancel_job(receiver.url)
        deliverer = post.make_deliverer(timeout_s=2)
        assert deliverer.run_once() == PER_HOST + 1
        deliverer.wait(PATIENCE_S)
        deliverer.run_once()
        assert len(receiver.received) == 1
        assert len(slow.received) <= PER_HOST
        assert [row["outcome"] for row in post.rows("delivery_attempts")] == ["accepted"]


def test_a_dead_receiver_is_left_alone_for_a_while_and_loses_no_try(
    post: Post, receiver: Receiver
) -> None:
    with run_receiver() as dead:
        url = dead.url
    for _ in range(MAX_FAILURES + 5):
        post.cancel_job(url)
    deliverer = post.make_deliverer()
    deliver(deliverer)
    tried = [row["tries"] for row in post.rows("deliveries")].count(1)
    assert MAX_FAILURES <= tried < MAX_FAILURES + PER_HOST
    post.cancel_job(receiver.url)
    assert deliver(deliverer) == 1
    assert len(receiver.received) == 1
    post.seconds += 60
    assert deliver(deliverer) == 1


def test_two_senders_share_what_is_due(post: Post, receiver: Receiver) -> None:
    for _ in range(10):
        post.cancel_job(receiver.url)
    senders = [post.make_deliverer() for _ in range(2)]
    begun = 0
    while new := sum(sender.run_once() for sender in senders):
        begun += new
        for sender in senders:
            sender.wait(PATIENCE_S)
    assert begun == len(receiver.received) == 10
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 10


def test_a_start_is_told_as_a_start(post: Post, receiver: Receiver, make_job: NewJobs) -> None:
    webhook = Webhook(receiver.url, (EventType.STARTED,))
    job, _ = post.jobs.insert(make_job(webhook=webhook))
    deliverer = post.make_deliverer()
    for _ in range(2):
        claim = post.leases.claim(job.id, worker="w")
        assert claim is not None
        post.leases.release(claim.lease)
    assert deliver(deliverer) == 1
    assert b'"type":"job.started"' in receiver.received[0].body


def test_it_runs_in_a_thread_and_stops_with_an_attempt_under_way(
    post: Post, receiver: Receiver
) -> None:
    receiver.script = [hang]
    post.cancel_job(receiver.url)
    deliverer = post.make_deliverer(timeout_s=60)
    deliverer.start()
    while not receiver.received:
        deliverer._thread.join(0.01)
    deliverer.stop()
    deliverer.check()
    assert post.statuses() == {("pending", "interrupted")}
    assert deliver(post.make_deliverer()) == 1
    assert post.statuses() == {("delivered", "accepted")}
