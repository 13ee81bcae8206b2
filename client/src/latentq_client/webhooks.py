"""Tell messages of the service from others, as Standard Webhooks has it."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from latentq_client.errors import WebhookRefused

#: A message may be so old, or a clock so wrong, in seconds.
TOLERANCE_S = 300


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    now: Callable[[], float] = time.time,
) -> Mapping[str, Any]:
    """Return the event that a message tells of; `webhook-id` in its headers tells repeats.

    Args:
        body: The body as it came, not parsed and written again.
        headers: Those of the request, in any case.
        secret: What the receiver's messages are signed with; several while it is exchanged.
        now: Another clock, for tests.

    Raises:
        WebhookRefused: It is not from the service, or too old.
        ValueError: A secret is none.
    """
    known = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, sent_at = known["webhook-id"], known["webhook-timestamp"]
        signatures = known["webhook-signature"].split()
    except KeyError as missing:
        raise WebhookRefused(f"it has no {missing.args[0]}") from None
    content = body.encode() if isinstance(body, str) else body
    signed = f"{message_id}.{sent_at}.".encode() + content
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [f"v1,{_sign(_read_secret(one), signed)}".encode() for one in secrets]
    # All are compared: the time taken says nothing.
    matches = [
        hmac.compare_digest(signature.encode(), one) for signature in signatures for one in expected
    ]
    if not any(matches):
        raise WebhookRefused("no signature fits")
    if not sent_at.isdecimal() or abs(now() - int(sent_at)) > TOLERANCE_S:
        raise WebhookRefused(f"it was not sent within the last {TOLERANCE_S // 60} minutes")
    event: Mapping[str, Any] = json.loads(content)
    return event


def _sign(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def _read_secret(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("a secret is whsec_ and base64") from error
