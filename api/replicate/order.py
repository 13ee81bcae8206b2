"""From a request for a prediction to a job about to be stored."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from api.idempotency import read_key
from api.intake import accept, prepare
from api.replicate.files import read_file_input
from api.replicate.schemas import PredictionCreate
from api.services import Services
from api.translation import DIFFUSERS_NAMES, Translation
from shared.catalog import ModelSpec
from shared.db.keys import Principal
from shared.errors import FieldProblem, InvalidRequest
from shared.job import Job
from shared.webhook import TERMINAL_EVENTS, EventType, PredictionRef

#: What models call fields of ours there, besides diffusers' names.
NAMES = {
    **DIFFUSERS_NAMES,
    "image": "init_image",
    "mask_image": "mask",
    "prompt_strength": "strength",
}
_FILES = frozenset({"init_image", "mask"})
#: What is told of a job for each event there; output comes with its success.
_EVENTS: dict[str, tuple[EventType, ...]] = {
    "start": (EventType.STARTED,),
    "output": (EventType.SUCCEEDED,),
    "logs": (),
    "completed": TERMINAL_EVENTS,
}
_CANCEL_AFTER = re.compile(r"(\d{1,9})(s|m|h)?", re.ASCII)
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a request asks for, of which model and where it came to."""

    body: PredictionCreate
    model: ModelSpec
    base_url: str

    @property
    def ref(self) -> PredictionRef:
        """What its receiver is told besides the job."""
        return PredictionRef(self.base_url, self.model.revision)


async def accept_prediction(
    services: Services, caller: Principal, prediction: Prediction, request: Request
) -> tuple[Job, list[str]]:
    """Store the job of a prediction, or find the one that its Idempotency-Key made.

    Returns the job, and which fields have had no effect.

    Raises:
        Conflict: The key came with another body.
        InvalidRequest: It cannot be served; names the fields as the client did.
        RequestRefused: An input is no picture of a supported type.
    """
    body = prediction.body
    translation = Translation("#/input")
    webhook = _read_webhook(body)
    translation.put("model", prediction.model.id, said_as="#/version")
    translation.put("webhook", webhook, said_as="#/webhook")
    translation.put("deadline_s", _read_deadline(request), said_as="#")
    fields = await run_in_threadpool(_find_files, services, caller.tenant, body.input)
    translation.put_all(fields, names=NAMES)
    for name in body.model_extra or {}:
        translation.ignore(name)
    job_body = translation.read()
    try:
        key = read_key(request)
        new = await run_in_threadpool(prepare, services, caller, job_body, idempotency_key=key)
        if new.webhook is not None and webhook is not None:
            new = replace(new, webhook=replace(new.webhook, prediction=prediction.ref))
        job, _ = await accept(services, new)
    except InvalidRequest as refusal:
        raise translation.rename(refusal) from refusal
    return job, translation.warnings()


def _find_files(services: Services, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    """Put ids of uploads where inputs hold files."""
    fields, problems = dict(given), []
    for name, value in given.items():
        if NAMES.get(name, name) in _FILES and isinstance(value, str):
            try:
                fields[name] = read_file_input(services, tenant, value)
            except ValueError as error:
                problems.append(FieldProblem(f"#/input/{name}", str(error)))
    if problems:
        raise InvalidRequest(problems)
    return fields


def _read_webhook(body: PredictionCreate) -> dict[str, Any] | None:
    """Turn what is wished of a webhook into a job's field."""
    if body.webhook is None and body.webhook_completed is None:
        return None
    if body.webhook is not None and body.webhook_completed is not None:
        detail = "a job tells one receiver; leave webhook_completed out"
        raise InvalidRequest([FieldProblem("#/webhook_completed", detail)])
    wanted: Iterable[str] = body.webhook_events_filter or _EVENTS
    if body.webhook is None:
        wanted = ["completed"]
    events = dict.fromkeys(event for name in wanted for event in _EVENTS[name])
    if not events:
        detail = "logs are not sent; add start, output or completed"
        raise InvalidRequest([FieldProblem("#/webhook_events_filter", detail)])
    return {"url": body.webhook or body.webhook_completed, "events": list(events)}


def _read_deadline(request: Request) -> int | None:
    """Read the header Cancel-After."""
    value = request.headers.get("cancel-after")
    if value is None:
        return None
    match = _CANCEL_AFTER.fullmatch(value.strip())
    if match is None:
        detail = "the header Cancel-After takes seconds, or a number with s, m or h"
        raise InvalidRequest([FieldProblem("#", detail)])
    return int(match[1]) * _UNITS[match[2]]
