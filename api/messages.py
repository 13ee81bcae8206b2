"""What receivers are sent, for the OpenAPI document: the dispatcher sends it."""

from typing import Annotated, Any

from fastapi import APIRouter, Header

from shared.event_body import EndpointEventBody, JobEventBody
from shared.webhook import EndpointEvent, EventType

#: Headers of Standard Webhooks 1.0.
MessageId = Annotated[str, Header(alias="webhook-id", description="The same at every repeat")]
Timestamp = Annotated[
    int,
    Header(alias="webhook-timestamp", description="When this attempt was made, in Unix seconds"),
]
Signature = Annotated[
    str,
    Header(
        alias="webhook-signature",
        description="`v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in base64; while a"
        " secret is being replaced one for each, separated by spaces",
    ),
]

#: What an answer leads to.
_ANSWERS: dict[int | str, dict[str, Any]] = {
    410: {"description": "Send nothing more: the receiver is disabled"},
    "default": {"description": "Anything else but 2xx: it is sent again later"},
}

router = APIRouter(tags=["webhooks"])


def tell_job(
    body: JobEventBody, message_id: MessageId, timestamp: Timestamp, signature: Signature
) -> None:
    """Tell what became of a job; `data` is the job as it stood when this was first sent."""


def tell_test(
    body: EndpointEventBody, message_id: MessageId, timestamp: Timestamp, signature: Signature
) -> None:
    """Try an endpoint, because its owner asked for it."""


for _type in EventType:
    router.add_api_route(
        _type,
        tell_job,
        methods=["POST"],
        status_code=204,
        responses=_ANSWERS,
        operation_id=f"tell_{_type.replace('.', '_')}",
    )
router.add_api_route(
    EndpointEvent.TEST,
    tell_test,
    methods=["POST"],
    status_code=204,
    responses=_ANSWERS,
    operation_id="tell_endpoint_test",
)
