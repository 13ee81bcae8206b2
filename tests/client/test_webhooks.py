"""Against the test vector of Standard Webhooks' own library, and against that library."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from latentq_client import WebhookRefused
from latentq_client.webhooks import TOLERANCE_S, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENT_AT = 1674087231
BODY = b'{"type":"job.succeeded","timestamp":"2026-11-23T02:00:00Z","data":{"id":"job_01"}}'
SIGNATURE = "v1,gpKbdcuZJzue9xPm2vowwYNIr5MTDAsihodB3BBwH3w="
HEADERS = {
    "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    "webhook-timestamp": str(SENT_AT),
    "webhook-signature": SIGNATURE,
}
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def now() -> float:
    return SENT_AT


@pytest.mark.parametrize("body", [BODY, BODY.decode()])
@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_"), [OTHER_SECRET, SECRET]])
@pytest.mark.parametrize("signature", [SIGNATURE, f"v1a,x v1,AAAA {SIGNATURE}"])
def test_a_message_of_the_service_is_read(
    body: bytes | str, secret: str | list[str], signature: str
) -> None:
    headers = {name.title(): value for name, value in HEADERS.items()}
    headers["Webhook-Signature"] = signature
    assert verify(body, headers, secret, now=now)["data"]["id"] == "job_01"


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "msg_other"},
        {"webhook-timestamp": str(SENT_AT + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-signature": ""},
        {"webhook-signature": SIGNATURE.removeprefix("v1,")},
        {"webhook-signature": SIGNATURE.replace("v1,", "v1a,")},
        {"webhook-signature": SIGNATURE.replace("gp", "gq")},
        {"webhook-signature": "v1,ü"},
    ],
)
def test_any_other_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(WebhookRefused):
        verify(BODY, HEADERS | changes, SECRET, now=now)


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_header_is_named(name: str) -> None:
    headers = {other: value for other, value in HEADERS.items() if other != name}
    with pytest.raises(WebhookRefused, match=name):
        verify(BODY, headers, SECRET, now=now)


@pytest.mark.parametrize("late_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1])
def test_an_old_message_is_refused_and_one_of_the_future(late_s: int) -> None:
    with pytest.raises(WebhookRefused, match="5 minutes"):
        verify(BODY, HEADERS, SECRET, now=lambda: SENT_AT + late_s)
    edge = late_s - 1 if late_s > 0 else late_s + 1
    verify(BODY, HEADERS, SECRET, now=lambda: SENT_AT + edge)


def test_what_is_no_secret_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify(BODY, HEADERS, "whsec_?", now=now)
    with pytest.raises(WebhookRefused):
        verify(BODY, HEADERS, [], now=now)


@given(
    key=st.binary(min_size=1, max_size=64),
    message_id=st.from_regex(r"[a-z_0-9]{1,40}", fullmatch=True),
    data=st.dictionaries(st.text(), st.text()),
    spoiled=st.integers(min_value=0),
)
def test_it_agrees_with_the_reference_library(
    key: bytes, message_id: str, data: dict[str, str], spoiled: int
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps({"data": data})
    sent_at = datetime.fromtimestamp(SENT_AT, UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(SENT_AT),
        "webhook-signature": Webhook(secret).sign(message_id, sent_at, body),
    }
    assert verify(body, headers, secret, now=now)["data"] == data
    broken = bytearray(body.encode())
    broken[spoiled % len(broken)] ^= 1
    with pytest.raises(WebhookRefused):
        verify(bytes(broken), headers, secret, now=now)
