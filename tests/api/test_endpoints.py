"""Endpoints as their owner registers, changes and removes them."""

import base64
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from shared.db.endpoints import MAX_ENDPOINTS, MAX_SECRETS
from shared.webhook import Outcome
from tests.api.test_deliveries import attempt
from tests.api.test_refusals import check_problem
from tests.fixtures.api import Api

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/all?token=secret-canary"
ENDS = ["job.succeeded", "job.failed", "job.canceled"]


def create(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.client.post(PATH, json={"url": URL} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def cancel_job(api: Api, client: TestClient | None = None) -> str:
    client = client or api.client
    job_id: str = client.post("/v1/jobs", json={"prompt": "a red star"}).json()["id"]
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return job_id


def told(api: Api, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.client.get("/v1/deliveries", params=query).json()["data"]
    return found


def change(api: Api, endpoint_id: str, **body: Any) -> dict[str, Any]:
    answer = api.client.patch(f"{PATH}/{endpoint_id}", json=body)
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def test_an_endpoint_is_made_shown_changed_and_removed(api: Api) -> None:
    answer = api.client.post(PATH, json={"url": URL, "description": "bills"})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    assert made["events"] == ENDS
    assert (made["enabled"], made["disabled_at"], made["disabled_reason"]) == (True, None, None)
    secret = made.pop("secret")
    link = answer.headers["Location"]
    assert api.client.get(link).json() == made
    assert api.client.get(f"{link}/secret").json() == {"secret": secret}
    changed = change(api, made["id"], events=["job.started"], url="https://example.com:8443/")
    assert changed == made | {"events": ["job.started"], "url": "https://example.com:8443/"}
    assert change(api, made["id"]) == changed
    assert api.client.get(PATH).json()["data"] == [changed]
    assert api.client.delete(link).status_code == 204
    assert api.client.get(PATH).json()["data"] == []
    for answer in (
        api.client.get(link),
        api.client.get(f"{link}/secret"),
        api.client.delete(link),
        api.client.patch(link, json={"enabled": True}),
        api.client.post(f"{link}/rotate-secret"),
        api.client.post(f"{link}/test"),
        api.client.get(f"{PATH}/%00"),
    ):
        check_problem(answer, status=404, code="not_found")


def test_secrets_are_padded_base64_with_one_underscore(api: Api) -> None:
    for number in range(5):
        secret = create(api, url=f"https://hooks.example.com/{number}")["secret"]
        prefix, encoded = secret.split("_")
        assert prefix == "whsec"
        assert len(base64.b64decode(encoded, validate=True)) == 32


def test_it_is_told_of_every_job_and_a_job_may_name_another_receiver_too(api: Api) -> None:
    endpoint = create(api)
    plain = cancel_job(api)
    named = api.submit(webhook={"url": URL})["id"]
    api.client.post(f"/v1/jobs/{named}/cancel")
    assert [d["job_id"] for d in told(api, endpoint_id=endpoint["id"])] == [named, plain]
    both = told(api, job_id=named)
    assert len({d["endpoint_id"] for d in both}) == 2
    assert len({d["event_id"] for d in both}) == 1


def test_a_list_has_pages(api: Api) -> None:
    ids = [create(api, url=f"https://hooks.example.com/{n}")["id"] for n in range(3)]
    first = api.client.get(PATH, params={"limit": 2}).json()
    second = api.client.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [e["id"] for e in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_one_that_answered_410_says_so_and_gets_nothing_until_it_is_enabled(api: Api) -> None:
    endpoint = create(api)
    cancel_job(api)
    attempt(api, Outcome.GONE, 410)
    shown = api.client.get(f"{PATH}/{endpoint['id']}").json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
    assert shown["disabled_at"] is not None
    (dead,) = told(api)
    cancel_job(api)
    assert told(api) == [dead]
    for path in (f"/v1/deliveries/{dead['id']}/redeliver", f"{PATH}/{endpoint['id']}/test"):
        check_problem(api.client.post(path), status=409, code="endpoint_disabled")
    assert told(api) == [dead]
    assert change(api, endpoint["id"], enabled=True)["disabled_reason"] is None
    cancel_job(api)
    assert [d["status"] for d in told(api)] == ["pending", "dead"]


def test_its_owner_may_pause_it(api: Api) -> None:
    endpoint = create(api)
    cancel_job(api)
    paused = change(api, endpoint["id"], enabled=False)
    assert paused["disabled_reason"] == "requested"
    # Once more is the same.
    assert change(api, endpoint["id"], enabled=False) == paused
    (dead,) = told(api)
    assert (dead["status"], dead["last_outcome"]) == ("dead", "disabled")
    cancel_job(api)
    assert len(told(api)) == 1


def test_what_waits_goes_to_the_new_url(api: Api) -> None:
    endpoint = create(api)
    cancel_job(api)
    change(api, endpoint["id"], url="https://other.example.com/")
    assert [d["host"] for d in told(api)] == ["other.example.com:443"]


def test_its_deliveries_go_with_it_and_other_receivers_stay(api: Api) -> None:
    endpoint, other = create(api), create(api, url="https://other.example.com/")
    cancel_job(api)
    api.client.post(f"{PATH}/{endpoint['id']}/test")
    api.client.delete(f"{PATH}/{endpoint['id']}")
    assert [d["endpoint_id"] for d in told(api)] == [other["id"]]
    with api.database.connect() as connection:
        types = connection.scalars(sa.text("SELECT type FROM events")).all()
    assert types == ["job.canceled"]


def test_a_test_event_is_a_delivery_without_a_job(api: Api) -> None:
    endpoint = create(api, events=["job.failed"])
    answer = api.client.post(f"{PATH}/{endpoint['id']}/test")
    assert answer.status_code == 202
    assert answer.json() == told(api, endpoint_id=endpoint["id"])[0]
    assert (answer.json()["type"], answer.json()["job_id"]) == ("endpoint.test", None)
    again = api.client.post(f"{PATH}/{endpoint['id']}/test").json()
    assert again["event_id"] != answer.json()["event_id"]


def test_a_url_is_registered_once(api: Api) -> None:
    first, second = create(api), create(api, url="https://other.example.com/")
    answers = [
        api.client.post(PATH, json={"url": URL}),
        api.client.patch(f"{PATH}/{second['id']}", json={"url": URL}),
    ]
    for answer in answers:
        check_problem(answer, status=409, code="endpoint_exists")
        assert first["id"] in answer.json()["detail"]
    assert change(api, first["id"], url=URL)["url"] == URL
    api.client.delete(f"{PATH}/{first['id']}")
    create(api)


def test_there_is_a_limit_of_endpoints_for_each_tenant(api: Api) -> None:
    for number in range(MAX_ENDPOINTS):
        create(api, url=f"https://hooks.example.com/{number}")
    answer = api.client.post(PATH, json={"url": URL})
    check_problem(answer, status=409, code="too_many_endpoints")
    other = api.new_client(tenant="other")
    assert other.post(PATH, json={"url": URL}).status_code == 201


def test_secrets_that_are_in_use_are_never_dropped_early(api: Api) -> None:
    endpoint = create(api)
    rotate = f"{PATH}/{endpoint['id']}/rotate-secret"
    secrets = [endpoint["secret"]]
    for _ in range(MAX_SECRETS - 1):
        secrets.append(api.client.post(rotate).json()["secret"])
        assert api.client.get(f"{PATH}/{endpoint['id']}/secret").json()["secret"] == secrets[-1]
    check_problem(api.client.post(rotate), status=409, code="too_many_secrets")
    with api.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE endpoint_secrets SET expires_at = expires_at - interval '24 hours'")
        )
    assert api.client.post(rotate).status_code == 200


def test_another_tenant_sees_and_changes_nothing(api: Api) -> None:
    endpoint = create(api)
    link = f"{PATH}/{endpoint['id']}"
    stranger = api.new_client(tenant="another")
    assert stranger.get(PATH).json()["data"] == []
    answers = [
        stranger.get(link),
        stranger.get(f"{link}/secret"),
        stranger.patch(link, json={"enabled": False, "url": "https://evil.example.com/"}),
        stranger.delete(link),
        stranger.post(f"{link}/rotate-secret"),
        stranger.post(f"{link}/test"),
    ]
    for answer in answers:
        check_problem(answer, status=404, code="not_found")
    assert stranger.post(PATH, json={"url": URL}).status_code == 201
    cancel_job(api, stranger)
    assert told(api) == []
    assert (
        stranger.get("/v1/deliveries", params={"endpoint_id": endpoint["id"]}).json()["data"] == []
    )
    assert api.client.get(f"{link}/secret").json()["secret"] == endpoint["secret"]
    assert api.client.get(link).json()["enabled"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/url"),
        ({"url": "http://hooks.example.com/secret-canary"}, "#/url"),
        ({"url": "https://127.0.0.1/secret-canary"}, "#/url"),
        ({"url": URL, "events": []}, "#/events"),
        ({"url": URL, "events": ["job.failed", "job.failed"]}, "#/events"),
        ({"url": URL, "events": ["endpoint.test"]}, "#/events/0"),
        ({"url": URL, "secret": "secret-canary"}, "#/secret"),
        ({"url": URL, "description": "x" * 257}, "#/description"),
        ({"url": URL, "description": "\0"}, "#/description"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_without_repeating_it(
    api: Api, body: dict[str, Any], pointer: str
) -> None:
    endpoint = create(api, url="https://kept.example.com/")
    answers = [api.client.post(PATH, json=body)]
    if body:
        answers.append(api.client.patch(f"{PATH}/{endpoint['id']}", json=body))
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        assert "secret-canary" not in answer.text
    endpoint.pop("secret")
    assert api.client.get(PATH).json()["data"] == [endpoint]
