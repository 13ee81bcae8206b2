"""The client: one method for each thing the service does."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from latentq_client.errors import JobFailed, WaitTimeout
from latentq_client.job import Artifact, Job, Upload
from latentq_client.transport import Transport

#: Pause between two looks at a job, in seconds: it grows while nothing happens.
FIRST_POLL_S = 0.25
LONGEST_POLL_S = 2.0


class Client:
    """A connection to a LatentQ service.

    Args:
        url: Where the service is, without `/v1`.
        api_key: The key it gave out.
        timeout: How long one answer may take, in seconds.
        transport: Another way to send requests, for tests.
        sleep: Another way to wait, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout,
            transport=transport,
        )
        # Links carry their own permission: the key is not for whoever serves them.
        self._links = httpx.Client(timeout=timeout, transport=transport)
        self._transport = Transport(self._http, sleep=sleep)
        self._link_transport = Transport(self._links, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._links.close()

    def submit(self, prompt: str, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Submit a job; `fields` are those of `POST /v1/jobs`.

        Sent again after a lost answer, it is the same job: each call has an idempotency key.

        Raises:
            ServiceRefused: The request is not valid; `errors` names the fields and what would work.
            ServiceUnreachable: Nobody answered.
        """
        key = idempotency_key or str(uuid.uuid4())
        answer = self._transport.send(
            "POST",
            "/v1/jobs",
            json={"prompt": prompt, **fields},
            headers={"Idempotency-Key": f'"{key}"'},
        )
        return Job.read(answer.json())

    def upload(self, picture: Path | str | bytes) -> Upload:
        """Store a PNG, JPEG or WebP picture, given as a path or as bytes, for jobs to come.

        The same bytes again are the same upload.

        Raises:
            OSError: The file cannot be read.
            ServiceRefused: It is too large, or no such picture.
            ServiceUnreachable: Nobody answered.
        """
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        answer = self._transport.send("POST", "/v1/uploads", files={"file": data})
        return Upload.read(answer.json())

    def get(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            ServiceRefused: There is no such job.
            ServiceUnreachable: Nobody answered.
        """
        return Job.read(self._read(_path(job_id)))

    def list(
        self, *, page_size: int = 50, filters: Mapping[str, str] | None = None
    ) -> Iterator[Job]:
        """Read jobs, newest first, as many as are taken from the iterator.

        `filters` are the query parameters of `GET /v1/jobs`, such as `{"status": "failed"}`.

        Raises:
            ServiceRefused: A filter is not valid.
            ServiceUnreachable: Nobody answered.
        """
        return map(Job.read, self._pages("/v1/jobs", page_size, filters))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that runs stops at its next step.

        Raises:
            ServiceRefused: There is no such job, or it has ended.
            ServiceUnreachable: Nobody answered.
        """
        return Job.read(self._transport.send("POST", f"{_path(job_id)}/cancel").json())

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Run a failed or canceled job again; returns the new job.

        Sent again after a lost answer, it is the same job: each call has an idempotency key.

        Raises:
            ServiceRefused: There is no such job, or it has not ended, or it has succeeded.
            ServiceUnreachable: Nobody answered.
        """
        key = idempotency_key or str(uuid.uuid4())
        answer = self._transport.send(
            "POST", f"{_path(job_id)}/retry", headers={"Idempotency-Key": f'"{key}"'}
        )
        return Job.read(answer.json())

    def attempts(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """Read every run of a job, in the shape of the wire, the first one first.

        Raises:
            ServiceRefused: There is no such job.
            ServiceUnreachable: Nobody answered.
        """
        runs: Sequence[Mapping[str, Any]] = self._read(f"{_path(job_id)}/attempts")["data"]
        return runs

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with its prompt and its results.

        Raises:
            ServiceRefused: There is no such job (any more), or it has not ended.
            ServiceUnreachable: Nobody answered.
        """
        self._transport.send("DELETE", _path(job_id))

    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] = lambda _: None,
    ) -> Job:
        """Wait until a job has succeeded, and return it.

        Args:
            job_id: The job.
            timeout: How long to wait, in seconds; None for as long as it takes.
            on_progress: Called with the job each time it was looked at.

        Raises:
            JobFailed: It failed or was canceled.
            WaitTimeout: It had not ended in time; it goes on.
            ServiceRefused: There is no such job.
            ServiceUnreachable: Nobody answered.
        """
        waited_s, pause_s = 0.0, FIRST_POLL_S
        last = None
        while True:
            job = self.get(job_id)
            on_progress(job)
            if job.status == "succeeded":
                return job
            if job.is_terminal:
                raise JobFailed(job)
            if timeout is not None and waited_s >= timeout:
                raise WaitTimeout(f"{job_id} is {job.status} after {timeout:g} s")
            seen = (job.status, job.progress.iteration)
            pause_s = FIRST_POLL_S if seen != last else min(pause_s * 1.5, LONGEST_POLL_S)
            last = seen
            self._sleep(pause_s)
            waited_s += pause_s

    def download(self, artifact: Artifact) -> bytes:
        """Fetch an output by its link.

        Raises:
            ServiceRefused: The link has expired; read the job again for a new one.
            ServiceUnreachable: Nobody answered.
        """
        return self._link_transport.send("GET", artifact.url).content

    def deliveries(
        self, *, page_size: int = 50, filters: Mapping[str, str] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Read what was told of jobs to their webhooks, newest first.

        `filters` are the query parameters of `GET /v1/deliveries`, such as `{"status": "dead"}`.

        Raises:
            ServiceRefused: A filter is not valid.
            ServiceUnreachable: Nobody answered.
        """
        return self._pages("/v1/deliveries", page_size, filters)

    def redeliver(self, delivery_id: str) -> Mapping[str, Any]:
        """Send an event again, now, whatever became of it.

        Raises:
            ServiceRefused: There is no such delivery.
            ServiceUnreachable: Nobody answered.
        """
        path = f"/v1/deliveries/{quote(delivery_id, safe='')}/redeliver"
        body: Mapping[str, Any] = self._transport.send("POST", path).json()
        return body

    def webhook_endpoints(self) -> Iterator[Mapping[str, Any]]:
        """Read who is told of what becomes of all jobs, newest first.

        Raises:
            ServiceUnreachable: Nobody answered.
        """
        return self._pages(_ENDPOINTS, 50, None)

    def create_webhook_endpoint(self, url: str, **fields: Any) -> Mapping[str, Any]:
        """Register a receiver; `fields` are those of `POST /v1/webhook-endpoints`.

        Its `secret` is what messages to it are signed with.

        Raises:
            ServiceRefused: It may not be called, or there is one with this URL.
            ServiceUnreachable: Nobody answered.
        """
        body: Mapping[str, Any] = self._transport.send(
            "POST", _ENDPOINTS, json={"url": url, **fields}
        ).json()
        return body

    def update_webhook_endpoint(self, endpoint_id: str, **changes: Any) -> Mapping[str, Any]:
        """Change a receiver, such as `enabled=True` for one that answered 410 before.

        Raises:
            ServiceRefused: There is no such endpoint, or it cannot be so.
            ServiceUnreachable: Nobody answered.
        """
        body: Mapping[str, Any] = self._transport.send(
            "PATCH", _endpoint_path(endpoint_id), json=changes
        ).json()
        return body

    def delete_webhook_endpoint(self, endpoint_id: str) -> None:
        """Remove a receiver.

        Raises:
            ServiceRefused: There is no such endpoint.
            ServiceUnreachable: Nobody answered.
        """
        self._transport.send("DELETE", _endpoint_path(endpoint_id))

    def rotate_webhook_secret(self, endpoint_id: str) -> str:
        """Give a receiver another secret; messages are signed with the one before too for a day.

        Raises:
            ServiceRefused: There is no such endpoint, or it was done too often.
            ServiceUnreachable: Nobody answered.
        """
        path = f"{_endpoint_path(endpoint_id)}/rotate-secret"
        secret: str = self._transport.send("POST", path).json()["secret"]
        return secret

    def test_webhook_endpoint(self, endpoint_id: str) -> Mapping[str, Any]:
        """Send a receiver an event that tells of no job; returns its delivery.

        Raises:
            ServiceRefused: There is no such endpoint, or it is disabled.
            ServiceUnreachable: Nobody answered.
        """
        path = f"{_endpoint_path(endpoint_id)}/test"
        body: Mapping[str, Any] = self._transport.send("POST", path).json()
        return body

    def models(self) -> Mapping[str, Any]:
        """Read which models there are."""
        return self._read("/v1/models")

    def presets(self) -> Mapping[str, Any]:
        """Read which presets there are."""
        return self._read("/v1/presets")

    def samplers(self, model: str | None = None) -> Mapping[str, Any]:
        """Read which samplers work on which schedules, with how many steps."""
        return self._read("/v1/samplers", **({} if model is None else {"model": model}))

    def _pages(
        self, path: str, page_size: int, filters: Mapping[str, str] | None
    ) -> Iterator[Mapping[str, Any]]:
        cursor: str | None = None
        while True:
            place = {} if cursor is None else {"cursor": cursor}
            page = self._read(path, limit=str(page_size), **(filters or {}), **place)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _read(self, path: str, **parameters: str) -> Mapping[str, Any]:
        body: Mapping[str, Any] = self._transport.send("GET", path, params=parameters).json()
        return body


_ENDPOINTS = "/v1/webhook-endpoints"


def _endpoint_path(endpoint_id: str) -> str:
    return f"{_ENDPOINTS}/{quote(endpoint_id, safe='')}"


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
