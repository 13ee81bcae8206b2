"""A job as it stands on the wire: every member present, null where it does not apply."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel

from shared.errors import ErrorCode
from shared.job import Artifact, AttemptOutcome, Job, JobStatus, NewJob
from shared.storage import ObjectStore
from shared.vocab import (
    CONTENT_TYPES,
    Determinism,
    OutputFormat,
    Sampler,
    Schedule,
    ServiceClass,
)
from shared.webhook import EventType


class WebhookBody(BaseModel):
    """Whom the job tells of what."""

    url: str
    events: list[EventType]


#: As how many iterations at its pace the prediction counts against those that were seen.
PREDICTION_WEIGHT = 2


class AdapterBody(BaseModel):
    """An adapter and its weight."""

    id: str
    weight: float


class RequestBody(BaseModel):
    """The resolved request; sent again as it is, it makes an equal job."""

    prompt: str | None
    negative_prompt: str
    #: The number of a label, for models that are told one instead of a prompt.
    class_label: int | None = None
    model: str
    preset: str
    sampler: Sampler
    schedule: Schedule
    steps: int
    guidance: float
    guidance_rescale: float
    seed: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    num_outputs: int
    init_image: str | None
    mask: str | None
    strength: float | None
    #: In the order of their ids.
    adapters: list[AdapterBody] | None
    output_format: OutputFormat
    allow_undistilled: bool
    determinism: Determinism
    service_class: ServiceClass
    priority: int
    deadline_s: int
    not_before: datetime | None
    webhook: WebhookBody | None
    metadata: dict[str, str]


class PresetBody(BaseModel):
    """The preset that the request was resolved from."""

    name: str
    version: int


class ProgressBody(BaseModel):
    """Forwards done and to do, over all outputs; `eta_s` while the job runs."""

    iteration: int
    iterations: int
    eta_s: float | None


class QueueBody(BaseModel):
    """Where a queued job stands; a list of jobs leaves position and `eta_s` out.

    `eta_s` is the time until all that is ahead of it is done; null while no worker serves it, and
    `unschedulable` says so. A job whose `not_before` lies ahead has no position yet, and one with
    very many ahead is not told how many: neither has an `eta_s`.
    """

    position: int | None
    eta_s: float | None
    unschedulable: str | None


class ArtifactBody(BaseModel):
    """One output; `url` and `thumbnail_url` need no key and work until `url_expires_at`.

    The thumbnail is a small picture: of a sound its waveform above its spectrogram.
    """

    index: int
    url: str
    url_expires_at: datetime
    content_type: str
    width: int | None
    height: int | None
    duration_s: float | None
    #: In samples a second.
    sample_rate: int | None
    seed: int
    sha256: str
    bytes: int
    thumbnail_url: str | None


class ErrorBody(BaseModel):
    """Why the job failed."""

    code: ErrorCode
    message: str | None


class ExecutionBody(BaseModel):
    """What the result depends on besides its request.

    `resumed_at` is the iteration that the last attempt went on from, null if it began at the
    beginning.
    """

    worker: str
    device: str
    determinism: Determinism
    exact_rows: int | None
    mean_rows: float
    #: What of the model's device options differs from the defaults.
    device_options: dict[str, str | bool] = {}
    #: Tiles along its longer side that an output was decoded in; above 1 where memory was short.
    decoder_tiles: int = 1
    #: What each sound was multiplied with so that its file holds it: below 1 where it was too loud.
    gains: list[float] | None = None
    resumed_at: int | None
    versions: dict[str, str]


class CostBody(BaseModel):
    """What the job takes, in a unit that does not depend on the machine and in one that does.

    `predicted_s` is seconds of a device, shared forwards counted by share; null when nothing was
    known of the model on the devices that lived when the job came.
    """

    megapixel_iterations: float
    predicted_s: float | None


class LinksBody(BaseModel):
    """Where to go from here."""

    self: str
    events: str
    cancel: str


class JobBody(BaseModel):
    """A job."""

    id: str
    status: JobStatus
    request: RequestBody
    preset: PresetBody
    progress: ProgressBody
    queue: QueueBody | None
    attempt: int
    artifacts: list[ArtifactBody]
    error: ErrorBody | None
    execution: ExecutionBody | None
    cost: CostBody
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    metadata: dict[str, str]
    #: The job that this one is another try of.
    retry_of: str | None
    #: The batch or sweep that it came with.
    batch: str | None
    links: LinksBody


class AttemptBody(BaseModel):
    """One run of a job; `exit_reason` is why its worker ended.

    `iteration` is how far it came, `resumed_at` the iteration of an earlier attempt that it went on
    from.
    """

    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    alone: bool
    iteration: int | None
    iterations: int
    resumed_at: int | None
    exit_reason: str | None


@dataclass(frozen=True, slots=True)
class JobRenderer:
    """Write jobs for clients: links are signed at every read and stored nowhere."""

    store: ObjectStore
    link_ttl_s: int
    clock: Callable[[], datetime]

    def render(self, job: Job) -> JobBody:
        """Write a job."""
        now = self.clock()
        return JobBody(
            id=job.id,
            status=job.status,
            request=show_request(job),
            preset=show_preset(job),
            progress=ProgressBody(
                iteration=job.iteration, iterations=job.request.iterations, eta_s=_eta_s(job, now)
            ),
            queue=_show_queue(job),
            attempt=job.attempt,
            artifacts=[self._render_artifact(job, artifact, now) for artifact in job.artifacts],
            error=job.error_code and ErrorBody(code=job.error_code, message=job.error_message),
            execution=job.execution and ExecutionBody.model_validate(job.execution),
            cost=show_cost(job),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            metadata=dict(job.metadata),
            retry_of=job.retry_of,
            batch=job.batch and job.batch.id,
            links=LinksBody(
                self=path_of(job.id),
                events=f"{path_of(job.id)}/events",
                cancel=f"{path_of(job.id)}/cancel",
            ),
        )

    def link(self, job: Job, artifact: Artifact, *, is_attachment: bool = False) -> str:
        """Make a link to an output."""
        # The name is made of our own id: a prompt in a header would be an injection.
        return self.store.presign(
            artifact.key,
            filename=f"{job.id}-{artifact.index}.{job.request.output_format}",
            content_type=artifact.content_type,
            ttl_s=self.link_ttl_s,
            is_attachment=is_attachment,
        )

    def _render_artifact(self, job: Job, artifact: Artifact, now: datetime) -> ArtifactBody:
        url, is_small = self.link(job, artifact), artifact.thumbnail_key == artifact.key
        return ArtifactBody(
            index=artifact.index,
            url=url,
            url_expires_at=now + timedelta(seconds=self.link_ttl_s),
            content_type=artifact.content_type,
            width=artifact.width,
            height=artifact.height,
            duration_s=artifact.duration_s,
            sample_rate=artifact.sample_rate,
            seed=artifact.seed,
            sha256=artifact.sha256,
            bytes=artifact.num_bytes,
            thumbnail_url=url if is_small else self._link_thumbnail(job, artifact),
        )

    def _link_thumbnail(self, job: Job, artifact: Artifact) -> str | None:
        if artifact.thumbnail_key is None:
            return None
        return self.store.presign(
            artifact.thumbnail_key,
            filename=f"{job.id}-{artifact.index}-thumbnail.webp",
            content_type=CONTENT_TYPES[OutputFormat.WEBP],
            ttl_s=self.link_ttl_s,
        )


def path_of(job_id: str) -> str:
    """Return the path of a job."""
    return f"/v1/jobs/{job_id}"


def show_request(job: Job | NewJob) -> RequestBody:
    """Write a job's request with everything that a client would have to send to make it again."""
    images = {"init_image": job.request.init_image, "mask": job.request.mask}
    named = {name: image and image.id for name, image in images.items()}
    return RequestBody(
        **job.request.model_dump(exclude={"adapters"}) | named,
        adapters=[AdapterBody(**use.model_dump()) for use in job.request.adapters] or None,
        preset=f"{job.preset.name}@{job.preset.version}",
        webhook=job.webhook and WebhookBody(url=job.webhook.url, events=list(job.webhook.events)),
        metadata=dict(job.metadata),
    )


