"""What clients can do, each operation once: `client.py` has those that block and those that don't.

Every operation may raise `ServiceRefused`, with what would work instead, and `ServiceUnreachable`.
What makes jobs is sent again after a lost answer, under the same idempotency key: it makes them
once.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Unpack
from urllib.parse import quote

from latentq_client import jobs
from latentq_client.effects import Emit, Flow, ItemT, Steps
from latentq_client.errors import FieldProblem
from latentq_client.fields import (
    EndpointChanges,
    EndpointFields,
    JobBody,
    JobFields,
    PresetFields,
    SweepFields,
)
from latentq_client.job import Artifact, Job
from latentq_client.operation import Iteration, Operation
from latentq_client.retrying import read, send
from latentq_client.together import Batch, Estimate, HandleT, Skipped, Sweep, SweepPoint
from latentq_client.uploads import Upload, upload_picture

_ENDPOINTS = "/v1/webhook-endpoints"
Body = Mapping[str, Any]


class Operations(Generic[HandleT]):
    """All operations of a client that hands out jobs as `HandleT`."""

    _bind: Callable[[Job], HandleT]

    @Operation
    def submit(
        self,
        prompt: str | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Steps[HandleT]:
        """Submit a job; `fields` are those of `POST /v1/jobs`."""
        body = {"prompt": prompt, **fields}
        return self._bind((yield from jobs.submit_job(body, idempotency_key=idempotency_key)))

    @Operation
    def generate(
        self,
        prompt: str | None = None,
        *,
        timeout: float | None = None,
        on_progress: jobs.OnProgress | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Steps[HandleT]:
        """Submit a job, wait until it has succeeded, and return it with its artifacts.

        Raises:
            JobFailed: It failed or was canceled.
            WaitTimeout: It had not ended after `timeout` seconds; it goes on.
        """
        job = yield from jobs.submit_and_wait(
            {"prompt": prompt, **fields},
            idempotency_key=idempotency_key,
            timeout=timeout,
            on_progress=on_progress,
        )
        return self._bind(job)

    @Operation
    def get(self, job_id: str) -> Steps[HandleT]:
        """Read a job."""
        return self._bind((yield from jobs.read_job(job_id)))

    @Operation
    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_progress: jobs.OnProgress | None = None,
    ) -> Steps[HandleT]:
        """Wait until a job has succeeded, and return it.

        Args:
            job_id: The job.
            timeout: How long to wait, in seconds; None for as long as it takes.
            on_progress: Called with the job as it stands, and whenever it has come further.

        Raises:
            JobFailed: It failed or was canceled.
            WaitTimeout: It had not ended in time; it goes on.
        """
        job = yield from jobs.wait_for_job(job_id, timeout=timeout, on_progress=on_progress)
        return self._bind(job)

    @Operation
    def cancel(self, job_id: str) -> Steps[HandleT]:
        """Cancel a job; one that runs stops at its next step."""
        return self._bind((yield from jobs.cancel_job(job_id)))

    @Operation
    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Steps[HandleT]:
        """Run a failed or canceled job again; returns the new job."""
        return self._bind((yield from jobs.retry_job(job_id, idempotency_key=idempotency_key)))

    @Operation
    def delete(self, job_id: str) -> Steps[None]:
        """Delete a job that has ended, with its prompt and its results."""
        yield from jobs.delete_job(job_id)

    @Operation
    def attempts(self, job_id: str) -> Steps[Sequence[Body]]:
        """Read every run of a job, in the shape of the wire, the first one first."""
        return (yield from jobs.read_attempts(job_id))

    @Operation
    def download(self, artifact: Artifact, *, thumbnail: bool = False) -> Steps[bytes]:
        """Fetch an output by its link; one that has expired is refused: read the job again.

        With `thumbnail` a small picture of it instead, as PNG, WebP or JPEG.

        Raises:
            ValueError: It has no thumbnail.
        """
        return (yield from jobs.download(artifact, thumbnail=thumbnail))

    @Iteration
    def list(
        self, *, page_size: int = 50, filters: Mapping[str, str] | None = None
    ) -> Flow[HandleT]:
        """Read jobs, newest first, as many as are taken from the iterator.

        `filters` are the query parameters of `GET /v1/jobs`, such as `{"status": "failed"}`.
        """
        yield from _pages("/v1/jobs", page_size, filters, lambda body: self._bind(Job.read(body)))

    @Operation
    def submit_batch(
        self, bodies: Sequence[JobBody], *, idempotency_key: str | None = None
    ) -> Steps[Batch[HandleT]]:
        """Submit up to 100 jobs together: all are accepted, or none."""
        headers = jobs.with_key(idempotency_key)
        answer = yield from send("POST", "/v1/batches", json={"jobs": bodies}, headers=headers)
        body = answer.json()
        return Batch(body["batch"], tuple(self._bind(Job.read(job)) for job in body["data"]))

    @Operation
    def submit_sweep(
        self,
        job: JobBody,
        *,
        skip_invalid: bool = False,
        idempotency_key: str | None = None,
        **values: Unpack[SweepFields],
    ) -> Steps[Sweep[HandleT]]:
        """Submit a job in all combinations of some values, 100 at most.

        What cannot work refuses the sweep, or is left out with `skip_invalid`.
        """
        answer = yield from send(
            "POST",
            "/v1/sweeps",
            json={"job": job, "skip_invalid": skip_invalid, **values},
            headers=jobs.with_key(idempotency_key),
        )
        body = answer.json()
        return Sweep(
            id=body["batch"],
            points=tuple(
                SweepPoint(one["coordinates"], self._bind(Job.read(one))) for one in body["data"]
            ),
            skipped=tuple(
                Skipped(
                    one["coordinates"],
                    [FieldProblem(e["pointer"], e["detail"]) for e in one["errors"]],
                )
                for one in body["skipped"]
            ),
        )

    @Operation
    def estimate(self, prompt: str | None = None, **fields: Unpack[JobFields]) -> Steps[Estimate]:
        """Ask what a job would cost and when its turn would come, without making it."""
        answer = yield from send("POST", "/v1/estimates", json={"prompt": prompt, **fields})
        return Estimate.read(answer.json())

    @Operation
    def upload(self, picture: Path | str | bytes) -> Steps[Upload]:
        """Store a PNG, JPEG or WebP picture, given as a path or as bytes, for jobs to come.

        The same bytes again are the same upload. Above 4 MiB they go straight to the store.

        Raises:
            OSError: The file cannot be read.
        """
        return (yield from upload_picture(picture))

    @Operation
    def models(self) -> Steps[Body]:
        """Read which models there are."""
        return (yield from read("/v1/models"))

    @Operation
    def samplers(self, model: str | None = None) -> Steps[Body]:
        """Read which samplers work on which schedules, with how many steps."""
        return (yield from read("/v1/samplers", **({} if model is None else {"model": model})))

    @Operation
    def presets(self) -> Steps[Body]:
        """Read which presets there are."""
        return (yield from read("/v1/presets"))

    @Operation
    def preset(self, name: str) -> Steps[Body]:
        """Read a preset with all its versions."""
        return (yield from read(_below("/v1/presets", name)))

    @Operation
    def put_preset(
        self, name: str, *, description: str = "", **fields: Unpack[PresetFields]
    ) -> Steps[Body]:
        """Make the next version of a preset of one's own, unless the newest says the same."""
        return (
            yield from _change(
                "PUT", _below("/v1/presets", name), {"description": description, **fields}
            )
        )

    @Operation
    def delete_preset(self, name: str) -> Steps[None]:
        """Hide a preset of one's own from new jobs."""
        yield from send("DELETE", _below("/v1/presets", name))

    @Iteration
    def deliveries(
        self, *, page_size: int = 50, filters: Mapping[str, str] | None = None
    ) -> Flow[Body]:
        """Read what was told of jobs to receivers, newest first.

        `filters` are the query parameters of `GET /v1/deliveries`, such as `{"status": "dead"}`.
        """
        yield from _pages("/v1/deliveries", page_size, filters, lambda body: body)

    @Operation
    def redeliver(self, delivery_id: str) -> Steps[Body]:
        """Send an event again, now, whatever became of it."""
        return (yield from _change("POST", _below("/v1/deliveries", delivery_id, "/redeliver")))

    @Iteration
    def webhook_endpoints(self) -> Flow[Body]:
        """Read who is told of what becomes of all jobs, newest first."""
        yield from _pages(_ENDPOINTS, 50, None, lambda body: body)

    @Operation
    def create_webhook_endpoint(self, url: str, **fields: Unpack[EndpointFields]) -> Steps[Body]:
        """Register a receiver; `fields` are those of `POST /v1/webhook-endpoints`.

        Its `secret` is what messages to it are signed with.
        """
        return (yield from _change("POST", _ENDPOINTS, {"url": url, **fields}))

    @Operation
    def update_webhook_endpoint(
        self, endpoint_id: str, **changes: Unpack[EndpointChanges]
    ) -> Steps[Body]:
        """Change a receiver, such as `enabled=True` for one that answered 410 before."""
        return (yield from _change("PATCH", _below(_ENDPOINTS, endpoint_id), changes))

    @Operation
    def delete_webhook_endpoint(self, endpoint_id: str) -> Steps[None]:
        """Remove a receiver."""
        yield from send("DELETE", _below(_ENDPOINTS, endpoint_id))

    @Operation
    def rotate_webhook_secret(self, endpoint_id: str) -> Steps[str]:
        """Give a receiver another secret; messages are signed with the one before too for a day."""
        path = _below(_ENDPOINTS, endpoint_id, "/rotate-secret")
        secret: str = (yield from _change("POST", path))["secret"]
        return secret

    @Operation
    def test_webhook_endpoint(self, endpoint_id: str) -> Steps[Body]:
        """Send a receiver an event that tells of no job; returns its delivery."""
        return (yield from _change("POST", _below(_ENDPOINTS, endpoint_id, "/test")))


def _pages(
    path: str,
    page_size: int,
    filters: Mapping[str, str] | None,
    read_item: Callable[[Body], ItemT],
) -> Flow[ItemT]:
    place: Mapping[str, str] = {}
    while True:
        answer = yield from send(
            "GET", path, params={"limit": str(page_size), **(filters or {}), **place}
        )
        page = answer.json()
        for body in page["data"]:
            yield Emit(read_item(body))
        if page["next_cursor"] is None:
            return
        place = {"cursor": page["next_cursor"]}


def _change(method: str, path: str, body: Body | None = None) -> Steps[Body]:
    document: Body = (yield from send(method, path, json=body)).json()
    return document


def _below(path: str, name: str, rest: str = "") -> str:
    return f"{path}/{quote(name, safe='')}{rest}"
