"""From a request to a job that is stored: the one way in for every route that makes jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from api.belongings import Belongings, belongings_of
from api.idempotency import fingerprint
from api.inputs import find_inputs
from api.schemas import JobCreate
from api.services import Services
from api.webhooks import read_webhook
from shared.crash_point import CrashPoint, reached
from shared.db.batches import Batch, NewBatch, Skipped
from shared.db.keys import Principal
from shared.errors import FieldProblem, InvalidRequest
from shared.job import BatchPlace, Job, NewJob
from shared.queue import queue_of
from shared.request import GenerationRequest
from shared.tracing import carry, span

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """One of several jobs about to be accepted together."""

    job: NewJob
    #: Its place among them.
    index: int
    #: Where its body stands in the one that was sent.
    pointer: str


def prepare(
    services: Services, caller: Principal, body: JobCreate, *, idempotency_key: str | None
) -> NewJob:
    """Settle and check everything that a body leaves open; nothing is stored yet.

    Raises:
        InvalidRequest: It cannot be served; names each field, why, and what would work.
    """
    new = _settle(services, caller, body, belongings_of(services, caller))
    if idempotency_key is None:
        return new
    return replace(new, idempotency_key=idempotency_key, body_sha256=fingerprint(body))


def prepare_together(
    services: Services, caller: Principal, bodies: Iterable[JobCreate]
) -> list[NewJob | InvalidRequest]:
    """Settle and check several bodies; returns for each its job, or what it is refused for."""
    belongings = belongings_of(services, caller).remembered()
    settled: list[NewJob | InvalidRequest] = []
    for body in bodies:
        try:
            settled.append(_settle(services, caller, body, belongings))
        except InvalidRequest as refusal:
            settled.append(refusal)
    return settled


def asks_nobody(services: Services, body: JobCreate) -> bool:
    """Tell whether `prepare` takes no query: the body names nothing that its tenant owns."""
    is_built_in = body.preset is None or services.resolver.presets.find(body.preset) is not None
    return is_built_in and body.init_image is None and body.mask is None


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
        ("duration_s", limits.max_duration_s),
        ("steps", limits.max_steps),
        ("num_outputs", limits.max_num_outputs),
    ):
        asked = getattr(request, field)
        if most is not None and asked is not None and asked > most:
            problems.append(FieldProblem(f"#/{field}", f"this key allows at most {most:,}"))
    if problems:
        raise InvalidRequest(problems, code="over_key_limit")


async def accept(services: Services, new: NewJob) -> tuple[Job, bool]:
    """Store a job and say that it waits; returns it, or the one that its key made before and True.

    Raises:
        Conflict: Its key came with another body.
        InvalidRequest: An upload is gone by now.
        QuotaExceeded: The API key has too many jobs already, or has spent the day's budget.
        RequestRefused: The queue is full.
    """
    services.admission.check(1)
    attributes = {"latentq.job_id": new.id, "latentq.model": new.request.model}
    with span(services.tracer, "submit", attributes=attributes):
        job, is_replay = await _insert(services, replace(new, traceparent=carry()))
    reached(CrashPoint.AFTER_SUBMIT)
    if not is_replay:
        services.admission.note_accepted(1)
        services.metrics.note_accepted(new.request.model)
        services.nudge()
        log.info(
            "job_accepted",
            job_id=job.id,
            model=job.request.model,
            tenant=new.tenant,
            retry_of=new.retry_of,
        )
    return job, is_replay


def accept_together(
    services: Services,
    caller: Principal,
    members: Sequence[Member],
    *,
    body: BaseModel,
    idempotency_key: str | None,
    skipped: Skipped = (),
) -> tuple[Batch, bool]:
    """Store several jobs in one transaction and say that they wait.

    `body` is what was sent. Returns them, or those that the key made before and True.

    Raises:
        Conflict: The key came with another body.
        InvalidRequest: An upload is gone by now.
        QuotaExceeded: The API key would have too many jobs, or overspend the day's budget.
        RequestRefused: The queue is full.
    """
    services.admission.check(len(members))
    batch_id = services.new_batch_id()
    attributes = {"latentq.batch": batch_id, "latentq.num_jobs": len(members)}
    with span(services.tracer, "submit", attributes=attributes):
        new = NewBatch(
            id=batch_id,
            tenant=caller.tenant,
            jobs=[_place(member, batch_id) for member in members],
            pointers=[member.pointer for member in members],
            skipped=skipped,
            idempotency_key=idempotency_key,
            body_sha256=None if idempotency_key is None else fingerprint(body),
        )
        batch, is_replay = services.batches.insert(new)
    reached(CrashPoint.AFTER_SUBMIT)
    if not is_replay:
        services.admission.note_accepted(len(members))
        for member in members:
            services.metrics.note_accepted(member.job.request.model)
        services.nudge()
        log.info("batch_accepted", batch=batch.id, num_jobs=len(members), tenant=caller.tenant)
    return batch, is_replay


async def _insert(services: Services, new: NewJob) -> tuple[Job, bool]:
    job = await services.jobs.insert_soon(new)
    if job is not None:
        return job, False
    return await run_in_threadpool(services.jobs.insert, new)


def _place(member: Member, batch_id: str) -> NewJob:
    """Give one of several jobs its place among them, and the trace of all."""
    place = BatchPlace(batch_id, member.index)
    return replace(member.job, batch=place, traceparent=carry())


def _settle(
    services: Services, caller: Principal, body: JobCreate, belongings: Belongings
) -> NewJob:
    webhook = read_webhook(body, allow_loopback=services.webhook_allow_loopback)
    inputs = find_inputs(belongings.find_upload, body)
    resolved, preset = services.resolver.resolve(body, inputs, belongings.find_preset)
    check_allowed(caller, resolved)
    return NewJob(
        id=services.new_job_id(),
        tenant=caller.tenant,
        queue=queue_of(resolved.model, resolved.service_class),
        request=resolved,
        preset=preset,
        metadata=body.metadata,
        predicted_s=services.estimator.predict_s(resolved),
        webhook=webhook,
        key_id=caller.key_id,
        limits=caller.limits,
    )