def show_preset(job: Job | NewJob) -> PresetBody:
    """Write which preset a job was resolved from."""
    return PresetBody(name=job.preset.name, version=job.preset.version)


def show_cost(job: Job | NewJob) -> CostBody:
    """Write what a job takes."""
    return CostBody(
        megapixel_iterations=job.request.megapixel_iterations, predicted_s=job.predicted_s
    )


def show_s(seconds: float | None) -> float | None:
    """Write a prediction: it is not good to more than tenths of a second."""
    return None if seconds is None else round(seconds, 1)


def _show_queue(job: Job) -> QueueBody | None:
    if job.status is not JobStatus.QUEUED:
        return None
    return QueueBody(
        position=job.queue_position,
        eta_s=show_s(job.queue_eta_s),
        unschedulable=job.unschedulable,
    )


def _eta_s(job: Job, now: datetime) -> float | None:
    """Predict the rest of a run from its pace so far, and from its cost before it has one."""
    if job.status is not JobStatus.RUNNING or job.started_at is None:
        return None
    iterations = job.request.iterations
    left = iterations - job.iteration
    # What another attempt has done says nothing of this one's pace.
    seen = job.iteration - (job.resumed_at or 0)
    if seen <= 0:
        return None if job.predicted_s is None else show_s(job.predicted_s * left / iterations)
    # The database set the start: this clock may stand a little before it.
    elapsed_s = max((now - job.started_at).total_seconds(), 0.0)
    if job.predicted_s is not None:
        elapsed_s += PREDICTION_WEIGHT * job.predicted_s / iterations
        seen += PREDICTION_WEIGHT
    return round(elapsed_s / seen * left, 1)
