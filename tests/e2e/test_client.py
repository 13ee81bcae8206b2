"""Both kinds of clients, against a running system."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentq_client import AsyncClient, Client, JobFailed, ServiceRefused, uploads, webhooks
from tests.fixtures.callers import KINDS, AsyncCaller, Caller
from tests.fixtures.pictures import picture
from tests.fixtures.receiver import run_receiver
from tests.fixtures.stack import Stack, wait_until

PROMPT = "a large red star on a yellow background"


@pytest.fixture(params=KINDS)
def caller(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Caller]:
    where = stack.connection["base_url"], stack.connection["api_key"]
    made = (
        Caller(Client(*where)) if request.param == "blocking" else AsyncCaller(AsyncClient(*where))
    )
    yield made
    made.close()


def test_a_picture_is_generated_and_saved(caller: Caller, tmp_path: Path) -> None:
    seen: list[int] = []
    done = caller.call(
        caller.client,
        "generate",
        PROMPT,
        steps=20,
        sampler="ddpm",
        on_progress=lambda job: seen.append(job.progress.iteration),
    )
    assert done.status == "succeeded"
    assert seen[-1] == 20
    assert seen == sorted(seen)
    (path,) = caller.call(done, "save", tmp_path / "star.png")
    assert path.read_bytes() == caller.call(caller.client, "download", done.artifacts[0])
    assert [run["outcome"] for run in caller.call(done, "attempts")] == ["succeeded"]
    caller.call(done, "delete")
    with pytest.raises(ServiceRefused, match="not_found"):
        caller.call(done, "refresh")


def test_a_job_is_followed_with_previews_to_its_end(caller: Caller) -> None:
    mine = caller.call(caller.client, "submit", PROMPT, steps=150, sampler="ddpm")
    events = caller.take(mine, "events", previews=True)
    assert events[0].type == "snapshot"
    assert events[-1].type == "succeeded"
    assert events[-1].job.artifacts
    previews = [event.preview for event in events if event.preview is not None]
    assert previews
    assert all(preview.data[8:12] == b"WEBP" for preview in previews)
    assert any(event.progress for event in events)


def test_a_canceled_job_is_run_again(caller: Caller) -> None:
    mine = caller.call(caller.client, "submit", PROMPT, steps=1000, sampler="ddpm")
    assert caller.call(mine, "cancel") is mine
    with pytest.raises(JobFailed, match="canceled"):
        caller.call(mine, "wait", timeout=30)
    again = caller.call(caller.client, "retry", mine.id)
    assert again.id != mine.id
    caller.call(again, "cancel")


def test_many_jobs_are_made_together(caller: Caller) -> None:
    bodies = [{"prompt": PROMPT, "steps": steps} for steps in (2, 3)]
    batch = caller.call(caller.client, "submit_batch", bodies)
    sweep = caller.call(caller.client, "submit_sweep", {"prompt": PROMPT}, steps=[2, 3], seeds=[7])
    assert [point.coordinates["steps"] for point in sweep.points] == [2, 3]
    for mine in (*batch.jobs, *(point.job for point in sweep.points)):
        assert caller.call(mine, "wait", timeout=60).artifacts
    listed = caller.take(caller.client, "list", filters={"batch": batch.id}, page_size=1)
    assert {one.id for one in listed} == {mine.id for mine in batch.jobs}


def test_a_large_picture_is_sent_to_the_store(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture()
    through = caller.call(caller.client, "upload", data)
    monkeypatch.setattr(uploads, "STRAIGHT_ABOVE", 0)
    assert caller.call(caller.client, "upload", data) == through


def test_settings_get_a_name_and_a_price(caller: Caller) -> None:
    name = f"draft-{type(caller).__name__.lower()}"
    made = caller.call(caller.client, "put_preset", name, steps=3, sampler="euler")
    assert made["version"] == 1
    estimate = caller.call(caller.client, "estimate", PROMPT, preset=name)
    assert (estimate.preset, estimate.iterations) == (name, 3)
    assert caller.call(caller.client, "preset", name)["versions"][0]["request"]["steps"] == 3
    caller.call(caller.client, "delete_preset", name)
    names: Any = [one["name"] for one in caller.call(caller.client, "presets")["data"]]
    assert name not in names


def test_a_receiver_is_told_in_a_way_that_verifies(caller: Caller) -> None:
    with run_receiver() as receiver:
        endpoint = caller.call(caller.client, "create_webhook_endpoint", receiver.url)
        delivery = caller.call(caller.client, "test_webhook_endpoint", endpoint["id"])
        wait_until(lambda: receiver.received, timeout_s=30)
        caller.call(caller.client, "delete_webhook_endpoint", endpoint["id"])
    (message,) = receiver.received
    event = webhooks.verify(message.body, message.headers, endpoint["secret"])
    assert event["type"] == delivery["type"] == "endpoint.test"
