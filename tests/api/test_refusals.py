"""Every request that cannot be served: its answer, no row, and no trace of the prompt."""

import json
import logging
from typing import Any

import pytest

from models import CATALOG
from shared.catalog import Catalog
from tests.fixtures.api import Api

#: Stands in every prompt below; must stand in no answer and no log.
CANARY = "canarybird"
SPEC = Catalog.load(CATALOG).models["demo"]
MEMBERS = {
    "type", "title", "status", "detail", "instance", "code", "errors", "request_id", "error",
    "error_type",
}  # fmt: skip


def check_problem(answer: Any, *, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert set(problem) == MEMBERS
    assert (problem["status"], problem["code"], problem["error_type"]) == (status, code, code)
    assert problem["type"] == f"/problems/{code.replace('_', '-')}"
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert problem["error"].keys() == {"message", "type", "param", "code"}
    assert problem["error"]["message"] == problem["detail"]
    return problem


FIELD_CASES: list[tuple[str, dict[str, Any], str, str, str]] = [
    # name, fields beside or instead of a good prompt, code, pointer, part of the detail
    ("empty prompt", {"prompt": ""}, "invalid_request", "#/prompt", "must say something"),
    ("blank prompt", {"prompt": " \t\n\u2003"}, "invalid_request", "#/prompt", "must say"),
    ("null prompt", {"prompt": None}, "invalid_request", "#/prompt", "is required"),
    ("number as prompt", {"prompt": 7}, "invalid_request", "#/prompt", "valid string"),
    ("list as prompt", {"prompt": [CANARY]}, "invalid_request", "#/prompt", "valid string"),
    (
        "over-long prompt",
        {"prompt": CANARY * 401},
        "prompt_too_long",
        "#/prompt",
        "has 4,010 characters; at most 4,000",
    ),
    (
        "over-long negative prompt",
        {"negative_prompt": CANARY * 401},
        "prompt_too_long",
        "#/negative_prompt",
        "has 4,010 characters",
    ),
    (
        "prompt of too many tokens",
        {"prompt": "star " * SPEC.max_tokens + CANARY},
        "prompt_too_long",
        "#/prompt",
        f"demo takes at most {SPEC.max_tokens}",
    ),
    (
        "negative prompt of too many tokens",
        {"negative_prompt": "star " * SPEC.max_tokens},
        "prompt_too_long",
        "#/negative_prompt",
        f"has {SPEC.max_tokens + 2} tokens, start and end marks included; demo takes at most",
    ),
    ("no steps", {"steps": 0}, "invalid_request", "#/steps", "greater than or equal to 1"),
    ("10,000 steps", {"steps": 10_000}, "invalid_request", "#/steps", "less than or equal to 1000"),
    ("steps as text", {"steps": "25"}, "invalid_request", "#/steps", "valid integer"),
    ("steps as truth", {"steps": True}, "invalid_request", "#/steps", "valid integer"),
    ("steps with a fraction", {"steps": 2.5}, "invalid_request", "#/steps", "valid integer"),
    ("guidance below 1", {"guidance": 0.99}, "invalid_request", "#/guidance", "equal to 1"),
    ("guidance above 50", {"guidance": 50.1}, "invalid_request", "#/guidance", "equal to 50"),
    ("guidance as truth", {"guidance": True}, "invalid_request", "#/guidance", "valid number"),
    ("guidance as text", {"guidance": "7"}, "invalid_request", "#/guidance", "valid number"),
    ("NaN", {"guidance": float("nan")}, "invalid_request", "#/guidance", "finite number"),
    ("infinity", {"guidance": float("inf")}, "invalid_request", "#/guidance", "finite number"),
    ("rescale", {"guidance_rescale": 1.1}, "invalid_request", "#/guidance_rescale", "equal to 1"),
    ("huge guidance", {"guidance": 10**400}, "invalid_request", "#/guidance", ""),
    ("seed of 2^53", {"seed": 2**53}, "invalid_request", "#/seed", "less than"),
    ("negative seed", {"seed": -1}, "invalid_request", "#/seed", "greater than"),
    (
        "odd width",
        {"width": SPEC.width + 1},
        "invalid_request",
        "#/width",
        f"multiples of {SPEC.latent_factor} pixels",
    ),
    ("width of nothing", {"width": 0}, "invalid_request", "#/width", "greater than"),
    (
        "width beyond the limit",
        {"width": SPEC.max_width + SPEC.latent_factor},
        "invalid_request",
        "#/width",
        f"pixels up to {SPEC.max_width}",
    ),
    (
        "height beyond the limit",
        {"height": 10**9},
        "invalid_request",
        "#/height",
        f"up to {SPEC.max_height}",
    ),
    ("nine outputs", {"num_outputs": 9}, "invalid_request", "#/num_outputs", "equal to 8"),
    ("priority", {"priority": 10}, "invalid_request", "#/priority", "equal to 9"),
    ("deadline", {"deadline_s": 604_801}, "invalid_request", "#/deadline_s", "604800"),
    ("unknown model", {"model": CANARY}, "unknown_model", "#/model", "known: demo"),
    ("unknown preset", {"preset": CANARY}, "unknown_preset", "#/preset", "balanced@1, creative@1"),
    ("unknown version", {"preset": "fast@2"}, "unknown_preset", "#/preset", "fast@1"),
    ("no version", {"preset": "fast@"}, "unknown_preset", "#/preset", "fast@1"),
    ("unknown sampler", {"sampler": CANARY}, "invalid_request", "#/sampler", "'dpmpp_2m'"),
    ("unknown schedule", {"schedule": CANARY}, "invalid_request", "#/schedule", "'karras'"),
    ("audio format", {"output_format": "wav"}, "invalid_request", "#/output_format", "png, webp"),
    ("no format", {"output_format": CANARY}, "invalid_request", "#/output_format", "'webp'"),
    ("determinism", {"determinism": "some"}, "invalid_request", "#/determinism", "'exact'"),
    ("service class", {"service_class": 1}, "invalid_request", "#/service_class", "'batch'"),
    ("duration of an image", {"duration_s": 3}, "invalid_request", "#/duration_s", "only audio"),
    (
        "more steps than a schedule has levels",
        {"sampler": "ddpm", "schedule": "karras", "steps": 1000},
        "invalid_request",
        "#/steps",
        "ddpm on the karras schedule takes at most ",
    ),
    ("misspelt field", {"setps": 25}, "invalid_request", "#/setps", "did you mean steps?"),
    ("strange field", {CANARY + " a cat": 1}, "invalid_request", "#", "unknown field"),
    ("NUL in a prompt", {"prompt": CANARY + "\0"}, "invalid_request", "#/prompt", "NUL"),
    ("lone surrogate", {"prompt": CANARY + "\ud800"}, "invalid_request", "#/prompt", "surrogate"),
    ("NUL in a model", {"model": "demo\0"}, "invalid_request", "#/model", "NUL"),
    ("metadata as a list", {"metadata": []}, "invalid_request", "#/metadata", "valid dictionary"),
    ("metadata with a number", {"metadata": {"k": 1}}, "invalid_request", "#/metadata/k", "string"),
    ("nested metadata", {"metadata": {"k": {}}}, "invalid_request", "#/metadata/k", "string"),
    (
        "17 members of metadata",
        {"metadata": {str(n): "" for n in range(17)}},
        "invalid_request",
        "#/metadata",
        "at most 16",
    ),
    ("NUL in metadata", {"metadata": {"k": "\0"}}, "invalid_request", "#/metadata/k", "NUL"),
    ("NUL in its names", {"metadata": {"\0": ""}}, "invalid_request", "#/metadata", "NUL"),
    ("surrogate in it", {"metadata": {"k": "\udfff"}}, "invalid_request", "#/metadata/k", "surr"),
    ("surrogate name", {"metadata": {"\udfff": ""}}, "invalid_request", "#/metadata", "surrogate"),
    ("surrogate field", {"\udfff": ""}, "invalid_request", "#", "surrogate"),
] + [
    ("label without labels", {"class_label": "cat"}, "invalid_request", "#/class_label", "prompt"),
] + [
    (f"not_before {value}", {"not_before": value}, "invalid_request", "#/not_before", "RFC 3339")
    for value in (
        7, 1.5, True, [], "", "soon", "2030-01-01", "2030-01-01T00:00:00", "2030-01-01 00:00:00Z",
        "2030-02-31T00:00:00Z", "2030-01-01T00:00:60Z", "9999-12-31T23:59:59-23:59", "1893456000",
        "\uff12030-01-01T00:00:00Z",
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "code", "pointer", "says"),
    [pytest.param(*case[1:], id=case[0]) for case in FIELD_CASES],
)
def test_a_field_that_cannot_be_is_named_and_its_value_is_not(
    api: Api,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    code: str,
    pointer: str,
    says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    # Plain dumps: writes NaN and lone surrogates as a careless client would.
    body = json.dumps({"prompt": f"a red star {CANARY}"} | fields)
    answer = api.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem = check_problem(answer, status=422, code=code)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert says in problem["errors"][0]["detail"]
    assert problem["error"]["param"] == (pointer.removeprefix("#/") if pointer != "#" else None)
    assert problem["instance"] == "/v1/jobs"
    assert api.count_jobs() == 0
    assert not api.nudges
    assert CANARY not in answer.text
    assert CANARY not in "".join([*capfd.readouterr(), caplog.text])


def test_all_wrong_fields_are_named_at_once(api: Api) -> None:
    answer = api.client.post(
        "/v1/jobs", json={"prompt": "", "steps": 0, "webhook": {}, "width": "64"}
    )
    problem = check_problem(answer, status=422, code="invalid_request")
    pointers = {error["pointer"] for error in problem["errors"]}
    assert pointers == {"#/prompt", "#/steps", "#/webhook/url", "#/width"}
    answer = api.client.post("/v1/jobs", json={"prompt": "p", "width": 7, "height": 7})
    problem = check_problem(answer, status=422, code="invalid_request")
    assert {error["pointer"] for error in problem["errors"]} == {"#/width", "#/height"}


def test_the_largest_steps_that_a_refusal_names_work(api: Api) -> None:
    cell = {"prompt": "p", "sampler": "dpmpp_2m", "schedule": "cosine"}
    answer = api.client.post("/v1/jobs", json=cell | {"steps": 1000})
    detail = check_problem(answer, status=422, code="invalid_request")["errors"][0]["detail"]
    most = int(detail.split("at most ")[1].split()[0])
    assert api.client.post("/v1/jobs", json=cell | {"steps": most}).status_code == 202
    assert api.client.post("/v1/jobs", json=cell | {"steps": most + 1}).status_code == 422


JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"prompt": "canarybird"', "not JSON"),
        (b"prompt=canarybird", "line 1 column 1"),
        ('{"prompt": "canarybird \u00e9"}'.encode("latin-1"), "not UTF-8"),
        ('{"prompt": "canarybird"}'.encode("utf-16"), "not UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"prompt": "a", "prompt": "canarybird"}', "twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "a", "seed": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    api: Api, capfd: pytest.CaptureFixture[str], body: bytes, says: str
) -> None:
    answer = api.client.post("/v1/jobs", content=body, headers=JSON_TYPE)
    problem = check_problem(answer, status=400, code="malformed_body")
    assert says in problem["detail"]
    assert api.count_jobs() == 0
    assert CANARY not in "".join([*capfd.readouterr(), answer.text])


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"canarybird"', b"NaN", b"true"])
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.client.post("/v1/jobs", content=body, headers=JSON_TYPE)
    problem = check_problem(answer, status=422, code="invalid_request")
    assert problem["errors"] == [{"pointer": "#", "detail": "the body must be a JSON object"}]
    assert api.count_jobs() == 0


@pytest.mark.parametrize("media_type", [None, "", "text/plain", "multipart/form-data", "json", ";"])
def test_another_media_type_is_refused(api: Api, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    answer = api.client.post("/v1/jobs", content=b'{"prompt": "p"}', headers=headers)
    check_problem(answer, status=415, code="unsupported_media_type")
    assert api.count_jobs() == 0


def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(api: Api) -> None:
    body = b'{"prompt": "p"}'
    for size, status in ((256 * 1024, 202), (256 * 1024 + 1, 413)):
        answer = api.client.post("/v1/jobs", content=body.ljust(size), headers=JSON_TYPE)
        assert answer.status_code == status
    check_problem(answer, status=413, code="body_too_large")
    assert api.count_jobs() == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("GET", "/v1/jobs/job_0", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/job_0/cancel", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/v1/jobs?limit=201", 422, "invalid_request"),
        ("GET", "/v1/jobs?limit=ten", 422, "invalid_request"),
        ("GET", "/v1/jobs?status=done", 422, "invalid_request"),
        ("GET", "/v1/jobs?stauts=failed", 422, "invalid_request"),
        ("GET", "/v1/jobs?status=failed&status=queued", 422, "invalid_request"),
        ("GET", "/v1/jobs?created_after=yesterday", 422, "invalid_request"),
        ("GET", "/v1/jobs?created_after=2026-01-01T00:00:00", 422, "invalid_request"),
        ("GET", "/v1/jobs?created_before=0.5", 422, "invalid_request"),
        ("GET", "/v1/jobs?model=%00", 422, "invalid_request"),
        ("GET", "/v1/jobs?metadata.k=%00", 422, "invalid_request"),
        ("GET", "/v1/jobs?cursor=", 400, "invalid_cursor"),
        ("GET", "/v1/jobs?cursor=canarybird", 400, "invalid_cursor"),
        ("GET", "/v1/jobs?cursor=%C3%A9", 400, "invalid_cursor"),
        ("GET", "/v1/jobs?cursor=WzEsMl0=", 400, "invalid_cursor"),
        ("GET", "/v1/samplers?model=nothing", 422, "unknown_model"),
    ],
)
def test_what_is_not_there_is_a_problem_too(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    check_problem(api.client.request(method, path), status=status, code=code)


def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    assert api.client.delete("/v1/models").headers["Allow"] == "GET"
    # Of all routes of the path, though each is one of its own.
    assert api.client.patch("/v1/jobs").headers["Allow"] == "GET, POST"
    assert api.client.put("/v1/jobs/job_0").headers["Allow"] == "DELETE, GET"


def test_a_request_id_of_a_proxy_is_kept_and_a_strange_one_is_not(api: Api) -> None:
    answer = api.client.get("/v1/nothing", headers={"X-Request-Id": "edge-42"})
    assert check_problem(answer, status=404, code="not_found")["request_id"] == "edge-42"
    answer = api.client.get("/livez", headers={"X-Request-Id": 'a"b'})
    assert answer.headers["X-Request-Id"].startswith("req_")
