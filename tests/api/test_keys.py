from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.testclient import TestClient

from api.auth import Requires
from api.keyring import CACHE_TTL
from shared.access import ALL_SCOPES, DEFAULT_SCOPES, KeyTerms, Scope
from tests.fixtures.api import Api

#: Routes that need no key.
OPEN = {"/livez", "/readyz", "/openapi.json", "/problems/{slug}"}
ADMIN = KeyTerms(scopes=ALL_SCOPES)
DAY_S = 86_400
MINUTE = timedelta(minutes=1)


def client_of(api: Api, key: str) -> TestClient:
    return TestClient(api.client.app, headers={"Authorization": f"Bearer {key}"})


def make(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": "ci"} | body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def lifetime_of(key: dict[str, Any]) -> timedelta:
    ends = [datetime.fromisoformat(key[name]) for name in ("expires_at", "created_at")]
    return ends[0] - ends[1]


def scopes_of(route: RouteContext) -> Iterator[Scope]:
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, Requires):
            yield dependency.call.scope


def closed_routes(api: Api) -> list[RouteContext]:
    routes = iter_route_contexts(api.client.app.routes)  # type: ignore[attr-defined]
    found = [route for route in routes if route.path not in OPEN]
    assert all(isinstance(route.original_route, APIRoute) for route in found), found
    return found


def test_every_route_asks_for_one_scope_or_is_on_the_open_list(api: Api) -> None:
    routes = closed_routes(api)
    assert len(routes) >= 32
    assert [r.path for r in routes if len(set(scopes_of(r))) != 1] == []


def test_a_key_of_another_scope_is_told_which_one_is_missing(api: Api) -> None:
    for route in closed_routes(api):
        (scope,) = set(scopes_of(route))
        other = Scope.UPLOADS_WRITE if scope is not Scope.UPLOADS_WRITE else Scope.JOBS_READ
        client = api.new_client(terms=KeyTerms(scopes=frozenset({other})))
        for method in route.methods:
            path = route.path.replace("{", "").replace("}", "")
            has_body = method in {"POST", "PUT", "PATCH"}
            answer = client.request(method, path, **({"json": {}} if has_body else {}))
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), route.path
            assert str(scope) in answer.json()["detail"]
    assert api.count_jobs() == 0


def test_a_key_is_shown_once_and_works(api: Api) -> None:
    admin = api.new_client(terms=ADMIN)
    made = make(admin, scopes=["jobs:read"], limits={"max_steps": 20})
    key = made.pop("api_key")
    assert made["last4"] == key[-4:]
    assert made["scopes"] == ["jobs:read"]
    assert made["limits"]["max_steps"] == 20
    answer = admin.get("/v1/keys")
    assert made in answer.json()["data"]
    assert key not in answer.text
    client = client_of(api, key)
    assert client.get("/v1/jobs").status_code == 200
    assert client.post("/v1/jobs", json={"prompt": "p"}).status_code == 403


def test_scopes_are_all_but_admin_unless_chosen(api: Api) -> None:
    made = make(api.new_client(terms=ADMIN))
    assert set(made["scopes"]) == DEFAULT_SCOPES
    assert client_of(api, made["api_key"]).get("/v1/keys").status_code == 403


def test_admin_implies_every_scope(api: Api) -> None:
    client = api.new_client(terms=KeyTerms(scopes=frozenset({Scope.ADMIN})))
    assert client.post("/v1/jobs", json={"prompt": "p"}).status_code == 202


def test_an_expired_key_is_refused_though_it_was_known(api: Api) -> None:
    made = make(api.new_client(terms=ADMIN), expires_in_s=60)
    client = client_of(api, made["api_key"])
    api.clock.now += timedelta(seconds=50)
    assert client.get("/v1/jobs").status_code == 200
    with api.database.begin() as connection:
        connection.execute(sa.text("UPDATE api_keys SET expires_at = now() WHERE name = 'ci'"))
    # Still within the time that a key is remembered for. The database made the key a while after
    # the test's clock was stopped.
    api.clock.now += CACHE_TTL - timedelta(seconds=1)
    assert client.get("/v1/jobs").status_code == 401


