"""The webhook that a body asks for."""

from api.schemas import JobCreate
from shared.errors import FieldProblem, InvalidRequest
from shared.webhook import Webhook, find_url_refusal


def read_webhook(body: JobCreate, *, allow_loopback: bool) -> Webhook | None:
    """Check whom a job shall tell of what.

    Raises:
        InvalidRequest: Messages may not go there.
    """
    if body.webhook is None:
        return None
    refusal = find_url_refusal(body.webhook.url, allow_loopback=allow_loopback)
    if refusal is not None:
        raise InvalidRequest([FieldProblem("#/webhook/url", refusal)])
    return Webhook(body.webhook.url, tuple(body.webhook.events))
