from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentq_client import (
    JobFailed,
    ServiceRefused,
    ServiceUnreachable,
    WaitTimeout,
)
from latentq_client.uploads import STRAIGHT_ABOVE
from tests.client.service import JOB, Service, job, lost, problem
from tests.fixtures.callers import KINDS

Serve = Callable[..., Service]
ARTIFACT = {
    "index": 0,
    "url": "http://files.example.test/file?signature=1",
    "url_expires_at": "2026-01-01T00:00:00Z",
    "content_type": "image/png",
    "width": 64,
    "height": 64,
    "duration_s": None,
    "sample_rate": None,
    "seed": 7,
    "sha256": "0" * 64,
    "bytes": 4,
    "thumbnail_url": None,
}
UPLOAD = {"id": "upl_1", "content_type": "image/png", "bytes": 7, "sha256": "ab", "later": 1}


def test_a_lost_answer_is_asked_for_again_under_the_same_key(serve: Serve) -> None:
    service = serve(lost(), problem(503), job())
    assert service.call("submit", "a red star", steps=4).id == "job_1"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(service.requests) == 3
    assert len(keys) == 1
    service.call("submit", "another")
    assert service.requests[-1].headers["Idempotency-Key"] not in keys
    assert service.requests[-1].headers["Authorization"] == "Bearer lq_key"


def test_a_service_that_is_away_is_given_up_after_some_tries(serve: Serve) -> None:
    service = serve(lost())
    with pytest.raises(ServiceUnreachable, match=r"http://service\.example\.test does not answer"):
        service.call("get", "job_1")
    assert len(service.requests) == 5
    assert service.sleeps == sorted(service.sleeps)


def test_a_pause_that_the_service_asks_for_is_kept(serve: Serve) -> None:
    service = serve(problem(429, **{"Retry-After": "7"}), job())
    service.call("get", "job_1")
    assert service.sleeps[0] >= 7


def test_a_pause_that_is_too_long_is_told_at_once(serve: Serve) -> None:
    service = serve(problem(429, **{"Retry-After": "3600"}))
    with pytest.raises(ServiceRefused):
        service.call("get", "job_1")
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_a_refusal_is_told_at_once_with_its_fields(serve: Serve, status: int) -> None:
    service = serve(problem(status))
    with pytest.raises(ServiceRefused) as refused:
        service.call("cancel", "job_1")
    assert (refused.value.status, refused.value.code) == (status, "nope")
    assert refused.value.errors[0].pointer == "/a"
    assert len(service.requests) == 1


@given(st.binary(max_size=40), st.sampled_from([400, 418, 500, 404]), st.sampled_from(KINDS))
def test_whatever_a_proxy_says_is_a_refusal(body: bytes, status: int, kind: str) -> None:
    service = Service(kind, httpx.Response(status, content=body))
    with pytest.raises(ServiceRefused) as refused:
        service.call("get", "job_1")
    assert refused.value.status == status
    service.caller.close()


def running(iteration: int, **headers: str) -> httpx.Response:
    progress = {"iteration": iteration, "iterations": 4, "eta_s": 1.0}
    return httpx.Response(
        200, json=JOB | {"status": "running", "progress": progress}, headers=headers
    )


def test_waiting_ends_with_the_job(serve: Serve) -> None:
    service = serve(job(), running(2, ETag='W/"2"'), httpx.Response(304), job(status="succeeded"))
    seen: list[str] = []
    done = service.call("wait", "job_1", on_progress=lambda now: seen.append(now.status))
    assert done.status == "succeeded"
    assert seen == ["queued", "running", "succeeded"]
    first, second, third, _ = service.requests
    assert "Prefer" not in first.headers
    assert second.headers["Prefer"] == third.headers["Prefer"] == "wait=30"
    assert third.headers["If-None-Match"] == 'W/"2"'


def test_who_does_not_look_waits_by_one_request(serve: Serve) -> None:
    service = serve(job(status="succeeded"))
    service.call("wait", "job_1")
    (request,) = service.requests
    assert request.headers["Prefer"] == "wait=30"
    assert request.extensions["timeout"]["read"] == 60


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_waiting_for_a_job_without_result_raises(serve: Serve, status: str) -> None:
    error = {"code": "out_of_memory", "message": "too large"} if status == "failed" else None
    service = serve(job(status=status, error=error))
    for name, argument in (("wait", "job_1"), ("generate", "a red star")):
        with pytest.raises(JobFailed, match=f"job_1 {status}") as failed:
            service.call(name, argument)
        assert failed.value.job.raw["of a later version"] is True


