"""Streams of a real server on a real port."""

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from api import events as events_module
from api.events import id_of
from shared.db.leases import Beat, LeaseRepository
from shared.job import Artifact, JobStamp, JobStatus, Lease, Success
from tests.fixtures.api import Api
from tests.fixtures.live import LiveApi
from tests.fixtures.served import EXECUTION
from tests.fixtures.stack import wait_until

ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)


@pytest.fixture
def live(api: Api) -> Iterator[LiveApi]:
    with LiveApi(api) as running:
        yield running


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


def start(leases: LeaseRepository, job_id: str) -> Lease:
    claimed = leases.claim(job_id, worker="worker-1")
    assert claimed is not None
    return claimed.lease


def test_a_stream_tells_the_life_of_a_job(live: LiveApi, leases: LeaseRepository) -> None:
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
    wait_until(lambda: live.hub.num_watches == 0)


def test_many_changes_in_a_moment_are_one_event(live: LiveApi, leases: LeaseRepository) -> None:
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


def test_a_client_that_has_seen_the_end_need_not_come_back(live: LiveApi) -> None:
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


def test_a_client_that_goes_away_frees_its_place(live: LiveApi) -> None:
    path = live.api.submit()["links"]["events"]
    with live.stream(path), live.stream(path), live.stream(path):
        wait_until(lambda: live.hub.num_watches == 3)
        with live.stream(path) as (refused, _):
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    wait_until(lambda: live.hub.num_watches == 0)


def test_a_client_that_stops_waiting_frees_its_place(live: LiveApi) -> None:
    path = live.api.submit()["links"]["self"]
    headers = {"Authorization": live.api.client.headers["Authorization"], "Prefer": "wait=60"}
    with (
        httpx.Client(base_url=live.url, headers=headers, timeout=0.5) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(path)
    wait_until(lambda: live.hub.num_watches == 0)


def test_streams_end_when_the_server_stops(live: LiveApi) -> None:
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        assert next(events).name == "snapshot"
        live.hub.close()
        assert list(events) == []


def test_a_stream_ends_with_its_key(live: LiveApi) -> None:
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        next(events)
        with live.api.database.begin() as connection:
            connection.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))
        live.hub.wake_all()
        live.api.clock.now += timedelta(seconds=20)
        live.hub.wake_all()
        assert list(events) == []


def test_a_stream_grows_old(live: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_AGE_S", 0.0)
    job = live.api.submit()
    with live.stream(job["links"]["events"]) as (_, events):
        next(events)
        live.hub.wake_all()
        assert list(events) == []


def test_a_job_that_nobody_may_see_has_no_stream(live: LiveApi) -> None:
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
