"""Streams of a real server on a real port."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from api import events as events_module
from api.events import id_of
from api.hub import JobHub
from api.main import create_app
from api.server import Server
from shared.db.changes import ChangeListener
from shared.db.leases import Beat, LeaseRepository
from shared.job import Artifact, JobStamp, JobStatus, Lease, Success
from tests.fixtures.api import Api
from tests.fixtures.stack import free_port, wait_until

ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)
EXECUTION = {
    "worker": "w", "device": "cpu", "determinism": "fast", "exact_rows": None, "mean_rows": 1.0,
    "resumed_at": None, "versions": {},
}  # fmt: skip


@dataclass
class Event:
    id: int
    name: str
    data: dict[str, Any]


def read_events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


@dataclass
class Live:
    """A server, with a hub of its own that hears of changes."""

    api: Api
    hub: JobHub
    url: str

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
        headers |= {"Authorization": self.api.client.headers["Authorization"]}
        with (
            httpx.Client(base_url=self.url, headers=headers, timeout=10) as client,
            client.stream("GET", path) as answer,
        ):
            yield answer, read_events(answer.iter_lines())


@pytest.fixture
def live(api: Api) -> Iterator[Live]:
    hub = JobHub(max_watches_per_key=3)
    listener = ChangeListener(api.database, hub.wake, hub.wake_all)
    app = create_app(replace(api.services, hub=hub))
    port = free_port()
    server = Server(app, hub, host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run)
    listener.start()
    thread.start()
    wait_until(lambda: server.started, timeout_s=10)
    yield Live(api, hub, f"http://127.0.0.1:{port}")
    server.should_exit = True
    thread.join(4)  # less than the server's grace: nothing is waited for
    listener.stop()
    assert not thread.is_alive()


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


def start(leases: LeaseRepository, job_id: str) -> Lease:
    claimed = leases.claim(job_id, worker="worker-1")
    assert claimed is not None
    return claimed.lease


def test_a_stream_tells_the_life_of_a_job(live: Live, leases: LeaseRepository) -> None:
    job = live.api.submit(num_outputs=1)
    with live.stream(job["links"]["events"]) as (answer, events):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert "no-cache" in answer.headers["Cache-Control"]
        seen = [next(events)]
        assert (seen[0].name, seen[0].data["id"]) == ("snapshot", job["id"])
        first = start(leases, job["id"])
        seen.append(next(events))
        leases.beat([Beat(first.token, 3)])
        seen.append(next(events))
        assert seen[-1].data == {"iteration": 3, "iterations": 25, "eta_s": seen[-1].data["eta_s"]}
        leases.release(first)
        seen.append(next(events))
        second = start(leases, job["id"])
        seen.append(next(events))
        leases.succeed(second, Success((ARTIFACT,), iterations=25, execution=EXECUTION))
        seen += events
    assert [event.name for event in seen] == [
        "snapshot", "snapshot", "progress", "snapshot", "snapshot", "succeeded",
    ]  # fmt: skip
    statuses = [event.data["status"] for event in seen if event.name != "progress"]
    assert statuses == ["queued", "running", "queued", "running", "succeeded"]
    assert seen[-1].data["artifacts"][0]["url"].startswith("https://files.example.test/")
    ids = [event.id for event in seen]
    assert ids == sorted(set(ids))
    wait_until(lambda: live.hub.num_watches == 0, timeout_s=5)


def test_many_changes_in_a_moment_are_one_event(live: Live, leases: LeaseRepository) -> None:
    job = live.api.submit()
    lease = start(leases, job["id"])
    with live.stream(job["links"]["events"]) as (_, events):
        next(events)
        for iteration in range(1, 11):
            leases.beat([Beat(lease.token, iteration)])
        seen = [next(events)]
        while seen[-1].data["iteration"] != 10:
            seen.append(next(events))
        leases.cancel(lease)
        (end,) = events
    assert len(seen) <= 3
    assert end.name == "canceled"


def test_a_client_that_has_seen_the_end_need_not_come_back(live: Live) -> None:
    job = live.api.submit()
    path = job["links"]["events"]
    live.api.client.post(job["links"]["cancel"])
    with live.stream(path) as (_, events):
        snapshot, end = events
    assert (snapshot.name, end.name) == ("snapshot", "canceled")
    assert snapshot.id < end.id
    with live.stream(path, **{"Last-Event-ID": str(end.id)}) as (answer, _):
        assert answer.status_code == 204
    with live.stream(f"{path}?last_event_id={end.id}") as (answer, _):
        assert answer.status_code == 204
    for last_seen in (str(snapshot.id), "nonsense", ""):
        with live.stream(path, **{"Last-Event-ID": last_seen}) as (answer, events):
            assert [event.name for event in events] == ["snapshot", "canceled"]


def test_a_client_that_goes_away_frees_its_place(live: Live) -> None:
    path = live.api.submit()["links"]["events"]
    with live.stream(path), live.stream(path), live.stream(path):
        wait_until(lambda: live.hub.num_watches == 3, timeout_s=5)
        with live.stream(path) as (refused, _):
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    wait_until(lambda: live.hub.num_watches == 0, timeout_s=5)


def test_a_client_that_stops_waiting_frees_its_place(live: Live) -> None:
    path = live.api.submit()["links"]["self"]
    headers = {"Authorization": live.api.client.headers["Authorization"], "Prefer": "wait=60"}
    with (
        httpx.Client(base_url=live.url, headers=headers, timeout=0.5) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(path)
    wait_until(lambda: live.hub.num_watches == 0, timeout_s=5)


def test_streams_end_when_the_server_stops(live: Live) -> None:
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        assert next(events).name == "snapshot"
        live.hub.close()
        assert list(events) == []


def test_a_stream_ends_with_its_key(live: Live) -> None:
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        next(events)
        with live.api.database.begin() as connection:
            connection.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))
        live.hub.wake_all()
        live.api.clock.now += timedelta(seconds=20)
        live.hub.wake_all()
        assert list(events) == []


def test_a_stream_grows_old(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_AGE_S", 0.0)
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        next(events)
        live.hub.wake_all()
        assert list(events) == []


def test_a_job_that_nobody_may_see_has_no_stream(live: Live) -> None:
    with live.stream("/v1/jobs/job_0/events") as (answer, _):
        assert answer.status_code == 404
    assert live.hub.num_watches == 0


RUNS = st.lists(st.lists(st.integers(0, 90_000), max_size=4).map(sorted), max_size=5)


@given(RUNS, st.sampled_from([s for s in JobStatus if s.is_terminal]))
def test_ids_grow_over_any_life(runs: list[list[int]], end: JobStatus) -> None:
    life = [JobStamp(JobStatus.QUEUED, 0, 0)]
    for attempt, iterations in enumerate(runs, start=1):
        life += [JobStamp(JobStatus.RUNNING, attempt, i) for i in iterations]
        life.append(JobStamp(JobStatus.QUEUED, attempt, iterations[-1] if iterations else 0))
    last = JobStamp(end, len(runs), life[-1].iteration)
    ids = [id_of(stamp) for stamp in life]
    ids += [id_of(last, is_snapshot=True), id_of(last)]
    assert ids == sorted(ids)
    assert ids[-1] > ids[-2]