def test_a_revoked_key_is_gone_within_half_a_minute(api: Api) -> None:
    admin = api.new_client(terms=ADMIN)
    made = make(admin)
    client = client_of(api, made["api_key"])
    assert client.get("/v1/jobs").status_code == 200
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    api.clock.now += CACHE_TTL
    assert client.get("/v1/jobs").status_code == 401
    assert made["id"] not in admin.get("/v1/keys").text
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 404


def test_a_key_and_its_successor_are_both_valid_for_a_day(api: Api) -> None:
    admin = api.new_client(terms=ADMIN)
    terms = {"scopes": ["jobs:read"], "limits": {"max_steps": 20}, "expires_in_s": 90 * DAY_S}
    made = make(admin, **terms)
    answer = admin.post(f"/v1/keys/{made['id']}/rotate")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    successor = answer.json()
    assert [successor[name] for name in ("name", "scopes", "limits")] == [
        made[name] for name in ("name", "scopes", "limits")
    ]
    listed = {key["id"]: key for key in admin.get("/v1/keys").json()["data"]}
    assert lifetime_of(successor) == lifetime_of(made) == timedelta(days=90)
    assert lifetime_of(listed[made["id"]]) == pytest.approx(timedelta(days=1), abs=MINUTE)
    for key in (made, successor):
        assert client_of(api, key["api_key"]).get("/v1/jobs").status_code == 200

    with api.database.begin() as connection:
        pass_a_day = sa.text("UPDATE api_keys SET expires_at = expires_at - interval '1 day'")
        connection.execute(pass_a_day)
    api.clock.now += CACHE_TTL
    assert client_of(api, made["api_key"]).get("/v1/jobs").status_code == 401
    assert client_of(api, successor["api_key"]).get("/v1/jobs").status_code == 200
    # What has ended has no successor.
    assert admin.post(f"/v1/keys/{made['id']}/rotate").status_code == 404


def test_a_key_that_ends_sooner_ends_no_later_for_its_successor(api: Api) -> None:
    admin = api.new_client(terms=ADMIN)
    forever, short = make(admin), make(admin, expires_in_s=3600)
    successors = [admin.post(f"/v1/keys/{key['id']}/rotate").json() for key in (forever, short)]
    assert successors[0]["expires_at"] is None
    listed = {key["id"]: key for key in admin.get("/v1/keys").json()["data"]}
    assert listed[short["id"]]["expires_at"] == short["expires_at"]
    assert lifetime_of(successors[1]) == timedelta(hours=1)


def test_another_tenants_keys_do_not_exist(api: Api) -> None:
    made = make(api.new_client(terms=ADMIN))
    stranger = api.new_client(tenant="other", terms=ADMIN)
    assert made["id"] not in stranger.get("/v1/keys").text
    for key_id in (made["id"], "no%00", "none"):
        answer = stranger.delete(f"/v1/keys/{key_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert client_of(api, made["api_key"]).get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "#/name"),
        ({"name": "\0"}, "#/name"),
        ({"scopes": []}, "#/scopes"),
        ({"scopes": ["jobs:read", "jobs:read"]}, "#/scopes"),
        ({"scopes": ["root"]}, "#/scopes/0"),
        ({"limits": {"max_steps": 0}}, "#/limits/max_steps"),
        ({"limits": {"max_widths": 1}}, "#/limits/max_widths"),
        ({"limits": {"models": ["nope"]}}, "#/limits/models"),
        ({"expires_in_s": 59}, "#/expires_in_s"),
        ({"tenant": "other"}, "#/tenant"),
        ({"id": "mine"}, "#/id"),
    ],
)
def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], pointer: str) -> None:
    answer = api.new_client(terms=ADMIN).post("/v1/keys", json={"name": "ci"} | body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_use_is_written_down_for_many_requests_at_once(api: Api) -> None:
    admin = api.new_client(terms=ADMIN)
    made = make(admin)
    client = client_of(api, made["api_key"])

    def last_used() -> Any:
        return next(k for k in admin.get("/v1/keys").json()["data"] if k["id"] == made["id"])[
            "last_used_at"
        ]

    for _ in range(3):
        client.get("/v1/jobs")
    assert last_used() is None
    api.services.keyring.write_usage()
    first = last_used()
    assert first is not None
    api.services.keyring.write_usage()
    assert last_used() == first
