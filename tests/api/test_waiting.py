"""Requests that wait for a job: Prefer, If-None-Match, and what comes between."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Request

from api import hub as hub_module
from api.hub import JobHub
from api.waiting import wait_for, watching
from shared.db.changes import ChangeListener
from shared.db.keys import Principal
from shared.db.leases import Beat, LeaseRepository
from shared.job import Artifact, Lease, Success
from tests.fixtures.api import LINK_TTL_S, Api
from tests.fixtures.stack import PATIENCE_S, wait_until

ARTIFACT = Artifact(0, "results/x/0.png", "image/png", 64, 64, 7, "ab" * 32, 100)
Answer = Future[httpx.Response]
Ask = Callable[..., Answer]


@pytest.fixture
def leases(database: sa.Engine) -> LeaseRepository:
    return LeaseRepository(database, lease_s=60)


@pytest.fixture
def listener(api: Api) -> Iterator[None]:
    """Notices of the database reach the hub."""
    hub = api.services.hub
    ready = threading.Event()
    listener = ChangeListener(api.database, hub.wake, ready.set)
    listener.start()
    assert ready.wait(20)
    yield
    listener.stop()


@pytest.fixture
def ask(api: Api) -> Iterator[Ask]:
    """Send requests that may take a while, on threads; each is under way when the call returns."""
    with ThreadPoolExecutor() as pool:

        def send(method: str, path: str, **arguments: Any) -> Answer:
            before = api.services.hub.num_watches
            answer = pool.submit(api.client.request, method, path, **arguments)
            wait_until(lambda: api.services.hub.num_watches > before or answer.done())
            return answer

        yield send


def start(leases: LeaseRepository, job_id: str) -> Lease:
    claimed = leases.claim(job_id, worker="worker-1")
    assert claimed is not None
    return claimed.lease


def succeed(leases: LeaseRepository, lease: Lease) -> None:
    assert leases.succeed(lease, Success((ARTIFACT,), iterations=4, execution=EXECUTION))


EXECUTION = {
    "worker": "w", "device": "cpu", "determinism": "fast", "exact_rows": None, "mean_rows": 1.0,
    "resumed_at": None, "versions": {},
}  # fmt: skip


def wait_for_job(api: Api) -> str:
    """Return the id of the one job, once there is one."""

    def find() -> str | None:
        with api.database.connect() as connection:
            job_id: str | None = connection.scalar(sa.text("SELECT id FROM jobs"))
        return job_id

    return wait_until(find)


@pytest.mark.usefixtures("listener")
def test_a_submission_waits_for_the_end(api: Api, ask: Ask, leases: LeaseRepository) -> None:
    answer = ask("POST", "/v1/jobs", json={"prompt": "p"}, headers={"Prefer": "wait=50"})
    lease = start(leases, wait_for_job(api))
    succeed(leases, lease)
    ended = answer.result(timeout=PATIENCE_S)
    assert (ended.status_code, ended.json()["status"]) == (200, "succeeded")
    assert ended.json()["artifacts"][0]["url"].startswith("https://files.example.test/")
    assert ended.headers["Preference-Applied"] == "wait=50"
    assert ended.headers["Location"] == f"/v1/jobs/{lease.job_id}"
    assert "Retry-After" not in ended.headers
    assert api.services.hub.num_watches == 0


def test_a_submission_that_waits_in_vain_is_accepted(api: Api) -> None:
    headers = {"Prefer": "respond-async, wait=1, handling=lenient"}
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Preference-Applied"] == "respond-async, wait=1"
    assert answer.headers["Retry-After"] == "1"


def test_without_a_wish_to_wait_nothing_waits(api: Api) -> None:
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0")
    answer = api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Prefer": "wait=x"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_replay_waits_for_the_job_that_its_key_made(
    api: Api, ask: Ask, leases: LeaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LOOK_AGAIN_S", 0.1)
    headers = {"Idempotency-Key": "k", "Prefer": "wait=50"}
    first = api.client.post("/v1/jobs", json={"prompt": "p"}, headers={"Idempotency-Key": "k"})
    answer = ask("POST", "/v1/jobs", json={"prompt": "p"}, headers=headers)
    succeed(leases, start(leases, first.json()["id"]))
    replay = answer.result(timeout=PATIENCE_S)
    assert (replay.status_code, replay.json()["id"]) == (200, first.json()["id"])
    assert replay.headers["Idempotent-Replayed"] == "true"


@pytest.mark.usefixtures("listener")
def test_a_read_waits_for_the_end_not_for_progress(
    api: Api, ask: Ask, leases: LeaseRepository
) -> None:
    job = api.submit()
    answer = ask("GET", job["links"]["self"], headers={"Prefer": "wait=100"})
    lease = start(leases, job["id"])
    leases.beat([Beat(lease.token, 1)])
    assert not answer.done()
    api.client.post(job["links"]["cancel"])
    assert not answer.done()
    leases.cancel(lease)
    ended = answer.result(timeout=PATIENCE_S)
    assert (ended.status_code, ended.json()["status"]) == (200, "canceled")
    assert ended.headers["Preference-Applied"] == "wait=60"


def test_a_read_of_a_job_that_has_ended_does_not_wait(api: Api) -> None:
    job = api.submit()
    api.client.post(job["links"]["cancel"])
    answer = api.client.get(job["links"]["self"], headers={"Prefer": "wait=60"})
    assert answer.json()["status"] == "canceled"
    headers = {"Prefer": "wait=60", "If-None-Match": answer.headers["ETag"]}
    assert api.client.get(job["links"]["self"], headers=headers).status_code == 304


def test_a_notice_that_is_lost_costs_a_while_only(
    api: Api, ask: Ask, leases: LeaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LOOK_AGAIN_S", 0.1)
    job = api.submit()
    answer = ask("GET", job["links"]["self"], headers={"Prefer": "wait=60"})
    succeed(leases, start(leases, job["id"]))
    assert answer.result(timeout=PATIENCE_S).json()["status"] == "succeeded"


def test_a_job_that_ends_between_the_look_and_the_wait_is_seen_at_once(
    api: Api, leases: LeaseRepository
) -> None:
    job = api.submit()
    lease = start(leases, job["id"])
    hub = api.services.hub

    class Racing:
        """The repository, in front of which the job ends just after the first look."""

        looks = 0

        def get_stamp(self, tenant: str, job_id: str) -> Any:
            stamp = api.services.jobs.get_stamp(tenant, job_id)
            self.looks += 1
            if self.looks == 1:
                succeed(leases, lease)
                hub.wake(job_id)
            return stamp

    racing = Racing()
    services = replace(api.services, jobs=racing)  # type: ignore[arg-type]

    async def wait() -> None:
        with hub.watch("key") as watch:
            await wait_for(
                services, watch, Principal("key", "tenant", "n", frozenset()), job["id"],
                wait_s=2 * PATIENCE_S, has_come=lambda stamp: stamp.status.is_terminal,
            )  # fmt: skip

    asyncio.run(asyncio.wait_for(wait(), timeout=PATIENCE_S))
    assert racing.looks == 2


def test_a_client_that_goes_away_frees_its_place(api: Api) -> None:
    job = api.submit()
    hub = api.services.hub
    principal = Principal("key", "tenant", "n", frozenset())

    async def wait() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http"}, receive)
        async with watching(api.services, principal, request) as watch:
            waiting = asyncio.create_task(
                wait_for(
                    api.services, watch, principal, job["id"], wait_s=60, has_come=lambda _: False
                )
            )
            await asyncio.sleep(0)
            gone.set()
            await waiting
        assert hub.num_watches == 0

    asyncio.run(asyncio.wait_for(wait(), timeout=PATIENCE_S))


def test_waiting_ends_with_the_process(api: Api, ask: Ask) -> None:
    job = api.submit()
    answer = ask("GET", job["links"]["self"], headers={"Prefer": "wait=60"})
    api.services.hub.close()
    assert answer.result(timeout=PATIENCE_S).json()["status"] == "queued"


def test_more_than_may_wait_are_refused_before_there_is_a_job(api: Api) -> None:
    for hub, status, code in (
        (JobHub(max_watches_per_key=0), 429, "too_many_waiting"),
        (JobHub(max_watches=0), 503, "service_unavailable"),
    ):
        with api.new_client(hub=hub) as client:
            headers = {"Prefer": "wait=1"}
            answer = client.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert api.count_jobs() == 0


def test_a_job_of_others_is_not_waited_for(api: Api) -> None:
    job = api.submit()
    with api.new_client(tenant="other") as stranger:
        for headers in ({"Prefer": "wait=60"}, {"If-None-Match": "*"}):
            answer = stranger.get(job["links"]["self"], headers=headers)
            assert answer.status_code == 404


def poll(api: Api, job: dict[str, Any], etag: str) -> int:
    answer = api.client.get(job["links"]["self"], headers={"If-None-Match": etag})
    if answer.status_code == 304:
        assert answer.content == b""
        assert answer.headers["ETag"] == etag
        assert answer.headers["Cache-Control"] == "private, no-cache"
    return answer.status_code


def read_tag(api: Api, job: dict[str, Any]) -> str:
    answer = api.client.get(job["links"]["self"])
    assert answer.status_code == 200
    tag: str = answer.headers["ETag"]
    assert poll(api, job, tag) == 304
    return tag


def test_a_tag_holds_until_something_changes(api: Api, leases: LeaseRepository) -> None:
    job = api.submit()
    queued = read_tag(api, job)
    api.clock.now += timedelta(seconds=10)
    assert poll(api, job, queued) == 200
    queued = read_tag(api, job)
    lease = start(leases, job["id"])
    assert poll(api, job, queued) == 200
    running = read_tag(api, job)
    api.clock.now += timedelta(hours=1)
    assert poll(api, job, running) == 304
    leases.beat([Beat(lease.token, 1)])
    assert poll(api, job, running) == 200
    running = read_tag(api, job)
    leases.release(lease)
    second = start(leases, job["id"])
    leases.beat([Beat(second.token, 1)])
    assert poll(api, job, running) == 200
    succeed(leases, second)
    ended = read_tag(api, job)
    # Before the links of that answer are out of date.
    api.clock.now += timedelta(seconds=LINK_TTL_S / 2)
    assert poll(api, job, ended) == 200


def test_a_poll_without_news_signs_no_link(
    api: Api, leases: LeaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = api.submit()
    succeed(leases, start(leases, job["id"]))
    tag = read_tag(api, job)
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    sa.event.listen(api.database, "before_cursor_execute", note)
    try:
        assert poll(api, job, tag) == 304
    finally:
        sa.event.remove(api.database, "before_cursor_execute", note)
    (statement,) = statements
    assert statement.startswith("SELECT jobs.status, jobs.attempt, jobs.iteration")


@pytest.mark.usefixtures("listener")
def test_a_read_with_a_tag_waits_for_news(api: Api, ask: Ask, leases: LeaseRepository) -> None:
    job = api.submit()
    lease = start(leases, job["id"])
    headers = {"Prefer": "wait=60", "If-None-Match": read_tag(api, job)}
    answer = ask("GET", job["links"]["self"], headers=headers)
    assert not answer.done()
    leases.beat([Beat(lease.token, 2)])
    news = answer.result(timeout=PATIENCE_S)
    assert (news.status_code, news.json()["progress"]["iteration"]) == (200, 2)
    headers = {"Prefer": "wait=1", "If-None-Match": news.headers["ETag"]}
    nothing = api.client.get(job["links"]["self"], headers=headers)
    assert (nothing.status_code, nothing.headers["Preference-Applied"]) == (304, "wait=1")
