"""Receivers that predictions of Replicate's API name, and the verifiers people have."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from replicate.prediction import Prediction

from shared.job import Success
from shared.webhook import PredictionRef, Webhook
from tests.dispatcher.test_deliverer import ARTIFACT, EXECUTION, Post, deliver, post, receiver
from tests.dispatcher.test_endpoints import REFUSED, VERIFIERS, check_standard, register
from tests.fixtures.receiver import Received, Receiver, status

__all__ = ["post", "receiver"]

REF = PredictionRef("https://api.example.test/replicate/v1", "3")


def finish_prediction(post: Post, url: str) -> str:
    new = post._make_job(webhook=Webhook(url))
    assert new.webhook is not None
    new = replace(new, webhook=replace(new.webhook, prediction=REF))
    job, _ = post.jobs.insert(new)
    claim = post.leases.claim(job.id, worker="w")
    assert claim is not None
    assert post.leases.succeed(claim.lease, Success((ARTIFACT,), 4, EXECUTION))
    return job.id


@pytest.mark.parametrize("check", VERIFIERS)
def test_a_receiver_gets_a_signed_prediction(
    post: Post, receiver: Receiver, check: Callable[[str, Received], None]
) -> None:
    job_id = finish_prediction(post, receiver.url)
    deliver(post.make_deliverer())
    (message,) = receiver.received
    check(post.secrets.ensure("tenant"), message)
    with pytest.raises(REFUSED):
        check(post.secrets.ensure("other"), message)
    prediction = Prediction(**json.loads(message.body))
    assert (prediction.id, prediction.status) == (job_id, "succeeded")
    assert prediction.urls["get"] == f"{REF.base_url}/predictions/{job_id}"
    assert prediction.output[0].startswith("https://files.example.test/")


def test_a_repeat_has_the_bytes_of_the_first_and_then_they_are_forgotten(
    post: Post, receiver: Receiver
) -> None:
    finish_prediction(post, receiver.url)
    receiver.script.append(status(500))
    deliverer = post.make_deliverer()
    deliver(deliverer)
    (kept,) = post.rows("deliveries")
    assert bytes(kept["body"]) == receiver.received[0].body
    post.pass_time(3600)
    deliver(deliverer)
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    (kept,) = post.rows("deliveries")
    assert (kept["status"], kept["body"]) == ("delivered", None)
    assert {row["body"] for row in post.rows("events")} == {None}


def test_an_endpoint_gets_the_event_of_a_job_whose_receiver_gets_a_prediction(
    post: Post, receiver: Receiver
) -> None:
    _, secret = register(post, receiver.url + "/all")
    job_id = finish_prediction(post, receiver.url)
    assert deliver(post.make_deliverer()) == 2
    bodies = [json.loads(message.body) for message in receiver.received]
    (event,) = [body for body in bodies if "type" in body]
    (prediction,) = [body for body in bodies if "urls" in body]
    assert (event["type"], event["data"]["id"]) == ("job.succeeded", job_id)
    assert prediction["id"] == job_id
    (message,) = [found for found in receiver.received if b'"type"' in found.body]
    check_standard(secret, message)