def test_waiting_too_long_raises_and_asks_less_and_less_often(serve: Serve) -> None:
    service = serve(job())
    with pytest.raises(WaitTimeout, match="job_1 is queued after 20 s") as timed_out:
        service.call("wait", "job_1", timeout=20)
    assert timed_out.value.job.id == "job_1"
    assert max(service.sleeps) == 2
    assert len(service.requests) < 20
    assert service.now == pytest.approx(1020, abs=2)


def test_a_short_job_is_generated_by_one_request(serve: Serve) -> None:
    service = serve(job(status="succeeded", artifacts=[ARTIFACT]))
    done = service.call("generate", "a red star", timeout=10, steps=4)
    assert done.artifacts[0].seed == 7
    (request,) = service.requests
    assert request.headers["Prefer"] == "wait=10"
    assert request.content == b'{"prompt":"a red star","steps":4}'


def test_a_longer_one_is_waited_for(serve: Serve) -> None:
    service = serve(job(), running(1), job(status="succeeded"))
    seen: list[int] = []
    done = service.call(
        "generate", "a red star", on_progress=lambda now: seen.append(now.progress.iteration)
    )
    assert done.is_terminal
    assert seen == [1, 0]


def test_what_is_in_hand_stays_up_to_date(serve: Serve) -> None:
    service = serve(job(), running(3), job(status="canceled"))
    mine = service.call("submit", "a red star")
    assert service.caller.call(mine, "refresh") is mine
    assert mine.progress.iteration == 3
    assert repr(mine) == "<job_1 running 3/4>"
    assert service.caller.call(mine, "cancel").status == "canceled"
    with pytest.raises(JobFailed):
        service.caller.call(mine, "wait")


def test_a_deletion_is_sent_again_until_it_is_answered(serve: Serve) -> None:
    service = serve(lost(), httpx.Response(503), httpx.Response(204))
    service.call("delete", "job_1")
    assert [request.method for request in service.requests] == ["DELETE"] * 3


def page(number: int, cursor: str | None) -> httpx.Response:
    body = {"data": [JOB | {"id": f"job_{number}"}], "next_cursor": cursor}
    return httpx.Response(200, json=body)


def test_a_list_follows_its_pages_only_as_far_as_it_is_read(serve: Serve) -> None:
    service = serve(page(1, "two"), page(2, None))
    (first,) = service.caller.take(service.caller.client, "list", count=1)
    assert first.id == "job_1"
    assert len(service.requests) == 1
    service = serve(page(1, "two"), page(2, None))
    listed = service.caller.take(service.caller.client, "list", filters={"status": "failed"})
    assert [one.id for one in listed] == ["job_1", "job_2"]
    assert dict(service.requests[1].url.params) == {
        "limit": "50",
        "status": "failed",
        "cursor": "two",
    }


def test_jobs_together_are_accepted_once(serve: Serve) -> None:
    service = serve(
        lost(),
        httpx.Response(202, json={"batch": "bat_1", "data": [JOB]}),
    )
    batch = service.call("submit_batch", [{"prompt": "a"}])
    assert (batch.id, [one.id for one in batch.jobs]) == ("bat_1", ["job_1"])
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    swept = {
        "batch": "bat_2",
        "data": [JOB | {"coordinates": {"steps": 3}}],
        "skipped": [
            {"coordinates": {"steps": 0}, "errors": [{"pointer": "#/steps", "detail": "few"}]}
        ],
    }
    service = serve(httpx.Response(202, json=swept))
    sweep = service.call("submit_sweep", {"prompt": "a"}, steps=[3, 0], skip_invalid=True)
    assert sweep.points[0].coordinates == {"steps": 3}
    assert sweep.skipped[0].errors[0].detail == "few"
    assert b'"steps":[3,0]' in service.requests[0].content


