from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from shared.access import KeyLimits, KeyTerms
from tests.fixtures.api import Api

SMALL = {"prompt": "p", "width": 64, "height": 64, "steps": 10, "sampler": "euler"}
#: What a job of `SMALL` costs.
COST = 64 * 64 * 10 / 1e6


def limited(api: Api, **limits: Any) -> TestClient:
    return api.new_client(terms=KeyTerms(limits=KeyLimits(**limits)))


def submit_all(client: TestClient, count: int) -> list[int]:
    with ThreadPoolExecutor(8) as pool:
        return list(
            pool.map(lambda _: client.post("/v1/jobs", json=SMALL).status_code, range(count))
        )


@pytest.mark.parametrize(
    ("limits", "policy"),
    [
        ({"max_active": 3}, "max_active"),
        ({"max_queued": 3}, "max_queued"),
        ({"daily_megapixel_iterations": 3.5 * COST}, "daily_megapixel_iterations"),
    ],
)
def test_concurrent_submissions_never_exceed_a_limit(
    api: Api, limits: dict[str, Any], policy: str
) -> None:
    client = limited(api, **limits)
    assert sorted(submit_all(client, 12)) == [202] * 3 + [429] * 9
    assert api.count_jobs() == 3
    assert len(api.nudges) == 3
    answer = client.post("/v1/jobs", json=SMALL)
    body = answer.json()
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (body["code"], body["violated-policies"]) == ("quota_exceeded", [policy])
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    # Another key of the same tenant is not concerned.
    assert api.client.post("/v1/jobs", json=SMALL).status_code == 202


def test_a_place_is_free_again_after_a_job_ended_and_a_budget_is_not(api: Api) -> None:
    active = limited(api, max_active=1)
    spent = limited(api, daily_megapixel_iterations=COST)
    for client, second in ((active, 202), (spent, 429)):
        job = client.post("/v1/jobs", json=SMALL).json()
        assert client.post("/v1/jobs", json=SMALL).status_code == 429
        assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
        assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
        assert client.post("/v1/jobs", json=SMALL).status_code == second


def test_a_running_job_is_active_and_not_queued(api: Api) -> None:
    queued, active = limited(api, max_queued=1), limited(api, max_active=1)
    for client in (queued, active):
        assert client.post("/v1/jobs", json=SMALL).status_code == 202
    with api.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET status = 'running', lease_token = gen_random_uuid()")
        )
    assert queued.post("/v1/jobs", json=SMALL).status_code == 202
    assert active.post("/v1/jobs", json=SMALL).status_code == 429


def test_a_replay_is_answered_over_the_limit_and_counts_nothing(api: Api) -> None:
    client = limited(api, max_active=1, daily_megapixel_iterations=COST)
    answers = [
        client.post("/v1/jobs", json=SMALL, headers={"Idempotency-Key": "k"}) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = client.post("/v1/jobs", json=SMALL, headers={"Idempotency-Key": "other"})
    assert other.status_code == 429


def test_a_budget_is_new_every_day(api: Api) -> None:
    client = limited(api, daily_megapixel_iterations=COST)
    assert [client.post("/v1/jobs", json=SMALL).status_code for _ in range(2)] == [202, 429]
    with api.database.begin() as connection:
        connection.execute(sa.text("UPDATE key_usage SET day = day - 1"))
    assert client.post("/v1/jobs", json=SMALL).status_code == 202


def test_a_retry_goes_by_the_same_limits(api: Api) -> None:
    client = limited(api, max_active=1)
    job = client.post("/v1/jobs", json=SMALL).json()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 202
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 429
    few_steps = limited(api, max_steps=9)
    answer = few_steps.post(f"/v1/jobs/{job['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (403, "over_key_limit")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"models": ["another"]}, "model"),
        ({"max_width": 63}, "width"),
        ({"max_height": 63}, "height"),
        ({"max_steps": 9}, "steps"),
        ({"max_num_outputs": 1}, "num_outputs"),
    ],
)
def test_a_request_that_the_key_does_not_allow_is_refused_by_field(
    api: Api, limits: dict[str, Any], field: str
) -> None:
    answer = limited(api, **limits).post("/v1/jobs", json=SMALL | {"num_outputs": 2})
    assert (answer.status_code, answer.json()["code"]) == (403, "over_key_limit")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"#/{field}"]
    assert api.count_jobs() == 0


def test_what_is_exactly_the_limit_is_allowed(api: Api) -> None:
    limits = {"models": ["demo"], "max_width": 64, "max_height": 64, "max_steps": 10}
    client = limited(api, **limits, max_num_outputs=1, daily_megapixel_iterations=COST)
    assert client.post("/v1/jobs", json=SMALL).status_code == 202


def test_a_key_without_limits_costs_no_statement_more(api: Api) -> None:
    seen: list[str] = []
    api.client.post("/v1/jobs", json=SMALL)

    def note(*arguments: Any) -> None:
        seen.append(arguments[2])

    sa.event.listen(api.database, "before_cursor_execute", note)
    try:
        assert api.client.post("/v1/jobs", json=SMALL).status_code == 202
    finally:
        sa.event.remove(api.database, "before_cursor_execute", note)
    assert not [statement for statement in seen if "advisory" in statement or "usage" in statement]
    # One that stores the job and finds its place.
    assert len(seen) == 1
