"""Previews in a job's stream of events, on a real server and a real Valkey."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from api import events
from cli.standalone.servers import Servers
from shared.db.leases import LeaseRepository
from shared.errors import ErrorCode
from shared.preview import Preview
from shared.queue import JobQueue, PreviewFeed, WorkerListener
from tests.fixtures.api import Api
from tests.fixtures.live import Event, LiveApi
from tests.fixtures.stack import wait_until


@pytest.fixture
def feed(servers: Servers) -> PreviewFeed:
    return PreviewFeed(servers.redis_url)


@pytest.fixture
def live(api: Api, feed: PreviewFeed) -> Iterator[LiveApi]:
    with LiveApi(api, previews=feed) as running:
        yield running


@contextmanager
def watching(live: LiveApi, job_id: str, previews: str = "true") -> Iterator[Iterator[Event]]:
    with live.stream(f"/v1/jobs/{job_id}/events?previews={previews}") as (answer, told):
        assert answer.status_code == 200
        yield told


@contextmanager
def worker(servers: Servers, job_id: str, *, pause_s: float = 0.02) -> Iterator[None]:
    """Publish previews of a job as long as somebody watches it, far more often than anybody may."""
    job_queue = JobQueue(servers.redis_url)
    heard, done = threading.Event(), threading.Event()
    listener = WorkerListener(
        servers.redis_url, on_cancel=print, on_watch=lambda name: name == job_id and heard.set()
    )

    def publish() -> None:
        heard.wait(20)
        iteration = 0
        while not done.wait(pause_s):
            iteration += 1
            job_queue.publish_preview(Preview(job_id, 0, iteration, b"picture %d" % iteration))

    thread = threading.Thread(target=publish)
    listener.start()
    thread.start()
    try:
        yield
    finally:
        done.set()
        heard.set()
        thread.join()
        listener.stop()


def test_who_asks_for_previews_sees_the_newest_twice_a_second(
    api: Api, live: LiveApi, feed: PreviewFeed, servers: Servers, database: sa.Engine
) -> None:
    job_id = api.submit()["id"]
    with worker(servers, job_id), watching(live, job_id) as told:
        snapshot = next(told)
        seen, times = [], []
        for _ in range(3):
            seen.append(next(told))
            times.append(time.monotonic())
        leases = LeaseRepository(database, lease_s=60)
        claimed = leases.claim(job_id, worker="w")
        assert claimed is not None
        assert leases.fail(claimed.lease, ErrorCode.NON_FINITE, "not finite")
        rest = [event.name for event in told]
    assert {event.name for event in seen} == {"preview"}
    assert {event.id for event in seen} == {snapshot.id}
    for event in seen:
        assert event.data["content_type"] == "image/webp"
        assert event.data["output_index"] == 0
        picture = b"picture %d" % event.data["iteration"]
        assert base64.b64decode(event.data["data"], validate=True) == picture
    # Between two of them many came, and were replaced; how long the first took says nothing.
    assert seen[2].data["iteration"] - seen[1].data["iteration"] > 2
    assert times[2] - times[0] > 0.8
    # The end does not wait for a preview that is not yet due.
    assert rest[-1] == "failed"
    wait_until(lambda: not feed.is_running)


def test_who_does_not_ask_sees_none_and_none_are_made(
    api: Api, live: LiveApi, feed: PreviewFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_AGE_S", 0.5)
    monkeypatch.setattr(events, "LOOK_AGAIN_S", 0.1)
    job_id = api.submit()["id"]
    with watching(live, job_id, previews="false") as told:
        assert next(told).name == "snapshot"
        assert not feed.is_running
        assert list(told) == []


def test_nobody_is_asked_for_previews_of_a_job_that_has_ended_or_is_not_there(
    api: Api, live: LiveApi, feed: PreviewFeed
) -> None:
    job_id = api.submit()["id"]
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    with watching(live, job_id) as told:
        assert [event.name for event in told] == ["snapshot", "canceled"]
        assert not feed.is_running
    stranger = api.new_client(tenant="stranger")
    other = api.submit()["id"]
    assert stranger.get(f"/v1/jobs/{other}/events?previews=true").status_code == 404
    assert not feed.is_running


def test_a_wish_that_is_no_yes_or_no_is_refused(api: Api, live: LiveApi) -> None:
    job_id = api.submit()["id"]
    with live.stream(f"/v1/jobs/{job_id}/events?previews=often") as (refused, _):
        assert refused.status_code == 422
        assert "previews" in refused.read().decode()


def test_while_redis_is_away_a_stream_goes_on_without_previews(
    api: Api,
) -> None:
    job_id = api.submit()["id"]
    with LiveApi(api) as live, watching(live, job_id) as told:  # its feed leads nowhere
        assert next(told).name == "snapshot"
        api.client.post(f"/v1/jobs/{job_id}/cancel")
        assert [event.name for event in told] == ["canceled"]
