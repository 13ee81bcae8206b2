"""Calls about one job."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from latentq_client.effects import Now, Pause, Steps, Work
from latentq_client.errors import JobFailed, WaitTimeout
from latentq_client.job import Artifact, Job
from latentq_client.retrying import read, send

#: How long one answer is held at most, in seconds. The service allows more; proxies may not.
HOLD_S = 30.0
#: Time from one look at a job to the next, in seconds, where answers come at once: each step is
#: news, or something on the way lets no answer be held. It grows while nothing happens.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0

OnProgress = Callable[[Job], None]


def path_of(job_id: str, below: str = "") -> str:
    """Return the path of a job, or of something below it."""
    return f"/v1/jobs/{quote(job_id, safe='')}{below}"


def with_key(idempotency_key: str | None) -> Mapping[str, str]:
    """Return the header that makes a request one and the same however often it is sent."""
    return {"Idempotency-Key": f'"{idempotency_key or uuid.uuid4()}"'}


def submit_job(
    body: Mapping[str, Any], *, idempotency_key: str | None, hold_s: float = 0
) -> Steps[Job]:
    """Submit a job; the answer is held until it has ended, or for so long."""
    answer = yield from send(
        "POST",
        "/v1/jobs",
        json=body,
        headers={**with_key(idempotency_key), **_holding(hold_s)},
        hold_s=hold_s,
    )
    return Job.read(answer.json())


def read_job(job_id: str) -> Steps[Job]:
    """Read a job."""
    return Job.read((yield from read(path_of(job_id))))


def cancel_job(job_id: str) -> Steps[Job]:
    """Cancel a job."""
    return Job.read((yield from send("POST", path_of(job_id, "/cancel"))).json())


def retry_job(job_id: str, *, idempotency_key: str | None) -> Steps[Job]:
    """Run a job again, as a new one."""
    path = path_of(job_id, "/retry")
    answer = yield from send("POST", path, headers=with_key(idempotency_key))
    return Job.read(answer.json())


def delete_job(job_id: str) -> Steps[None]:
    """Delete a job."""
    yield from send("DELETE", path_of(job_id))


def read_attempts(job_id: str) -> Steps[Sequence[Mapping[str, Any]]]:
    """Read every run of a job."""
    runs: Sequence[Mapping[str, Any]] = (yield from read(path_of(job_id, "/attempts")))["data"]
    return runs


def wait_for_job(
    job_id: str, *, timeout: float | None = None, on_progress: OnProgress | None = None
) -> Steps[Job]:
    """Wait until a job has succeeded; answers are held, until its end or until there is news.

    Raises:
        JobFailed: It failed or was canceled.
        WaitTimeout: It had not ended in time.
    """
    job: Job | None = None
    headers: dict[str, str] = {}
    pause_s, seen = FIRST_PAUSE_S, None
    started: float = yield Now()
    ends = None if timeout is None else started + timeout
    while True:
        now: float = yield Now()
        hold_s = HOLD_S if ends is None else max(0.0, min(HOLD_S, ends - now))
        if job is None and on_progress is not None:
            hold_s = 0.0  # there is something to show at once
        answer = yield from send(
            "GET",
            path_of(job_id),
            headers={**headers, **_holding(hold_s)},
            hold_s=hold_s,
        )
        if job is None or answer.status_code != httpx.codes.NOT_MODIFIED:
            job = Job.read(answer.json())
            if on_progress is not None:
                on_progress(job)
                headers["If-None-Match"] = answer.headers.get("ETag", "")
        if job.is_terminal:
            return check_success(job)
        looked: float = yield Now()
        if ends is not None and timeout is not None and looked >= ends:
            raise WaitTimeout(job, timeout)
        is_news = seen != (seen := (job.status, job.progress.iteration))
        pause_s = FIRST_PAUSE_S if is_news else min(pause_s * 1.5, LONGEST_PAUSE_S)
        if looked < now + pause_s:
            yield Pause(now + pause_s - looked)


def submit_and_wait(
    body: Mapping[str, Any],
    *,
    idempotency_key: str | None,
    timeout: float | None,
    on_progress: OnProgress | None,
) -> Steps[Job]:
    """Submit a job and wait until it has succeeded; a short one takes a single request.

    Raises:
        JobFailed: It failed or was canceled.
        WaitTimeout: It had not ended in time.
    """
    started: float = yield Now()
    hold_s = 0.0 if on_progress is not None else min(HOLD_S, HOLD_S if timeout is None else timeout)
    job = yield from submit_job(body, idempotency_key=idempotency_key, hold_s=hold_s)
    if job.is_terminal:
        return check_success(job)
    now: float = yield Now()
    left_s = None if timeout is None else max(0.0, timeout - (now - started))
    return (yield from wait_for_job(job.id, timeout=left_s, on_progress=on_progress))


def check_success(job: Job) -> Job:
    """Return a job that has succeeded.

    Raises:
        JobFailed: It failed or was canceled.
    """
    if job.status != "succeeded":
        raise JobFailed(job)
    return job


def download(artifact: Artifact, *, thumbnail: bool) -> Steps[bytes]:
    """Fetch an output, or the small picture of it, by its link.

    Raises:
        ValueError: It has no thumbnail.
    """
    url = artifact.thumbnail_url if thumbnail else artifact.url
    if url is None:
        raise ValueError("this output was made before there were thumbnails")
    return (yield from send("GET", url, is_link=True)).content


def save_outputs(job: Job, path: Path) -> Steps[Sequence[Path]]:
    """Fetch all outputs into a folder, or the only one into a file.

    The links are made anew: those of the job may have run out.

    Raises:
        ValueError: The path names one file, and there are several outputs.
    """
    is_file = bool(path.suffix) and not path.is_dir()
    if is_file and len(job.artifacts) > 1:
        raise ValueError(f"the job has {len(job.artifacts)} outputs: name a folder, not a file")
    saved = []
    for artifact in job.artifacts:
        link = yield from send("GET", path_of(job.id, f"/artifacts/{artifact.index}"))
        content = (yield from send("GET", link.headers["Location"], is_link=True)).content
        file = path if is_file else path / f"{job.id}-{artifact.index}.{job.extension}"
        yield Work(partial(_write, file, content))
        saved.append(file)
    return saved


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _holding(seconds: float) -> Mapping[str, str]:
    return {"Prefer": f"wait={seconds:.0f}"} if seconds >= 1 else {}