@pytest.mark.parametrize("kind", ["path", "text", "bytes"])
def test_an_upload_sends_the_whole_file_again_after_a_lost_answer(
    serve: Serve, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    path = tmp_path / "a.png"
    service = serve(lost(), httpx.Response(201, json=UPLOAD))
    upload = service.call("upload", {"path": path, "text": str(path), "bytes": b"picture"}[kind])
    assert (upload.id, upload.num_bytes) == ("upl_1", 7)
    for request in service.requests:
        assert request.url.path == "/v1/uploads"
        assert request.headers["Content-Type"].startswith("multipart/form-data")
        assert b'name="file"' in request.content
        assert b"picture" in request.content


def test_a_large_picture_goes_straight_to_the_store(serve: Serve) -> None:
    form = {
        "id": "inc/1",
        "url": "http://files.example.test/bucket",
        "fields": {"key": "k", "policy": "p"},
    }
    service = serve(
        httpx.Response(201, json=form), httpx.Response(204), httpx.Response(200, json=UPLOAD)
    )
    picture = b"\x89PNG\r\n\x1a\n" + bytes(STRAIGHT_ABOVE)
    assert service.call("upload", picture).id == "upl_1"
    announced, sent, completed = service.requests
    assert announced.content == b'{"content_type":"image/png","bytes":%d}' % len(picture)
    assert "Authorization" not in sent.headers
    assert sent.content.index(b'name="policy"') < sent.content.index(b'name="file"')
    assert completed.url.raw_path == b"/v1/uploads/inc%2F1/complete"


def test_a_download_does_not_carry_the_key(serve: Serve) -> None:
    service = serve(job(artifacts=[ARTIFACT]), httpx.Response(200, content=b"file"))
    found = service.call("get", "job_1")
    assert service.call("download", found.artifacts[0]) == b"file"
    assert "Authorization" not in service.requests[-1].headers


@pytest.mark.parametrize(
    ("target", "saved"),
    [("new/star.png", "new/star.png"), ("pictures", "pictures/job_1-0.png"), (".", "job_1-0.png")],
)
def test_outputs_are_saved_by_links_made_anew(
    serve: Serve, tmp_path: Path, target: str, saved: str
) -> None:
    link = httpx.Response(303, headers={"Location": "http://files.example.test/new"})
    service = serve(job(artifacts=[ARTIFACT]), link, httpx.Response(200, content=b"file"))
    mine = service.call("get", "job_1")
    assert service.caller.call(mine, "save", tmp_path / target) == [tmp_path / saved]
    assert (tmp_path / saved).read_bytes() == b"file"
    _, asked, fetched = service.requests
    assert asked.url.path == "/v1/jobs/job_1/artifacts/0"
    assert "Authorization" not in fetched.headers


def test_two_outputs_are_not_saved_to_one_file(serve: Serve, tmp_path: Path) -> None:
    service = serve(job(artifacts=[ARTIFACT, ARTIFACT | {"index": 1}]))
    mine = service.call("get", "job_1")
    with pytest.raises(ValueError, match="2 outputs"):
        service.caller.call(mine, "save", tmp_path / "star.png")


@pytest.mark.parametrize(
    ("name", "argument", "path"),
    [
        ("get", "../keys?x=1#y", "/v1/jobs/..%2Fkeys%3Fx%3D1%23y"),
        ("cancel", "a/b", "/v1/jobs/a%2Fb/cancel"),
        ("delete", "a/b", "/v1/jobs/a%2Fb"),
        ("preset", "a/b", "/v1/presets/a%2Fb"),
        ("delete_webhook_endpoint", "a/b", "/v1/webhook-endpoints/a%2Fb"),
    ],
)
def test_an_id_cannot_lead_elsewhere(serve: Serve, name: str, argument: str, path: str) -> None:
    service = serve(job())
    service.call(name, argument)
    assert service.requests[0].url.raw_path.decode() == path


def test_an_endpoint_is_changed_by_what_is_said_and_no_more(serve: Serve) -> None:
    service = serve(httpx.Response(200, json={"id": "ep_1", "enabled": True}))
    assert service.call("update_webhook_endpoint", "ep_1", enabled=True)["enabled"]
    (request,) = service.requests
    assert (request.method, request.content) == ("PATCH", b'{"enabled":true}')
