from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentq_client import (
    Client,
    JobFailed,
    ServiceRefused,
    ServiceUnreachable,
    WaitTimeout,
)

JOB: dict[str, Any] = {
    "id": "job_1",
    "status": "queued",
    "request": {"output_format": "png"},
    "preset": {"name": "balanced", "version": 1},
    "progress": {"iteration": 0, "iterations": 4, "eta_s": None},
    "artifacts": [],
    "error": None,
    "execution": None,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "of a later version": True,
}
Answer = httpx.Response | httpx.TransportError


class Service:
    """Answers requests from a list, the last one for ever, and remembers all."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.sleeps: list[float] = []
        self.now = 1000.0
        self.client = Client(
            "http://service.example.test",
            "lq_key",
            transport=httpx.MockTransport(self._answer),
            sleep=self._sleep,
            clock=lambda: self.now,
        )

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer


def job(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json=JOB | changes)


def problem(status: int, **headers: str) -> httpx.Response:
    body = {"code": "nope", "detail": "because", "errors": [{"pointer": "/a", "detail": "x"}]}
    return httpx.Response(status, json=body, headers=headers)


def lost() -> httpx.TransportError:
    return httpx.ConnectError("gone")


def test_a_lost_answer_is_asked_for_again_under_the_same_key() -> None:
    service = Service(lost(), problem(503), job())
    assert service.client.submit("a red star", steps=4).id == "job_1"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(service.requests) == 3
    assert len(keys) == 1
    service.client.submit("another")
    assert service.requests[-1].headers["Idempotency-Key"] not in keys
    assert service.requests[-1].headers["Authorization"] == "Bearer lq_key"


def test_a_service_that_is_away_is_given_up_after_some_tries() -> None:
    service = Service(lost())
    with pytest.raises(ServiceUnreachable):
        service.client.get("job_1")
    assert len(service.requests) == 5
    assert service.sleeps == sorted(service.sleeps)


def test_a_pause_that_the_service_asks_for_is_kept() -> None:
    service = Service(problem(429, **{"Retry-After": "7"}), job())
    service.client.get("job_1")
    assert service.sleeps[0] >= 7


def test_a_pause_that_is_too_long_is_told_at_once() -> None:
    service = Service(problem(429, **{"Retry-After": "3600"}))
    with pytest.raises(ServiceRefused):
        service.client.get("job_1")
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_a_refusal_is_told_at_once_with_its_fields(status: int) -> None:
    service = Service(problem(status))
    with pytest.raises(ServiceRefused) as refused:
        service.client.cancel("job_1")
    assert (refused.value.status, refused.value.code) == (status, "nope")
    assert refused.value.errors[0].pointer == "/a"
    assert len(service.requests) == 1


@given(st.binary(max_size=40), st.sampled_from([400, 418, 500, 404]))
def test_whatever_a_proxy_says_is_a_refusal(body: bytes, status: int) -> None:
    service = Service(httpx.Response(status, content=body))
    with pytest.raises(ServiceRefused) as refused:
        service.client.get("job_1")
    assert refused.value.status == status


def test_waiting_ends_with_the_job() -> None:
    running = job(status="running", progress={"iteration": 2, "iterations": 4, "eta_s": 1.0})
    seen: list[str] = []
    service = Service(job(), running, job(status="succeeded"))
    done = service.client.wait("job_1", on_progress=lambda now: seen.append(now.status))
    assert done.status == "succeeded"
    assert seen == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_waiting_for_a_job_without_result_raises(status: str) -> None:
    error = {"code": "out_of_memory", "message": "too large"} if status == "failed" else None
    service = Service(job(status=status, error=error))
    with pytest.raises(JobFailed, match=f"job_1 {status}") as failed:
        service.client.wait("job_1")
    assert failed.value.job.raw["of a later version"] is True


def test_waiting_too_long_raises_and_asks_less_and_less_often() -> None:
    service = Service(job())
    with pytest.raises(WaitTimeout):
        service.client.wait("job_1", timeout=20)
    assert max(service.sleeps) == 2
    assert len(service.requests) < 20


def test_a_deletion_is_sent_again_until_it_is_answered() -> None:
    service = Service(lost(), httpx.Response(503), httpx.Response(204))
    service.client.delete("job_1")
    assert [request.method for request in service.requests] == ["DELETE"] * 3


def test_a_list_follows_its_pages_only_as_far_as_it_is_read() -> None:
    def page(number: int, cursor: str | None) -> httpx.Response:
        return httpx.Response(
            200, json={"data": [JOB | {"id": f"job_{number}"}], "next_cursor": cursor}
        )

    service = Service(page(1, "two"), page(2, None))
    jobs = service.client.list(filters={"status": "failed"})
    assert next(jobs).id == "job_1"
    assert len(service.requests) == 1
    assert [job.id for job in jobs] == ["job_2"]
    assert dict(service.requests[1].url.params) == {
        "limit": "50",
        "status": "failed",
        "cursor": "two",
    }


@pytest.mark.parametrize("kind", ["path", "text", "bytes"])
def test_an_upload_sends_the_whole_file_again_after_a_lost_answer(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    path = tmp_path / "a.png"
    body = {"id": "upl_1", "content_type": "image/png", "bytes": 7, "sha256": "ab", "later": 1}
    service = Service(lost(), httpx.Response(201, json=body))
    upload = service.client.upload({"path": path, "text": str(path), "bytes": b"picture"}[kind])
    assert (upload.id, upload.num_bytes) == ("upl_1", 7)
    for request in service.requests:
        assert request.url.path == "/v1/uploads"
        assert request.headers["Content-Type"].startswith("multipart/form-data")
        assert b'name="file"' in request.content
        assert b"picture" in request.content


def test_a_download_does_not_carry_the_key() -> None:
    artifact = {
        "index": 0,
        "url": "http://files.example.test/file?signature=1",
        "url_expires_at": "2026-01-01T00:00:00Z",
        "content_type": "image/png",
        "width": 64,
        "height": 64,
        "seed": 7,
        "sha256": "0" * 64,
        "bytes": 4,
    }
    service = Service(job(artifacts=[artifact]), httpx.Response(200, content=b"file"))
    found = service.client.get("job_1")
    assert service.client.download(found.artifacts[0]) == b"file"
    assert "Authorization" not in service.requests[-1].headers


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda client: client.get("../keys?x=1#y"), "/v1/jobs/..%2Fkeys%3Fx%3D1%23y"),
        (lambda client: client.cancel("a/b"), "/v1/jobs/a%2Fb/cancel"),
        (lambda client: client.delete("a/b"), "/v1/jobs/a%2Fb"),
        (lambda client: client.delete_webhook_endpoint("a/b"), "/v1/webhook-endpoints/a%2Fb"),
    ],
)
def test_an_id_cannot_lead_elsewhere(call: Callable[[Client], object], path: str) -> None:
    service = Service(job())
    call(service.client)
    assert service.requests[0].url.raw_path.decode() == path


def test_an_endpoint_is_changed_by_what_is_said_and_no_more() -> None:
    service = Service(httpx.Response(200, json={"id": "ep_1", "enabled": True}))
    assert service.client.update_webhook_endpoint("ep_1", enabled=True)["enabled"]
    (request,) = service.requests
    assert (request.method, request.content) == ("PATCH", b'{"enabled":true}')
