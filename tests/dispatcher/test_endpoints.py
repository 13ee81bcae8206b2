"""What endpoints get, and that the verifiers people have take it, while secrets change."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from openai import InvalidWebhookSignatureError, OpenAI
from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret
from standardwebhooks import Webhook as StandardVerifier
from standardwebhooks import WebhookVerificationError

from shared.db.endpoints import Endpoint, EndpointChanges, EndpointRepository
from shared.db.webhooks import mint_secret
from shared.webhook import TERMINAL_EVENTS
from tests.dispatcher.test_deliverer import Post, deliver, post, receiver
from tests.fixtures.receiver import Received, Receiver, status

__all__ = ["post", "receiver"]


def check_standard(secret: str, message: Received) -> None:
    StandardVerifier(secret).verify(message.body, message.headers)


def check_openai(secret: str, message: Received) -> None:
    client = OpenAI(api_key="none", webhook_secret=secret)
    client.webhooks.verify_signature(message.body, message.headers)


def check_replicate(secret: str, message: Received) -> None:
    Webhooks.validate(
        headers=message.headers,
        body=message.body.decode(),
        secret=WebhookSigningSecret(key=secret),
        tolerance=300,
    )


VERIFIERS = [check_standard, check_openai, check_replicate]
REFUSED = (WebhookVerificationError, InvalidWebhookSignatureError, InvalidSignatureError)


def register(post: Post, url: str, **fields: Any) -> tuple[Endpoint, str]:
    secret = mint_secret()
    values = {"events": TERMINAL_EVENTS, "description": ""} | fields
    endpoint = EndpointRepository(post.database).create("tenant", url=url, secret=secret, **values)
    return endpoint, secret


def cancel_job(post: Post) -> str:
    job, _ = post.jobs.insert(post._make_job())
    post.jobs.request_cancel("tenant", job.id)
    return job.id


@pytest.mark.parametrize("check", VERIFIERS)
def test_both_secrets_are_valid_for_a_day_after_a_rotation(
    post: Post, receiver: Receiver, check: Callable[[str, Received], None]
) -> None:
    endpoint, old = register(post, receiver.url)
    endpoints, new = EndpointRepository(post.database), mint_secret()
    deliverer = post.make_deliverer()
    cancel_job(post)
    deliver(deliverer)
    endpoints.rotate("tenant", endpoint.id, new)
    cancel_job(post)
    deliver(deliverer)
    with post.database.begin() as connection:
        pass_a_day = "UPDATE endpoint_secrets SET expires_at = expires_at - interval '24 hours'"
        connection.execute(sa.text(pass_a_day))
    cancel_job(post)
    deliver(deliverer)
    before, during, after = receiver.received
    assert len(during.headers["webhook-signature"].split(" ")) == 2
    for secret, message in ((old, before), (old, during), (new, during), (new, after)):
        check(secret, message)
    strange = post.secrets.ensure("tenant")
    for secret, message in ((new, before), (old, after), (strange, during)):
        with pytest.raises(REFUSED):
            check(secret, message)


def test_an_endpoint_and_the_receiver_of_the_job_get_one_id_and_the_same_bytes(
    post: Post, receiver: Receiver
) -> None:
    _, secret = register(post, receiver.url + "/all")
    post.finish_job(receiver.url)
    assert deliver(post.make_deliverer()) == 2
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    signed_with = {secret, post.secrets.ensure("tenant")}
    for message in receiver.received:
        for signing in signed_with:
            try:
                check_standard(signing, message)
            except WebhookVerificationError:
                continue
            signed_with.remove(signing)
            break
    assert not signed_with


def test_a_test_event_is_sent_signed_and_tried_again(post: Post, receiver: Receiver) -> None:
    endpoint, secret = register(post, receiver.url)
    receiver.script = [status(500)]
    EndpointRepository(post.database).test("tenant", endpoint.id)
    deliverer = post.make_deliverer()
    deliver(deliverer)
    post.pass_time(60)
    deliver(deliverer)
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    message = StandardVerifier(secret).verify(second.body, second.headers)
    assert message["type"] == "endpoint.test"
    assert message["data"] == {"endpoint_id": endpoint.id}
    (event,) = post.rows("events")
    assert event["body"] is None
    assert post.statuses() == {("delivered", "accepted")}


def test_an_endpoint_that_is_disabled_while_it_fails_gets_nothing_more(
    post: Post, receiver: Receiver
) -> None:
    endpoint, _ = register(post, receiver.url)
    receiver.script = [status(500)]
    cancel_job(post)
    deliverer = post.make_deliverer()
    deliver(deliverer)
    EndpointRepository(post.database).update("tenant", endpoint.id, EndpointChanges(enabled=False))
    cancel_job(post)
    post.pass_time(86_400)
    assert deliver(deliverer) == 0
    assert len(receiver.received) == 1
    assert post.statuses() == {("dead", "disabled")}


def test_one_that_answers_410_is_disabled_with_the_reason(post: Post, receiver: Receiver) -> None:
    endpoint, _ = register(post, receiver.url)
    receiver.script = [status(410)]
    cancel_job(post)
    deliver(post.make_deliverer())
    shown = EndpointRepository(post.database).get("tenant", endpoint.id)
    assert shown.disabled_reason == "gone"


def test_an_endpoint_that_is_removed_during_an_attempt_harms_nothing(
    post: Post, receiver: Receiver
) -> None:
    endpoint, _ = register(post, receiver.url)
    cancel_job(post)
    deliverer = post.make_deliverer()
    assert deliverer.run_once() == 1
    deliverer.wait(10)
    EndpointRepository(post.database).delete("tenant", endpoint.id)
    assert deliver(deliverer) == 0
    assert post.rows("deliveries") == []


@pytest.mark.parametrize("check", VERIFIERS)
def test_both_secrets_of_a_tenant_are_valid_for_a_day_after_a_rotation(
    post: Post, receiver: Receiver, check: Callable[[str, Received], None]
) -> None:
    deliverer = post.make_deliverer()
    first = post.secrets.ensure("tenant")
    post.cancel_job(receiver.url)
    deliver(deliverer)
    second = post.secrets.rotate("tenant")
    post.cancel_job(receiver.url)
    deliver(deliverer)
    third = post.secrets.rotate("tenant")
    post.cancel_job(receiver.url)
    deliver(deliverer)
    with post.database.begin() as connection:
        pass_a_day = "UPDATE webhook_secrets SET former_until = former_until - interval '24 hours'"
        connection.execute(sa.text(pass_a_day))
    post.cancel_job(receiver.url)
    deliver(deliverer)
    used = [{first}, {first, second}, {second, third}, {third}]
    for message, valid in zip(receiver.received, used, strict=True):
        for secret in (first, second, third):
            if secret in valid:
                check(secret, message)
                continue
            with pytest.raises(REFUSED):
                check(secret, message)
