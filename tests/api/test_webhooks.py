from typing import Any

import pytest

from tests.fixtures.api import Api

URL = "https://hooks.example.com/latentq?token=secret-canary"


def test_a_job_tells_how_it_ended_unless_it_says_otherwise(api: Api) -> None:
    job = api.submit(webhook={"url": URL})
    ends = ["job.succeeded", "job.failed", "job.canceled"]
    assert job["request"]["webhook"] == {"url": URL, "events": ends}
    assert api.client.get(job["links"]["self"]).json() == job
    (listed,) = api.client.get("/v1/jobs").json()["data"]
    assert listed["request"]["webhook"] == job["request"]["webhook"]


def test_the_resolved_webhook_sent_again_is_the_same(api: Api) -> None:
    first = api.submit(webhook={"url": URL, "events": ["job.started"]})["request"]["webhook"]
    assert first["events"] == ["job.started"]
    assert api.submit(webhook=first)["request"]["webhook"] == first
    assert api.submit()["request"]["webhook"] is None


def test_a_replay_answers_the_webhook_of_the_job(api: Api) -> None:
    body = {"prompt": "a red star", "webhook": {"url": URL}}
    for _ in range(2):
        answer = api.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
        assert answer.json()["request"]["webhook"]["url"] == URL
    other = body | {"webhook": {"url": URL, "events": ["job.failed"]}}
    answer = api.client.post("/v1/jobs", json=other, headers={"Idempotency-Key": "k"})
    assert answer.json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({}, "#/webhook/url"),
        ({"url": 7}, "#/webhook/url"),
        ({"url": "http://hooks.example.com/secret-canary"}, "#/webhook/url"),
        ({"url": "https://127.0.0.1/secret-canary"}, "#/webhook/url"),
        ({"url": "https://u:secret-canary@example.com/"}, "#/webhook/url"),
        ({"url": URL, "events": []}, "#/webhook/events"),
        ({"url": URL, "events": ["job.failed", "job.failed"]}, "#/webhook/events"),
        ({"url": URL, "events": ["job.exploded"]}, "#/webhook/events/0"),
        ({"url": URL, "secret": "secret-canary"}, "#/webhook/secret"),
        (URL, "#/webhook"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused_without_repeating_it(
    api: Api, webhook: Any, pointer: str
) -> None:
    answer = api.client.post("/v1/jobs", json={"prompt": "p", "webhook": webhook})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "secret-canary" not in answer.text
    assert api.count_jobs() == 0


def test_receivers_on_this_machine_are_for_those_who_allow_them(api: Api) -> None:
    body = {"prompt": "p", "webhook": {"url": "http://127.0.0.1:5000/hook"}}
    assert api.client.post("/v1/jobs", json=body).status_code == 422
    allowing = api.new_client(webhook_allow_loopback=True)
    assert allowing.post("/v1/jobs", json=body).status_code == 202
