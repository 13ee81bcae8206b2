from datetime import timedelta

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.keyring import CACHE_TTL
from shared.db.keys import mint_key
from tests.fixtures.api import Api

OPEN = {"/livez", "/readyz", "/problems/{slug}"}


def paths(api: Api) -> dict[str, dict]:
    return api.client.get("/openapi.json").json()["paths"]


def test_every_route_but_the_open_ones_refuses_a_caller_without_a_key(api: Api) -> None:
    stranger = TestClient(api.client.app)
    closed = [
        (method, path.replace("{job_id}", "job_0").replace("{index}", "0"))
        for path, operations in paths(api).items()
        for method in operations
        if path not in OPEN
    ]
    assert len(closed) == 49
    for method, path in closed:
        has_body = method in {"post", "put", "patch"}
        answer = stranger.request(method, path, **({"json": {"prompt": "p"}} if has_body else {}))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert api.count_jobs() == 0


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic YTpi",
        "Token x",
        "Bearer \u00e9",
        "Bearer a b",
    ],
)
def test_a_malformed_key_is_refused(api: Api, authorization: str) -> None:
    stranger = TestClient(api.client.app)
    headers = [(b"Authorization", authorization.encode("latin-1"))]
    answer = stranger.post("/v1/jobs", json={"prompt": "p"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert api.count_jobs() == 0


def test_a_wellformed_key_that_nobody_owns_is_refused(api: Api) -> None:
    stranger = TestClient(api.client.app, headers={"Authorization": f"Bearer {mint_key()}"})
    answer = stranger.get("/v1/models")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_the_scheme_may_be_written_in_any_case(api: Api) -> None:
    key = api.client.headers["Authorization"].removeprefix("Bearer ")
    answer = api.client.get("/v1/models", headers={"Authorization": f"bearer {key}"})
    assert answer.status_code == 200


def test_a_revoked_key_works_for_half_a_minute_and_not_longer(api: Api) -> None:
    assert api.client.get("/v1/models").status_code == 200
    with api.database.begin() as connection:
        connection.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))
    api.clock.now += CACHE_TTL - timedelta(seconds=1)
    assert api.client.get("/v1/models").status_code == 200
    api.clock.now += timedelta(seconds=1)
    assert api.client.get("/v1/models").status_code == 401


def test_a_new_key_works_at_once_after_it_was_refused(api: Api) -> None:
    key = mint_key()
    stranger = TestClient(api.client.app, headers={"Authorization": f"Bearer {key}"})
    assert stranger.get("/v1/models").status_code == 401
    owner = api.new_client(key=key)
    assert owner.get("/v1/models").status_code == 200
    assert stranger.get("/v1/models").status_code == 200
