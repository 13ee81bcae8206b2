import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.api import Api

JSON_TYPE = {"Content-Type": "application/json"}
GOOD = {"prompt": "a red star"}
#: Bodies that cannot be served, and the field that is named.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "/prompt"),
    (GOOD | {"steps": 0}, "/steps"),
    (GOOD | {"setps": 3}, "/setps"),
    (GOOD | {"width": 9}, "/width"),
    (GOOD | {"preset": "fast@9"}, "/preset"),
    (GOOD | {"metadata": {"k": 1}}, "/metadata/k"),
]


def post(api: Api, *jobs: Any, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.client.post("/v1/batches", json={"jobs": jobs}, headers=headers)


def test_the_jobs_of_a_batch_are_answered_stored_and_found_again(api: Api) -> None:
    api.submit()
    answer = post(api, GOOD | {"seed": 3}, GOOD | {"seed": 1}, GOOD | {"seed": 2, "priority": 9})
    assert answer.status_code == 202
    batch = answer.json()
    assert [job["request"]["seed"] for job in batch["data"]] == [3, 1, 2]
    assert {job["batch"] for job in batch["data"]} == {batch["batch"]}
    assert answer.headers["Location"] == f"/v1/jobs?batch={batch['batch']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert len(api.nudges) == 2
    assert api.count_jobs() == 4
    found = api.client.get(answer.headers["Location"]).json()["data"]
    assert sorted(found, key=lambda job: job["id"]) == sorted(
        batch["data"], key=lambda job: job["id"]
    )
    one = api.client.get(batch["data"][0]["links"]["self"]).json()
    assert one["batch"] == batch["batch"]


def test_a_job_alone_has_no_batch_nor_has_its_retry(api: Api) -> None:
    assert api.submit()["batch"] is None
    job = post(api, GOOD).json()["data"][0]
    api.client.post(job["links"]["cancel"])
    retried = api.client.post(f"{job['links']['self']}/retry").json()
    assert (retried["retry_of"], retried["batch"]) == (job["id"], None)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(entries=st.lists(st.none() | st.sampled_from(WRONG), min_size=1, max_size=6))
def test_all_or_nothing(api: Api, entries: list[tuple[dict[str, Any], str] | None]) -> None:
    before = api.count_jobs()
    answer = post(api, *(GOOD if entry is None else entry[0] for entry in entries))
    wrong = {f"#/jobs/{n}{entry[1]}" for n, entry in enumerate(entries) if entry is not None}
    if not wrong:
        assert answer.status_code == 202
        assert api.count_jobs() - before == len(entries)
        return
    assert answer.status_code == 422
    assert api.count_jobs() == before
    named = {error["pointer"] for error in answer.json()["errors"]}
    # What is wrong with the shape of a body is told before anybody asks whether it can be served.
    shapes = {
        pointer for pointer in wrong if not pointer.endswith(("/width", "/preset", "/prompt"))
    }
    assert named == (shapes or wrong)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/jobs"),
        ({"jobs": []}, "#/jobs"),
        ({"jobs": [GOOD] * 101}, "#/jobs"),
        ({"jobs": GOOD}, "#/jobs"),
        ({"jobs": [GOOD], "prompt": "p"}, "#/prompt"),
        ([GOOD], "#"),
        ({"jobs": [None]}, "#/jobs/0"),
    ],
)
def test_what_is_no_batch_is_refused(api: Api, body: Any, pointer: str) -> None:
    answer = api.client.post("/v1/batches", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert api.count_jobs() == 0


def test_a_prompt_that_is_too_long_is_named_and_not_shown(api: Api) -> None:
    answer = post(api, GOOD, {"prompt": "canarybird" * 401})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "prompt_too_long")
    assert problem["errors"][0]["pointer"] == "#/jobs/1/prompt"
    assert "has 4,010 characters" in problem["errors"][0]["detail"]
    assert "canarybird" not in answer.text


def test_a_batch_may_be_larger_than_a_job(api: Api) -> None:
    body = json.dumps({"jobs": [GOOD]}).encode()
    limit = 1024 * 1024
    for size, status in ((limit, 202), (limit + 1, 413)):
        answer = api.client.post("/v1/batches", content=body.ljust(size), headers=JSON_TYPE)
        assert answer.status_code == status
    assert api.count_jobs() == 1


def test_a_hundred_jobs_are_one_batch(api: Api) -> None:
    answer = post(api, *(GOOD | {"seed": seed} for seed in range(100)))
    assert [job["request"]["seed"] for job in answer.json()["data"]] == list(range(100))
    assert len(api.nudges) == 1


def test_a_key_covers_the_whole_batch(api: Api) -> None:
    first = post(api, GOOD, GOOD | {"steps": 5}, key="k")
    again = post(api, GOOD, GOOD | {"steps": 5}, key="k")
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert (api.count_jobs(), len(api.nudges)) == (2, 1)
    other = post(api, GOOD | {"steps": 5}, GOOD, key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert api.count_jobs() == 2


def test_equal_batches_at_once_make_one_set_of_jobs(api: Api) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(api, GOOD, GOOD, key="k"), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["batch"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 7
    assert (api.count_jobs(), len(api.nudges)) == (2, 1)


def test_a_tenant_finds_only_its_own_batches(api: Api) -> None:
    batch = post(api, GOOD, key="k").json()["batch"]
    other = api.new_client(tenant="other")
    assert other.get(f"/v1/jobs?batch={batch}").json()["data"] == []
    theirs = other.post("/v1/batches", json={"jobs": [GOOD]}, headers={"Idempotency-Key": "k"})
    assert "Idempotent-Replayed" not in theirs.headers
    assert theirs.json()["batch"] != batch


def test_of_very_many_errors_the_first_are_explained_and_the_others_counted(api: Api) -> None:
    unknown = {f"field{n}": None for n in range(5000)}
    problem = post(api, GOOD, GOOD | unknown).json()
    assert problem["code"] == "invalid_request"
    assert len(problem["errors"]) == 101
    assert problem["errors"][0]["pointer"] == "#/jobs/1/field0"
    assert problem["errors"][-1] == {"pointer": "#", "detail": "and 4,900 more"}
