"""From a request to a job that is stored: the one way in for every route that makes jobs."""

import structlog

from api.idempotency import fingerprint
from api.inputs import find_inputs
from api.schemas import JobCreate
from api.services import Services
from api.webhooks import read_webhook
from shared.crash_point import CrashPoint, reached
from shared.db.keys import Principal
from shared.errors import FieldProblem, InvalidRequest
from shared.job import Job, NewJob
from shared.queue import queue_of
from shared.request import GenerationRequest

log = structlog.get_logger(__name__)


def prepare(
    services: Services, caller: Principal, body: JobCreate, *, idempotency_key: str | None
) -> NewJob:
    """Settle and check everything that a body leaves open; nothing is stored yet.

    Raises:
        InvalidRequest: It cannot be served; names each field, why, and what would work.
    """
    webhook = read_webhook(body, allow_loopback=services.webhook_allow_loopback)
    inputs = find_inputs(services.uploads, caller.tenant, body)
    resolved, preset = services.resolver.resolve(body, inputs)
    check_allowed(caller, resolved)
    return NewJob(
        id=services.new_job_id(),
        tenant=caller.tenant,
        queue=queue_of(resolved.model, resolved.service_class),
        request=resolved,
        preset=preset,
        metadata=body.metadata,
        predicted_s=services.estimator.predict_s(resolved),
        idempotency_key=idempotency_key,
        body_sha256=None if idempotency_key is None else fingerprint(body),
        webhook=webhook,
        key_id=caller.key_id,
        limits=caller.limits,
    )


def check_allowed(caller: Principal, request: GenerationRequest) -> None:
    """Check a resolved request against what its key allows, whatever else the key has taken.

    Raises:
        InvalidRequest: The key does not allow it; names each field and what would work.
    """
    limits, problems = caller.limits, []
    if limits.models is not None and request.model not in limits.models:
        allowed = ", ".join(limits.models)
        problems.append(FieldProblem("#/model", f"this key is for {allowed}"))
    for field, most in (
        ("width", limits.max_width),
        ("height", limits.max_height),
        ("steps", limits.max_steps),
        ("num_outputs", limits.max_num_outputs),
    ):
        if most is not None and getattr(request, field) > most:
            problems.append(FieldProblem(f"#/{field}", f"this key allows at most {most:,}"))
    if problems:
        raise InvalidRequest(problems, code="over_key_limit")


def accept(services: Services, new: NewJob) -> tuple[Job, bool]:
    """Store a job and say that it waits; returns it, or the one that its key made before and True.

    Raises:
        Conflict: Its key came with another body.
        InvalidRequest: An upload is gone by now.
        QuotaExceeded: The API key has too many jobs already, or has spent the day's budget.
    """
    job, is_replay = services.jobs.insert(new)
    reached(CrashPoint.AFTER_SUBMIT)
    if not is_replay:
        services.nudge()
        log.info(
            "job_accepted",
            job_id=job.id,
            model=job.request.model,
            tenant=new.tenant,
            retry_of=new.retry_of,
        )
    return job, is_replay
